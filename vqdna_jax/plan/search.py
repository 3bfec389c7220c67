"""The largest global batch whose step fits, in few compilations: two peaks say where the next one may lie."""

import functools
import math
import sys
from collections.abc import Callable, Mapping
from typing import NamedTuple

from jax.sharding import Mesh

from vqdna_jax.partition import batch_shards
from vqdna_jax.training.settings import MaskedCodesSettings, StageSettings

GRAIN = 8  # the answer is found to a part in so many of its power of two
MOST_COMPILED = 10


class Trial(NamedTuple):
    """`size` in units of the smallest batch; `peak` as the compiler says it, also of what does not fit."""

    size: int
    fits: bool
    peak: float


def largest_batch(settings: StageSettings, mesh: Mesh, measure: Callable[[StageSettings], dict]) -> dict:
    """The row of `measure(settings)` with the largest data.global_batch that fits; of the smallest tried if none does.

    Batches are multiples of the shards of the batch x train.microbatches. The row says under "largest_batch" how many
    were compiled and the smallest that did not fit (None: none did not).
    """
    unit = batch_shards(mesh) * settings.train.microbatches
    rows: dict[int, dict] = {}

    def compile_of(size: int) -> Trial:
        row = rows[size] = measure(settings.changed({"data.global_batch": size * unit}))
        verdict = "fits" if row["fits"] else "does not fit"
        peak = f"{row['peak_bytes'] / 2**30:.2f} GiB"
        print(f"  {len(rows)}: global batch {size * unit:,} {verdict}, {peak}", file=sys.stderr, flush=True)
        return Trial(size, row["fits"], row["peak_bytes"])

    def room() -> float | None:
        return next((row["hbm_bytes"] for row in rows.values() if row["hbm_bytes"]), None)

    trials = search(compile_of, max(1, settings.data.global_batch // unit), room)
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
    if high and least >= high.size:
        return None
    size = _guess(trials, low, high, room) if room else None
    if size is None:
        size = (least + high.size - 1) // 2 if high else 2 * max(trials).size
    size = max(size // _grain(size) * _grain(size), least)
    return min(size, high.size - 1) if high else size


def _guess(trials: list[Trial], low: Trial | None, high: Trial | None, room: float) -> int | None:
    """Where a straight line through the two peaks nearest to `room` reaches it; None if that says nothing."""
    near = low or high
    assert near, "nothing was measured"
    beyond = [trial for trial in trials if (trial.size < near.size if low else trial.size > near.size)]
    other = high if low and high else max(beyond, default=None) if low else min(beyond, default=None)
    if other is None:  # in proportion, which is too much where there is a fixed part, so the next guess has a line
        return None if low else max(1, math.floor(near.size * room / near.peak))
    slope = (other.peak - near.peak) / (other.size - near.size)
    return max(1, math.floor(near.size + (room - near.peak) / slope)) if slope > 0 else None


def _grain(size: int) -> int:
    return max(1, 2 ** (size.bit_length() - 1) // GRAIN)


WEAK, FIXED = "windows per chip fixed", "global batch fixed"


def scaling_rows(
    settings: StageSettings, meshes: Mapping[str, Mesh], measure: Callable[[str, StageSettings], dict]
) -> list[dict]:
    """Rows of `measure(topology, settings)`, with "scaling" WEAK and then FIXED, from few chips to many.

    The windows per chip are those that data.global_batch is on the most chips. With the global batch fixed,
    train.microbatches is doubled where it does not fit; the smallest is guessed from the peaks that are known. Nothing
    is evaluated, so eval.batch is taken as what suits the mesh.

    Raises:
        InputError: the global batch is no multiple of the shards of one of the meshes.
    """
    names = sorted(meshes, key=lambda name: meshes[name].size)
    shards = {name: batch_shards(meshes[name]) for name in names}
    of_name = {name: settings.changed({"eval.batch": shards[name]}) for name in names}
    for name in names:
        of_name[name].check(shards[name])
    windows = settings.data.global_batch // shards[names[-1]]
    weak: dict[str, dict] = {}
    fixed: dict[str, dict] = {}
    for name in names:
        weak[name] = measure(name, of_name[name].changed({"data.global_batch": windows * shards[name]}))
    for name in reversed(names):
        known = list((weak | fixed).values())
        compile_on = functools.partial(measure, name)
        fixed[name] = weak[name] if name == names[-1] else _in_parts(of_name[name], shards[name], compile_on, known)
    return [rows[name] | {"scaling": kind} for kind, rows in ((WEAK, weak), (FIXED, fixed)) for name in names]


def _in_parts(
    settings: StageSettings, shards: int, measure: Callable[[StageSettings], dict], known: list[dict]
) -> dict:
    """The row of the fewest microbatches that fit, of the last that can be if none does."""
    if not isinstance(settings, MaskedCodesSettings):  # whose step alone can be taken in parts
        return measure(settings)
    parts, windows = settings.train.microbatches, settings.data.global_batch // shards

    def more() -> bool:
        return windows % (2 * parts) == 0

    while more() and not _may_fit(windows // parts, known):
        parts *= 2
    row = measure(settings.changed({"train.microbatches": parts}))
    while not row["fits"] and more():
        parts *= 2
        row = measure(settings.changed({"train.microbatches": parts}))
    return row


def _may_fit(windows: int, known: list[dict]) -> bool:
    """Whether a straight line through known peaks has so many windows in one part fit; True if there are not two."""
    peaks = {row["rows_per_chip"] // row["microbatches"]: row["peak_bytes"] for row in known if row["fits"]}
    room = known[0]["hbm_bytes"]
    if len(peaks) < 2 or not room:
        return True
    (few, low), (many, high) = sorted(peaks.items())[-2:]
    return high + (high - low) / (many - few) * (windows - many) <= room
