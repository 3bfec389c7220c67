"""The same step on few chips and on many: with the windows a chip held fixed, and with the global batch."""

import copy
import functools
from collections.abc import Callable, Mapping

from jax.sharding import Mesh

from vqdna_jax import settings
from vqdna_jax.partition import batch_shards

WEAK, FIXED = "windows a chip fixed", "global batch fixed"


def scaling_rows(config, meshes: Mapping[str, Mesh], measure: Callable[[str, object], dict]) -> list[dict]:
    """Rows of `measure(topology, config)`, with "scaling" WEAK and then FIXED, from few chips to many.

    The windows a chip are those that config.data.global_batch is on the most chips. With the global batch fixed,
    train.microbatches is doubled where it does not fit; the smallest is guessed from the peaks that are known. Nothing
    is evaluated, so eval.batch is taken as what suits the mesh.

    Raises:
        InputError: the global batch is no multiple of the shards of one of the meshes.
    """
    names = sorted(meshes, key=lambda name: meshes[name].size)
    shards = {name: batch_shards(meshes[name]) for name in names}
    of_name = {name: _changed(config, "eval.batch", shards[name]) for name in names}
    for name in names:
        settings.validate_mesh(of_name[name], shards[name])
    windows = config.data.global_batch // shards[names[-1]]
    weak, fixed = {}, {}
    for name in names:
        weak[name] = measure(name, _changed(of_name[name], "data.global_batch", windows * shards[name]))
    for name in reversed(names):
        known = list((weak | fixed).values())
        compile_on = functools.partial(measure, name)
        fixed[name] = weak[name] if name == names[-1] else _in_parts(of_name[name], shards[name], compile_on, known)
    return [rows[name] | {"scaling": kind} for kind, rows in ((WEAK, weak), (FIXED, fixed)) for name in names]


def _changed(config, key: str, value: int):
    changed = copy.deepcopy(config)
    changed.update_from_flattened_dict({key: value})
    return changed


def _in_parts(config, shards: int, measure: Callable[[object], dict], known: list[dict]) -> dict:
    """The row of the fewest microbatches that fit, of the last that can be if none does."""
    if "microbatches" not in config.train:
        return measure(config)
    parts = config.train.microbatches
    while _divides(config, shards, 2 * parts) and not _may_fit(config.data.global_batch // shards // parts, known):
        parts *= 2
    row = measure(_changed(config, "train.microbatches", parts))
    while not row["fits"] and _divides(config, shards, 2 * parts):
        parts *= 2
        row = measure(_changed(config, "train.microbatches", parts))
    return row


def _divides(config, shards: int, parts: int) -> bool:
    return config.data.global_batch % (shards * parts) == 0


def _may_fit(windows: int, known: list[dict]) -> bool:
    """Whether a straight line through known peaks has so many windows in one part fit; True if there are not two."""
    peaks = {row["rows_per_chip"] // row["microbatches"]: row["peak_bytes"] for row in known if row["fits"]}
    room = known[0]["hbm_bytes"]
    if len(peaks) < 2 or not room:
        return True
    (few, low), (many, high) = sorted(peaks.items())[-2:]
    return high + (high - low) / (many - few) * (windows - many) <= room
