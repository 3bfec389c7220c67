"""Bidirectional self-attention by the fastest kernel that a platform has, behind one function.

No kernel is given a mask array: a local window is a property of the kernel, and sequences that end early are told by
their lengths.
"""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vqdna_jax.models import cpu_attention
from vqdna_jax.partition import first_here, halo, length_shards, spec, whole_here

HEADS = ("batch", "length", "act_heads", None)
Kernel = Literal["xla", "cpu", "splash", "cudnn"]
SPLASH_BLOCK = 512  # rows and columns of scores that stay on the chip
LANES = 128  # splash wants a length that this divides


def best_kernel(platform: str, length: int, window: int, dtype: str) -> Kernel:
    """The kernel for `length` codes on "tpu", "gpu" or "cpu": splash, cuDNN's flash attention, the CPU's, or plain XLA.

    cuDNN has no f32, and no window that looks both ways; there XLA computes all scores, and masks what is too far. So
    does "cpu", in a form that XLA has fast on a CPU.
    """
    if platform == "tpu" and length % LANES == 0:
        return "splash"
    if platform in ("gpu", "cuda") and dtype != "float32" and not window:
        return "cudnn"
    return "cpu" if platform == "cpu" else "xla"


def attention(
    q_BxLxHxC: Array,
    k_BxLxHxC: Array,
    v_BxLxHxC: Array,
    kernel: Kernel,
    window: int = 0,
    lengths_B: Array | None = None,
    slopes_H: np.ndarray | None = None,
) -> Array:
    """softmax(q k / sqrt(C)) v, [B, L, H, C], softmax in f32.

    Args:
        kernel: what splash cannot do (lengths_B, an L that LANES does not divide) XLA does; of more codes than
            `cpu_attention.LONG` XLA too makes scores for a block of queries at a time.
        window: a code sees this many codes on both sides; 0: all.
        lengths_B: int32, codes of each sequence; those beyond are not seen.
        slopes_H: of ALiBi to both sides (arXiv 2108.12409): slope times distance is taken off a score; XLA does it.
    """
    if slopes_H is not None:
        return _with_alibi(q_BxLxHxC, k_BxLxHxC, v_BxLxHxC, lengths_B, slopes_H)
    if kernel == "splash" and lengths_B is None and q_BxLxHxC.shape[1] % (LANES * length_shards()) == 0:
        return _splash(q_BxLxHxC, k_BxLxHxC, v_BxLxHxC, window)
    dense: Literal["xla", "cpu", "cudnn"] = "xla" if kernel == "splash" else kernel

    def local(q: Array, k: Array, v: Array, lengths: Array | None) -> Array:
        lengths = lengths if lengths is None else lengths.astype(jnp.int32)
        (k, v), places = _in_sight((k, v), window)
        many = q.shape[1] * k.shape[1] > cpu_attention.LONG**2
        if dense == "cpu" or (dense == "xla" and many):  # which would have all scores in memory
            return cpu_attention.attention(q, k, v, window, lengths, places)
        if window and length_shards() > 1:  # the window of some of the rows of a square of scores
            mask = cpu_attention.seen(q.shape[1], k.shape[1], window, lengths, places)
            return jax.nn.dot_product_attention(q, k, v, mask=mask, implementation=dense)
        return jax.nn.dot_product_attention(
            q, k, v, implementation=dense, local_window_size=window or None, key_value_seq_lengths=lengths
        )

    heads = spec(*HEADS)
    return jax.shard_map(local, in_specs=(heads, heads, heads, spec("batch")), out_specs=heads)(
        q_BxLxHxC, k_BxLxHxC, v_BxLxHxC, lengths_B
    )


def _in_sight(keys_BxLxHxC: Sequence[Array], window: int) -> tuple[list[Array], cpu_attention.Places]:
    """Inside a shard_map: keys and values that this device's queries see, and where they lie: all of the sequence, or
    its own and as many of its neighbours' as the window reaches.

    Whole heads are on every device: but for this nothing is exchanged.
    """
    length, shards = keys_BxLxHxC[0].shape[1], length_shards()
    if shards == 1:
        return list(keys_BxLxHxC), cpu_attention.ALL_HERE
    first = first_here(length)
    if window and length + 2 * window < length * shards:
        near = [halo(x, window, window) for x in keys_BxLxHxC]
        return near, cpu_attention.Places(first, first - window, length * shards)
    return [whole_here(x) for x in keys_BxLxHxC], cpu_attention.Places(first)


def _splash(q_BxLxHxC: Array, k_BxLxHxC: Array, v_BxLxHxC: Array, window: int) -> Array:
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    total = q_BxLxHxC.shape[1]
    window = window if window < total else 0
    reach = -(-window // LANES) * LANES if length_shards() > 1 else 0  # into other shards

    def local(q_BxHxQxC: Array, k_BxHxLxC: Array, v_BxHxLxC: Array) -> Array:
        heads, queries = q_BxHxQxC.shape[1:3]
        k_BxHxLxC, v_BxHxLxC = (_keys_of_shards(x, reach) for x in (k_BxHxLxC, v_BxHxLxC))
        shape, ends = (queries, k_BxHxLxC.shape[2]), None
        mask = splash.LocalMask(shape, (window, window), reach) if window else splash.FullMask(shape)
        if reach:  # beyond the ends there are zeros, which are to be seen by none
            at_L = first_here(queries) - reach + jnp.arange(shape[1])
            outside_L = ((at_L < 0) | (at_L >= total)).astype(jnp.int32)
            ends = splash.SegmentIds(jnp.zeros(queries, jnp.int32), outside_L)
        of_q, of_kv = (next(size for size in (SPLASH_BLOCK, 256, LANES) if n % size == 0) for n in shape)
        kernel = splash.make_splash_mha_single_device(
            splash.MultiHeadMask([mask] * heads),
            block_sizes=splash.BlockSizes(
                block_q=of_q,
                block_kv=of_kv,
                block_kv_compute=of_kv,
                block_q_dkv=of_q,
                block_kv_dkv=of_kv,
                block_kv_dkv_compute=of_kv,
                block_q_dq=of_q,
                block_kv_dq=of_kv,
            ),
        )
        return jax.vmap(lambda q, k, v: kernel(q, k, v, ends))(q_BxHxQxC, k_BxHxLxC, v_BxHxLxC)

    scaled = q_BxLxHxC * jnp.asarray(q_BxLxHxC.shape[-1] ** -0.5, q_BxLxHxC.dtype)
    heads_first = [x.transpose(0, 2, 1, 3) for x in (scaled, k_BxLxHxC, v_BxLxHxC)]
    heads = spec("batch", "act_heads", "length", None)
    # Pallas kernels carry no replication types, so their check is off.
    out = jax.shard_map(local, in_specs=(heads,) * 3, out_specs=heads, check_vma=False)(*heads_first)
    return out.transpose(0, 2, 1, 3)


def _keys_of_shards(x_BxHxLxC: Array, reach: int) -> Array:
    """All of them, or with a `reach` so many of the neighbours'.

    Heads travel side by side: of [L, H, C] the TPU's compiler may sum whole gradients on all devices, which need parts.
    """
    if length_shards() == 1:
        return x_BxHxLxC
    rows, heads, length, channels = x_BxHxLxC.shape
    x_BxLxD = x_BxHxLxC.swapaxes(1, 2).reshape(rows, length, heads * channels)
    x_BxLxD = halo(x_BxLxD, reach, reach) if reach else whole_here(x_BxLxD)
    return x_BxLxD.reshape(rows, -1, heads, channels).swapaxes(1, 2)


def _with_alibi(q_BxLxHxC: Array, k_BxLxHxC: Array, v_BxLxHxC: Array, lengths_B, slopes_H: np.ndarray) -> Array:
    def local(q: Array, k: Array, v: Array, lengths: Array | None, slopes: Array) -> Array:
        at_L = jnp.arange(q.shape[1])
        apart_LxL = jnp.abs(at_L[:, None] - at_L[None]).astype(jnp.float32)
        bias_1xHxLxL = -slopes[None, :, None, None] * apart_LxL[None, None]
        lengths = lengths if lengths is None else lengths.astype(jnp.int32)
        return jax.nn.dot_product_attention(q, k, v, bias_1xHxLxL, key_value_seq_lengths=lengths)

    heads = spec(*HEADS)
    in_specs = (heads, heads, heads, spec("batch"), spec("act_heads"))
    return jax.shard_map(local, in_specs=in_specs, out_specs=heads)(
        q_BxLxHxC, k_BxLxHxC, v_BxLxHxC, lengths_B, jax.reshard(jnp.asarray(slopes_H), spec("act_heads"))
    )


def alibi_slopes(heads: int) -> np.ndarray:
    """f32 [H]: a geometric series to 1/256; where H is no power of two, that of the power below, then every second one
    of the power above."""
    below = 1 << (heads.bit_length() - 1)
    series = [2.0 ** (-8 * (i + 1) / below) for i in range(below)]
    between = [2.0 ** (-4 * (2 * i + 1) / below) for i in range(heads - below)]
    return np.array(series + between, np.float32)


def kernel_of_padded(platform: str, window: int, dtype: str) -> Literal["xla", "cpu", "cudnn"]:
    """The attention kernel for sequences that end early, which splash does not know."""
    kernel = best_kernel(platform, 0, window, dtype)
    return "xla" if kernel == "splash" else kernel
