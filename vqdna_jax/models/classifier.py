"""A transformer that reads the codes of sequences, pools its vectors, and has a head for their labels."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

from vqdna_jax.models import lora
from vqdna_jax.models.heads import Head
from vqdna_jax.models.layers import Params, apply
from vqdna_jax.models.lora import Adapter, LoraConfig
from vqdna_jax.models.pooling import pool
from vqdna_jax.models.quantize import code_vectors
from vqdna_jax.models.transformer import Compute, Transformer, TransformerConfig, born
from vqdna_jax.partition import spec

METHODS = ("lora", "full", "head")
Method = Literal["lora", "full", "head"]


@dataclasses.dataclass(frozen=True)
class Classifier:
    """Codes of sequences to one row of logits each, or to their standardised value.

    Attributes:
        pool: of the codes of a window; several joined by "+" are concatenated. Windows are averaged.
        hidden: of an MLP head; 0: the head is linear.
        dropout: of the head.
    """

    model: TransformerConfig
    compute: Compute
    outputs: int
    pool: str = "mean"
    hidden: int = 0
    dropout: float = 0.0

    @property
    def pools(self) -> tuple[str, ...]:
        return tuple(self.pool.split("+"))

    @property
    def head(self) -> Head:
        return Head(self.outputs, self.hidden, self.dropout)

    def logits(self, head: Params, features_BxP: Array, key: Array | None = None) -> Array:
        """f32 [B, V] of `features`; dropout where there is a `key`."""
        return apply(self.head, head, features_BxP, key)

    def features(
        self,
        transformer: Params,
        vectors_KxE: tuple[Array, ...],
        codes_BxWxLxN: Array,
        lengths_BxW: Array,
        adapter: Adapter | None = None,
    ) -> Array:
        """Pooled over the first `lengths_BxW` codes of each window and over the windows that have any, f32 [B, P].

        Args:
            vectors_KxE: of each level's codes, as the transformer reads them.
        """
        rows, windows, length, levels = codes_BxWxLxN.shape
        flat = spec("batch", None, None)
        codes_RxLxN = jnp.reshape(codes_BxWxLxN.astype(jnp.int32), (rows * windows, length, levels), out_sharding=flat)
        lengths_R = jnp.reshape(lengths_BxW, (rows * windows,), out_sharding=spec("batch"))
        unmasked_RxL = jnp.zeros_like(codes_RxLxN[..., 0], bool)
        h_RxLxD, cls_RxD = apply(
            Transformer(self.model, self.compute),
            transformer,
            code_vectors(vectors_KxE, codes_RxLxN),
            unmasked_RxL,
            unmasked_RxL[:, 0],
            jnp.maximum(lengths_R + self.model.cls, 1),
            None,
            adapter,
        )
        pooled_RxP = jnp.concatenate([pool(name, h_RxLxD, cls_RxD, lengths_R) for name in self.pools], axis=-1)
        pooled_BxWxP = jnp.reshape(pooled_RxP, (rows, windows, -1), out_sharding=flat)
        there_BxWx1 = (lengths_BxW > 0).astype(jnp.float32)[..., None]
        return jnp.sum(pooled_BxWxP * there_BxWx1, axis=1) / jnp.maximum(jnp.sum(there_BxWx1, axis=1), 1)


def init(
    network: Classifier, method: Method, factors: LoraConfig, transformer: Params, rows: int, key: Array
) -> Params:
    """What fine-tuning by `method` trains, before its first step: a head, and by "lora" the factors, by "full" the
    transformer too."""
    lora_key, head_key = jax.random.split(key)
    width = network.model.width * len(network.pools)
    pooled_BxP = jnp.zeros((rows, width), out_sharding=spec("batch", None))
    params = {"head": network.head.init(head_key, pooled_BxP)["params"]}
    if method == "lora":
        return params | {"lora": lora.init(factors, transformer, lora_key)}
    return params | ({"transformer": born(transformer)} if method == "full" else {})
