"""The step that `vqdna plan` compiles: any stage's task and batch, abstract, with no trained model at hand.

What a stage would read from an earlier one's export is taken from the config that it would be trained with, or from the
description beside the export that the config names.
"""

import dataclasses
import pathlib
import types
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, get_args

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from vqdna_jax.errors import InputError
from vqdna_jax.genome.windows import Windows
from vqdna_jax.inference.saved import pretrained
from vqdna_jax.labels.batches import LabelledCodes
from vqdna_jax.labels.sets import Kind
from vqdna_jax.models.tokenizer import Encoder, TokenizerConfig
from vqdna_jax.models.transformer import Transformer, TransformerConfig
from vqdna_jax.partition import Tree, abstract_state, batch_shards, spec
from vqdna_jax.runtime import exports
from vqdna_jax.stages import finetune, masked_codes, vocabulary
from vqdna_jax.tasks.finetune import Finetune, FrozenBase
from vqdna_jax.tasks.masked_codes import FrozenTokenizer, MaskedCodes
from vqdna_jax.tasks.vocabulary import Vocabulary
from vqdna_jax.training.experiments import read_config

Shape = TypeVar("Shape", TokenizerConfig, TransformerConfig)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedFinetune(Finetune):
    """Fine-tuning on sequences that fill the base's window, `window_bp` long with CLS."""

    tokenizer: TokenizerConfig
    window_bp: int


Task = Vocabulary | MaskedCodes | PlannedFinetune


class Row(NamedTuple):
    """What one row of the global batch is: a window, or a labelled sequence."""

    bases: int
    codes: int
    flops: float


def make_task(config, source: str) -> Task:
    """The stage's task, for a TPU.

    What the config leaves empty, `tokenizer` or `pretrained`, is that of hrq.py and mcm.py beside the experiment, of
    the same preset, or of their base.

    Raises:
        InputError: the tokenizer does not fit the window or the masking, the base does not fit the mesh.
    """
    if config.task == "vocabulary":
        return vocabulary.vocabulary_task(config)
    if config.compute.attention == "cudnn":
        raise InputError('config key compute.attention: found "cudnn", which is for GPUs; expected auto, splash or xla')
    if config.task == "finetune":
        return _finetune_task(config, source)
    tokenizer = _exported(config.tokenizer, "model", TokenizerConfig, pretrained.SCHEMAS)
    tokenizer = tokenizer or TokenizerConfig(**_beside(source, "hrq.py").model)
    return masked_codes.masked_codes_task(config, tokenizer, "tpu")


def _finetune_task(config, source: str) -> PlannedFinetune:
    schemas = {pretrained.PRETRAINED: pretrained.SCHEMAS[pretrained.PRETRAINED]}
    if transformer := _exported(config.pretrained, "transformer", TransformerConfig, schemas):
        tokenizer = _exported(config.pretrained, "model", TokenizerConfig, schemas)
        window_bp = _described(config.pretrained, schemas)[1]["window_bp"]
    else:
        base = _beside(source, "mcm.py")
        transformer, window_bp = TransformerConfig(**base.model), base.data.window_bp
        tokenizer = TokenizerConfig(**_beside(source, "hrq.py").model)
    _check_mesh(config.mesh, transformer)
    kind = config.data.kind if config.data.kind in get_args(Kind) else "classification"
    labels = types.SimpleNamespace(kind=kind, classes=1 if kind == "regression" else len(config.data.label_names) or 2)
    task = finetune.finetune_task(config, types.SimpleNamespace(transformer=transformer), labels, "tpu")
    return PlannedFinetune(**vars(task), tokenizer=tokenizer, window_bp=window_bp)


def _check_mesh(mesh, transformer: TransformerConfig) -> None:
    for axis, size in (("tensor", "heads"), ("tensor", "hidden"), ("fsdp", "width")):
        if getattr(transformer, size) % mesh[axis]:
            raise InputError(
                f"config key mesh.{axis}: found {mesh[axis]}, expected a divisor of the base's"
                f" {size}={getattr(transformer, size)}"
            )


def _exported(directory: str, key: str, kind: type[Shape], schemas) -> Shape | None:
    """What the config.json of an export says of its `key`; None where the config names no directory."""
    if not directory:
        return None
    path, described = _described(directory, schemas)
    return exports.typed(path, key, described[key], kind)


def _described(directory: str, schemas) -> tuple[pathlib.Path, dict]:
    path = pathlib.Path(directory) / exports.CONFIG
    return path, exports.read_config(path, schemas)


def _beside(source: str, name: str):
    path, _, preset = source.partition(":")
    experiment = pathlib.Path(path).with_name(name)
    try:
        return read_config(f"{experiment}:{preset or 'base'}")
    except InputError:
        return read_config(f"{experiment}:base")


def row_of(config, task: Task) -> Row:
    if isinstance(task, PlannedFinetune):
        slots = task.window_bp // task.tokenizer.bases_per_code
        codes = slots - task.model.cls
        return Row(codes * task.tokenizer.bases_per_code, codes, codes * task.flops_per_code(slots))
    bases = config.data.window_bp
    tokenizer = task.model if isinstance(task, Vocabulary) else task.tokenizer
    return Row(bases, bases // tokenizer.bases_per_code, bases * task.flops_per_base(bases))


def abstract_inputs(config, task: Task, mesh: Mesh) -> tuple[Any, Windows | LabelledCodes]:
    """(frozen weights, a global batch of full windows), as the stage gives them to its step."""
    rows = config.data.global_batch

    def split(shape: tuple[int, ...], dtype) -> jax.ShapeDtypeStruct:
        sharding = jax.NamedSharding(mesh, spec("batch", *[None] * len(shape)))
        return jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=sharding)

    if isinstance(task, PlannedFinetune):
        levels = len(task.tokenizer.codebook_sizes)
        label = (task.outputs,) if task.kind == "multilabel" else ()
        batch = LabelledCodes(
            split((1, row_of(config, task).codes, levels), jnp.uint16),
            split(label, jnp.int32 if task.kind == "classification" else jnp.float32),
            split((1,), jnp.int32),
            split((), jnp.float32),
        )
        return _whole(lambda: _frozen_base(task, batch_shards(mesh)), mesh), batch
    windows = Windows(split((config.data.window_bp,), jnp.uint8))
    if isinstance(task, Vocabulary):
        return (), windows
    return _whole(lambda: _frozen_tokenizer(task.tokenizer, batch_shards(mesh)), mesh), windows


def _frozen_tokenizer(tokenizer: TokenizerConfig, rows: int) -> FrozenTokenizer:
    bases = jnp.zeros((rows, tokenizer.bases_per_code), jnp.uint8)
    return FrozenTokenizer(Encoder(tokenizer).init(jax.random.key(0), bases)["params"], _vectors(tokenizer))


def _frozen_base(task: PlannedFinetune, rows: int) -> FrozenBase:
    vectors, levels = _vectors(task.tokenizer), len(task.tokenizer.codebook_sizes)
    inputs = jnp.zeros((rows, 1, levels, task.tokenizer.width)), jnp.zeros((rows, 1), bool), jnp.zeros(rows, bool)
    transformer = Transformer(task.model).init(jax.random.key(0), *inputs)["params"]
    return FrozenBase(vectors, transformer, jnp.ones(task.outputs))


def _vectors(tokenizer: TokenizerConfig) -> tuple[jax.Array, ...]:
    return tuple(jnp.zeros((size, tokenizer.width)) for size in tokenizer.codebook_sizes)


def _whole(init: Callable[[], Tree], mesh: Mesh) -> Tree:
    """Of `init()`, as `partition.whole_on` places it."""
    whole = jax.NamedSharding(mesh, jax.P())
    frozen = abstract_state(init, mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), frozen)
