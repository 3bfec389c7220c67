"""How much memory a call of a model takes, told from shapes alone."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh

from vqdna_jax import partition
from vqdna_jax.inference.pretrained import Call, call_vectors
from vqdna_jax.models.attention import Kernel
from vqdna_jax.models.networks import NetworkConfig
from vqdna_jax.runtime.live import peak_bytes


def of_call(
    network: NetworkConfig,
    kernel: Kernel,
    params,
    codes_KxE: Sequence,
    rows: int,
    codes: int,
    mesh: Mesh | AbstractMesh,
    platform: str,
    full: bool = False,
) -> int:
    """Bytes, weights included, of `rows` windows of so many codes that are embedded at once; `full`: none ends early.

    Args:
        params, codes_KxE: arrays, or their shapes alone.
    """
    whole = jax.NamedSharding(mesh, jax.P())

    def shaped(x) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole)

    def split(shape: tuple[int, ...], dtype) -> jax.ShapeDtypeStruct:
        sharding = jax.NamedSharding(mesh, partition.spec("batch", *[None] * len(shape)))
        return jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=sharding)

    with partition.entered(mesh):
        pair = split((2,), jnp.int32)
        lengths_B = None if full else split((), jnp.int32)
        call = Call(split((codes, len(codes_KxE)), jnp.uint16), lengths_B, pair, pair)
        arguments = jax.tree.map(shaped, (params, tuple(codes_KxE)))
        return peak_bytes(call_vectors.trace(network, kernel, "mean", None, True, *arguments, call), platform)
