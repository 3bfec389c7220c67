"""Random draws with the bits of jax.random, which a CPU makes in one loop."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from vqdna_jax.partition import is_for_cpu

ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)
PARITY = np.uint32(0x1BD11BDA)


def bernoulli(key: Array, share: float, shape: tuple[int, ...], out_sharding: jax.P) -> Array:
    """jax.random.bernoulli: True with probability `share`.

    jax has a loop over rounds on a CPU, which writes arrays of its state; here the rounds follow each other in
    registers, for the size of a dropout mask four times as fast.
    """
    plain = str(jax.random.key_impl(key)) == "threefry2x32" and jax.config.jax_threefry_partitionable  # type: ignore[attr-defined]
    if not (is_for_cpu() and plain and math.prod(shape) < 2**32):
        return jax.random.bernoulli(key, share, shape, out_sharding=out_sharding)
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    iotas = (lax.broadcasted_iota(jnp.uint32, shape, axis, out_sharding=out_sharding) for axis in range(len(shape)))
    count = sum((iota * np.uint32(stride) for iota, stride in zip(iotas, strides)), jnp.uint32(0))
    left, right = threefry2x32(jax.random.key_data(key), jnp.zeros_like(count), count)
    return ((left ^ right) >> 9).astype(jnp.float32) * np.float32(2**-23) < jnp.float32(share)


def threefry2x32(key_2: Array, left: Array, right: Array) -> tuple[Array, Array]:
    """Threefry-2x32 with 20 rounds (Salmon et al., SC 2011), uint32."""
    keys = key_2[0], key_2[1], key_2[0] ^ key_2[1] ^ PARITY
    left, right = left + keys[0], right + keys[1]
    for group in range(5):
        for by in ROTATIONS[group % 2]:
            left = left + right
            right = left ^ (right << by | right >> (32 - by))
        left = left + keys[(group + 1) % 3]
        right = right + keys[(group + 2) % 3] + np.uint32(group + 1)
    return left, right
