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
from jax.typing import DTypeLike

from vqdna_jax.models.forms import depthwise, gelu, offsets, project, shift
from vqdna_jax.partition import gathered, is_for_gpu, sharded, spec
from vqdna_jax.runtime.typed import one_of

Params = Mapping[str, Any]  # a tree of arrays, by the names that flax gives
ACTIVATION = ("batch", "length", "act_embed")
Dtype = Annotated[str, one_of("float32", "bfloat16")]  # of activations and matmuls
truncated_normal = nn.initializers.truncated_normal
variance_scaling = nn.initializers.variance_scaling


def apply(module: nn.Module, params: Params, *inputs: Any) -> Any:
    """`module.apply` of parameters alone. Its own type allows for other state beside the outputs; there is none."""
    return module.apply({"params": params}, *inputs)


class Affine(nn.Module):
    """Scale and bias [D], f32, of a layer normalisation."""

    @nn.compact
    def __call__(self, width: int) -> tuple[Array, Array]:
        return _scale_and_bias(self, width)


def _scale_and_bias(module: nn.Module, width: int) -> tuple[Array, Array]:
    """Of a norm, made as parameters of the `module`."""
    scale_D = module.param("scale", sharded(nn.initializers.ones, None), (width,))
    return scale_D, module.param("bias", sharded(nn.initializers.zeros, None), (width,))


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis, statistics in f32."""

    dtype: jnp.dtype
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x_BxLxD: Array) -> Array:
        scale_D, bias_D = _scale_and_bias(self, x_BxLxD.shape[-1])
        normal_BxLxD = normalise(x_BxLxD, self.dtype, self.epsilon)
        return (normal_BxLxD * scale_D[None, None] + bias_D[None, None]).astype(self.dtype)


def normalise(x_BxLxD: Array, dtype: DTypeLike = jnp.float32, epsilon: float = 1e-6) -> Array:
    """Mean 0 and variance 1 over the last axis, found in f32. The backward pass reads what came out: what went in need
    not be kept for it."""
    return _normalise(x_BxLxD, jnp.dtype(dtype), epsilon)


def _with_inverse(x_BxLxD: Array, dtype: jnp.dtype, epsilon: float) -> tuple[Array, Array]:
    x = x_BxLxD.astype(jnp.float32)
    x -= jnp.mean(x, axis=-1, keepdims=True)
    inverse_BxLx1 = jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + epsilon)
    return (x * inverse_BxLx1).astype(dtype), inverse_BxLx1


_normalise = jax.custom_vjp(lambda *x: _with_inverse(*x)[0], nondiff_argnums=(1, 2))


def _normalise_forward(x_BxLxD: Array, dtype: jnp.dtype, epsilon: float) -> tuple[Array, Any]:
    normal_BxLxD, inverse_BxLx1 = _with_inverse(x_BxLxD, dtype, epsilon)
    return normal_BxLxD, (normal_BxLxD, inverse_BxLx1, jnp.zeros((), x_BxLxD.dtype))


def _normalise_backward(dtype: jnp.dtype, epsilon: float, saved: Any, g_BxLxD: Array) -> tuple[Array]:
    if is_for_gpu():  # behind the barrier XLA does not make what came out again from what went in
        saved, g_BxLxD = jax.lax.optimization_barrier((saved, g_BxLxD))
    normal_BxLxD, inverse_BxLx1, zero = saved
    normal, g = normal_BxLxD.astype(jnp.float32), g_BxLxD.astype(jnp.float32)
    along_BxLx1 = jnp.mean(g * normal, axis=-1, keepdims=True)
    dx_BxLxD = inverse_BxLx1 * (g - jnp.mean(g, axis=-1, keepdims=True) - normal * along_BxLx1)
    return (dx_BxLxD.astype(zero.dtype),)


_normalise.defvjp(_normalise_forward, _normalise_backward)


def affine_norm(x_BxLxD: Array, scale_D: Array, bias_D: Array, epsilon: float) -> Array:
    """Layer normalisation with its scale and bias, f32."""
    return normalise(x_BxLxD, epsilon=epsilon) * scale_D[None, None] + bias_D[None, None]


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
    """The inverted bottleneck, D -> F -> D with GELU, of the affine map `scale`, `bias` of x."""

    hidden: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_BxLxD: Array, scale_D: Array, bias_D: Array) -> Array:
        width = x_BxLxD.shape[-1]
        init = variance_scaling(1.0, "fan_in", "truncated_normal")
        up_DxF = self.param("up", sharded(init, "embed", "mlp"), (width, self.hidden))
        up_bias_F = self.param("up_bias", sharded(nn.initializers.zeros, "mlp"), (self.hidden,))
        down_FxD = self.param("down", sharded(init, "mlp", "embed"), (self.hidden, width))
        down_bias_D = self.param("down_bias", sharded(nn.initializers.zeros, None), (width,))
        # The affine map is one of the weights, which are few, not of the activations; and of their shards.
        scale_D, bias_D = (jax.reshard(x_D, spec("embed")) for x_D in (scale_D, bias_D))
        up_bias_F += jnp.einsum("d,df->f", bias_D, up_DxF, precision="highest", out_sharding=spec("mlp"))
        up_DxF = gathered(up_DxF * scale_D[:, None], "embed", "mlp").astype(self.dtype)
        down_FxD = gathered(down_FxD, "mlp", "embed").astype(self.dtype)
        h_BxLxF = project(x_BxLxD, up_DxF) + up_bias_F.astype(self.dtype)[None, None]
        y_BxLxD = project(gelu(h_BxLxF), down_FxD, 1, spec(*ACTIVATION))
        return y_BxLxD + down_bias_D.astype(self.dtype)[None, None]


def mlp_of_norm(x_BxLxD: Array, hidden: int, dtype: jnp.dtype) -> Array:
    """LayerNorm and Mlp, as the parameters `norm` and `mlp` of the module that calls."""
    scale_D, bias_D = Affine(name="norm")(x_BxLxD.shape[-1])
    return Mlp(hidden, dtype, name="mlp")(normalise(x_BxLxD, dtype), scale_D, bias_D)


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
        return x_BxLxD + mlp_of_norm(h, self.hidden, self.dtype)
