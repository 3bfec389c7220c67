"""The layers of the tokenizer, and what the transformer shares with them.

Convolutions are shifted multiply-adds, or one matmul over shifted copies: on a CPU many times faster than `lax.conv`
(docs/results.md), on a TPU the same, where XLA fuses them.
"""

from collections.abc import Mapping
from typing import Annotated, Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from vqdna_jax.models.forms import depthwise, gelu, offsets, project, shift
from vqdna_jax.partition import gathered, sharded, spec
from vqdna_jax.runtime.typed import one_of

Params = Mapping[str, Any]  # a tree of arrays, by the names that flax gives
ACTIVATION = ("batch", "length", "act_embed")
Dtype = Annotated[str, one_of("float32", "bfloat16")]  # of activations and matmuls
truncated_normal = nn.initializers.truncated_normal
variance_scaling = nn.initializers.variance_scaling


def apply(module: nn.Module, params: Params, *inputs: Any) -> Any:
    """`module.apply` of parameters alone. Its own type allows for other state beside the outputs; there is none."""
    return module.apply({"params": params}, *inputs)


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis, statistics in f32."""

    dtype: jnp.dtype
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x_BxLxD: Array) -> Array:
        width = x_BxLxD.shape[-1]
        scale_D = self.param("scale", sharded(nn.initializers.ones, None), (width,))
        bias_D = self.param("bias", sharded(nn.initializers.zeros, None), (width,))
        return affine_norm(x_BxLxD, scale_D, bias_D, self.epsilon).astype(self.dtype)


def normalise(x_BxLxD: Array, epsilon: float = 1e-6) -> Array:
    """Mean 0 and variance 1 over the last axis, in f32."""
    x = x_BxLxD.astype(jnp.float32)
    mean = jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(x - mean), axis=-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + epsilon)


def affine_norm(x_BxLxD: Array, scale_D: Array, bias_D: Array, epsilon: float) -> Array:
    """Layer normalisation with its scale and bias, f32."""
    return normalise(x_BxLxD, epsilon) * scale_D[None, None] + bias_D[None, None]


def precision_of(dtype: str):
    """For networks whose numbers are to be those of another program: what is f32 must be so on every device."""
    return jax.default_matmul_precision("highest" if dtype == "float32" else "default")


class Conv1d(nn.Module):
    """Dense "same" convolution along L, for the few channels at the ends of the tokenizer (4 in, or 4 out)."""

    channels: int
    kernel_size: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_BxLxC: Array) -> Array:
        inputs, taps = x_BxLxC.shape[-1], self.kernel_size
        init = variance_scaling(1.0, "fan_in", "truncated_normal", in_axis=(0, 1), out_axis=2)
        kernel = self.param("kernel", sharded(init, "kernel", None, None), (taps, inputs, self.channels))
        bias = self.param("bias", sharded(nn.initializers.zeros, None), (self.channels,))
        x, kernel = x_BxLxC.astype(self.dtype), kernel.astype(self.dtype)
        if inputs < self.channels:  # gather the taps while the vectors are short, then one matmul
            taps_BxLxKC = jnp.concatenate([shift(x, i) for i in offsets(taps)], axis=-1)
            y = jnp.einsum("blc,cd->bld", taps_BxLxKC, kernel.reshape(taps * inputs, -1))
        else:  # one matmul to all taps at once, then shift the short results
            y_BxLxKC = jnp.einsum("blc,kcd->blkd", x, kernel)
            y = cast(Array, sum(shift(y_BxLxKC[:, :, k], i) for k, i in enumerate(offsets(taps))))
        return y + bias.astype(self.dtype)[None, None]


class DepthwiseConv(nn.Module):
    """Depth-wise "same" convolution along L: one kernel a channel."""

    kernel_size: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_BxLxD: Array) -> Array:
        width = x_BxLxD.shape[-1]
        init = truncated_normal(self.kernel_size**-0.5)
        kernel_KxD = self.param("kernel", sharded(init, "kernel", None), (self.kernel_size, width))
        bias_D = self.param("bias", sharded(nn.initializers.zeros, None), (width,))
        x, kernel = x_BxLxD.astype(self.dtype), kernel_KxD.astype(self.dtype)
        return depthwise(x, kernel) + bias_D.astype(self.dtype)[None, None]


class Mlp(nn.Module):
    """The inverted bottleneck: D -> F -> D with GELU."""

    hidden: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_BxLxD: Array) -> Array:
        width = x_BxLxD.shape[-1]
        init = variance_scaling(1.0, "fan_in", "truncated_normal")
        up_DxF = self.param("up", sharded(init, "embed", "mlp"), (width, self.hidden))
        up_bias_F = self.param("up_bias", sharded(nn.initializers.zeros, "mlp"), (self.hidden,))
        down_FxD = self.param("down", sharded(init, "mlp", "embed"), (self.hidden, width))
        down_bias_D = self.param("down_bias", sharded(nn.initializers.zeros, None), (width,))
        up, down = (
            gathered(up_DxF, "embed", "mlp").astype(self.dtype),
            gathered(down_FxD, "mlp", "embed").astype(self.dtype),
        )
        h_BxLxF = project(x_BxLxD, up) + up_bias_F.astype(self.dtype)[None, None]
        y_BxLxD = project(gelu(h_BxLxF), down, 1, spec(*ACTIVATION))
        return y_BxLxD + down_bias_D.astype(self.dtype)[None, None]


class ConvNeXtBlock(nn.Module):
    """Depth-wise convolution, LayerNorm, inverted bottleneck, residual (paper Sec. 3.3; no LayerScale, no drop-path).

    `valid_BxLx1` is 1 inside a sequence and 0 beyond its end. Zeroing what the convolution reads there makes a padded
    sequence, or a window of a chromosome, see exactly the "same" padding that the bare sequence sees.
    """

    hidden: int
    kernel_size: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_BxLxD: Array, valid_BxLx1: Array | None = None) -> Array:
        seen = x_BxLxD if valid_BxLx1 is None else x_BxLxD * valid_BxLx1
        h = DepthwiseConv(self.kernel_size, self.dtype, name="conv")(seen)
        h = LayerNorm(self.dtype, name="norm")(h)
        return x_BxLxD + Mlp(self.hidden, self.dtype, name="mlp")(h)
