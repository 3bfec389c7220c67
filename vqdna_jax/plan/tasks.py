"""The step that `vqdna plan` compiles: any stage's task and batch, abstract, with no trained model at hand.

What a stage would read from an earlier one's export is taken from the config that it would be trained with, or from the
description beside the export that the config names.
"""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from vqdna_jax.errors import InputError
from vqdna_jax.genome.windows import Windows
from vqdna_jax.inference.saved import formats
from vqdna_jax.labels.batches import LabelledCodes, LabelledFeatures
from vqdna_jax.labels.sets import Kind
from vqdna_jax.models.bert import BertConfig
from vqdna_jax.models.classifier import POSITIONS, Classifier
from vqdna_jax.models.networks import NetworkConfig, PublishedConfig
from vqdna_jax.models.tokenizer import Encoder, TokenizerConfig
from vqdna_jax.models.transformer import Compute
from vqdna_jax.partition import Tree, abstract_state, local_mesh, spec
from vqdna_jax.runtime import exports, shipped
from vqdna_jax.stages.finetune import finetune_task
from vqdna_jax.stages.masked_codes import masked_codes_task
from vqdna_jax.stages.vocabulary import vocabulary_task
from vqdna_jax.tasks.finetune import Finetune, FrozenBase, Labelled
from vqdna_jax.tasks.masked_codes import FrozenTokenizer, MaskedCodes
from vqdna_jax.tasks.vocabulary import Vocabulary
from vqdna_jax.tokenizers import load as tokenizers
from vqdna_jax.training import settings
from vqdna_jax.training.experiments import beside, find, read_config
from vqdna_jax.training.settings import FinetuneSettings, MaskedCodesSettings, StageSettings, VocabularySettings

COMPARED_BASES = 500  # of one sequence, where papers compare what models cost
_DNABERT2 = BertConfig(activation="geglu", up_bias=False, positions="alibi", slots=0)
_ITS_TOKENS = COMPARED_BASES / 4  # at which DNABERT costs as much more as is printed; docs/rivals.md


class Row(NamedTuple):
    """What one row of the global batch is: a window, or a labelled sequence."""

    bases: int
    codes: int
    flops: float


class Tokens(NamedTuple):
    """What a published vocabulary is to a step; `length` tokens are a window."""

    codebook_sizes: tuple[int, ...]
    width: int
    length: int


class Planned(NamedTuple):
    """A stage's task, and what its rows are.

    Attributes:
        tokenizer: of the codes; the one that is trained, if one is.
        window_bp: bases of a window. Fine-tuning is of sequences that fill the base's, CLS in the place of a code.
    """

    task: Vocabulary | MaskedCodes | Finetune
    tokenizer: TokenizerConfig | Tokens
    window_bp: int

    def row(self) -> Row:
        bases, rest = self.window_bp, full_length(self.tokenizer, self.window_bp, 0)
        if not isinstance(self.task, Finetune):
            return Row(bases, rest, bases * self.task.flops_per_base(bases))
        cls = self.task.network.model.cls
        rest = full_length(self.tokenizer, self.window_bp, cls)
        if isinstance(self.tokenizer, TokenizerConfig):
            bases = rest * self.tokenizer.bases_per_code
        return Row(bases, rest, rest * self.task.flops_per_code(rest + cls))


def full_length(tokenizer: TokenizerConfig | Tokens, window_bp: int, cls: bool | int) -> int:
    """Codes of a window without CLS, which takes the place of a learned one."""
    return tokenizer.length if isinstance(tokenizer, Tokens) else window_bp // tokenizer.bases_per_code - cls


def make_task(run: StageSettings, source: str) -> Planned:
    """The stage's task, for a TPU.

    What the config leaves empty, `tokenizer` or `pretrained`, is that of hrq.py and mcm.py beside the experiment, of
    the same preset, or of their base.

    Raises:
        InputError: the tokenizer does not fit the window or the masking, the base does not fit the mesh.
    """
    if isinstance(run, VocabularySettings):
        return Planned(vocabulary_task(run), run.model, run.data.window_bp)
    if run.compute.attention == "cudnn":
        raise InputError('config key compute.attention: found "cudnn", which is for GPUs; expected auto, splash or xla')
    if isinstance(run, FinetuneSettings):
        return _finetune(run, source)
    if run.tokenizer:
        tokenizer = _tokenizer(*_described(run.tokenizer, (exports.TOKENIZER, exports.PRETRAINED)))
    else:
        tokenizer = _beside(source, "hrq", VocabularySettings).model
    return Planned(masked_codes_task(run, tokenizer, "tpu"), tokenizer, run.data.window_bp)


def _finetune(run: FinetuneSettings, source: str) -> Planned:
    base, tokenizer, window_bp = _base(run.pretrained, source)
    run.check_base(base, full_length(tokenizer, window_bp, 0))
    kinds: tuple[Kind, ...] = get_args(Kind)
    kind: Kind = next((kind for kind in kinds if kind == run.data.kind), "classification")
    outputs = 1 if kind == "regression" else len(run.data.names) or 2
    pool = "mean" if run.head.pool == "auto" else run.head.pool  # which of them is best, only data can say
    full = full_length(tokenizer, window_bp, base.cls)
    places = full if any(name in POSITIONS for name in pool.split("+")) else 0
    readout = Classifier(base, run.compute, outputs, tokenizer.codebook_sizes, pool, places=places)
    return Planned(finetune_task(run, readout, kind, "tpu"), tokenizer, window_bp)


def base_parameters(planned: Planned) -> int | None:
    """Of the network that is fine-tuned; None of other stages."""
    task, tokenizer = planned.task, planned.tokenizer
    if not isinstance(task, Finetune):
        return None
    model = task.network.model
    if isinstance(model, PublishedConfig):
        return formats.parameters(formats.of_published(model, tokenizer.codebook_sizes[0]))
    frozen = abstract_state(lambda: _frozen_base(task, tokenizer).transformer, local_mesh())
    return sum(x.size for x in jax.tree.leaves(frozen))


def base_flops(planned: Planned) -> tuple[float, float] | None:
    """Of a forward pass of COMPARED_BASES through the network that is fine-tuned, and how many of DNABERT-2's; None of
    other stages."""
    if not isinstance(planned.task, Finetune):
        return None
    row = planned.row()
    return forward_flops(planned.task.network.model, COMPARED_BASES * row.codes / row.bases)


def forward_flops(network: NetworkConfig, tokens: float) -> tuple[float, float]:
    """Of so many tokens, mostly of COMPARED_BASES, and how many of DNABERT-2's."""
    flops, its = (n * of.flops_per_code(round(n)) for of, n in ((network, tokens), (_DNABERT2, _ITS_TOKENS)))
    return flops, flops / its


def _base(directory: str, source: str) -> tuple[NetworkConfig, TokenizerConfig | Tokens, int]:
    """(network, tokenizer, bases of a window) of a pretrained model."""
    if directory:
        path, described = _described(directory, (exports.PRETRAINED, exports.IMPORTED))
        if described["schema"] == exports.IMPORTED:
            return _imported(path, described)
        return formats.trained_network(path, described), _tokenizer(path, described), described["window_bp"]
    base, tokenizer = _beside(source, "mcm", MaskedCodesSettings), _beside(source, "hrq", VocabularySettings).model
    window_bp = base.data.window_bp
    return base.model.network(window_bp // tokenizer.bases_per_code), tokenizer, window_bp


def _imported(path: pathlib.Path, described: dict) -> tuple[NetworkConfig, Tokens, int]:
    network = formats.read_network(path, described)
    words = tokenizers.from_described(described["tokenizer"], f"{path}: key tokenizer").vocabulary
    return network, Tokens((words,), network.width, described["length"]), described["window_bp"]


def _tokenizer(path: pathlib.Path, described: dict) -> TokenizerConfig:
    return exports.typed(path, "model", described["model"], TokenizerConfig)


def _described(directory: str, schemas) -> tuple[pathlib.Path, dict]:
    path = shipped.find(directory) / exports.CONFIG
    return path, exports.read_config(path, schemas)


def _beside(source: str, name: str, kind: type[settings.Kept]) -> settings.Kept:
    path, _, preset = source.partition(":")
    experiment = beside(find(path), name)
    try:
        config = read_config(f"{experiment}:{preset or 'base'}")
    except InputError:
        config = read_config(f"{experiment}:base")
    return settings.read(kind, config.to_dict())


def abstract_inputs(planned: Planned, rows: int, mesh: Mesh) -> tuple[Any, Windows | Labelled]:
    """(frozen weights, a global batch of full windows), as the stage gives them to its step."""
    task = planned.task

    def split(shape: tuple[int, ...], dtype) -> jax.ShapeDtypeStruct:
        sharding = jax.NamedSharding(mesh, spec("batch", *[None] * len(shape)))
        return jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=sharding)

    if isinstance(task, Finetune):
        levels = len(planned.tokenizer.codebook_sizes)
        label = (task.network.outputs,) if task.kind == "multilabel" else ()
        labels = split(label, jnp.int32 if task.kind == "classification" else jnp.float32)
        weights, lengths, total = split((), jnp.float32), split((1,), jnp.int32), split((), jnp.int32)
        codes = split((1, planned.row().codes, levels), jnp.uint16)
        batch: Labelled = LabelledCodes(codes, labels, lengths, total, weights)
        if task.method == "head":
            batch = LabelledFeatures(split((task.network.width,), jnp.float32), labels, weights)
        return _whole(lambda: _frozen_base(task, planned.tokenizer), mesh), batch
    windows = Windows(split((planned.window_bp,), jnp.uint8))
    if isinstance(task, Vocabulary):
        return (), windows
    learned = planned.tokenizer
    assert isinstance(learned, TokenizerConfig), "masked codes are of one"
    return _whole(lambda: _frozen_tokenizer(learned), mesh), windows


def _frozen_tokenizer(tokenizer: TokenizerConfig) -> FrozenTokenizer:
    bases = jnp.zeros((1, tokenizer.bases_per_code), jnp.uint8)
    return FrozenTokenizer(Encoder(tokenizer).init(jax.random.key(0), bases)["params"], _vectors(tokenizer))


def _frozen_base(task: Finetune, tokenizer: TokenizerConfig | Tokens) -> FrozenBase:
    vectors, levels = _vectors(tokenizer), len(tokenizer.codebook_sizes)
    inputs = jnp.zeros((1, 1, levels, tokenizer.width)), jnp.zeros((1, 1), bool), jnp.zeros(1, bool)
    transformer = task.network.model.module(Compute()).init(jax.random.key(0), *inputs)["params"]
    return FrozenBase(vectors, transformer, jnp.ones(task.network.outputs))


def _vectors(tokenizer: TokenizerConfig | Tokens) -> tuple[jax.Array, ...]:
    return tuple(jnp.zeros((size, tokenizer.width)) for size in tokenizer.codebook_sizes)


def _whole(init: Callable[[], Tree], mesh: Mesh) -> Tree:
    """Of `init()`, as `partition.whole_on` places it."""
    whole = jax.NamedSharding(mesh, jax.P())
    frozen = abstract_state(init, local_mesh())
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), frozen)
