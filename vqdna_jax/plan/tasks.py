"""The step that `vqdna plan` compiles: any stage's task and batch, abstract, with no trained model at hand.

What a stage would read from an earlier one's export is taken from the config that it would be trained with, or from the
description beside the export that the config names.
"""

import pathlib
from typing import get_args

import jax

from vqdna_jax.errors import InputError
from vqdna_jax.inference.saved import formats
from vqdna_jax.labels.sets import Kind
from vqdna_jax.models.bert import BertConfig
from vqdna_jax.models.classifier import POSITIONS, Classifier
from vqdna_jax.models.networks import NetworkConfig, PublishedConfig
from vqdna_jax.models.tokenizer import TokenizerConfig
from vqdna_jax.partition import abstract_state, local_mesh
from vqdna_jax.runtime import exports, shipped
from vqdna_jax.stages.abstract import Planned, Tokens, frozen_base, full_length
from vqdna_jax.stages.finetune import finetune_task
from vqdna_jax.stages.masked_codes import masked_codes_task
from vqdna_jax.stages.vocabulary import vocabulary_task
from vqdna_jax.tasks.finetune import Finetune
from vqdna_jax.tokenizers import load as tokenizers
from vqdna_jax.training import settings
from vqdna_jax.training.experiments import beside, find, read_config
from vqdna_jax.training.settings import FinetuneSettings, MaskedCodesSettings, StageSettings, VocabularySettings

COMPARED_BASES = 500  # of one sequence, where papers compare what models cost
_DNABERT2 = BertConfig(activation="geglu", up_bias=False, positions="alibi", slots=0)
_ITS_TOKENS = COMPARED_BASES / 4  # at which DNABERT costs as much more as is printed; docs/rivals.md


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
        return finetuning(run, *_base(run.pretrained, source))
    tokenizer = tokenizer_of(run, source)
    return Planned(masked_codes_task(run, tokenizer, "tpu"), tokenizer, run.data.window_bp)


def tokenizer_of(run: MaskedCodesSettings, source: str) -> TokenizerConfig:
    """That of the export which the config names, or of hrq.py beside the experiment."""
    if run.tokenizer:
        return _tokenizer(*_described(run.tokenizer, (exports.TOKENIZER, exports.PRETRAINED)))
    return beside_of(source, "hrq", VocabularySettings).model


def finetuning(
    run: FinetuneSettings, base: NetworkConfig, tokenizer: TokenizerConfig | Tokens, window_bp: int
) -> Planned:
    """Of sequences that fill a window of the base. Raises InputError: as `make_task`."""
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
    frozen = abstract_state(lambda: frozen_base(task, tokenizer).transformer, local_mesh())
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


def base_of(directory: str) -> tuple[NetworkConfig, TokenizerConfig | Tokens, int]:
    """(network, tokenizer, bases of a window) of a pretrained model, by its directory or its name."""
    path, described = _described(directory, (exports.PRETRAINED, exports.IMPORTED))
    if described["schema"] == exports.IMPORTED:
        return _imported(path, described)
    return formats.trained_network(path, described), _tokenizer(path, described), described["window_bp"]


def _base(directory: str, source: str) -> tuple[NetworkConfig, TokenizerConfig | Tokens, int]:
    if directory:
        return base_of(directory)
    base, tokenizer = beside_of(source, "mcm", MaskedCodesSettings), beside_of(source, "hrq", VocabularySettings).model
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


def beside_of(source: str, name: str, kind: type[settings.Kept]) -> settings.Kept:
    """The settings of the experiment `name` beside `source`, of the same preset or of base."""
    path, _, preset = source.partition(":")
    experiment = beside(find(path), name)
    try:
        config = read_config(f"{experiment}:{preset or 'base'}")
    except InputError:
        config = read_config(f"{experiment}:base")
    return settings.read(kind, config.to_dict())
