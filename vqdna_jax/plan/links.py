"""How long a step's collectives would take alone: a model from published link speeds, no measurement.

Every collective goes round one ring through all its devices, both ways: two of a chip's links. A torus has more, and a
step hides most of it behind arithmetic, so this bounds from above what sending costs; latencies are left out.
"""

from collections.abc import Mapping
from typing import NamedTuple

from vqdna_jax.plan.collectives import Amount


class Links(NamedTuple):
    """Bytes per second that one chip can send."""

    ring: float
    network: float


# By device_kind. ring: MaxText's docs (sharding.md) take 180e9 of a v6e; the others in proportion to the bandwidth a
# link that Google Cloud publishes (1,600 Gbit/s over 4 links of a v5e, 3,200 over 4 of a v6e, 4,800 over 6 of a v5p).
# network, between slices: published, 6.4 Tbit/s of 256 v5e, 50 Gbit/s of a v5p, 25.6 Tbit/s of 256 v6e.
LINKS = {
    "TPU v5 lite": Links(90e9, 3.125e9),
    "TPU v5": Links(180e9, 6.25e9),
    "TPU v6 lite": Links(180e9, 12.5e9),
}
_TIMES_ROUND = {"all-reduce": 2}  # a reduce-scatter and an all-gather


def seconds(
    kind: str, by_axes: Mapping[str, Mapping[str, Amount]], between_slices: Amount, sizes: Mapping[str, int]
) -> tuple[float, float] | None:
    """(inside slices, between them) of one step, if nothing overlaps; None for a chip that is not in LINKS.

    Args:
        sizes: of the mesh axes inside a slice.
    """
    if kind not in LINKS:
        return None
    links, inside = LINKS[kind], 0.0
    for axes, kinds in by_axes.items():
        devices = 1
        for axis in axes.split("+"):
            devices *= sizes.get(axis, 1)
        for name, amount in kinds.items():
            share = 1 if name == "collective-permute" else (devices - 1) / devices
            inside += _TIMES_ROUND.get(name, 1) * share * amount["bytes"] / links.ring
    return inside, between_slices["bytes"] / links.network
