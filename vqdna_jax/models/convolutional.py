"""A small convolutional network of bases, for one device: a control, which is trained from nothing on a set's own rows.

Convolutions are one product over shifted copies, and vectors are pooled early: on a CPU a row of 100 bases costs about
0.05 GFLOP with its gradients.
"""

import math

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from vqdna_jax.genome.alphabet import N

SEGMENTS = 10  # at most, whose means are read one by one: where a motif lies


class Convolutional(nn.Module):
    """Bases uint8 [B, S], N beyond the end of a sequence, to logits [B, V]; dropout where there is a `key`.

    Motifs are read by the first convolution on one strand, their neighbourhoods by the others. The head sees where they
    are (means of segments) and whether (maximum and mean of all places).
    """

    outputs: int
    motifs: int = 256
    width: int = 128
    hidden: int = 512
    dropout: float = 0.3

    @nn.compact
    def __call__(self, bases_BxS: Array, key: Array | None = None) -> Array:
        length = bases_BxS.shape[1]
        pool = 4 << max(0, round(math.log2(length / 128)))  # of long sequences more, so that they cost little more
        bases_BxS = jnp.pad(bases_BxS, ((0, 0), (0, -length % pool)), constant_values=N)
        known_BxSx1 = (bases_BxS != N)[..., None].astype(jnp.float32)
        h = _pooled(nn.gelu(nn.Dense(self.motifs)(shifted(nn.one_hot(bases_BxS, N), 13))) * known_BxSx1, pool)
        kept_BxLx1 = _pooled(known_BxSx1, pool)
        h = nn.gelu(nn.Dense(self.width)(shifted(nn.LayerNorm()(h) * kept_BxLx1, 5))) * kept_BxLx1
        h += nn.gelu(nn.Dense(self.width)(shifted(nn.LayerNorm()(h) * kept_BxLx1, 5))) * kept_BxLx1
        read = _dropped(nn.LayerNorm()(_read(h, kept_BxLx1)), self.dropout, key)
        return nn.Dense(self.outputs)(nn.gelu(nn.Dense(self.hidden)(read)))


def shifted(x_BxLxC: Array, taps: int) -> Array:
    """[B, L, taps * C]: each place beside its neighbours, zeros beyond the ends."""
    length, side = x_BxLxC.shape[1], taps // 2
    x_BxLxC = jnp.pad(x_BxLxC, ((0, 0), (side, side), (0, 0)))
    return jnp.concatenate([x_BxLxC[:, tap : tap + length] for tap in range(taps)], axis=-1)


def _pooled(x_BxLxC: Array, places: int) -> Array:
    rows, length, channels = x_BxLxC.shape
    return x_BxLxC.reshape(rows, length // places, places, channels).max(axis=2)


def _read(h_BxLxC: Array, kept_BxLx1: Array) -> Array:
    """Means of segments, of all, and the maximum, f32 [B, P]."""
    rows, length, channels = h_BxLxC.shape
    places = -(-length // SEGMENTS)
    segments = jnp.pad(h_BxLxC, ((0, 0), (0, -length % places), (0, 0))).reshape(rows, -1, places, channels)
    mean = h_BxLxC.sum(axis=1) / jnp.maximum(kept_BxLx1.sum(axis=1), 1)
    return jnp.concatenate([segments.mean(axis=2).reshape(rows, -1), mean, h_BxLxC.max(axis=1)], axis=-1)


def _dropped(x: Array, rate: float, key: Array | None) -> Array:
    return nn.Dropout(rate, deterministic=key is None)(x, rng=key)
