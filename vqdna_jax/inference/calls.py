"""What a pretrained network computes at once: windows of codes, and what a pooling makes of their vectors."""

import functools

import chex
import flax.struct
import jax
import jax.numpy as jnp
from jax import Array

from vqdna_jax.models import quantize
from vqdna_jax.models.attention import Kernel
from vqdna_jax.models.layers import Params, apply
from vqdna_jax.models.networks import NetworkConfig
from vqdna_jax.models.pooling import POOLS, UNPOOLED, View
from vqdna_jax.models.quantize import code_vectors
from vqdna_jax.models.transformer import Compute
from vqdna_jax.partition import AnyArray


class Call(flax.struct.PyTreeNode):
    """Windows as one call computes them: codes, how many are there [B] (None: all), which are kept [B, 2], and of their
    sequences where the window starts and how many codes there are [B, 2]."""

    codes_BxLxN: AnyArray
    lengths_B: AnyArray | None
    kept_Bx2: AnyArray
    place_Bx2: AnyArray


def read(codes_KxE: tuple[Array, ...], standardises: bool) -> tuple[Array, ...]:
    return tuple(map(quantize.standardised, codes_KxE)) if standardises else codes_KxE


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def call_vectors(
    config: NetworkConfig,
    kernel: Kernel,
    pool: str,
    depth: int | None,
    standardises: bool,
    params: Params,
    codes_KxE: tuple[Array, ...],
    call: Call,
) -> Array:
    """f32 [B, L, D] for "none", else [B, P]: what the pooling makes of the kept codes."""
    vectors_BxLxNxE = code_vectors(read(codes_KxE, standardises), jnp.asarray(call.codes_BxLxN, jnp.int32))
    masked_BxL = jnp.zeros_like(call.codes_BxLxN[..., 0], bool)
    lengths_B = None if call.lengths_B is None else call.lengths_B + config.cls
    h_BxLxD, cls_BxD = apply(
        config.module(Compute(attention=kernel)),
        params,
        vectors_BxLxNxE,
        masked_BxL,
        masked_BxL[:, 0],
        lengths_B,
        depth,
    )
    chex.assert_shape(h_BxLxD, (*masked_BxL.shape, config.width))
    if pool == UNPOOLED:
        return h_BxLxD.astype(jnp.float32)
    at_1xL, kept_Bx2 = jnp.arange(h_BxLxD.shape[1])[None], call.kept_Bx2
    kept_BxL = (at_1xL >= kept_Bx2[:, :1]) & (at_1xL < kept_Bx2[:, 1:])
    sizes, codes_BxLxN = tuple(map(len, codes_KxE)), jnp.asarray(call.codes_BxLxN, jnp.int32)
    place_Bx2 = call.place_Bx2
    view = View(h_BxLxD, cls_BxD, codes_BxLxN, sizes, kept_BxL, at_1xL + place_Bx2[:, :1], place_Bx2[:, 1])
    return jnp.concatenate([POOLS[name].window(view) for name in pool.split("+")], axis=-1)
