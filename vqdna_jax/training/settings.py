"""What a config says, as frozen dataclasses that are checked when they are read.

Fields are named as the keys of configs/*.py; docstrings say what they mean, here, in `training/groups.py` and in the
packages of what they configure, and `python -m vqdna_jax.main --help-config` lists them all. `stages.read_settings`
makes them.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

from vqdna_jax.errors import InputError
from vqdna_jax.labels.batches import SLOTS, warmup_lengths
from vqdna_jax.models.classifier import AS_A_WHOLE, ATTENTION, Method
from vqdna_jax.models.hyena_encoder import HyenaEncoderConfig
from vqdna_jax.models.networks import NetworkConfig, TrainedConfig
from vqdna_jax.models.tokenizer import TokenizerConfig
from vqdna_jax.models.transformer import Compute
from vqdna_jax.runtime import typed
from vqdna_jax.runtime.typed import NonNegative, NonNegativeNumber, Share, expect, flat
from vqdna_jax.tasks.masking import Masking
from vqdna_jax.training.groups import (
    CodebookSettings,
    DataSettings,
    EvalSettings,
    HeadSettings,
    LabelledData,
    MaskedCodesEvalSettings,
    MeshSettings,
    NetworkSettings,
    OptimizerSettings,
    TrainSettings,
    TuningSettings,
    WindowData,
    WindowEvalSettings,
)

# Directories may move, and be others on other hosts; what they hold may not change.
PLACES = ("data.corpus", "data.labelled", "tokenizer", "pretrained", "init_from")
DIGESTS = ("corpus_digest", "tokenizer_digest", "pretrained_digest", "labelled_digest", "init_from_digest")
# A resumed run may change these; any other key decides what is computed and must stay as it was.
MUTABLE = (
    *PLACES,
    "compute",
    "train.log_every_steps",
    "train.checkpoint_every_steps",
    "train.keep_checkpoints",
    "train.timeout_s",
    "train.stop_below_utilisation",
    "eval",
    "mesh",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What the configs of all stages have.

    Attributes:
        recorded: the config itself, nested dicts of plain values: what checkpoints, config.json and model cards hold.
        seed: of all random numbers: initial weights, batches, what is hidden.
    """

    recorded: Mapping[str, Any] = dataclasses.field(compare=False, repr=False)
    seed: NonNegative
    data: DataSettings
    optimizer: OptimizerSettings
    train: TrainSettings
    eval: EvalSettings
    mesh: MeshSettings
    finds_rate: ClassVar[bool] = False  # where the config says 0

    def check_fields(self, prefix: str) -> None:
        """Raises BadField: no learning rate; the global batch has no whole number of windows for each of its parts."""
        rate = self.optimizer.learning_rate
        expect(self.finds_rate or rate > 0, f"{prefix}optimizer.learning_rate", rate, "a positive number")
        batch, parts = self.data.global_batch, self.train.microbatches
        expect(batch % parts == 0, f"{prefix}data.global_batch", batch, f"a multiple of train.microbatches={parts}")

    def check(self, shards: int) -> None:
        """Raises InputError: what is split among the devices, `shards` of them the batch, does not divide."""
        each = f"the {shards} shards of the batch (mesh data x fsdp)"
        parts = self.train.microbatches
        of_parts = f"{each} x train.microbatches={parts}" if parts > 1 else each
        _check_divided("data.global_batch", self.data.global_batch, shards * parts, of_parts)
        _check_divided("eval.batch", self.eval.batch, shards, each)

    def check_length(self, what: str, length: int) -> None:
        """Raises InputError: the devices that share a sequence of this length cannot have equal parts of it."""
        context = self.mesh.context
        if length < context or length % context:
            raise InputError(
                f"config key mesh.context: found {context}, expected a divisor of the {length:,} {what}; choose one, or"
                " another length"
            )

    def changed(self, values: Mapping[str, Any]) -> Self:
        """With other values for some keys: {"data.global_batch": 64}. Raises InputError as `read`."""
        recorded = self.recorded
        for key, value in values.items():
            recorded = _replaced(recorded, key.split("."), value)
        return read(type(self), recorded)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VocabularySettings(Settings):
    """Stage 1: configs/hrq.py, configs/vqvae.py.

    Attributes:
        hidden_share: of the input bases of every second window, hidden and rebuilt all the same (denoising), which
            makes a tokenizer ready for stage 2; 0 in the paper.
        init_from: an export of the same network, in stage 2 over the same tokenizer too, or the name of a model that
            ships, whose parameters and codebooks the run begins with; empty: random ones.
    """

    data: WindowData
    model: TokenizerConfig
    codebook: CodebookSettings
    hidden_share: Share
    eval: WindowEvalSettings
    init_from: str = ""

    def check_fields(self, prefix: str) -> None:
        """Raises BadField: a window is no whole number of codes."""
        super().check_fields(prefix)
        window, size = self.data.window_bp, self.model.bases_per_code
        if window % size:
            raise typed.BadField(
                f"key {prefix}data.window_bp: {window} is not a multiple of {prefix}model.bases_per_code={size}"
            )

    def check(self, shards: int) -> None:
        super().check(shards)
        _check_width(self.model.width, self.mesh)
        self.check_length("codes of a window", self.data.window_bp // self.model.bases_per_code)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedCodesSettings(Settings):
    """Stage 2: configs/mcm.py.

    Attributes:
        tokenizer: the export directory of a run of stage 1, or of a fixed tokenizer.
        base_weight: of the loss of the head that names bases, beside that of codes; 0: the paper's objective.
        init_from: an export of the same network, in stage 2 over the same tokenizer too, or the name of a model that
            ships, whose parameters and codebooks the run begins with; empty: random ones.
    """

    tokenizer: str
    data: WindowData
    masking: Masking
    base_weight: NonNegativeNumber
    model: NetworkSettings
    compute: Compute
    eval: MaskedCodesEvalSettings
    init_from: str = ""

    def check(self, shards: int) -> None:
        super().check(shards)
        _check_width(self.model.width, self.mesh)
        tensor = self.mesh.tensor
        if self.model.kind == "hyena" and tensor > 1:
            raise InputError(f"config key mesh.tensor: found {tensor}, expected 1: model.kind=hyena splits no layer")
        if self.model.kind == "hyena":  # whose convolutions split channels
            context = self.mesh.context
            _check_divided("model.width", self.model.width, context, f"mesh.context={context}")
        for name in ("heads", "hidden"):
            _check_divided(f"model.{name}", getattr(self.model, name), tensor, f"mesh.tensor={tensor}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneSettings(Settings):
    """Stage 3: configs/finetune.py.

    Attributes:
        pretrained: the export directory of a run of stage 2.
    """

    pretrained: str
    data: LabelledData
    tuning: TuningSettings
    head: HeadSettings
    compute: Compute
    finds_rate: ClassVar[bool] = True

    def check_fields(self, prefix: str) -> None:
        """Raises BadField: a query that nothing trains; a readout that a stretch of a sequence does not have."""
        super().check_fields(prefix)
        pool, trained = self.head.pool, self.tuning.method != "head"  # whose features are computed once
        whole = self.data.length_warmup_bp > 0 and not set(AS_A_WHOLE).isdisjoint(pool.split("+"))
        expected = "no words, pairs or positions, which of a stretch (data.length_warmup_bp) are not those of the whole"
        expect(not whole, f"{prefix}head.pool", pool, expected)
        expected = "mean, which attention stays where tuning.method=head trains no query"
        expect(trained or ATTENTION not in pool.split("+"), f"{prefix}head.pool", pool, expected)

    def with_rate(self, width: int) -> Self:
        """For a base of so many channels: with the rate that fits it, where the config leaves that open."""
        if self.optimizer.learning_rate:
            return self
        rate = learning_rate(self.tuning.method, width)
        return dataclasses.replace(self, optimizer=dataclasses.replace(self.optimizer, learning_rate=rate))

    def warmup_codes(self, bases_per_code: int | None, lengths_B: np.ndarray) -> tuple[int, ...]:
        """Codes that sequences are cut to in each epoch of the length warm-up, () without one; `lengths_B`: of the
        training sequences. Raises InputError: so many bases are no whole number of codes, no sequence is longer, or the
        run ends before sequences are whole."""
        first, longest, expected = self.data.length_warmup_bp, int(lengths_B.max()), ""
        if not first:
            return ()
        if bases_per_code is None:
            expected = "0: this base's codes are of no fixed number of bases"
        elif first % bases_per_code:
            expected = f"a multiple of the {bases_per_code} bases of a code"
        elif first // bases_per_code >= longest:
            expected = f"fewer than the {longest * bases_per_code:,} of the longest training sequence"
        else:
            lengths = warmup_lengths(first // bases_per_code, longest)
            steps = -(-len(lengths_B) // self.data.global_batch)
            if (total := self.train.steps(steps)) > len(lengths) * steps:
                return lengths
            needed = f"{len(lengths)} epochs of {steps:,} steps are all of the run's {total:,}"
            expected = f"more, or a longer run: {needed}, and whole sequences need some"
        raise InputError(f"config key data.length_warmup_bp: found {first:,}, expected {expected}")

    def with_dropout(self, share: float) -> Self:
        """Of what the head reads."""
        return dataclasses.replace(self, head=dataclasses.replace(self.head, dropout=share))

    def check_base(self, base: NetworkConfig, slots: int) -> None:
        """Of windows of so many `slots`, CLS included. Raises InputError: the mesh does not divide the network that is
        fine-tuned, or its windows, or LoRA's factors would be larger than its matrices."""
        rank = self.tuning.rank
        if self.tuning.method == "lora" and rank > base.width:
            raise InputError(f"config key tuning.rank: found {rank}, expected at most the base's width={base.width}")
        if self.mesh.context > 1:
            self._check_split(base, slots)
        split = [("tensor", "heads"), ("tensor", "hidden"), ("fsdp", "width")]
        if isinstance(base, HyenaEncoderConfig):  # whose convolutions split channels
            split.append(("context", "width"))
        for axis, name in split:
            parts, size = getattr(self.mesh, axis), getattr(base, name)
            if size % parts:
                raise InputError(
                    f"config key mesh.{axis}: found {parts}, expected a divisor of the base's {name}={size}"
                )

    def _check_split(self, base: NetworkConfig, slots: int) -> None:
        context = self.mesh.context
        if not isinstance(base, TrainedConfig):
            raise InputError(f"config key mesh.context: found {context}, expected 1: a published network is not split")
        if SLOTS % context:
            raise InputError(f"config key mesh.context: found {context}, expected a divisor of {SLOTS}, as batches are")
        self.check_length("codes of the base's windows, CLS included", slots)


def learning_rate(method: Method, width: int) -> float:
    """Of a base of so many channels: what was best on dev with the widths 128 and 192 (docs/finetuning.md), and falls
    beyond so that LoRA has 3e-4 at the 768 of the paper's model."""
    return (1e-3 if method == "full" else 3e-3) * min(1.0, 192 / width) ** (5 / 3)


def _check_divided(key: str, value: int, by: int, of: str) -> None:
    if value % by:
        raise InputError(f"config key {key}: found {value}, expected a multiple of {of}")


def _check_width(width: int, mesh: MeshSettings) -> None:
    for axis in ("fsdp", "tensor"):
        size = getattr(mesh, axis)
        _check_divided("model.width", width, size, f"mesh.{axis}={size}")


StageSettings = VocabularySettings | MaskedCodesSettings | FinetuneSettings
Kept = TypeVar("Kept", bound=Settings)


def read(kind: type[Kept], recorded: Mapping[str, Any]) -> Kept:
    """The settings of a config's plain values. Raises InputError naming the first key whose value cannot work."""
    values = {key: value for key, value in recorded.items() if key != "task"}  # which chose the `kind`
    try:
        found = typed.read(kind, values | {"recorded": {}})  # in which a key would have another name
    except typed.BadField as error:
        raise InputError(f"config {error}") from error
    return dataclasses.replace(found, recorded=recorded)


def _replaced(tree: Mapping[str, Any], path: list[str], value: object) -> dict[str, Any]:
    name, *rest = path
    return {**tree, name: _replaced(tree[name], rest, value) if rest else value}


def refuse_changes(saved: dict, now: dict, kind: type[Settings]) -> None:
    """Raises InputError listing what a resumed run may not change but did; `saved` and `now` are checkpoint metas.

    Corpora, labelled data and models go by their digests. A key that is not there, as in runs that are older than it,
    has the default of its field in `kind`.
    """
    unsaid = typed.defaults_of(kind)
    old, new = (unsaid | flat(meta["config"]) | {name: meta.get(name) for name in DIGESTS} for meta in (saved, now))
    changed = [
        f"{key} was {old.get(key)!r}, is {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not _mutable(key)
    ]
    if changed:
        raise InputError(
            f"the workdir holds a run with another config: {'; '.join(changed)}; change it back or name a new --workdir"
        )


def _mutable(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in MUTABLE)


def shared(config: Mapping[str, Any]) -> dict[str, Any]:
    """What every process of a run must have alike, by key: all but the places of data and models."""
    return {key: value for key, value in flat(config).items() if key not in PLACES}
