"""Operations in the form that a CPU has fast, where the program that is traced is for one; else jax's own.

The functions are the same to rounding, in value and gradient.
"""

import functools
import math
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from vqdna_jax.partition import is_for_cpu, with_halo

SECTIONS = 4  # of a sequence


def project(x: Array, w: Array, axes: int = 1, out_sharding: jax.P | None = None) -> Array:
    """The last `axes` axes of x [B, L, ...] contracted with the first of w.

    For a CPU the gradient of w is made in w's own layout. jax's rule makes its transpose, for which XLA copies the
    activations there.
    """
    return (_project if is_for_cpu() else _contract)(x, w, axes, out_sharding)


def _contract(x: Array, w: Array, axes: int, out_sharding: jax.P | None) -> Array:
    last, first = tuple(range(x.ndim - axes, x.ndim)), tuple(range(axes))
    return lax.dot_general(x, w, ((last, first), ((), ())), out_sharding=out_sharding)


_project = jax.custom_vjp(_contract, nondiff_argnums=(2, 3))


def _project_forward(x: Array, w: Array, axes: int, out_sharding: jax.P | None) -> tuple[Array, tuple[Array, Array]]:
    return _contract(x, w, axes, out_sharding), (x, w)


def _project_backward(
    axes: int, out_sharding: jax.P | None, saved: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
    x, w = saved
    rows, outputs = tuple(range(x.ndim - axes)), w.ndim - axes
    last = tuple(range(g.ndim - outputs, g.ndim)), tuple(range(axes, w.ndim))
    dx = lax.dot_general(g, w, (last, ((), ())), out_sharding=jax.typeof(x).sharding)
    spec_w = tuple(jax.typeof(w).sharding.spec)
    if math.prod(w.shape[:axes]) <= math.prod(w.shape[axes:]):
        return dx, lax.dot_general(x, g, ((rows, rows), ((), ())), out_sharding=jax.P(*spec_w))
    # The narrow side first, for that is the one a CPU turns; the barrier keeps XLA from changing the order back.
    turned = jax.P(*spec_w[axes:], *spec_w[:axes])
    dw = lax.optimization_barrier(lax.dot_general(g, x, ((rows, rows), ((), ())), out_sharding=turned))
    return dx, dw.transpose(*range(outputs, w.ndim), *range(outputs))


_project.defvjp(_project_forward, _project_backward)


def _loop(x: Array) -> Array:
    """x, made by one of XLA's own loops. Its library of kernels takes in what is multiplied and added around products
    and sums, but wants shifted arrays, spread vectors and even constants as whole arrays; it knows no clamp."""
    return lax.clamp(jnp.array(-jnp.inf, x.dtype), x, jnp.array(jnp.inf, x.dtype))


@jax.custom_vjp
def gelu(x: Array) -> Array:
    """nn.gelu, with a backward pass that reads x alone, on every device: jax's own keeps a second array of its size."""
    return _loop(nn.gelu(x)) if is_for_cpu() else nn.gelu(x)


def _gelu_backward(x: Array, g: Array) -> tuple[Array]:
    """x sigmoid(2 u) with u = sqrt(2 / pi) (x + 0.044715 x^3) is the same function."""
    x, g32 = x.astype(jnp.float32), g.astype(jnp.float32)
    scale = 2 * (2 / jnp.pi) ** 0.5
    s = jax.nn.sigmoid(scale * (x + 0.044715 * x**3))
    slope = s + x * s * (1 - s) * scale * (1 + 3 * 0.044715 * jnp.square(x))
    return ((g32 * slope).astype(g.dtype),)


gelu.defvjp(lambda x: (gelu(x), x), _gelu_backward)


def apart(x: Array) -> Array:
    """x. For a CPU its gradient is made by one of XLA's own loops: where no weight is trained, products, norms and all
    between them would become one kernel of the library, which is slow."""
    return (_apart if is_for_cpu() else lambda x: x)(x)


_apart = jax.custom_vjp(lambda x: x)
_apart.defvjp(lambda x: (x, None), lambda _, g: (_loop(g),))


def argmax(x: Array) -> Array:
    """jnp.argmax over the last axis, int32.

    For a CPU in two passes, highest and where: one over pairs of value and place XLA does not vectorise there.
    """
    if not is_for_cpu():
        return jnp.argmax(x, axis=-1).astype(jnp.int32)
    at = jnp.reshape(jnp.arange(x.shape[-1], dtype=jnp.int32), (1,) * (x.ndim - 1) + (-1,))
    found = (x == jnp.max(x, axis=-1, keepdims=True)) | (x != x)  # of NaN the maximum is NaN, which equals nothing
    return jnp.min(jnp.where(found, at, x.shape[-1]), axis=-1)


def depthwise(x_BxLxD: Array, kernel_KxD: Array) -> Array:
    """The "same" convolution along L with one kernel a channel, as shifted multiply-adds.

    For a CPU each of the three passes is one loop over the padded array: XLA there would keep an array for every tap.
    """
    return with_halo(_depthwise if is_for_cpu() else _taps, len(kernel_KxD) // 2, x_BxLxD, kernel_KxD)


def shift(x_BxLxD: Array, by: int) -> Array:
    """x moved along L so that position l holds x[l + by]; zeros come in at the ends ("same" padding)."""
    return with_halo(functools.partial(_shift, by=by), abs(by), x_BxLxD)


def _shift(x_BxLxD: Array, by: int) -> Array:
    left, right = max(-by, 0), max(by, 0)
    padded = jnp.pad(x_BxLxD, ((0, 0), (left, right), (0, 0)))
    return lax.slice_in_dim(padded, right, right + x_BxLxD.shape[1], axis=1)


def offsets(kernel_size: int) -> range:
    """Positions that a centred kernel of odd size reads, relative to its own."""
    return range(-(kernel_size // 2), kernel_size // 2 + 1)


def _taps(x_BxLxD: Array, kernel_KxD: Array) -> Array:
    taps = offsets(len(kernel_KxD))
    return cast(Array, sum(_shift(x_BxLxD, i) * kernel_KxD[k][None, None] for k, i in enumerate(taps)))


def _padded(x_BxLxD: Array, size: int) -> Array:
    return jnp.pad(x_BxLxD, ((0, 0), (size // 2, size // 2), (0, 0)))


def _one_loop(x_BxLxD: Array, kernel_KxD: Array) -> Array:
    length, padded = x_BxLxD.shape[1], _padded(x_BxLxD, len(kernel_KxD))
    taps = (padded[:, k : k + length] * w_D[None, None] for k, w_D in enumerate(kernel_KxD))
    return _loop(cast(Array, sum(taps)))


_depthwise = jax.custom_vjp(_one_loop)


def _depthwise_backward(saved: tuple[Array, Array], g_BxLxD: Array) -> tuple[Array, Array]:
    """In the sums for the kernel a loop adds sections of L first, of which the arrays are smaller."""
    x_BxLxD, kernel_KxD = saved
    length, padded = x_BxLxD.shape[1], _padded(x_BxLxD, len(kernel_KxD))
    section = length // SECTIONS if length % SECTIONS == 0 else length
    starts = range(0, length, section)

    def of_tap(k: int) -> Array:
        parts = (padded[:, k + i : k + i + section] * g_BxLxD[:, i : i + section] for i in starts)
        return jnp.sum(_loop(cast(Array, sum(parts))), axis=(0, 1))

    sums = [of_tap(k) for k in range(len(kernel_KxD))]
    return _one_loop(g_BxLxD, kernel_KxD[::-1]), jnp.stack(sums)


_depthwise.defvjp(lambda x, w: (_one_loop(x, w), (x, w)), _depthwise_backward)
