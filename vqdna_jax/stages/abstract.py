"""A stage's step as shapes alone, to trace or to compile with no trained model and no data at hand."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh

from vqdna_jax.genome.windows import Windows
from vqdna_jax.labels.batches import LabelledCodes, LabelledFeatures
from vqdna_jax.models.tokenizer import Encoder, TokenizerConfig
from vqdna_jax.models.transformer import Compute
from vqdna_jax.partition import Tree, abstract_rows, abstract_state, abstract_whole, entered, local_mesh
from vqdna_jax.tasks.finetune import Finetune, FrozenBase, Labelled
from vqdna_jax.tasks.masked_codes import FrozenTokenizer, MaskedCodes
from vqdna_jax.tasks.vocabulary import Vocabulary
from vqdna_jax.training.optimizer import make_optimizer
from vqdna_jax.training.settings import Settings
from vqdna_jax.training.step import TrainState, final_params, init_state, train_step


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
        windows: of a sequence that is fine-tuned on.
    """

    task: Vocabulary | MaskedCodes | Finetune
    tokenizer: TokenizerConfig | Tokens
    window_bp: int
    windows: int = 1

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


def trace_step(settings: Settings, planned: Planned, mesh: Mesh | AbstractMesh) -> tuple[TrainState, jax.stages.Traced]:
    """(abstract state, traced step): the step of train.py on `mesh`, whose devices need not be there."""
    task, optimizer = planned.task, settings.optimizer
    tx = make_optimizer(optimizer, settings.train.total_steps or 1000)  # the schedule changes no shape
    key = jax.ShapeDtypeStruct((), jax.random.key(0).dtype, sharding=jax.NamedSharding(mesh, jax.P()))
    frozen, batch = abstract_inputs(planned, settings.data.global_batch, mesh)
    state = abstract_state(functools.partial(init_state, task, tx), mesh, key, frozen, batch)
    one_step = functools.partial(train_step, task, tx, skip_above=optimizer.skip_above)
    with entered(mesh):
        return state, jax.jit(one_step, donate_argnums=0).trace(state, frozen, batch, key)


def trace_predict(planned: Planned, state: TrainState, rows: int, mesh: Mesh | AbstractMesh) -> jax.stages.Traced:
    """So many rows of an evaluation, while `state`, abstract, is there."""
    frozen, batch = abstract_inputs(planned, rows, mesh)

    def predict(state: TrainState, frozen: Any, batch: Any) -> dict[str, jax.Array]:
        return planned.task.predict(final_params(state), state.codebooks, frozen, batch)

    with entered(mesh):
        return jax.jit(predict).trace(state, frozen, batch)


def abstract_inputs(planned: Planned, rows: int, mesh: Mesh | AbstractMesh) -> tuple[Any, Windows | Labelled]:
    """(frozen weights, a global batch of full windows), as the stage gives them to its step."""
    task = planned.task
    split = abstract_rows(mesh, rows)
    if isinstance(task, Finetune):
        levels = len(planned.tokenizer.codebook_sizes)
        label = (task.network.outputs,) if task.kind == "multilabel" else ()
        labels = split(label, jnp.int32 if task.kind == "classification" else jnp.float32)
        weights, lengths, total = split((), jnp.float32), split((planned.windows,), jnp.int32), split((), jnp.int32)
        codes = split((planned.windows, planned.row().codes, levels), jnp.uint16)
        batch: Labelled = LabelledCodes(codes, labels, lengths, total, weights)
        if task.method == "head":
            batch = LabelledFeatures(split((task.network.width,), jnp.float32), labels, weights)
        return _whole(lambda: frozen_base(task, planned.tokenizer), mesh), batch
    windows = Windows(split((planned.window_bp,), jnp.uint8))
    if isinstance(task, Vocabulary):
        return (), windows
    learned = planned.tokenizer
    assert isinstance(learned, TokenizerConfig), "masked codes are of one"
    return _whole(lambda: _frozen_tokenizer(learned), mesh), windows


def _frozen_tokenizer(tokenizer: TokenizerConfig) -> FrozenTokenizer:
    bases = jnp.zeros((1, tokenizer.bases_per_code), jnp.uint8)
    return FrozenTokenizer(Encoder(tokenizer).init(jax.random.key(0), bases)["params"], _vectors(tokenizer))


def frozen_base(task: Finetune, tokenizer: TokenizerConfig | Tokens) -> FrozenBase:
    vectors, levels = _vectors(tokenizer), len(tokenizer.codebook_sizes)
    inputs = jnp.zeros((1, 1, levels, tokenizer.width)), jnp.zeros((1, 1), bool), jnp.zeros(1, bool)
    transformer = task.network.model.module(Compute()).init(jax.random.key(0), *inputs)["params"]
    return FrozenBase(vectors, transformer, jnp.ones(task.network.outputs))


def _vectors(tokenizer: TokenizerConfig | Tokens) -> tuple[jax.Array, ...]:
    return tuple(jnp.zeros((size, tokenizer.width)) for size in tokenizer.codebook_sizes)


def _whole(init: Callable[[], Tree], mesh: Mesh | AbstractMesh) -> Tree:
    """Of `init()`."""
    return abstract_whole(abstract_state(init, local_mesh()), mesh)
