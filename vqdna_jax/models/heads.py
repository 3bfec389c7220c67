"""Heads: what is read off the transformer's context vectors."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from vqdna_jax.models.layers import variance_scaling
from vqdna_jax.partition import gathered, sharded, spec


class Heads(nn.Module):
    """Context vectors [B, M, D] -> logits of the codes of every level, [B, M, K] each, and of the bases [B, M, R, 4].

    A level's logits are inner products with its frozen code vectors: similar codes get similar logits, and the classes
    cost no parameters. All heads begin at zero, so the first loss is the logarithm of the number of classes.
    """

    bases_per_code: int
    dtype: str

    @nn.compact
    def __call__(self, h_BxMxD: Array, codes_KxE: tuple[Array, ...]) -> tuple[list[Array], Array]:
        chex.assert_rank([h_BxMxD, *codes_KxE], [3, *[2] * len(codes_KxE)])
        zeros, width = nn.initializers.zeros, h_BxMxD.shape[-1]
        logits = []
        for n, e_KxE in enumerate(codes_KxE, start=1):
            size, channels = e_KxE.shape
            to_code_DxE = self.param(f"code_{n}", sharded(zeros, "embed", None), (width, channels))
            bias_K = self.param(f"code_{n}_bias", sharded(zeros, None), (size,))
            to_code_DxE = gathered(to_code_DxE, "embed", None).astype(self.dtype)
            u_BxMxE = jnp.einsum("bmd,de->bme", h_BxMxD, to_code_DxE) * channels**-0.5
            scores = jnp.einsum("bme,ke->bmk", u_BxMxE, e_KxE.astype(self.dtype), preferred_element_type=jnp.float32)
            logits.append(scores + bias_K[None, None])
        shape = (width, self.bases_per_code, 4)
        to_base_DxRx4 = gathered(self.param("base", sharded(zeros, "embed", None, None), shape), "embed", None, None)
        bias_Rx4 = self.param("base_bias", sharded(zeros, None, None), shape[1:])
        bases = jnp.einsum("bmd,drv->bmrv", h_BxMxD.astype(jnp.float32), to_base_DxRx4)
        return logits, bases + bias_Rx4[None, None]


class TokenHead(nn.Module):
    """Context vectors [B, M, D] -> logits f32 [B, M, K]: inner products with the table, as in `Heads`.

    It begins at zero, so the first loss is log K.
    """

    dtype: str

    @nn.compact
    def __call__(self, h_BxMxD: Array, table_KxE: Array) -> Array:
        chex.assert_rank([h_BxMxD, table_KxE], [3, 2])
        zeros, (size, channels) = nn.initializers.zeros, table_KxE.shape
        project_DxE = self.param("project", sharded(zeros, "embed", None), (h_BxMxD.shape[-1], channels))
        bias_K = self.param("bias", sharded(zeros, None), (size,))
        project_DxE = gathered(project_DxE, "embed", None).astype(self.dtype)
        u_BxMxE = jnp.einsum("bmd,de->bme", h_BxMxD, project_DxE) * channels**-0.5
        table = table_KxE.astype(self.dtype)
        return jnp.einsum("bme,ke->bmk", u_BxMxE, table, preferred_element_type=jnp.float32) + bias_K[None, None]


class Head(nn.Module):
    """Pooled features [B, P] -> logits f32 [B, V]: an MLP with one hidden layer, or a linear map where hidden is 0.

    The last layer begins at zero, so the first loss is that of knowing nothing.
    """

    outputs: int
    hidden: int
    dropout: float

    @nn.compact
    def __call__(self, x_BxP: Array, key: Array | None = None) -> Array:
        chex.assert_rank(x_BxP, 2)
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
