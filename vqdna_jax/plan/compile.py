"""Compiles the train step of any config for a TPU topology, without a TPU: does it fit, what does it send, how long.

The verb sets JAX_PLATFORMS and what keeps libtpu from asking a metadata server before jax is imported (cli.py). All
arrays are abstract: nothing is allocated, and no trained tokenizer is needed.
"""

import dataclasses
import functools
import importlib.metadata
import importlib.util
import math
import re
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vqdna_jax.errors import InputError
from vqdna_jax.models.transformer import Compute
from vqdna_jax.partition import batch_shards, make_mesh
from vqdna_jax.plan import links
from vqdna_jax.plan import search as plan_search
from vqdna_jax.plan.collectives import Sent, collectives
from vqdna_jax.plan.tasks import base_flops, base_parameters, make_task
from vqdna_jax.stages import read_settings
from vqdna_jax.stages.abstract import Planned, Row, trace_step
from vqdna_jax.tasks.finetune import Finetune
from vqdna_jax.tasks.masked_codes import MaskedCodes
from vqdna_jax.tasks.vocabulary import Vocabulary
from vqdna_jax.training.experiments import read_config
from vqdna_jax.training.metrics import PEAK_FLOPS
from vqdna_jax.training.settings import Settings, StageSettings
from vqdna_jax.training.step import TrainState

GIB = 2**30
HBM_GIB = {  # what the compiler says it may use of a device, by device_kind
    "TPU v4": 30.75,
    "TPU v5 lite": 15.75,
    "TPU v5": 95.74,
    "TPU v6 lite": 31.25,
    "TPU7x": 94.75,
}
PEAK_NAME = {"TPU v5": "TPU v5p"}  # a v5p calls itself TPU v5
TOPOLOGIES = "v5e:16x16, v5p:4x4x4, v6e:16x16, v4:2x2x1, or 2xv5e:16x16 for two slices"
_SIZE = r"([\d.]+)([KMGT]?)"
_OUT_OF_MEMORY = (  # (wanted, available) in two of the compiler's messages
    re.compile(rf"Used {_SIZE} of {_SIZE} hbm", re.IGNORECASE),
    re.compile(rf"\({_SIZE}\) exceeds available HBM \({_SIZE}\)", re.IGNORECASE),
)


def plan(
    source: str,
    topologies: Sequence[str],
    overrides: Sequence[str],
    mfu: float,
    price: float | None = None,
    largest_batch: bool = False,
    scaling: bool = False,
) -> list[dict]:
    """One row per topology, plain JSON types; sizes in bytes, times in seconds, None where there is nothing to say.

    Args:
        source: FILE or FILE:PRESET of an experiment.
        overrides: KEY=VALUE of config keys.
        mfu: the share of the chips' peak at which times are stated.
        price: US dollars per chip-hour.
        largest_batch: find the largest data.global_batch that fits, and say all of that one (`plan_batch`).
        scaling: two rows per topology, with the windows per chip and with the global batch held fixed (`plan_scaling`).

    Raises:
        InputError: a bad key, value, topology or mesh, before anything is compiled; no libtpu.
    """
    _check_numbers(mfu, price)
    if not topologies:
        raise InputError(f"--topology is missing: expected for example {TOPOLOGIES}")
    if largest_batch and scaling:
        raise InputError("--largest-batch and --scaling: found both, expected one of them")
    settings = read_settings(read_config(source, overrides))
    meshes = {name: make_mesh(**vars(settings.mesh), devices=topology_devices(name)) for name in topologies}
    if not scaling:
        for mesh in meshes.values():
            settings.check(batch_shards(mesh))
    make_task(settings, source)  # complains before the first compilation
    title = {"config": source, "set": list(overrides)}

    def measure(name: str, changed: StageSettings) -> dict:
        print(f"compiling {source} for {name} ...", file=sys.stderr, flush=True)
        row = plan_row(changed, make_task(changed, source), meshes[name], mfu, price)
        return title | {"topology": name} | row

    if scaling:
        return plan_search.scaling_rows(settings, meshes, measure)
    if largest_batch:
        search = plan_search.largest_batch
        return [search(settings, mesh, functools.partial(measure, name)) for name, mesh in meshes.items()]
    return [measure(name, settings) for name in meshes]


def _check_numbers(mfu: float, price: float | None) -> None:
    if not 0 < mfu <= 1:
        raise InputError(f"--mfu: found {mfu}, expected a share over 0, at most 1")
    if price is not None and not 0 <= price < math.inf:
        raise InputError(f"--price: found {price}, expected US dollars per chip-hour, 0 or more")


def topology_devices(name: str) -> np.ndarray:
    """The devices of TPU slices that need not exist. Raises InputError: no libtpu, or no such topology."""
    if importlib.util.find_spec("libtpu") is None:
        raise InputError("libtpu, the TPU compiler, is not installed: pip install .[tpu] (it needs no TPU)")
    from jax.experimental import topologies

    match = re.fullmatch(r"(?:([1-9]\d{0,2}) ?x ?)?(.*)", name)
    assert match, "any line is of this form"
    slices, slice_name = match.groups()
    options: dict[str, Any] = {"num_slices": int(slices)} if slices else {}
    if slice_name.startswith("v4:"):
        options["chip_config_name"] = "megacore"  # jax sees one device per chip there, which for libtpu is an option
    if re.search(r":1x1(x1)?$", slice_name):
        options["chips_per_host_bounds"] = (1, 1, 1)
    if re.fullmatch(r"v[56]e:2x4", slice_name):  # a machine of eight chips, which for libtpu are two of four
        options["chips_per_host_bounds"] = (2, 4, 1)
    try:
        return np.array(topologies.get_topology_desc(platform="tpu", topology_name=slice_name, **options).devices)
    except (jax.errors.JaxRuntimeError, OverflowError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"--topology={name}: expected for example {TOPOLOGIES} ({reason})") from error


def compile_step(settings: Settings, planned: Planned, mesh: Mesh) -> tuple[TrainState, jax.stages.Compiled]:
    """(abstract state, compiled step): the step of train.py on `mesh`, whose devices need not be there.

    Raises jax.errors.JaxRuntimeError where the compiler finds that it does not fit.
    """
    state, lowered = _lower_step(settings, planned, mesh)
    return state, lowered.compile()


def _lower_step(settings: Settings, planned: Planned, mesh: Mesh) -> tuple[TrainState, jax.stages.Lowered]:
    state, traced = trace_step(settings, planned, mesh)
    with jax.set_mesh(mesh):
        return state, traced.lower()


def plan_row(settings: Settings, planned: Planned, mesh: Mesh, mfu: float, price: float | None = None) -> dict:
    """What one mesh makes of the step; a step that does not fit is a row that says so."""
    kind, one, task = mesh.devices.flat[0].device_kind, planned.row(), planned.task
    rows, each = settings.data.global_batch, settings.data.global_batch // batch_shards(mesh)
    state, lowered = _lower_step(settings, planned, mesh)
    row = {
        "chip": kind,
        "chips": mesh.size,
        "slices": len({getattr(device, "slice_index", 0) for device in mesh.devices.flat}),
        "mesh": {axis: size for axis, size in mesh.shape.items() if size > 1},
        "global_batch": rows,
        "rows_per_chip": each,
        "codes_per_chip": each * one.codes // mesh.shape["context"],
        "microbatches": task.microbatches,
        "compute": dataclasses.asdict(compute) if (compute := _compute(task)) else {},
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "base_parameters": base_parameters(planned),
        "base_flops": base_flops(planned),
        "state_bytes": sum(map(_shard_bytes, jax.tree.leaves(state))),
        "flops": rows * one.flops,
        "flops_per_chip": rows * one.flops / mesh.size,
    }
    start = time.perf_counter()
    row |= _compile(lowered, HBM_GIB.get(kind), mesh.shape) | {"compile_s": time.perf_counter() - start}
    row |= _sending(row, mesh.shape)
    row |= _times(row, settings.train.total_steps, one, mfu, price)
    return row | {"versions": {name: importlib.metadata.version(name) for name in ("jax", "libtpu")}}


def _sending(row: dict, mesh: Mapping[str, int]) -> dict:
    """{"ici_s", "dcn_s"}: collectives alone, inside slices and between them (`plan_links`)."""
    inside = dict(mesh) | {"data": mesh["data"] // row["slices"]}
    alone = links.seconds(row["chip"], row["collectives_by_axes"], row["between_slices"], inside)
    return dict(zip(("ici_s", "dcn_s"), alone if alone and row["fits"] else (None, None)))


def _times(row: dict, steps: int, one: Row, mfu: float, price: float | None) -> dict:
    """A step and the whole run at `mfu`. The length of a run that is counted in epochs is that of its data: unknown."""
    peak = PEAK_FLOPS.get(PEAK_NAME.get(row["chip"], row["chip"]))
    seconds = row["flops_per_chip"] / (peak * mfu) if peak and row["fits"] else None
    hours = seconds * steps / 3600 if seconds and steps else None
    chip_hours = hours * row["chips"] if hours else None
    return {
        "mfu": mfu,
        "step_s": seconds,
        "codes_per_s": row["global_batch"] * one.codes / seconds if seconds else None,
        "bases_per_s": row["global_batch"] * one.bases / seconds if seconds else None,
        "days": hours / 24 if hours else None,
        "chip_hours": chip_hours,
        "cost_usd": chip_hours * price if chip_hours and price is not None else None,
    }


def _compute(task: Vocabulary | MaskedCodes | Finetune) -> Compute | None:
    if isinstance(task, Vocabulary):
        return None
    return task.network.compute if isinstance(task, Finetune) else task.compute


def _compile(lowered, hbm_gib: float | None, mesh: Mapping[str, int]) -> dict:
    nothing = Sent({}, {}, {"count": 0, "bytes": 0}, True)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        sizes = next((match for pattern in _OUT_OF_MEMORY if (match := pattern.search(str(error)))), None)
        if sizes is None:
            raise
        wanted, unit, available, available_unit = sizes.groups()
        wanted, available = _in_bytes(wanted, unit), _in_bytes(available, available_unit)
        return {"fits": False, "peak_bytes": wanted, "hbm_bytes": available} | _sent(nothing)
    memory = compiled.memory_analysis()
    return {
        "fits": True,
        "peak_bytes": memory.peak_memory_in_bytes,
        "hbm_bytes": hbm_gib and round(hbm_gib * GIB),
        "donated_bytes": memory.alias_size_in_bytes,
    } | _sent(collectives(compiled.as_text(), mesh))


def _sent(sent: Sent) -> dict:
    return {
        "collectives": sent.by_kind,
        "collectives_by_axes": sent.by_axes,
        "between_slices": sent.between_slices,
        "loops_known": sent.loops_known,
    }


def _in_bytes(number: str, unit: str) -> int:
    return round(float(number) * 2 ** (10 * " KMGT".index(unit.upper() or " ")))


def _shard_bytes(leaf: jax.ShapeDtypeStruct) -> int:
    return leaf.dtype.itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape))
