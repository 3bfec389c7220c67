"""Vector quantization with EMA codebooks, as pure functions.

A codebook is a pair of exponential moving averages over the vectors assigned to each code, (counts, sums); its codes
are sums / counts. Arrays named _T have an entry per code of all windows on one device.
Gradients never touch it: `ema_update` is a step of its own, beside the optimizer's. No array of [tokens, K] is kept:
on a TPU the scores fuse into their argmax, elsewhere they are made one block of tokens at a time.
"""

import functools
from collections.abc import Sequence
from typing import cast

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array, lax

from vqdna_jax.models.forms import argmax
from vqdna_jax.partition import BATCH, first_here, spec, split_evenly, summed

BLOCK_TOKENS = 1024  # the scores of one block stay in a core's cache
GPU_BLOCK_TOKENS = 65536  # a GPU is kept busy, and its memory not filled
GPU_SUMS = 16  # of every code, added at the end: where few codes hold all tokens, additions wait for each other
TOKENS = ("batch", "length", "act_embed")


@flax.struct.dataclass
class Codebook:
    """EMA statistics of one level, f32: vectors per step that fall to each code, and their sums."""

    counts_K: Array
    sums_KxD: Array

    def codes_KxD(self) -> Array:
        return self.sums_KxD / jnp.maximum(self.counts_K, 1e-12)[:, None]


@flax.struct.dataclass
class Assignments:
    """What one global batch says to one codebook: vectors per code, their sums, K vectors drawn from the batch."""

    counts_K: Array
    sums_KxD: Array
    candidates_KxD: Array


@flax.struct.dataclass
class Quantized:
    """Codes, the embedding the decoder reads, the commitment loss, and each level's input H (for its statistics)."""

    codes_BxLxN: Array
    embedding_BxLxD: Array
    commitment: Array
    inputs_BxLxD: tuple[Array, ...]


def hierarchical(features_BxLxD: Sequence[Array], codes_KxD: Sequence[Array], dtype: jnp.dtype) -> Quantized:
    """HRQ (paper Eq. 6): H1 = Z1, Hn = 2 Zn - e(Mn-1); the embedding is the mean of the quantised H's.

    With one level this is plain VQ. Residuals are taken in f32, because bf16 would lose the fine level; the lookup
    reads them in `dtype`. The straight-through estimator passes the embedding's gradient to every H, and so to every Z;
    the commitment is the mean over tokens and width of |H - sg(e)|^2, summed over levels.
    """
    codes, quantised, inputs, commitment = [], [], [], jnp.zeros(())
    previous = None
    for z, e in zip(features_BxLxD, codes_KxD, strict=True):
        h, e = level_input(z, previous), lax.stop_gradient(e)
        codes.append(assign(lax.stop_gradient(h).astype(dtype), e))
        previous = look_up(codes[-1], e)
        commitment += jnp.mean(jnp.square(h - previous))
        quantised.append(h + lax.stop_gradient(previous - h))
        inputs.append(lax.stop_gradient(h))
    return Quantized(jnp.stack(codes, axis=-1), cast(Array, sum(quantised)) / len(quantised), commitment, tuple(inputs))


def level_input(z_BxLxD: Array, previous_BxLxD: Array | None) -> Array:
    """H of a level, f32, from its features and the vectors of the codes of the level above, if there is one."""
    z_BxLxD = z_BxLxD.astype(jnp.float32)
    return z_BxLxD if previous_BxLxD is None else 2 * z_BxLxD - previous_BxLxD


def embed(codes_BxLxN: Array, codes_KxD: Sequence[Array]) -> Array:
    """The decoder's input for given codes: the mean over levels of their vectors, f32 [B, L, D]."""
    vectors = [look_up(codes_BxLxN[..., n], e) for n, e in enumerate(codes_KxD)]
    return cast(Array, sum(vectors)) / len(vectors)


def standardised(codes_KxD: Array) -> Array:
    """Code vectors with mean 0 over the codebook and variance 1 over all, f32: what a model of the codes reads."""
    centred = codes_KxD - jnp.mean(codes_KxD, axis=0, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(jnp.square(centred)) + 1e-12)


def assign(z_BxLxD: Array, codes_KxD: Array) -> Array:
    """Index of the nearest code for every token, int32 [B, L]; each device looks up its own tokens."""

    def local(z: Array, e: Array) -> Array:
        return nearest(z.reshape(-1, z.shape[-1]), e).reshape(z.shape[:2])

    return jax.shard_map(local, in_specs=(spec(*TOKENS), jax.P()), out_specs=spec("batch", "length"))(
        z_BxLxD, codes_KxD
    )


def nearest(z_TxD: Array, codes_KxD: Array) -> Array:
    """Index of the nearest code (paper Sec. 3.1): argmin |z - e| = argmax z.e - |e|^2 / 2, scores in f32. int32 [T].

    The norm is of the codes as rounded to z's dtype: with f32 norms and bf16 codes, latents far from the origin get
    wrong codes.
    """
    rounded = codes_KxD.astype(z_TxD.dtype)
    half_norm_K = 0.5 * jnp.sum(jnp.square(rounded.astype(jnp.float32)), axis=-1)

    def fused(z: Array) -> Array:
        dot = jnp.einsum("td,kd->tk", z, rounded, precision="highest", preferred_element_type=jnp.float32)
        return argmax(dot - half_norm_K[None])

    def blocked(z: Array, size: int = BLOCK_TOKENS) -> Array:
        whole = z.shape[0] // size * size
        blocks = lax.map(fused, z[:whole].reshape(-1, size, z.shape[1])).ravel()
        return jnp.concatenate([blocks, fused(z[whole:])]) if whole < z.shape[0] else blocks

    large = functools.partial(blocked, size=GPU_BLOCK_TOKENS)
    return lax.platform_dependent(z_TxD, tpu=fused, cuda=large, default=blocked)


def look_up(codes_BxL: Array, codes_KxD: Array) -> Array:
    """The vectors of codes, split as these are."""
    rows, length = spec("batch")[0], jax.typeof(codes_BxL).sharding.spec[1]
    return codes_KxD.at[codes_BxL].get(out_sharding=jax.P(rows, length, None))


def statistics(h_BxLxD: Array, codes_BxL: Array, codebook_size: int, key: Array, every: int = 1) -> Assignments:
    """Counts and sums per code over rows 0, `every`, 2 `every`, ... of the global batch, and K of their vectors drawn
    with `key`: one psum.

    The drawn vectors are chosen by their place in the global batch, so every mesh draws the same ones.
    """
    batch, length, _ = h_BxLxD.shape
    drawn_K = jax.random.randint(key, (codebook_size,), 0, -(-batch // every) * length)

    def local(h: Array, codes: Array, drawn_K: Array) -> Assignments:
        first_row = lax.axis_index(BATCH) * h.shape[0]
        counts_B = (first_row + jnp.arange(h.shape[0])) % every == 0
        codes = jnp.where(counts_B[:, None], codes, codebook_size)  # beyond the codebook: counted nowhere
        counts_K, sums_KxD = sum_by_code(h.reshape(-1, h.shape[-1]), codes.ravel(), codebook_size)
        row_K = drawn_K // length * every - first_row
        at_K = drawn_K % length - first_here(h.shape[1])
        here_K = (row_K >= 0) & (row_K < h.shape[0]) & (at_K >= 0) & (at_K < h.shape[1])
        vectors_KxD = h[jnp.where(here_K, row_K, 0), jnp.where(here_K, at_K, 0)]
        candidates_KxD = jnp.where(here_K[:, None], vectors_KxD, 0).astype(jnp.float32)
        return summed(Assignments(counts_K, sums_KxD, candidates_KxD))

    in_specs = (spec(*TOKENS), spec("batch", "length"), jax.P())
    return jax.shard_map(local, in_specs=in_specs, out_specs=jax.P())(h_BxLxD, codes_BxL, drawn_K)


def sum_by_code(h_TxD: Array, codes_T: Array, codebook_size: int) -> tuple[Array, Array]:
    """(counts [K], sums [K, D]) in f32."""

    def one_hot(h: Array, codes: Array) -> tuple[Array, Array]:  # a TPU fuses the one-hot and has slow scatters
        one_hot_TxK = jax.nn.one_hot(codes, codebook_size, dtype=h.dtype)
        sums = jnp.einsum("tk,td->kd", one_hot_TxK, h, precision="highest", preferred_element_type=jnp.float32)
        return jnp.sum(one_hot_TxK, axis=0, dtype=jnp.float32), sums

    apart, scattered = (functools.partial(f, codebook_size) for f in (scattered_apart, scattered_sums))
    return lax.platform_dependent(h_TxD, codes_T, tpu=one_hot, cuda=apart, default=scattered)


def scattered_sums(size: int, h_TxD: Array, codes_T: Array) -> tuple[Array, Array]:
    """(counts [size], sums [size, D]) in f32; a code of `size` or above counts nowhere."""
    counts = jax.ops.segment_sum(jnp.ones(codes_T.shape, jnp.float32), codes_T, size)
    return counts, jax.ops.segment_sum(h_TxD.astype(jnp.float32), codes_T, size)


def scattered_apart(size: int, h_TxD: Array, codes_T: Array) -> tuple[Array, Array]:
    """`scattered_sums` by GPU_SUMS sums a code, which take turns."""
    turn_T = jnp.arange(len(codes_T), dtype=codes_T.dtype) % GPU_SUMS
    apart_T = jnp.where(codes_T < size, codes_T * GPU_SUMS + turn_T, size * GPU_SUMS)
    sums = scattered_sums(size * GPU_SUMS, h_TxD, apart_T)
    return jax.tree.map(lambda x: jnp.sum(x.reshape(size, GPU_SUMS, *x.shape[1:]), axis=1), sums)


def ema_update(codebook: Codebook, new: Assignments, decay: float, revive_below: float, revive_to: float) -> Codebook:
    """counts <- decay counts + (1 - decay) new counts, sums likewise; then dead codes are revived."""
    counts_K = decay * codebook.counts_K + (1 - decay) * new.counts_K
    sums_KxD = decay * codebook.sums_KxD + (1 - decay) * new.sums_KxD
    return revive(Codebook(counts_K, sums_KxD), new.candidates_KxD, revive_below, revive_to)


def revive(codebook: Codebook, candidates_KxD: Array, below: float, to: float) -> Codebook:
    """A code whose count is under `below` of the mean count becomes its candidate, with `to` of the mean count.

    Not in the paper: without it the codebook dies while reconstruction stays near 100 % (docs/vocabulary.md).
    """
    mean_count = jnp.mean(codebook.counts_K)
    dead_K = codebook.counts_K < below * mean_count
    counts_K = jnp.where(dead_K, to * mean_count, codebook.counts_K)
    return Codebook(counts_K, jnp.where(dead_K[:, None], candidates_KxD * counts_K[:, None], codebook.sums_KxD))


def init_codebook(h_BxLxD: Array, codebook_size: int, key: Array, revive_to: float, iterations: int = 10) -> Codebook:
    """k-means of one global batch: K of its vectors, then Lloyd iterations; empty clusters are redrawn each time."""

    def lloyd(codes_KxD: Array, key: Array) -> tuple[Array, Codebook]:
        new = statistics(h_BxLxD, assign(h_BxLxD, codes_KxD), codebook_size, key)
        codebook = revive(Codebook(new.counts_K, new.sums_KxD), new.candidates_KxD, 1e-6, revive_to)
        return codebook.codes_KxD(), codebook

    first, *keys = jax.random.split(key, iterations + 1)
    start = statistics(h_BxLxD, jnp.zeros_like(h_BxLxD[..., 0], jnp.int32), codebook_size, first).candidates_KxD
    _, codebooks = lax.scan(lloyd, start, jnp.stack(keys))
    return jax.tree.map(lambda x: x[-1], codebooks)


def code_vectors(codes_KxE: tuple[Array, ...], codes_BxLxN: Array) -> Array:
    """The vectors of codes, level by level, f32 [B, L, N, E], split along L where that divides."""
    codes_BxLxN = split_evenly(codes_BxLxN)
    return jnp.stack([look_up(codes_BxLxN[..., n], e) for n, e in enumerate(codes_KxE)], axis=2)
