"""Heads: what is read off the transformer's context vectors."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from vqdna_jax.models.layers import affine_norm, precision_of, variance_scaling
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
    """Pooled features [B, P] -> logits f32 [B, V]: a linear map of standardised features, and beside it, where hidden
    is not 0, an MLP with one hidden layer.

    `mean`, `scale`, `kernel` and `bias` begin with what a linear probe of the features gave, or at 0 and 1; the first
    two stay, and no gradient reaches the rows of `kernel` of the features in `kept`, spans of them. The MLP begins at
    zero. `form` 1 is that of older exports: no standardisation, and the MLP alone.
    """

    outputs: int
    hidden: int
    dropout: float
    form: int = 2
    kept: tuple[tuple[int, int], ...] = ()

    @nn.compact
    def __call__(self, x_BxP: Array, key: Array | None = None) -> Array:
        chex.assert_rank(x_BxP, 2)
        if self.form == 1:
            return self._linear(self._dropped(self._hidden(x_BxP) if self.hidden else x_BxP, key))
        widths = (x_BxP.shape[-1],)
        mean_P = self.param("mean", sharded(nn.initializers.zeros, None), widths)
        scale_P = self.param("scale", sharded(nn.initializers.ones, None), widths)
        x_BxP = self._dropped((x_BxP - lax.stop_gradient(mean_P)[None]) / lax.stop_gradient(scale_P)[None], key)
        logits_BxV = self._linear(x_BxP)
        if self.hidden:
            kernel = self.param("out_kernel", sharded(nn.initializers.zeros, None, None), (self.hidden, self.outputs))
            logits_BxV += jnp.einsum("bh,hv->bv", self._hidden(x_BxP), kernel, out_sharding=spec("batch", None))
        return logits_BxV

    def _linear(self, x_BxP: Array) -> Array:
        kernel = self.param("kernel", sharded(nn.initializers.zeros, None, None), (x_BxP.shape[-1], self.outputs))
        bias = self.param("bias", sharded(nn.initializers.zeros, None), (self.outputs,))
        if self.kept:
            at_Px1 = jnp.arange(x_BxP.shape[-1])[:, None]
            kept_Px1 = functools.reduce(
                jnp.logical_or, [(at_Px1 >= start) & (at_Px1 < end) for start, end in self.kept]
            )
            kernel = jnp.where(kept_Px1, lax.stop_gradient(kernel), kernel)
        return jnp.einsum("bp,pv->bv", x_BxP, kernel, out_sharding=spec("batch", None)) + bias[None]

    def _hidden(self, x_BxP: Array) -> Array:
        init = variance_scaling(1.0, "fan_in", "truncated_normal", in_axis=0, out_axis=1)
        kernel = self.param("hidden_kernel", sharded(init, None, None), (x_BxP.shape[-1], self.hidden))
        bias = self.param("hidden_bias", sharded(nn.initializers.zeros, None), (self.hidden,))
        return nn.gelu(jnp.einsum("bp,ph->bh", x_BxP, kernel, out_sharding=spec("batch", None)) + bias[None])

    def _dropped(self, x_BxP: Array, key: Array | None) -> Array:
        if key is None or not self.dropout:
            return x_BxP
        kept = jax.random.bernoulli(key, 1 - self.dropout, x_BxP.shape, out_sharding=spec("batch", None))
        return jnp.where(kept, x_BxP / (1 - self.dropout), 0)


class LanguageHead(nn.Module):
    """Context vectors [B, M, D] -> logits f32 [B, M, V] as published models name tokens: by a matrix of their own, or
    by the table of tokens; BERT's after a layer of its own, `transform`."""

    transform: bool
    tied: bool
    epsilon: float
    dtype: str

    @nn.compact
    def __call__(self, h_BxMxD: Array, table_VxD: Array) -> Array:
        chex.assert_rank([h_BxMxD, table_VxD], [3, 2])
        zeros, ones, normal = nn.initializers.zeros, nn.initializers.ones, nn.initializers.normal(0.02)
        (size, width), own = table_VxD.shape, table_VxD
        with precision_of(self.dtype):
            if self.transform:
                dense_DxD = self.param("dense", sharded(normal, None, None), (width, width))
                dense_bias_D, norm_bias_D = (
                    self.param(f"{name}_bias", sharded(zeros, None), (width,)) for name in ("dense", "norm")
                )
                scale_D = self.param("norm_scale", sharded(ones, None), (width,))
                h_BxMxD = jnp.einsum("bmd,de->bme", h_BxMxD, dense_DxD) + dense_bias_D[None, None]
                h_BxMxD = affine_norm(jax.nn.gelu(h_BxMxD, approximate=False), scale_D, norm_bias_D, self.epsilon)
            if not self.tied:
                own = self.param("matrix", sharded(normal, None, None), (size, width))
            logits_BxMxV = jnp.einsum("bmd,vd->bmv", h_BxMxD, own, preferred_element_type=jnp.float32)
        if not self.transform:
            return logits_BxMxV
        return logits_BxMxV + self.param("bias", sharded(zeros, None), (size,))[None, None]
