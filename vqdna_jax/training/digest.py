"""A 32-bit digest of an array that does not depend on how it is split over devices."""

import jax
import jax.numpy as jnp
from jax import Array


def digest(x: Array) -> Array:
    """uint32 []: the sum of bits times an odd weight of the position, modulo 2^32.

    Sums of integers are the same in any order, so any mesh agrees; any single changed element changes it. For dtypes of
    at most 32 bits.
    """
    x = x.astype(jnp.uint8) if x.dtype == jnp.bool_ else x
    bits = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * x.dtype.itemsize}")).astype(jnp.uint32)
    position = jnp.zeros(x.shape, jnp.uint32)
    for axis, size in enumerate(x.shape):
        position = position * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    weight = 2 * (position * jnp.uint32(2654435761) ^ (position >> 15)) + 1
    return jnp.sum(bits * weight, dtype=jnp.uint32)


def tree_digest(tree) -> Array:
    """uint32 []: of all leaves, in their order; the same leaves in another order have another one."""
    total = jnp.zeros((), jnp.uint32)
    for leaf in jax.tree.leaves(tree):
        total = total * jnp.uint32(1000003) + digest(leaf)
    return total


@jax.jit
def _digests(leaves: list[Array]) -> list[Array]:
    return [digest(leaf) for leaf in leaves]


def leaf_digests(tree) -> dict[str, int]:
    """The digest of every leaf by its name in the tree."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    digests = jax.device_get(_digests([leaf for _, leaf in leaves]))
    return {jax.tree_util.keystr(path): int(value) for (path, _), value in zip(leaves, digests, strict=True)}
