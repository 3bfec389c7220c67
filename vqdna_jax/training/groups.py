"""The groups of a config's keys, `train.*`, `optimizer.*` and the like, as `training/settings.py` puts them together.

What docstrings say of the attributes is what `python -m vqdna_jax.main --help-config` prints.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from vqdna_jax.labels.batches import Strands
from vqdna_jax.labels.sets import Kind
from vqdna_jax.models.classifier import POSITIONS, READOUTS, Alignment, Method
from vqdna_jax.models.hyena_encoder import HyenaEncoderConfig
from vqdna_jax.models.lora import LoraConfig
from vqdna_jax.models.networks import TRAINED, TrainedConfig
from vqdna_jax.models.transformer import TransformerConfig
from vqdna_jax.runtime import typed
from vqdna_jax.runtime.typed import (
    InnerShare,
    NonNegative,
    NonNegativeNumber,
    Positive,
    PositiveNumber,
    Share,
    expect,
    joined,
    one_of,
)


@dataclasses.dataclass(frozen=True)
class MeshSettings:
    """Sizes of the axes, whose product is the number of devices; `partition.make_mesh` makes the mesh.

    Attributes:
        data: devices that share the batch and have the parameters whole; -1: all that the other axes leave.
        fsdp: devices that share the batch and the parameters.
        tensor: devices that share the width of each layer.
        context: devices that share a sequence, each a part of its length.
    """

    data: int
    fsdp: int
    tensor: int
    context: Positive


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """AdamW.

    Attributes:
        learning_rate: the highest, at the end of the warm-up; 0, of fine-tuning alone: by what is tuned and the width
            of the base.
        warmup_steps: in which it rises from 0; at most half of the run.
        final_fraction: of the highest learning rate, which the decay ends at.
        b1: decay of the mean of the gradients.
        b2: decay of the mean of their squares.
        weight_decay: of matrices; norms, biases and the vectors of tokens have none.
        clip_norm: what the norm of the gradient is cut to.
        skip_above: times the running mean of the gradient norm: a step above it changes nothing; 0: none is skipped.
        decay: of the learning rate after the warm-up.
        head_rate: of the learning rate, which the head of fine-tuning has: it starts from a linear probe.
    """

    learning_rate: NonNegativeNumber
    warmup_steps: NonNegative
    final_fraction: Share
    b1: Share
    b2: Share
    weight_decay: NonNegativeNumber
    clip_norm: PositiveNumber
    skip_above: NonNegativeNumber
    decay: Literal["linear", "cosine"] = "cosine"
    head_rate: NonNegativeNumber = 1.0


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """What has a default only some stages have in their configs.

    Attributes:
        total_epochs: length of the run in epochs, a part of one too; above 0 on a command line, it puts total_steps
            at 0.
        total_steps: length of the run in steps; above 0 on a command line, it puts total_epochs at 0.
        log_every_steps: how often a line goes into metrics.jsonl and onto the screen.
        checkpoint_every_steps: how often the state is saved, beside at the end and at a stop.
        keep_checkpoints: how many of the newest stay.
        timeout_s: seconds without a sign of life from a step that end the process with its stacks, exit code 46.
        microbatches: parts of the global batch, one after the other: more when it does not fit.
        params_ema_decay: of averaged parameters for evaluation and export; 0: the last ones.
        stop_below_utilisation: share of a codebook in use, under which two evaluations in a row end the run with exit
            code 44; 0: it is only told.
        patience: evaluations without a better dev score before the run ends; 0: it goes to its end.
        retries: runs with other seeds if the first predicts one class alone.
    """

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

    def steps(self, steps_per_epoch: int) -> int:
        """Length of the run."""
        return self.total_steps or math.ceil(self.total_epochs * steps_per_epoch)

    def check_fields(self, prefix: str) -> None:
        """Raises BadField: not one of total_steps and total_epochs says how long the run is."""
        if (self.total_steps > 0) == (self.total_epochs > 0):
            keys = f"{prefix}total_steps and {prefix}total_epochs"
            raise typed.BadField(f"keys {keys}: set one of them above 0, the other to 0")


@dataclasses.dataclass(frozen=True)
class EvalSettings:
    """Held-out data.

    Attributes:
        every_steps: how often held-out data is scored, beside at the end.
        batch: rows of a step of an evaluation, over all devices.
    """

    every_steps: Positive
    batch: Positive


@dataclasses.dataclass(frozen=True)
class WindowEvalSettings(EvalSettings):
    """Held-out windows of a corpus.

    Attributes:
        windows: how many of the held-out sequence are scored.
    """

    windows: Positive


@dataclasses.dataclass(frozen=True)
class MaskedCodesEvalSettings(WindowEvalSettings):
    """And probes of what was learned.

    Attributes:
        probe: a directory of labelled sets (GUE layout) for linear probes at the end; empty: none.
        probe_rows: at most so many rows of each set.
    """

    probe: str
    probe_rows: Positive


@dataclasses.dataclass(frozen=True)
class NetworkSettings(TransformerConfig):
    """The network of stage 2.

    Attributes:
        kind: "hyena" has long convolutions (arXiv 2302.10866) in the attention's place: heads and rope_base say nothing
            of it, and there is no CLS.
        causal: of "hyena": a code sees none behind it, as published; else there is a filter for each side.
    """

    kind: Annotated[str, one_of(*TRAINED)] = "transformer"
    causal: bool = False

    def check_fields(self, prefix: str) -> None:
        """Raises BadField: as `TransformerConfig`; a key that the other kind alone has."""
        if self.kind == "transformer":
            super().check_fields(prefix)
            expect(not self.causal, f"{prefix}causal", self.causal, f"False with {prefix}kind=transformer")
            return
        for name, only in (("cls", False), ("window", 0), ("activation", "gelu")):
            value = getattr(self, name)
            expect(value == only, f"{prefix}{name}", value, f"{only} with {prefix}kind={self.kind}")

    def network(self, slots: int) -> TrainedConfig:
        """For windows of so many codes, CLS included."""
        if self.kind == "hyena":
            sizes = self.layers, self.width, self.hidden, slots
            return HyenaEncoderConfig(*sizes, dtype=self.dtype, causal=self.causal)
        return TransformerConfig(**{f.name: getattr(self, f.name) for f in dataclasses.fields(TransformerConfig)})


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """What a step is trained on.

    Attributes:
        global_batch: windows or sequences of a step, over all devices.
    """

    global_batch: Positive


@dataclasses.dataclass(frozen=True)
class WindowData(DataSettings):
    """Windows of a corpus.

    Attributes:
        corpus: a directory that `vqdna corpus` made; empty: the bundled genomes.
        window_bp: bases of a window.
        max_n_share: windows with a larger share of N are never drawn.
        temperature: species are drawn in proportion to their windows ** (1 / temperature); 1: as they are.
        species_weights: or by these weights, {'human': 2, 'mouse': 1}.
    """

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
    """Labelled sequences.

    Attributes:
        labelled: a folder of train.csv, dev.csv and test.csv, or one CSV, which is split 80/10/10; .tsv and .gz too.
        kind: of the labels; auto: as the column says (docs/finetuning.md).
        label_names: of the labels 0, 1, ..., with commas; empty: from labels.txt, or the labels are the names.
        class_weights: balanced: each class counts as much as another in the loss.
        long: sequences beyond the model's context are refused, or cut into windows that are read as one sequence; the
            trained model does so too, in `vqdna predict` and in Python.
        train_rows: at most so many rows of train, each label with its share; 0: all.
        dev_rows: the same of dev.
        test_rows: the same of test.
        strands: one: sequences are read as they are given; both: each row is trained on its strand or the other, drawn
            anew every epoch, and predictions are of the mean of both strands' logits; auto: what the probe chooses on
            dev.
        length_warmup_bp: bases that sequences are cut to in the first epoch, each at a place drawn anew, and twice as
            many in every epoch, until they are whole; 0: from the first step.
    """

    labelled: str
    kind: Annotated[str, one_of("auto", *get_args(Kind))]
    label_names: tuple[str, ...]
    class_weights: Literal["none", "balanced"]
    long: Literal["refuse", "window"]
    train_rows: NonNegative
    dev_rows: NonNegative
    test_rows: NonNegative
    strands: Literal["auto", "one", "both"] = "one"
    length_warmup_bp: NonNegative = 0

    @property
    def given_strands(self) -> Strands | None:
        """`strands`, unless dev is to choose them."""
        return None if self.strands == "auto" else self.strands

    @property
    def names(self) -> tuple[str, ...]:
        """`label_names`, which a command line gives as one text with commas."""
        only, *others = self.label_names or ("",)
        return self.label_names if others or "," not in only else tuple(map(str.strip, only.split(",")))


@dataclasses.dataclass(frozen=True)
class CodebookSettings:
    """How the codebooks follow the encoder; the paper's, but for the revival.

    Attributes:
        commitment_weight: of the loss that holds the encoder to the codes that it chose.
        ema_decay: of the codebooks' statistics, from which the codes follow; at 0.99 they lag behind
            the encoder, and die.
        revive_below: codes used less, as a share of their codebook's mean, are moved to inputs of the batch.
        revive_to: the count that a revived code begins with, as such a share.
    """

    commitment_weight: NonNegativeNumber
    ema_decay: InnerShare
    revive_below: Share
    revive_to: InnerShare


@dataclasses.dataclass(frozen=True, kw_only=True)
class TuningSettings(LoraConfig):
    """What of the pretrained model is trained.

    Attributes:
        method: lora: factors beside some of the weights, and the head, are trained; full: all; head: the head alone.
    """

    method: Method

    @property
    def lora(self) -> LoraConfig:
        return LoraConfig(self.rank, self.alpha, self.dropout, self.targets)


@dataclasses.dataclass(frozen=True)
class HeadSettings:
    """What reads labels off the codes and their vectors, beginning with a linear probe of the frozen ones.

    Attributes:
        pool: the readout; "mean+words" joins two; auto: of a few, the one whose linear probe is best on dev.
        align: where sequences of unequal lengths lie for a readout of positions: at the start, the end or the middle.
        mlp: one hidden layer beside the linear map.
        dropout: of what the head reads, in training; less where the weights of the probe are large.
    """

    pool: Annotated[str, joined(*READOUTS, alone=("auto",))]
    align: Alignment
    mlp: bool
    dropout: Share

    def check_fields(self, prefix: str) -> None:
        """Raises BadField: two readouts of positions."""
        positions = [name for name in self.pool.split("+") if name in POSITIONS]
        expect(len(positions) < 2, f"{prefix}pool", self.pool, f"one of {', '.join(POSITIONS)} at most")
