"""How much memory a call of a model takes, told from shapes alone, and what is said where there is not so much."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh

from vqdna_jax import partition
from vqdna_jax.inference.calls import Call, call_vectors
from vqdna_jax.models.attention import Kernel
from vqdna_jax.models.networks import NetworkConfig
from vqdna_jax.runtime import memory
from vqdna_jax.runtime.live import MOST, peak_bytes

_GENEROUS = 64  # bytes for each multiply-add of a code, per channel: several times what any step takes


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
    split = partition.abstract_rows(mesh, rows)
    with partition.entered(mesh):
        pair = split((2,), jnp.int32)
        lengths_B = None if full else split((), jnp.int32)
        call = Call(split((codes, len(codes_KxE)), jnp.uint16), lengths_B, pair, pair)
        arguments = partition.abstract_whole((params, tuple(codes_KxE)), mesh)
        return peak_bytes(call_vectors.trace(network, kernel, "mean", None, True, *arguments, call), platform)


def surely_fits(network: NetworkConfig, rows: int, codes: int, device: jax.Device) -> bool:
    """Whether a step of so many windows is so small that nothing need be traced to know it."""
    elements = rows * codes * network.flops_per_code(codes) / network.width
    weights = network.flops_per_code(1)  # two for each
    return _GENEROUS * elements + 16 * weights < memory.of_device(device)


def problem(
    needs: Callable[[int], int], size: int, device: jax.Device, what: str, per_size: int | None, unit: str = "bases"
) -> str:
    """Why `needs(size)` bytes are not to be had, and of which size they are; empty where they may be.

    Args:
        per_size: bases of one; None: not known.
    """
    room, asked = memory.of_device(device), needs(size)
    if asked <= MOST * room:
        return ""
    while size and needs(size) > room:
        size //= 2
    longest = f"{size * per_size:,} {unit}" if per_size else f"{size:,} codes"
    fits = f"sequences of up to {longest} fit" if size else "no length fits"
    return (
        f"memory: {what} at once take about {asked / 2**30:,.3g} GiB, of {room / 2**30:,.3g} that there are; {fits},"
        " cut them, or compute less at once (--batch; of a run data.global_batch, eval.batch)"
    )
