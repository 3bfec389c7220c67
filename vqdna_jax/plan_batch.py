"""The largest global batch whose step fits, in few compilations: two peaks say where the next one may lie."""

import copy
import math
import sys
from collections.abc import Callable
from typing import NamedTuple

import ml_collections
from jax.sharding import Mesh

from vqdna_jax.partition import batch_shards

GRAIN = 8  # the answer is found to a part in so many of its power of two
MOST_COMPILED = 10


class Trial(NamedTuple):
    """`size` in units of the smallest batch; `peak` as the compiler says it, also of what does not fit."""

    size: int
    fits: bool
    peak: float


def largest_batch(config, mesh: Mesh, measure: Callable[[ml_collections.ConfigDict], dict]) -> dict:
    """The row of `measure(config)` with the largest data.global_batch that fits; of the smallest tried if none does.

    Batches are multiples of the shards of the batch x train.microbatches. The row says under "largest_batch" how many
    were compiled and the smallest that did not fit (None: none did not).
    """
    unit = batch_shards(mesh) * config.train.get("microbatches", 1)
    rows: dict[int, dict] = {}

    def compile_of(size: int) -> Trial:
        tried = copy.deepcopy(config)
        tried.data.global_batch = size * unit
        row = rows[size] = measure(tried)
        verdict = "fits" if row["fits"] else "does not fit"
        print(f"  {len(rows)}: global batch {size * unit:,} {verdict}, {row['peak_bytes'] / 2**30:.2f} GiB",
              file=sys.stderr, flush=True)  # fmt: skip
        return Trial(size, row["fits"], row["peak_bytes"])

    def room() -> float | None:
        return next((row["hbm_bytes"] for row in rows.values() if row["hbm_bytes"]), None)

    trials = search(compile_of, max(1, config.data.global_batch // unit), room)
    fitting = [trial.size for trial in trials if trial.fits]
    others = [trial.size for trial in trials if not trial.fits]
    found = {"compiled": len(trials), "does_not_fit": min(others) * unit if others else None}
    return rows[max(fitting) if fitting else min(others)] | {"largest_batch": found}


def search(measure: Callable[[int], Trial], first: int, room: Callable[[], float | None]) -> list[Trial]:
    """What was compiled until the largest fitting size and the smallest other are neighbours on the grid of GRAIN, or
    MOST_COMPILED were. `room()`: the memory there is, once anything was measured; None if unknown."""
    trials = [measure(first)]
    while len(trials) < MOST_COMPILED and (size := _next_size(trials, room())):
        trials.append(measure(size))
    return trials


def _next_size(trials: list[Trial], room: float | None) -> int | None:
    low = max((trial for trial in trials if trial.fits), default=None)
    high = min((trial for trial in trials if not trial.fits), default=None)
    least = low.size + _grain(low.size) if low else 1
    most = high.size - 1 if high else math.inf
    if least > most:
        return None
    size = _guess(trials, low, high, room) if room else None
    if size is None:
        size = (least + most) // 2 if high else 2 * low.size
    return min(max(size // _grain(size) * _grain(size), least), most)


def _guess(trials: list[Trial], low: Trial | None, high: Trial | None, room: float) -> int | None:
    """Where a straight line through the two peaks nearest to `room` reaches it; None if that says nothing."""
    near = low or high
    beyond = [trial for trial in trials if (trial.size < near.size if low else trial.size > near.size)]
    other = high if low and high else max(beyond, default=None) if low else min(beyond, default=None)
    if other is None:  # in proportion, which is too much where there is a fixed part, so the next guess has a line
        return None if low else max(1, math.floor(near.size * room / near.peak))
    slope = (other.peak - near.peak) / (other.size - near.size)
    return max(1, math.floor(near.size + (room - near.peak) / slope)) if slope > 0 else None


def _grain(size: int) -> int:
    return max(1, 2 ** (size.bit_length() - 1) // GRAIN)
