"""Stage 3: a pretrained transformer learns labelled sequences, by LoRA, in full, or by a head alone (paper, stage c).

Legend: B sequences, W windows of a sequence, L codes, N levels, E width of a code vector, D width, P pooled features,
V classes. The frozen part comes with the batch, as batch["base"] = {"vectors": one [K, E] a level, "transformer":
params, "class_weights": [V]}.
"""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import Array

from vqdna_jax.labelled import Kind
from vqdna_jax.masked_codes import code_vectors
from vqdna_jax.models import lora
from vqdna_jax.models.attention import best_kernel
from vqdna_jax.models.layers import variance_scaling
from vqdna_jax.models.lora import LoraConfig
from vqdna_jax.models.transformer import WEIGHT_AXES, Compute, Transformer, TransformerConfig
from vqdna_jax.partition import sharded, spec

BASE = "base"
METHODS = ("lora", "full", "head")
POOLS = ("mean", "max", "cls")
Method = Literal["lora", "full", "head"]


class Head(nn.Module):
    """Pooled features [B, P] -> logits f32 [B, V]: an MLP with one hidden layer, or a linear map where hidden is 0.

    The last layer begins at zero, so the first loss is that of knowing nothing.
    """

    outputs: int
    hidden: int
    dropout: float

    @nn.compact
    def __call__(self, x_BxP: Array, key: Array | None = None) -> Array:
        rows = spec("batch", None)
        if self.hidden:
            init = variance_scaling(1.0, "fan_in", "truncated_normal", in_axis=0, out_axis=1)
            kernel = self.param("hidden_kernel", sharded(init, None, None), (x_BxP.shape[-1], self.hidden))
            bias = self.param("hidden_bias", sharded(nn.initializers.zeros, None), (self.hidden,))
            x_BxP = nn.gelu(jnp.einsum("bp,ph->bh", x_BxP, kernel, out_sharding=rows) + bias[None])
        if key is not None and self.dropout:
            kept = jax.random.bernoulli(key, 1 - self.dropout, x_BxP.shape, out_sharding=rows)
            x_BxP = jnp.where(kept, x_BxP / (1 - self.dropout), 0)
        kernel = self.param("kernel", sharded(nn.initializers.zeros, None, None), (x_BxP.shape[-1], self.outputs))
        bias = self.param("bias", sharded(nn.initializers.zeros, None), (self.outputs,))
        return jnp.einsum("bp,pv->bv", x_BxP, kernel, out_sharding=rows) + bias[None]


@dataclasses.dataclass(frozen=True)
class Finetune:
    """Predict the labels of sequences from their codes.

    Loss, a row: cross-entropy (classification), the mean over classes of binary cross-entropies (multi-label), or the
    squared error of a standardised value (regression).

    Attributes:
        method: "lora" trains factors and head, "full" the whole transformer and head, "head" the head.
        pool: of the codes of a window; several joined by "+" are concatenated. Windows are averaged.
        hidden: of the MLP head; 0 with method "head" is a linear probe.
    """

    model: TransformerConfig
    compute: Compute
    kind: Kind
    outputs: int
    method: Method = "lora"
    lora: LoraConfig = LoraConfig()
    pool: str = "mean"
    hidden: int = 0
    dropout: float = 0.0

    microbatches, params_ema_decay = 1, 0.0
    keeps_best = True

    def init_params(self, key: Array, batch: dict):
        base, (lora_key, head_key) = batch[BASE], jax.random.split(key)
        width = self.model.width * len(self.pools)
        pooled = jnp.zeros((len(batch["codes"]), width), out_sharding=spec("batch", None))
        params = {"head": self.head.init(head_key, pooled)["params"]}
        if self.method == "lora":
            params["lora"] = lora.init(self.lora, base["transformer"], lora_key)
        elif self.method == "full":
            params["transformer"] = born(base["transformer"])
        return params

    def init_codebooks(self, params, key: Array, batch: dict) -> tuple:
        return ()  # the tokenizer's are frozen

    def prepare(self, batch: dict, key: Array) -> dict:
        return batch

    def loss(self, params, codebooks: tuple, batch: dict, key: Array):
        """(loss, (codebooks, metrics)) on a batch {"codes" [B, W, L, N], "lengths" [B, W], "labels" [B] or [B, V],
        "weights" [B], 0 of rows that only fill the batch}."""
        logits_BxV = self.logits(params, batch, key)
        loss_B, weights_B = self.row_loss(logits_BxV, batch), batch["weights"]
        if self.kind == "classification":
            weights_B = weights_B * batch[BASE]["class_weights"].at[batch["labels"]].get(out_sharding=spec("batch"))
        loss = jnp.sum(loss_B * weights_B) / jnp.maximum(jnp.sum(weights_B), 1e-9)
        metrics = {"loss": loss}
        if self.kind == "classification":
            hit_B = (jnp.argmax(logits_BxV, axis=-1) == batch["labels"]) * batch["weights"]
            metrics["accuracy"] = jnp.sum(hit_B) / jnp.maximum(jnp.sum(batch["weights"]), 1e-9)
        return loss, (codebooks, metrics)

    def row_loss(self, logits_BxV: Array, batch: dict) -> Array:
        """f32 [B], without class weights."""
        labels = batch["labels"]
        if self.kind == "classification":
            return optax.softmax_cross_entropy_with_integer_labels(logits_BxV, labels)
        if self.kind == "multilabel":
            return jnp.mean(optax.sigmoid_binary_cross_entropy(logits_BxV, labels.astype(jnp.float32)), axis=-1)
        return jnp.square(logits_BxV[:, 0] - labels)

    def logits(self, params, batch: dict, key: Array | None = None) -> Array:
        """f32 [B, V]; dropout where there is a `key`."""
        lora_key, head_key = (None, None) if key is None else jax.random.split(key)
        return self.head.apply({"params": params["head"]}, self.features(params, batch, lora_key), head_key)

    def features(self, params, batch: dict, key: Array | None = None) -> Array:
        """Pooled over the codes and the windows of each sequence, f32 [B, P]."""
        base, codes_BxWxLxN = batch[BASE], batch["codes"].astype(jnp.int32)
        rows, windows, length, levels = codes_BxWxLxN.shape
        flat = spec("batch", None, None)
        codes_RxLxN = jnp.reshape(codes_BxWxLxN, (rows * windows, length, levels), out_sharding=flat)
        lengths_R = jnp.reshape(batch["lengths"], (rows * windows,), out_sharding=spec("batch"))
        nothing_RxL = codes_RxLxN[..., 0] < 0
        adapter = lora.adapter(self.lora, params["lora"], key) if "lora" in params else None
        h_RxLxD, cls_RxD = Transformer(self.model, self.compute).apply(
            {"params": params.get("transformer", base["transformer"])},
            code_vectors(base["vectors"], codes_RxLxN), nothing_RxL, nothing_RxL[:, 0],
            jnp.maximum(lengths_R + self.model.cls, 1), None, adapter,
        )  # fmt: skip
        pooled_RxP = jnp.concatenate([pool(name, h_RxLxD, cls_RxD, lengths_R) for name in self.pools], axis=-1)
        pooled_BxWxP = jnp.reshape(pooled_RxP, (rows, windows, -1), out_sharding=flat)
        there_BxWx1 = (batch["lengths"] > 0).astype(jnp.float32)[..., None]
        return jnp.sum(pooled_BxWxP * there_BxWx1, axis=1) / jnp.maximum(jnp.sum(there_BxWx1, axis=1), 1)

    @property
    def pools(self) -> tuple[str, ...]:
        return tuple(self.pool.split("+"))

    @property
    def head(self) -> Head:
        return Head(self.outputs, self.hidden, self.dropout)

    def predict(self, params, codebooks: tuple, batch: dict) -> dict[str, Array]:
        """Logits [B, V] and loss [B] of each row, whole on every device."""
        logits_BxV = self.logits(params, batch)
        outputs = {"logits": logits_BxV, "loss": self.row_loss(logits_BxV, batch)}
        return jax.tree.map(lambda x: jax.reshard(x, jax.P()), outputs)

    def flops_per_code(self, slots: int) -> float:
        """Of one training step: forward, backward to the lowest trained layer, and its weights' gradients if they are
        trained."""
        passes = {"lora": 2, "full": 3, "head": 1}[self.method]
        return passes * self.model.flops_per_code(slots)


def kernel_of_padded(platform: str, model: TransformerConfig) -> str:
    """The attention kernel for sequences that end early, which splash does not know."""
    kernel = best_kernel(platform, 0, model.window, model.dtype)
    return "xla" if kernel == "splash" else kernel


def pool(name: str, h_RxLxD: Array, cls_RxD: Array, lengths_R: Array) -> Array:
    """f32 [R, D] of each window's first `lengths_R` codes, 0 where there are none; "cls": of CLS."""
    if name == "cls":
        return cls_RxD.astype(jnp.float32)
    there_RxLx1 = (jnp.arange(h_RxLxD.shape[1])[None] < lengths_R[:, None])[..., None]
    h_RxLxD = h_RxLxD.astype(jnp.float32)
    if name == "max":
        highest_RxD = jnp.max(jnp.where(there_RxLx1, h_RxLxD, -jnp.inf), axis=1)
        return jnp.where(lengths_R[:, None] > 0, highest_RxD, 0)
    total_RxD = jnp.sum(jnp.where(there_RxLx1, h_RxLxD, 0), axis=1)
    return total_RxD / jnp.maximum(lengths_R, 1)[:, None].astype(jnp.float32)


def born(transformer) -> dict:
    """Pretrained weights with the sharding that their training gave them."""
    axes = {name: ("layer", *of) for name, of in WEIGHT_AXES.items()} | {"project": (None, None, "embed")}
    return {name: jax.reshard(w, spec(*axes.get(name, (None,) * w.ndim))) for name, w in transformer.items()}
