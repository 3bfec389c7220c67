"""Masked language modelling over a fixed tokenizer's tokens: `MaskedCodes` with a learned table instead of codes.

The mask vector takes a masked token's place, always. Overlapping k-mers are masked in runs of k neighbours, as in
DNABERT: all bases of a single one are in its neighbours. Even of a run of k only one base is in no visible token, so
each of its tokens is one of four: a loss per such token says little beside that of other kinds.
"""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vqdna_jax.models.heads import TokenHead
from vqdna_jax.models.layers import apply, truncated_normal
from vqdna_jax.models.networks import TrainedConfig
from vqdna_jax.models.quantize import code_vectors
from vqdna_jax.models.transformer import Compute
from vqdna_jax.partition import gathered, replicated, sharded, split_evenly, take
from vqdna_jax.tasks.base import Codebooks, Metrics, Params, cross_entropy
from vqdna_jax.tasks.masking import Masked, Masking, draw
from vqdna_jax.tokenizers.batches import Layout, Tokens
from vqdna_jax.tokenizers.fixed import FixedTokenizer


def masking_of(tokenizer: FixedTokenizer, rate: float = 0.25) -> Masking:
    """Single tokens, or runs of those that are masked together."""
    together = tokenizer.masked_together
    return Masking("code_spans", rate, together) if together else Masking("codes", rate)


@dataclasses.dataclass(frozen=True)
class MaskedTokens:
    """Predict the masked tokens. loss = cross-entropy per masked token (nats); a padding or unknown token never counts.

    Attributes:
        vocabulary: K; its last token is the unknown one. table_width: E.
        layout: of the batches, {"tokens": int32 [B, L], "lengths": int32 [B]}.
        microbatches, params_ema_decay: as of `MaskedCodes`.
    """

    model: TrainedConfig
    compute: Compute
    vocabulary: int
    table_width: int
    masking: Masking
    layout: Layout
    microbatches: int = 1
    params_ema_decay: float = 0.0

    keeps_best: ClassVar[bool] = False

    def init_params(self, frozen: tuple[()], batch: Tokens, key: Array) -> Params:
        """{"table" [K, E], "transformer", "heads"}. The table begins with variance 1, as codes are standardised."""
        table_key, transformer_key, head_key = jax.random.split(key, 3)
        table = sharded(truncated_normal(1.0), None, "embed")(table_key, (self.vocabulary, self.table_width))
        masked_BxL = jnp.zeros_like(batch.tokens_BxL, bool)
        inputs = self.vectors(table, batch.tokens_BxL), masked_BxL, masked_BxL[:, 0]
        transformer = self.transformer.init(transformer_key, *inputs)
        h_BxLxD, _ = apply(self.transformer, transformer["params"], *inputs)
        head = self.head.init(head_key, h_BxLxD, gathered(table, None, "embed"))
        return {"table": table, "transformer": transformer["params"], "heads": head["params"]}

    def init_codebooks(self, params: Params, batch: Tokens, key: Array) -> Codebooks:
        return ()

    def prepare(self, batch: Tokens, key: Array) -> Masked[Tokens]:
        """The batch with its masks drawn."""
        windows, length = batch.tokens_BxL.shape
        return Masked(batch, draw(self.masking, windows, length, 1, key))

    def loss(
        self, params: Params, codebooks: Codebooks, frozen: tuple[()], batch: Masked[Tokens], key: Array
    ) -> tuple[Array, tuple[Codebooks, Metrics]]:
        """(loss, (codebooks, metrics)) on a batch that `prepare` has masked.

        bits_per_base spreads a token's loss over its step to the next. Overlapping k-mers share their bases, and k
        tokens of a run count the one base they hide k times: theirs is not comparable with that of other kinds.
        """
        scores = self.scores(params, batch)
        weights = scores["scored_BxM"].astype(jnp.float32)
        total = jnp.maximum(jnp.sum(weights), 1)
        loss, accuracy = (jnp.sum(scores[name] * weights) / total for name in ("loss_BxM", "hit_BxM"))
        metrics: Metrics = {"loss": loss, "token_accuracy": accuracy, "token_perplexity": jnp.exp(loss)}
        metrics["bits_per_base"] = loss / np.log(2) / self.layout.bases_per_token
        return loss, (codebooks, metrics)

    def scores(self, params: Params, batch: Masked[Tokens]) -> dict[str, Array]:
        """Cross-entropy (nats) and hit of every masked token, f32 [B, M], and which of them count, bool [B, M]."""
        masks, tokens_BxL, lengths_B = batch.masks, batch.rows.tokens_BxL, batch.rows.lengths_B
        vectors_BxLx1xE = self.vectors(params["table"], tokens_BxL)
        ends_B = lengths_B + self.model.cls if self.layout.padded else None
        network = self.transformer, params["transformer"]
        h_BxLxD, _ = apply(*network, vectors_BxLx1xE, masks.masked_BxL, masks.replaced_B, ends_B)
        positions_BxM = split_evenly(masks.positions_BxM)
        h_BxMxD = take(h_BxLxD, positions_BxM)
        logits = apply(self.head, params["heads"], h_BxMxD, gathered(params["table"], None, "embed"))
        target_BxM = take(tokens_BxL, positions_BxM)
        loss_BxM, hit_BxM = cross_entropy(logits, target_BxM)
        # Not masks.scored_BxM, which leaves out the edges of spans, where codes leak: k-mers do so otherwise.
        scored_BxM = (masks.positions_BxM < lengths_B[:, None]) & (target_BxM < self.vocabulary - 1)
        return {"loss_BxM": loss_BxM, "hit_BxM": hit_BxM, "scored_BxM": scored_BxM}

    def vectors(self, table_KxE: Array, tokens_BxL: Array) -> Array:
        """[B, L, 1, E], the transformer's input."""
        return code_vectors((gathered(table_KxE, None, "embed"),), tokens_BxL[..., None])

    @property
    def transformer(self) -> nn.Module:
        return self.model.module(self.compute)

    @property
    def head(self) -> TokenHead:
        return TokenHead(self.model.dtype)

    def predict(
        self, params: Params, codebooks: Codebooks, frozen: tuple[()], batch: Masked[Tokens]
    ) -> dict[str, Array]:
        """`scores` of a batch with masks, whole on every device."""
        return replicated(self.scores(params, batch))

    def flops_per_base(self, window_bp: int) -> float:
        """Of one training step, padding included: layers, table and head forward and backward."""
        length, width = self.layout.length, self.table_width
        slots = length + self.model.cls
        layers = slots * self.model.flops_per_code(slots) + 2 * length * width * self.model.width
        head = 2 * self.masking.count(length) * width * (self.model.width + self.vocabulary)
        return 3 * (layers + head) / window_bp
