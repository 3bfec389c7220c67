"""Stage 1: codes are learned that rebuild DNA (paper Sec. 3.2, 3.3)."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from vqdna_jax.genome.windows import Windows
from vqdna_jax.models import quantize
from vqdna_jax.models.context import ContextDecoder, around, decoder_of, joined, rebuild
from vqdna_jax.models.forms import argmax
from vqdna_jax.models.layers import apply
from vqdna_jax.models.quantize import Codebook
from vqdna_jax.models.tokenizer import Encoder, TokenizerConfig, encode
from vqdna_jax.partition import replicated, spec
from vqdna_jax.tasks.base import UNKNOWN, Codebooks, Metrics, Params, random_strand

# With bases hidden in all windows 38 to 86 % of the codes were of no use afterwards: they stood for gaps in k-mers.
HIDDEN_EVERY = 2


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Stage 1: learn codes that rebuild DNA (paper Sec. 3.2, 3.3).

    loss = cross-entropy per base + commitment_weight * sum of the levels' commitments.

    Attributes:
        commitment_weight: the paper's beta.
        ema_decay: of the codebooks' statistics.
        revive_below, revive_to: dead codes, as shares of a codebook's mean count (quantize.revive).
        hidden_share: share of the input bases of every second window, hidden from the encoder and rebuilt all the
            same (denoising); 0 in the paper. The codebooks follow the other windows: words are for what is there.
    """

    model: TokenizerConfig
    commitment_weight: float
    ema_decay: float
    revive_below: float
    revive_to: float
    hidden_share: float

    microbatches: ClassVar[int] = 1  # the codebooks' statistics are of whole batches
    params_ema_decay: ClassVar[float] = 0.0
    keeps_best: ClassVar[bool] = False

    def prepare(self, batch: Windows, key: Array) -> Windows:
        return batch

    def init_params(self, frozen: tuple[()], batch: Windows, key: Array) -> Params:
        encoder_key, decoder_key = jax.random.split(key)
        encoder_params = Encoder(self.model).init(encoder_key, batch.bases_BxS)["params"]
        features = apply(Encoder(self.model), encoder_params, batch.bases_BxS)
        return {
            "encoder": encoder_params,
            "decoder": decoder_of(self.model).init(decoder_key, features[-1])["params"],
        }

    def init_codebooks(self, params: Params, batch: Windows, key: Array) -> Codebooks:
        """k-means of the untrained encoder's features, level by level: a level's input needs the codes above it."""
        features = apply(Encoder(self.model), params["encoder"], batch.bases_BxS)
        codebooks: list[Codebook] = []
        for n, size in enumerate(self.model.codebook_sizes):
            previous = None
            if n:
                codes_KxD = [codebook.codes_KxD() for codebook in codebooks]
                above = quantize.hierarchical(features[:n], codes_KxD, jnp.dtype(self.model.dtype))
                previous = quantize.look_up(above.codes_BxLxN[..., -1], codes_KxD[-1])
            inputs, level_key = quantize.level_input(features[n], previous), jax.random.fold_in(key, n)
            codebooks.append(quantize.init_codebook(inputs.astype(self.model.dtype), size, level_key, self.revive_to))
        return tuple(codebooks)

    def loss(
        self, params: Params, codebooks: Codebooks, frozen: tuple[()], batch: Windows, key: Array
    ) -> tuple[Array, tuple[Codebooks, Metrics]]:
        """(loss, (new codebooks, metrics)) on one global batch; `key` belongs to the step."""
        strand_key, hide_key, revive_key = jax.random.split(key, 3)
        bases_BxS = random_strand(batch.bases_BxS, strand_key)
        seen_BxS = hide(bases_BxS, self.hidden_share, hide_key) if self.hidden_share else bases_BxS
        quantized = self.encode(params, codebooks, seen_BxS)
        reconstruction, metrics = self.decoding_loss(params, quantized.embedding_BxLxD, bases_BxS)
        loss = reconstruction + self.commitment_weight * quantized.commitment
        codebooks, codebook_metrics = self.update_codebooks(codebooks, quantized, revive_key)
        metrics |= codebook_metrics | {"loss": loss, "commitment_loss": quantized.commitment}
        return loss, (codebooks, metrics)

    def encode(self, params: Params, codebooks: Codebooks, bases_BxS: Array) -> quantize.Quantized:
        return encode(self.model, params["encoder"], [codebook.codes_KxD() for codebook in codebooks], bases_BxS)

    def decoding_loss(self, params: Params, embedding_BxLxD: Array, bases_BxS: Array) -> tuple[Array, Metrics]:
        """Mean cross-entropy: of every base; with a reach, of every base around each code, by that code alone."""
        if not self.model.reach:
            return reconstruction_loss(rebuild(self.model, params["decoder"], embedding_BxLxD), bases_BxS)
        logits_BxLxOx4 = apply(ContextDecoder(self.model), params["decoder"], embedding_BxLxD)
        loss, _ = reconstruction_loss(logits_BxLxOx4, around(self.model, bases_BxS))
        _, metrics = reconstruction_loss(jax.lax.stop_gradient(joined(self.model, logits_BxLxOx4)), bases_BxS)
        return loss, metrics | {"reconstruction_loss": loss}

    def update_codebooks(
        self, codebooks: Codebooks, quantized: quantize.Quantized, key: Array
    ) -> tuple[Codebooks, Metrics]:
        """The EMA step of every level, and what there is to log about it."""
        updated, metrics, every = [], {}, HIDDEN_EVERY if self.hidden_share else 1
        for n, (codebook, size) in enumerate(zip(codebooks, self.model.codebook_sizes, strict=True)):
            h_BxLxD = quantized.inputs_BxLxD[n].astype(self.model.dtype)
            level_key = jax.random.fold_in(key, n)
            new = quantize.statistics(h_BxLxD, quantized.codes_BxLxN[..., n], size, level_key, every)
            updated.append(
                quantize.ema_update(codebook, new, self.ema_decay, self.revive_below, self.revive_to),
            )
            share_K = updated[-1].counts_K / jnp.sum(updated[-1].counts_K)
            metrics[f"codebook_{n + 1}_perplexity"] = jnp.exp(jnp.sum(jax.scipy.special.entr(share_K)))
            metrics[f"codebook_{n + 1}_batch_utilisation"] = jnp.mean(new.counts_K > 0, dtype=jnp.float32)
        return tuple(updated), metrics

    def predict(self, params: Params, codebooks: Codebooks, frozen: tuple[()], batch: Windows) -> dict[str, Array]:
        """Codes [B, L, N], rebuilt bases [B, S] and the window's mean embedding [B, D], whole on every device."""
        quantized = self.encode(params, codebooks, batch.bases_BxS)
        logits_BxSx4 = rebuild(self.model, params["decoder"], quantized.embedding_BxLxD)
        outputs = {
            "codes": quantized.codes_BxLxN,
            "rebuilt": jnp.argmax(logits_BxSx4, axis=-1).astype(jnp.uint8),
            "embedding": jnp.mean(quantized.embedding_BxLxD, axis=1),
        }
        return replicated(outputs)

    def flops_per_base(self, window_bp: int) -> float:
        """FLOPs of one training step: the backward pass costs twice the forward one."""
        return 3 * self.model.flops_per_base()


def reconstruction_loss(logits_BxSx4: Array, bases_BxS: Array) -> tuple[Array, Metrics]:
    """Mean cross-entropy (nats per base) over the known bases; a batch of N alone has loss 0."""
    known_BxS = (bases_BxS < UNKNOWN).astype(jnp.float32)
    total = jnp.maximum(jnp.sum(known_BxS), 1)
    log_p_BxSx4 = jax.nn.log_softmax(logits_BxSx4)
    loss = -jnp.sum(log_p_BxSx4 * jax.nn.one_hot(bases_BxS, 4)) / total
    hits = jnp.sum((argmax(logits_BxSx4) == bases_BxS) * known_BxS)
    return loss, {"reconstruction_loss": loss, "reconstruction_accuracy": hits / total}


def hide(bases_BxS: Array, share: float, key: Array) -> Array:
    """Bases with about `share` of them, drawn singly, turned into UNKNOWN in every row but 0, HIDDEN_EVERY, ..."""
    hidden_BxS = jax.random.bernoulli(key, share, bases_BxS.shape, out_sharding=spec("batch", None))
    hidden_BxS &= (jnp.arange(len(bases_BxS)) % HIDDEN_EVERY > 0)[:, None]
    return jnp.where(hidden_BxS, jnp.uint8(UNKNOWN), bases_BxS)
