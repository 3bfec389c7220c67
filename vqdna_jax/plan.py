"""Compiles the train step of any config for a TPU topology, without a TPU: does it fit, what does it send, how long.

The verb sets JAX_PLATFORMS and what keeps libtpu from asking a metadata server before jax is imported (cli.py). All
arrays are abstract: nothing is allocated, and no trained tokenizer is needed.
"""

import dataclasses
import functools
import importlib.metadata
import importlib.util
import math
import pathlib
import re
import sys
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.sharding import Mesh
from ml_collections import config_flags

from vqdna_jax import export_files, hub, settings, window_stages
from vqdna_jax.collectives import collectives
from vqdna_jax.errors import InputError
from vqdna_jax.masked_codes import TOKENIZER
from vqdna_jax.metrics import PEAK_FLOPS
from vqdna_jax.models.tokenizer import Encoder, TokenizerConfig
from vqdna_jax.optimizer import make_optimizer
from vqdna_jax.partition import abstract_state, batch_shards, make_mesh, spec
from vqdna_jax.step import init_state, train_step

GIB = 2**30
HBM_GIB = {  # what the compiler says it may use of a device, by device_kind
    "TPU v4": 30.75, "TPU v5 lite": 15.75, "TPU v5": 95.74, "TPU v6 lite": 31.25, "TPU7x": 94.75,
}  # fmt: skip
PEAK_NAME = {"TPU v5": "TPU v5p"}  # a v5p calls itself TPU v5
TOPOLOGIES = "v5e:16x16, v5p:4x4x4, v6e:16x16 or v4:2x2x1"
_SIZE = r"([\d.]+)([KMGT]?)"
_OUT_OF_MEMORY = (  # (wanted, available) in two of the compiler's messages
    re.compile(rf"Used {_SIZE} of {_SIZE} hbm", re.IGNORECASE),
    re.compile(rf"\({_SIZE}\) exceeds available HBM \({_SIZE}\)", re.IGNORECASE),
)


def plan(source: str, topologies: Sequence[str], overrides: Sequence[str], mfu: float) -> list[dict]:
    """One row a topology, plain JSON types; sizes in bytes, times in seconds, None where there is nothing to say.

    Args:
        source: FILE or FILE:PRESET of an experiment.
        overrides: KEY=VALUE of config keys.
        mfu: the share of the chips' peak at which times are stated.

    Raises:
        InputError: a bad key, value, topology or mesh, before anything is compiled; no libtpu.
    """
    if not 0 < mfu <= 1:
        raise InputError(f"--mfu: found {mfu}, expected a share over 0, at most 1")
    if not topologies:
        raise InputError(f"--topology is missing: expected for example {TOPOLOGIES}")
    config = read_config(source, overrides)
    settings.validate(config)
    meshes = {name: make_mesh(**config.mesh, devices=topology_devices(name)) for name in topologies}
    for mesh in meshes.values():
        settings.validate_mesh(config, batch_shards(mesh))
    task = make_task(config, source)
    rows = []
    for name, mesh in meshes.items():
        print(f"compiling {source} for {name} ...", file=sys.stderr, flush=True)
        rows.append({"config": source, "set": list(overrides), "topology": name} | plan_row(config, task, mesh, mfu))
    return rows


def read_config(source: str, overrides: Sequence[str] = ()):
    """The config of FILE or FILE:PRESET with KEY=VALUE overrides, as `--config` of vqdna_jax.main reads it.

    Raises:
        InputError: no such file, preset or key, or a value of another type.
    """
    path = source.partition(":")[0]
    if not pathlib.Path(path).is_file():
        raise InputError(f"--config={source}: there is no file {path}; the experiments are in configs/")
    for override in overrides:
        if "=" not in override:
            raise InputError(f"--set {override}: expected KEY=VALUE, for example --set mesh.fsdp=16")
    if "" not in sys.path:
        sys.path.append("")  # an experiment may import another one; `python -m` has this, a console script has not
    arguments = ["plan", f"--config={source}", *(f"--config.{override}" for override in overrides)]
    values = flags.FlagValues()
    holder = config_flags.DEFINE_config_file("config", None, "", flag_values=values, sys_argv=arguments)
    try:
        values(arguments)
    except (KeyError, AttributeError) as error:
        key = getattr(error.args[0], "args", error.args)[0].splitlines()[0].strip("'")
        raise InputError(f"config key {key!r} does not exist; the keys and their defaults are in {path}") from error
    except (flags.Error, ImportError, TypeError, ValueError, OSError) as error:
        raise InputError(f"--config={source}: {str(error).strip().splitlines()[-1]}") from error
    return holder.value


def topology_devices(name: str) -> np.ndarray:
    """The devices of a TPU topology that need not exist. Raises InputError: no libtpu, or no such topology."""
    if importlib.util.find_spec("libtpu") is None:
        raise InputError("libtpu, the TPU compiler, is not installed: pip install .[tpu] (it needs no TPU)")
    from jax.experimental import topologies

    # On a v4 jax sees one device a chip, which for libtpu is an option.
    options = {"chip_config_name": "megacore"} if name.startswith("v4:") else {}
    try:
        return np.array(topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices)
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"--topology={name}: expected for example {TOPOLOGIES} ({reason})") from error


def make_task(config, source: str):
    """The stage's task, for a TPU. A tokenizer that config.tokenizer does not name is the one of hrq.py beside the
    experiment, of the same preset. Raises InputError: the tokenizer does not fit the window or the masking."""
    if config.task == "vocabulary":
        return window_stages.vocabulary_task(config)
    tokenizer = _tokenizer_config(config, source)
    if config.compute.attention == "cudnn":
        raise InputError('config key compute.attention: found "cudnn", which is for GPUs; expected auto, splash or xla')
    return window_stages.masked_codes_task(config, tokenizer, "tpu")


def _tokenizer_config(config, source: str) -> TokenizerConfig:
    if config.tokenizer:
        path = pathlib.Path(config.tokenizer) / export_files.CONFIG
        described = export_files.read_config(path, hub.SCHEMAS)
        return export_files.typed(path, "model", described["model"], TokenizerConfig)
    path, _, preset = source.partition(":")
    experiment = pathlib.Path(path).with_name("hrq.py")
    try:
        return TokenizerConfig(**read_config(f"{experiment}:{preset or 'base'}").model)
    except InputError:
        return TokenizerConfig(**read_config(f"{experiment}:base").model)


def compile_step(config, task, mesh: Mesh):
    """(abstract state, compiled step): the step of train.py on `mesh`, whose devices need not be there.

    Raises jax.errors.JaxRuntimeError where the compiler finds that it does not fit.
    """
    state, lowered = _lower_step(config, task, mesh)
    return state, lowered.compile()


def _lower_step(config, task, mesh: Mesh):
    tx = make_optimizer(config.optimizer, config.train.total_steps or 1000)  # the schedule changes no shape
    key = jax.ShapeDtypeStruct((), jax.random.key(0).dtype, sharding=jax.NamedSharding(mesh, jax.P()))
    batch = _abstract_batch(config, task, mesh)
    state = abstract_state(functools.partial(init_state, task, tx), mesh, key, batch)
    one_step = functools.partial(train_step, task, tx, skip_above=config.optimizer.skip_above)
    with jax.set_mesh(mesh):
        return state, jax.jit(one_step, donate_argnums=0).lower(state, batch, key)


def _abstract_batch(config, task, mesh: Mesh) -> dict:
    shape = (config.data.global_batch, config.data.window_bp)
    batch = {"bases": jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=jax.NamedSharding(mesh, spec("batch", None)))}
    if config.task == "vocabulary":
        return batch
    tokenizer = task.tokenizer

    def frozen():
        bases = jnp.zeros((batch_shards(mesh), tokenizer.bases_per_code), jnp.uint8)
        codes = tuple(jnp.zeros((size, tokenizer.width)) for size in tokenizer.codebook_sizes)
        return {"encoder": Encoder(tokenizer).init(jax.random.key(0), bases)["params"], "codes": codes}

    whole = jax.NamedSharding(mesh, jax.P())  # as hub.load places it
    abstract = abstract_state(frozen, mesh)
    return batch | {TOKENIZER: jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), abstract)}


def plan_row(config, task, mesh: Mesh, mfu: float) -> dict:
    """What one mesh makes of the step; a step that does not fit is a row that says so."""
    shards, kind = batch_shards(mesh), mesh.devices.flat[0].device_kind
    bases = config.data.global_batch * config.data.window_bp
    codes = bases // (config.model if config.task == "vocabulary" else task.tokenizer).bases_per_code
    flops = bases * task.flops_per_base(config.data.window_bp)
    state, lowered = _lower_step(config, task, mesh)
    row = {
        "chip": kind,
        "chips": mesh.size,
        "mesh": {axis: size for axis, size in mesh.shape.items() if size > 1},
        "rows_per_chip": config.data.global_batch // shards,
        "codes_per_chip": codes // shards,
        "microbatches": task.microbatches,
        "compute": dataclasses.asdict(task.compute) if hasattr(task, "compute") else {},
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "state_bytes": sum(map(_shard_bytes, jax.tree.leaves(state))),
        "flops": flops,
        "flops_per_chip": flops / mesh.size,
    }
    start = time.perf_counter()
    row |= _compile(lowered, HBM_GIB.get(kind)) | {"compile_s": time.perf_counter() - start}
    peak = PEAK_FLOPS.get(PEAK_NAME.get(kind, kind))
    seconds = row["flops_per_chip"] / (peak * mfu) if peak and row["fits"] else None
    days = seconds * config.train.total_steps / 86400 if seconds and config.train.total_steps else None
    row |= {"mfu": mfu, "step_s": seconds, "codes_per_s": codes / seconds if seconds else None, "days": days}
    return row | {"versions": {name: importlib.metadata.version(name) for name in ("jax", "libtpu")}}


def _compile(lowered, hbm_gib: float | None) -> dict:
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        sizes = next((match for pattern in _OUT_OF_MEMORY if (match := pattern.search(str(error)))), None)
        if sizes is None:
            raise
        wanted, unit, available, available_unit = sizes.groups()
        wanted, available = _in_bytes(wanted, unit), _in_bytes(available, available_unit)
        return {"fits": False, "peak_bytes": wanted, "hbm_bytes": available, "collectives": {}, "loops_known": True}
    memory = compiled.memory_analysis()
    sent, known = collectives(compiled.as_text())
    return {
        "fits": True,
        "peak_bytes": memory.peak_memory_in_bytes,
        "hbm_bytes": hbm_gib and round(hbm_gib * GIB),
        "donated_bytes": memory.alias_size_in_bytes,
        "collectives": sent,
        "loops_known": known,
    }


def _in_bytes(number: str, unit: str) -> int:
    return round(float(number) * 2 ** (10 * " KMGT".index(unit.upper() or " ")))


def _shard_bytes(leaf: jax.ShapeDtypeStruct) -> int:
    return leaf.dtype.itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape))
