"""Stage 2: masked code modelling over the codes of a frozen tokenizer (paper, stage b)."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax import Array

from vqdna_jax.genome.windows import Windows
from vqdna_jax.models import quantize
from vqdna_jax.models.heads import Heads
from vqdna_jax.models.layers import apply
from vqdna_jax.models.networks import TrainedConfig
from vqdna_jax.models.quantize import code_vectors
from vqdna_jax.models.tokenizer import TokenizerConfig, encode
from vqdna_jax.models.transformer import Compute
from vqdna_jax.partition import replicated, spec, split_evenly, take, whole_length
from vqdna_jax.tasks.base import UNKNOWN, Codebooks, Metrics, Params, cross_entropy, mean_of, random_strand
from vqdna_jax.tasks.masking import Masked, Masking, draw


class FrozenTokenizer(flax.struct.PyTreeNode):
    """The weights of a learned tokenizer that a step needs: its encoder, and the code vectors of each level."""

    encoder: Params
    codes_KxE: tuple[Array, ...]


@dataclasses.dataclass(frozen=True)
class MaskedCodes:
    """Predict the masked codes of every level, and the bases they stand for, from what is left.

    loss = mean over levels of the cross-entropy per masked code + base_weight * cross-entropy per base (nats).

    Attributes:
        base_weight: 0 is the paper's objective: the head that names bases then reads the network without shaping it.
        microbatches: the global batch goes through in so many parts, whose gradients are averaged.
        params_ema_decay: of the averaged parameters that are evaluated and exported; 0: none.
    """

    tokenizer: TokenizerConfig
    model: TrainedConfig
    compute: Compute
    masking: Masking
    base_weight: float
    microbatches: int = 1
    params_ema_decay: float = 0.0

    keeps_best: ClassVar[bool] = False

    def init_params(self, frozen: FrozenTokenizer, batch: Windows, key: Array) -> Params:
        transformer_key, heads_key = jax.random.split(key)
        codes_BxLxN = self._no_codes(batch.bases_BxS)
        vectors, masked_BxL = self.vectors(frozen, codes_BxLxN), codes_BxLxN[..., 0].astype(bool)
        inputs = vectors, masked_BxL, masked_BxL[:, 0]
        transformer = self.transformer.init(transformer_key, *inputs)
        h_BxLxD, _ = apply(self.transformer, transformer["params"], *inputs)
        heads = self.heads.init(heads_key, h_BxLxD, self.standard_codes(frozen))
        return {"transformer": transformer["params"], "heads": heads["params"]}

    def init_codebooks(self, params: Params, batch: Windows, key: Array) -> Codebooks:
        return ()  # the tokenizer's are frozen

    def prepare(self, batch: Windows, key: Array) -> Masked[Windows]:
        """Each window on a random strand, with its masks drawn."""
        strand_key, mask_key = jax.random.split(key)
        return self.masked(Windows(random_strand(batch.bases_BxS, strand_key)), mask_key)

    def masked(self, batch: Windows, key: Array) -> Masked[Windows]:
        windows, bases = batch.bases_BxS.shape
        per_code = self.tokenizer.bases_per_code
        return Masked(batch, draw(self.masking, windows, bases // per_code - self.model.cls, per_code, key))

    def loss(
        self, params: Params, codebooks: Codebooks, frozen: FrozenTokenizer, batch: Masked[Windows], key: Array
    ) -> tuple[Array, tuple[Codebooks, Metrics]]:
        """(loss, (codebooks, metrics)) on a batch that `prepare` has masked."""
        scores = self.scores(params, frozen, batch)
        scored_BxMx1 = scores["scored_BxM"][..., None]
        code_loss_N = mean_of(scores["code_loss_BxMxN"], scored_BxMx1, axis=(0, 1))
        code_accuracy_N = mean_of(scores["code_hit_BxMxN"], scored_BxMx1, axis=(0, 1))
        base_loss = mean_of(scores["base_loss_BxMxR"], scores["base_scored_BxMxR"])
        base_accuracy = mean_of(scores["base_hit_BxMxR"], scores["base_scored_BxMxR"])
        # At weight 0 the head learns all the same, from a stopped gradient: see `scores`.
        loss = jnp.mean(code_loss_N) + (self.base_weight if self.base_weight else 1.0) * base_loss
        metrics: Metrics = {"loss": loss, "base_bits": base_loss / jnp.log(2), "base_accuracy": base_accuracy}
        for n in range(self.levels):
            metrics |= {f"code_{n + 1}_loss": code_loss_N[n], f"code_{n + 1}_accuracy": code_accuracy_N[n]}
        return loss, (codebooks, metrics)

    def scores(self, params: Params, frozen: FrozenTokenizer, batch: Masked[Windows]) -> dict[str, Array]:
        """Cross-entropy (nats) and hits of every masked code and of the bases it stands for, and which of them count.

        code_* [B, M, N], scored [B, M], base_* [B, M, R]: of hidden bases, or all R of a replaced code; never of an N.
        """
        masks, bases_BxLxR = batch.masks, self._by_code(batch.rows.bases_BxS)
        inputs, targets = self.codes(frozen, batch)
        vectors = self.vectors(frozen, inputs)
        h_BxLxD, _ = apply(self.transformer, params["transformer"], vectors, masks.masked_BxL, masks.replaced_B)
        positions_BxM = split_evenly(masks.positions_BxM)
        h_BxMxD = take(h_BxLxD, positions_BxM)
        codes_KxE = self.standard_codes(frozen)
        logits, base_logits = apply(self.heads, params["heads"], h_BxMxD, codes_KxE)
        if not self.base_weight:
            _, base_logits = apply(self.heads, params["heads"], jax.lax.stop_gradient(h_BxMxD), codes_KxE)
        target_BxMxN = take(targets, positions_BxM)
        code = [cross_entropy(logit, target_BxMxN[..., n]) for n, logit in enumerate(logits)]
        base_BxMxR = take(bases_BxLxR, positions_BxM)
        base_loss, base_hit = cross_entropy(base_logits, jnp.minimum(base_BxMxR, UNKNOWN - 1))
        counted = masks.hidden_BxLxR | masks.replaced_B[:, None, None]
        scored_BxM = masks.scored_BxM & jnp.all(base_BxMxR < UNKNOWN, axis=-1)
        return {
            "code_loss_BxMxN": jnp.stack([loss for loss, _ in code], axis=-1),
            "code_hit_BxMxN": jnp.stack([hit for _, hit in code], axis=-1),
            "scored_BxM": scored_BxM,
            "base_loss_BxMxR": base_loss,
            "base_hit_BxMxR": base_hit,
            "base_scored_BxMxR": take(counted, positions_BxM) & scored_BxM[..., None],
        }

    def codes(self, frozen: FrozenTokenizer, batch: Masked[Windows]) -> tuple[Array, Array]:
        """(codes the network reads, codes it must name), int32 [B, L, N]: of the window with and without its hidden
        bases. Both go through the frozen tokenizer here, in the step; the two are one where no base is hidden."""
        bases_BxS, masks = batch.rows.bases_BxS, batch.masks
        targets_BxLxN = self.encode(frozen, bases_BxS)
        if not self.masking.hides_bases:
            return targets_BxLxN, targets_BxLxN
        seen_BxLxR = jnp.where(masks.hidden_BxLxR, jnp.uint8(UNKNOWN), self._by_code(bases_BxS))
        rest = bases_BxS[:, masks.masked_BxL.shape[1] * self.tokenizer.bases_per_code :]
        seen_BxS = jnp.concatenate([_rows(seen_BxLxR, -1), rest], axis=1)
        return self.encode(frozen, seen_BxS), targets_BxLxN

    def encode(self, frozen: FrozenTokenizer, bases_BxS: Array) -> Array:
        """The frozen tokenizer's codes of the window; with CLS without the last one, whose place CLS takes."""
        codes = whole_length(encode(self.tokenizer, frozen.encoder, frozen.codes_KxE, bases_BxS).codes_BxLxN)
        return jax.lax.stop_gradient(codes[:, : codes.shape[1] - self.model.cls])

    def vectors(self, frozen: FrozenTokenizer, codes_BxLxN: Array) -> Array:
        """Standardised code vectors [B, L, N, E], the transformer's input."""
        return code_vectors(self.standard_codes(frozen), codes_BxLxN)

    def standard_codes(self, frozen: FrozenTokenizer) -> tuple[Array, ...]:
        return tuple(quantize.standardised(e) for e in frozen.codes_KxE)

    @property
    def levels(self) -> int:
        return len(self.tokenizer.codebook_sizes)

    @property
    def transformer(self) -> nn.Module:
        return self.model.module(self.compute)

    @property
    def heads(self) -> Heads:
        return Heads(self.tokenizer.bases_per_code, self.model.dtype)

    def predict(
        self, params: Params, codebooks: Codebooks, frozen: FrozenTokenizer, batch: Masked[Windows]
    ) -> dict[str, Array]:
        """`scores` of a batch masked in any way, whole on every device."""
        any_way = dataclasses.replace(self, masking=Masking("codes+bases"))
        return replicated(any_way.scores(params, frozen, batch))

    def flops_per_base(self, window_bp: int) -> float:
        """Of one training step: transformer and heads forward and backward, the frozen tokenizer forward."""
        per_code = self.tokenizer.bases_per_code
        length = window_bp // per_code
        code = self.model.flops_per_code(length) + 2 * self.levels * self.tokenizer.width * self.model.width
        sizes, width = self.tokenizer.codebook_sizes, self.tokenizer.width
        heads = 2 * sum(width * (self.model.width + size) for size in sizes) + 8 * per_code * self.model.width
        masked = self.masking.count(length) / length
        encodes = 2 if self.masking.hides_bases else 1
        return 3 * (code + masked * heads) / per_code + encodes * self.tokenizer.encoder_flops_per_base()

    def _no_codes(self, bases_BxS: Array) -> Array:
        """Zeros int32 [B, L, N] in the place of a window's codes, split as the rows are."""
        length = bases_BxS.shape[1] // self.tokenizer.bases_per_code - self.model.cls
        return jnp.zeros((len(bases_BxS), length, self.levels), jnp.int32, out_sharding=spec("batch", None, None))

    def _by_code(self, bases_BxS: Array) -> Array:
        """[B, S] -> [B, L, R], without the code whose place CLS takes."""
        codes = bases_BxS.shape[1] // self.tokenizer.bases_per_code
        return _rows(bases_BxS, codes, -1)[:, : codes - self.model.cls]


def _rows(x: Array, *shape: int) -> Array:
    """[B, ...] as [B, *shape], the rows split as they were: of a single row a plain reshape forgets that."""
    return jnp.reshape(x, (len(x), *shape), out_sharding=spec("batch", *[None] * len(shape)))
