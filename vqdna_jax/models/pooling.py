"""Vectors of a sequence's codes as one vector of the sequence."""

import jax.numpy as jnp
from jax import Array

POOLS = ("mean", "max", "cls")


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
