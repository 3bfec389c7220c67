"""What tasks share: strands, masked positions, cross-entropies."""

import jax
import jax.numpy as jnp
import optax
from jax import Array

from vqdna_jax.partition import spec

UNKNOWN = 4  # N, and a base hidden from the encoder
Metrics = dict[str, Array]


def random_strand(bases_BxS: Array, key: Array) -> Array:
    """Each window as it is or as its reverse complement, with even odds."""
    reverse_B = jax.random.bernoulli(key, 0.5, bases_BxS.shape[:1], out_sharding=spec("batch"))
    return jnp.where(reverse_B[:, None], reverse_complement(bases_BxS), bases_BxS)


def reverse_complement(bases_BxS: Array) -> Array:
    return jnp.where(bases_BxS < UNKNOWN, 3 - bases_BxS, bases_BxS)[:, ::-1]


def take(x_BxLxX: Array, positions_BxM: Array) -> Array:
    """x at the positions of each window, [B, M, ...]; every device has whole windows."""
    rows = spec("batch", *[None] * (x_BxLxX.ndim - 1))
    local = jax.vmap(lambda x, positions: x[positions])
    return jax.shard_map(local, in_specs=(rows, spec("batch", None)), out_specs=rows)(x_BxLxX, positions_BxM)


def cross_entropy(logits: Array, labels: Array) -> tuple[Array, Array]:
    """(nats, whether the likeliest class is the label), both f32 and of the shape of `labels`."""
    loss = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels.astype(jnp.int32))
    return loss, (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)


def _mean(values: Array, counted: Array, axis=None) -> Array:
    """Mean of the counted values; 0 where none counts."""
    weights = jnp.broadcast_to(counted, values.shape).astype(jnp.float32)
    return jnp.sum(values * weights, axis=axis) / jnp.maximum(jnp.sum(weights, axis=axis), 1)
