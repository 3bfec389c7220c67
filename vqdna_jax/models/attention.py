"""Bidirectional self-attention by the fastest kernel that a platform has, behind one function.

No kernel is given a mask array: a local window is a property of the kernel, and sequences that end early are told by
their lengths.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vqdna_jax.models import cpu_attention
from vqdna_jax.partition import spec

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
        kernel: what splash cannot do (lengths_B, an L that LANES does not divide) XLA does.
        window: a code sees this many codes on both sides; 0: all.
        lengths_B: int32, codes of each sequence; those beyond are not seen.
        slopes_H: of ALiBi to both sides (arXiv 2108.12409): slope times distance is taken off a score; XLA does it.
    """
    if slopes_H is not None:
        return _with_alibi(q_BxLxHxC, k_BxLxHxC, v_BxLxHxC, lengths_B, slopes_H)
    if kernel == "splash" and lengths_B is None and q_BxLxHxC.shape[1] % LANES == 0:
        return _splash(q_BxLxHxC, k_BxLxHxC, v_BxLxHxC, window)
    dense: Literal["xla", "cpu", "cudnn"] = "xla" if kernel == "splash" else kernel

    def local(q: Array, k: Array, v: Array, lengths: Array | None) -> Array:
        lengths = lengths if lengths is None else lengths.astype(jnp.int32)
        if dense == "cpu":
            return cpu_attention.attention(q, k, v, window, lengths)
        return jax.nn.dot_product_attention(
            q, k, v, implementation=dense, local_window_size=window or None, key_value_seq_lengths=lengths
        )

    # Every device has whole sequences and whole heads: nothing is exchanged.
    heads = spec(*HEADS)
    return jax.shard_map(local, in_specs=(heads, heads, heads, spec("batch")), out_specs=heads)(
        q_BxLxHxC, k_BxLxHxC, v_BxLxHxC, lengths_B
    )


def _splash(q_BxLxHxC: Array, k_BxLxHxC: Array, v_BxLxHxC: Array, window: int) -> Array:
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    def local(q_BxHxLxC: Array, k_BxHxLxC: Array, v_BxHxLxC: Array) -> Array:
        heads, length = q_BxHxLxC.shape[1:3]
        shape = (length, length)
        mask = splash.LocalMask(shape, (window, window), 0) if window else splash.FullMask(shape)
        block = next(size for size in (SPLASH_BLOCK, 256, LANES) if length % size == 0)
        kernel = splash.make_splash_mha_single_device(
            splash.MultiHeadMask([mask] * heads),
            block_sizes=splash.BlockSizes(
                block_q=block,
                block_kv=block,
                block_kv_compute=block,
                block_q_dkv=block,
                block_kv_dkv=block,
                block_kv_dkv_compute=block,
                block_q_dq=block,
                block_kv_dq=block,
            ),
        )
        return jax.vmap(kernel)(q_BxHxLxC, k_BxHxLxC, v_BxHxLxC)

    scaled = q_BxLxHxC * jnp.asarray(q_BxLxHxC.shape[-1] ** -0.5, q_BxLxHxC.dtype)
    heads_first = [x.transpose(0, 2, 1, 3) for x in (scaled, k_BxLxHxC, v_BxLxHxC)]
    heads = spec("batch", "act_heads", "length", None)
    # Pallas kernels carry no replication types, so their check is off.
    out = jax.shard_map(local, in_specs=(heads,) * 3, out_specs=heads, check_vma=False)(*heads_first)
    return out.transpose(0, 2, 1, 3)


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
