"""Stage 2: masked code modelling over the codes of a frozen tokenizer (paper, stage b).

Legend: B batch, S bases, L codes, N levels, E width of a code vector, D width, M masked codes, R bases a code. The
frozen tokenizer comes with the batch, as batch["tokenizer"] = {"encoder": params, "codes": one [K, E] a level}.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from vqdna_jax.models import quantize
from vqdna_jax.models.heads import Heads
from vqdna_jax.models.quantize import code_vectors
from vqdna_jax.models.tokenizer import TokenizerConfig, encode
from vqdna_jax.models.transformer import Compute, Transformer, TransformerConfig
from vqdna_jax.tasks.base import UNKNOWN, Metrics, _mean, cross_entropy, random_strand, take
from vqdna_jax.tasks.masking import Masking, Masks, draw

TOKENIZER = "tokenizer"


@dataclasses.dataclass(frozen=True)
class MaskedCodes:
    """Predict the masked codes of every level, and the bases they stand for, from what is left.

    loss = mean over levels of the cross-entropy a masked code + base_weight * cross-entropy a base (nats).

    Attributes:
        base_weight: 0 is the paper's objective: the head that names bases then reads the network without shaping it.
        microbatches: the global batch goes through in so many parts, whose gradients are averaged.
        params_ema_decay: of the averaged parameters that are evaluated and exported; 0: none.
    """

    tokenizer: TokenizerConfig
    model: TransformerConfig
    compute: Compute
    masking: Masking
    base_weight: float
    microbatches: int = 1
    params_ema_decay: float = 0.0

    keeps_best = False

    def init_params(self, key: Array, batch: dict[str, Array]):
        transformer_key, heads_key = jax.random.split(key)
        codes = batch["bases"][:, :: self.tokenizer.bases_per_code] * 0
        vectors = self.vectors(batch[TOKENIZER], jnp.stack([codes] * self.levels, axis=-1).astype(jnp.int32))
        plain = codes != codes
        transformer = self.transformer.init(transformer_key, vectors, plain, plain[:, 0])
        h_BxLxD, _ = self.transformer.apply(transformer, vectors, plain, plain[:, 0])
        heads = self.heads.init(heads_key, h_BxLxD, self.standard_codes(batch[TOKENIZER]))
        return {"transformer": transformer["params"], "heads": heads["params"]}

    def init_codebooks(self, params, key: Array, batch: dict[str, Array]) -> tuple:
        return ()  # the tokenizer's are frozen

    def prepare(self, batch: dict[str, Array], key: Array) -> dict[str, Array]:
        """Each window on a random strand, with its masks drawn."""
        strand_key, mask_key = jax.random.split(key)
        return self.masked(batch | {"bases": random_strand(batch["bases"], strand_key)}, mask_key)

    def masked(self, batch: dict[str, Array], key: Array) -> dict[str, Array]:
        windows, bases = batch["bases"].shape
        per_code = self.tokenizer.bases_per_code
        return batch | {"masks": draw(self.masking, windows, bases // per_code - self.model.cls, per_code, key)}

    def loss(self, params, codebooks: tuple, batch: dict[str, Array], key: Array):
        """(loss, (codebooks, metrics)) on a batch that `prepare` has masked."""
        scores = self.scores(params, batch)
        code_loss_N = _mean(scores["code_loss_BxMxN"], scores["scored_BxM"][..., None], axis=(0, 1))
        code_accuracy_N = _mean(scores["code_hit_BxMxN"], scores["scored_BxM"][..., None], axis=(0, 1))
        base_loss = _mean(scores["base_loss_BxMxR"], scores["base_scored_BxMxR"])
        base_accuracy = _mean(scores["base_hit_BxMxR"], scores["base_scored_BxMxR"])
        weight = self.base_weight or 1.0  # at 0 the head reads a stopped gradient, see `scores`
        loss = jnp.mean(code_loss_N) + weight * base_loss
        metrics: Metrics = {"loss": loss, "base_bits": base_loss / jnp.log(2), "base_accuracy": base_accuracy}
        for n in range(self.levels):
            metrics |= {f"code_{n + 1}_loss": code_loss_N[n], f"code_{n + 1}_accuracy": code_accuracy_N[n]}
        return loss, (codebooks, metrics)

    def scores(self, params, batch: dict[str, Array]) -> dict[str, Array]:
        """Cross-entropy (nats) and hits of every masked code and of the bases it stands for, and which of them count.

        code_* [B, M, N], scored [B, M], base_* [B, M, R]: of hidden bases, or all R of a replaced code; never of an N.
        """
        masks, bases_BxLxR = batch["masks"], self._by_code(batch["bases"])
        inputs, targets = self.codes(batch, masks)
        h_BxLxD, _ = self.transformer.apply(
            {"params": params["transformer"]},
            self.vectors(batch[TOKENIZER], inputs), masks.masked_BxL, masks.replaced_B,
        )  # fmt: skip
        h_BxMxD = take(h_BxLxD, masks.positions_BxM)
        codes_KxE = self.standard_codes(batch[TOKENIZER])
        logits, base_logits = self.heads.apply({"params": params["heads"]}, h_BxMxD, codes_KxE)
        if not self.base_weight:
            _, base_logits = self.heads.apply({"params": params["heads"]}, jax.lax.stop_gradient(h_BxMxD), codes_KxE)
        target_BxMxN = take(targets, masks.positions_BxM)
        code = [cross_entropy(logit, target_BxMxN[..., n]) for n, logit in enumerate(logits)]
        base_BxMxR = take(bases_BxLxR, masks.positions_BxM)
        base_loss, base_hit = cross_entropy(base_logits, jnp.minimum(base_BxMxR, UNKNOWN - 1))
        counted = masks.hidden_BxLxR | masks.replaced_B[:, None, None]
        scored_BxM = masks.scored_BxM & jnp.all(base_BxMxR < UNKNOWN, axis=-1)
        return {
            "code_loss_BxMxN": jnp.stack([loss for loss, _ in code], axis=-1),
            "code_hit_BxMxN": jnp.stack([hit for _, hit in code], axis=-1),
            "scored_BxM": scored_BxM,
            "base_loss_BxMxR": base_loss,
            "base_hit_BxMxR": base_hit,
            "base_scored_BxMxR": take(counted, masks.positions_BxM) & scored_BxM[..., None],
        }

    def codes(self, batch: dict[str, Array], masks: Masks) -> tuple[Array, Array]:
        """(codes the network reads, codes it must name), int32 [B, L, N]: of the window with and without its hidden
        bases. Both go through the frozen tokenizer here, in the step; the two are one where no base is hidden."""
        targets_BxLxN = self.encode(batch[TOKENIZER], batch["bases"])
        if not self.masking.hides_bases:
            return targets_BxLxN, targets_BxLxN
        bases_BxLxR = self._by_code(batch["bases"])
        seen_BxLxR = jnp.where(masks.hidden_BxLxR, jnp.uint8(UNKNOWN), bases_BxLxR)
        rest = batch["bases"][:, masks.masked_BxL.shape[1] * self.tokenizer.bases_per_code :]
        seen_BxS = jnp.concatenate([seen_BxLxR.reshape(len(seen_BxLxR), -1), rest], axis=1)
        return self.encode(batch[TOKENIZER], seen_BxS), targets_BxLxN

    def encode(self, tokenizer, bases_BxS: Array) -> Array:
        """The frozen tokenizer's codes of the window; of the last one too few with CLS, whose place that code gives."""
        codes = encode(self.tokenizer, tokenizer["encoder"], tokenizer["codes"], bases_BxS).codes_BxLxN
        return jax.lax.stop_gradient(codes[:, : codes.shape[1] - self.model.cls])

    def vectors(self, tokenizer, codes_BxLxN: Array) -> Array:
        """Standardised code vectors [B, L, N, E], the transformer's input."""
        return code_vectors(self.standard_codes(tokenizer), codes_BxLxN)

    def standard_codes(self, tokenizer) -> tuple[Array, ...]:
        return tuple(quantize.standardised(e) for e in tokenizer["codes"])

    @property
    def levels(self) -> int:
        return len(self.tokenizer.codebook_sizes)

    @property
    def transformer(self) -> Transformer:
        return Transformer(self.model, self.compute)

    @property
    def heads(self) -> Heads:
        return Heads(self.tokenizer.bases_per_code, self.model.dtype)

    def predict(self, params, codebooks: tuple, batch: dict[str, Array]) -> dict[str, Array]:
        """`scores` of a batch masked in any way, whole on every device."""
        any_way = dataclasses.replace(self, masking=Masking("codes+bases"))
        return jax.tree.map(lambda x: jax.reshard(x, jax.P()), any_way.scores(params, batch))

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

    def _by_code(self, bases_BxS: Array) -> Array:
        """[B, S] -> [B, L, R], without the code whose place CLS takes."""
        codes = bases_BxS.shape[1] // self.tokenizer.bases_per_code
        return bases_BxS.reshape(len(bases_BxS), codes, -1)[:, : codes - self.model.cls]
