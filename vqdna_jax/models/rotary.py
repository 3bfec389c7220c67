"""Rotary positions (arXiv 2104.09864): channel pairs (c, c + C/2) turned by l * base^(-2c / C), in f32."""

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from vqdna_jax.partition import is_for_cpu


def rotate(x_BxLxHxC: Array, base: float) -> Array:
    return (by_reversal if is_for_cpu() else by_halves)(x_BxLxHxC, base)


def by_halves(x_BxLxHxC: Array, base: float) -> Array:
    length, channels = x_BxLxHxC.shape[1], x_BxLxHxC.shape[-1]
    turns_LxC = jnp.arange(length)[:, None] * base ** (-jnp.arange(0, channels, 2)[None] / channels)
    sin, cos = (f(turns_LxC)[None, :, None] for f in (jnp.sin, jnp.cos))
    a, b = jnp.split(x_BxLxHxC.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x_BxLxHxC.dtype)


def by_reversal(x_BxLxHxC: Array, base: float) -> Array:
    """The halves are swapped by a reversal, not by a concatenation, over which a CPU's loops are slow; and sines are
    constants of the program, for XLA would make them again for every sequence and head there."""
    length, channels = x_BxLxHxC.shape[1], x_BxLxHxC.shape[-1]
    turns_LxC = np.arange(length)[:, None] * base ** (-np.arange(0, channels, 2) / channels)
    cos, sin = (f(turns_LxC).astype(np.float32) for f in (np.cos, np.sin))
    own, other = np.concatenate([cos, cos], axis=1), np.concatenate([-sin, sin], axis=1)
    x = x_BxLxHxC.astype(jnp.float32)
    swapped = lax.rev(x.reshape(*x.shape[:-1], 2, -1), (x.ndim - 1,)).reshape(x.shape)
    return (x * own[None, :, None] + swapped * other[None, :, None]).astype(x_BxLxHxC.dtype)
