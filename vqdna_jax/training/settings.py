"""What a config says, as frozen dataclasses that are checked when they are read.

Fields are named as the keys of configs/*.py, whose comments explain them. `stages.read_settings` makes them.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

from vqdna_jax.errors import InputError
from vqdna_jax.labels.sets import Kind
from vqdna_jax.models.classifier import Method
from vqdna_jax.models.lora import LoraConfig
from vqdna_jax.models.pooling import POOLS
from vqdna_jax.models.tokenizer import TokenizerConfig
from vqdna_jax.models.transformer import Compute, TransformerConfig
from vqdna_jax.runtime import typed
from vqdna_jax.runtime.typed import (
    InnerShare,
    NonNegative,
    NonNegativeNumber,
    Positive,
    PositiveNumber,
    Rule,
    Share,
    expect,
    flat,
    joined,
    one_of,
)
from vqdna_jax.tasks.masking import Masking

# Directories may move, and be others on other hosts; what they hold may not change.
PLACES = ("data.corpus", "data.labelled", "tokenizer", "pretrained")
DIGESTS = ("corpus_digest", "tokenizer_digest", "pretrained_digest", "labelled_digest")
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

_NOT_SPLIT = Rule(lambda v: v == 1, "1: no stage splits its sequence yet")


@dataclasses.dataclass(frozen=True)
class MeshSettings:
    """Sizes of the axes; `partition.make_mesh` fits them to the devices. data: -1 is what the others leave."""

    data: int
    fsdp: int
    tensor: int
    context: Annotated[int, _NOT_SPLIT]


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    learning_rate: PositiveNumber
    warmup_steps: NonNegative
    final_fraction: Share
    b1: Share
    b2: Share
    weight_decay: NonNegativeNumber
    clip_norm: PositiveNumber
    skip_above: NonNegativeNumber
    decay: Literal["linear", "cosine"] = "cosine"


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """What has a default only some stages have in their configs."""

    total_epochs: NonNegativeNumber
    total_steps: NonNegative
    log_every_steps: Positive
    checkpoint_every_steps: Positive
    keep_checkpoints: Positive
    timeout_s: PositiveNumber
    microbatches: Positive = 1
    params_ema_decay: Share = 0.0
    stop_below_utilisation: Share = 0.0
    patience: NonNegative = 0
    retries: NonNegative = 0

    def check_fields(self, prefix: str) -> None:
        """Raises BadField: not one of total_steps and total_epochs says how long the run is."""
        if (self.total_steps > 0) == (self.total_epochs > 0):
            keys = f"{prefix}total_steps and {prefix}total_epochs"
            raise typed.BadField(f"keys {keys}: set one of them above 0, the other to 0")


@dataclasses.dataclass(frozen=True)
class EvalSettings:
    every_steps: Positive
    batch: Positive


@dataclasses.dataclass(frozen=True)
class WindowEvalSettings(EvalSettings):
    windows: Positive


@dataclasses.dataclass(frozen=True)
class MaskedCodesEvalSettings(WindowEvalSettings):
    probe: str
    probe_rows: Positive


@dataclasses.dataclass(frozen=True)
class DataSettings:
    global_batch: Positive


@dataclasses.dataclass(frozen=True)
class WindowData(DataSettings):
    """Windows of a corpus."""

    corpus: str
    window_bp: Positive
    max_n_share: Share
    temperature: PositiveNumber
    species_weights: Mapping[str, float]

    def check_fields(self, prefix: str) -> None:
        """Raises BadField: species are mixed in two ways at once."""
        if self.species_weights and self.temperature != 1:
            raise typed.BadField(f"keys {prefix}temperature and {prefix}species_weights: set one of them, not both")


@dataclasses.dataclass(frozen=True)
class LabelledData(DataSettings):
    """Labelled sequences."""

    labelled: str
    kind: Annotated[str, one_of("auto", *get_args(Kind))]
    label_names: tuple[str, ...]
    class_weights: Literal["none", "balanced"]
    long: Literal["refuse", "window"]
    train_rows: NonNegative
    dev_rows: NonNegative
    test_rows: NonNegative

    @property
    def names(self) -> tuple[str, ...]:
        """`label_names`, which a command line gives as one text with commas."""
        only, *others = self.label_names or ("",)
        return self.label_names if others or "," not in only else tuple(map(str.strip, only.split(",")))


@dataclasses.dataclass(frozen=True)
class CodebookSettings:
    commitment_weight: NonNegativeNumber
    ema_decay: InnerShare
    revive_below: Share
    revive_to: InnerShare


@dataclasses.dataclass(frozen=True, kw_only=True)
class TuningSettings(LoraConfig):
    method: Method

    @property
    def lora(self) -> LoraConfig:
        return LoraConfig(self.rank, self.alpha, self.dropout, self.targets)


@dataclasses.dataclass(frozen=True)
class HeadSettings:
    pool: Annotated[str, joined(*POOLS)]
    mlp: bool
    dropout: Share


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What the configs of all stages have.

    Attributes:
        recorded: the config itself, nested dicts of plain values: what checkpoints, config.json and model cards hold.
    """

    recorded: Mapping[str, Any] = dataclasses.field(compare=False, repr=False)
    seed: NonNegative
    data: DataSettings
    optimizer: OptimizerSettings
    train: TrainSettings
    eval: EvalSettings
    mesh: MeshSettings

    def check_fields(self, prefix: str) -> None:
        """Raises BadField: the global batch has no whole number of windows for each of its parts."""
        batch, parts = self.data.global_batch, self.train.microbatches
        expect(batch % parts == 0, f"{prefix}data.global_batch", batch, f"a multiple of train.microbatches={parts}")

    def check(self, shards: int) -> None:
        """Raises InputError: what is split among the devices, `shards` of them the batch, does not divide."""
        each = f"the {shards} shards of the batch (mesh data x fsdp)"
        parts = self.train.microbatches
        of_parts = f"{each} x train.microbatches={parts}" if parts > 1 else each
        _check_divided("data.global_batch", self.data.global_batch, shards * parts, of_parts)
        _check_divided("eval.batch", self.eval.batch, shards, each)

    def changed(self, values: Mapping[str, Any]) -> Self:
        """With other values for some keys: {"data.global_batch": 64}. Raises InputError as `read`."""
        recorded = self.recorded
        for key, value in values.items():
            recorded = _replaced(recorded, key.split("."), value)
        return read(type(self), recorded)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VocabularySettings(Settings):
    """Stage 1: configs/hrq.py, configs/vqvae.py."""

    data: WindowData
    model: TokenizerConfig
    codebook: CodebookSettings
    hidden_share: Share
    eval: WindowEvalSettings

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedCodesSettings(Settings):
    """Stage 2: configs/mcm.py."""

    tokenizer: str
    data: WindowData
    masking: Masking
    base_weight: NonNegativeNumber
    model: TransformerConfig
    compute: Compute
    eval: MaskedCodesEvalSettings

    def check(self, shards: int) -> None:
        super().check(shards)
        _check_width(self.model.width, self.mesh)
        tensor = self.mesh.tensor
        for name in ("heads", "hidden"):
            _check_divided(f"model.{name}", getattr(self.model, name), tensor, f"mesh.tensor={tensor}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneSettings(Settings):
    """Stage 3: configs/finetune.py."""

    pretrained: str
    data: LabelledData
    tuning: TuningSettings
    head: HeadSettings
    compute: Compute

    def check_base(self, base: TransformerConfig) -> None:
        """Raises InputError: the mesh does not divide the network that is fine-tuned."""
        for axis, name in (("tensor", "heads"), ("tensor", "hidden"), ("fsdp", "width")):
            parts, size = getattr(self.mesh, axis), getattr(base, name)
            if size % parts:
                raise InputError(
                    f"config key mesh.{axis}: found {parts}, expected a divisor of the base's {name}={size}"
                )


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
        return typed.read(kind, values | {"recorded": recorded})
    except typed.BadField as error:
        raise InputError(f"config {error}") from error


def _replaced(tree: Mapping[str, Any], path: list[str], value: object) -> dict[str, Any]:
    name, *rest = path
    return {**tree, name: _replaced(tree[name], rest, value) if rest else value}


def refuse_changes(saved: dict, now: dict) -> None:
    """Raises InputError listing what a resumed run may not change but did; `saved` and `now` are checkpoint metas.

    Corpora, labelled data and models go by their digests.
    """
    old, new = (flat(meta["config"]) | {name: meta.get(name) for name in DIGESTS} for meta in (saved, now))
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
