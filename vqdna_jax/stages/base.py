"""What differs between the stages around the one training loop: the interface of a stage, and what stages share."""

import contextlib
import dataclasses
import datetime
import itertools
import pathlib
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import jax
import numpy as np

from vqdna_jax.evaluation import plots
from vqdna_jax.genome.build.bundled import bundled_corpus
from vqdna_jax.genome.corpus import Corpus, open_corpus
from vqdna_jax.genome.windows import Batches, WindowBatches, Windows, evaluation_windows
from vqdna_jax.runtime.files import write_json
from vqdna_jax.runtime.processes import first_does, say
from vqdna_jax.stages import start
from vqdna_jax.stages.start import Start
from vqdna_jax.tasks.base import Batch, Frozen, Task
from vqdna_jax.training.metrics import read_rows
from vqdna_jax.training.settings import MaskedCodesSettings, Settings, VocabularySettings
from vqdna_jax.training.step import Best, TrainState

HeldOut = TypeVar("HeldOut")
Outputs = dict[str, np.ndarray]
Result = dict[str, Any]  # flat, of JSON's types


class Predict(Protocol):
    """A prepared batch of numpy arrays to `Task.predict` of it, or to those of its outputs that `only` names."""

    def __call__(self, batch: Any, only: tuple[str, ...] = ()) -> Outputs: ...


class Stretches(NamedTuple):
    """A part of a length warm-up: its steps, the bases of each, over all processes, and what is said as it begins."""

    steps: int
    bases_per_step: float
    said: str


@dataclasses.dataclass(frozen=True)
class RunData(Generic[Batch, HeldOut]):
    """What a run reads.

    Attributes:
        batches: what goes into the steps.
        held_out: what the stage evaluates on.
        bases_per_step: over all processes, after the warm-up.
        lines: of the plan that is printed before the first step.
        corpus: that the windows are from, if they are.
        warmup: what the run begins with where sequences are short at first.
    """

    batches: Batches[Batch]
    held_out: HeldOut
    bases_per_step: float
    lines: Sequence[str]
    corpus: Corpus | None = None
    warmup: Sequence[Stretches] = ()

    @property
    def warmup_steps(self) -> int:
        """Those on stretches of sequences."""
        return sum(part.steps for part in self.warmup)

    def said_of(self, step: int) -> str:
        """Of the length of what `step` is trained on; empty where it is the same in all steps."""
        ends = itertools.accumulate(part.steps for part in self.warmup)
        whole = "whole sequences" if self.warmup else ""
        return next((part.said for part, end in zip(self.warmup, ends) if step < end), whole)

    def bases_seen(self, steps: int) -> float:
        """In the first steps."""
        seen = 0.0
        for part in self.warmup:
            taken = min(steps, part.steps)
            seen, steps = seen + taken * part.bases_per_step, steps - taken
        return seen + steps * self.bases_per_step


class Stage(Protocol[Batch, Frozen]):
    """One stage of a run, opened: all that it needs is read and checked.

    Attributes:
        settings: what it runs by; what the config left open is said.
        task: what is trained.
        frozen: the weights that the task reads, whole on every device of the mesh.
        data: what the run reads.
        digests: of data and models, by the name they have in every checkpoint's meta.
        start: trained parameters that the run begins with, if it goes on from an export.
    """

    @property
    def settings(self) -> Settings: ...

    @property
    def task(self) -> Task[Batch, Frozen]: ...

    @property
    def frozen(self) -> Frozen: ...

    @property
    def data(self) -> RunData[Batch, Any]: ...

    @property
    def digests(self) -> dict[str, str]: ...

    @property
    def start(self) -> Start | None: ...

    def plan_lines(self, state: TrainState) -> list[str]:
        """What to say of the stage before the first step."""

    def flops_per_step(self) -> float:
        """Of one training step, over all devices; after the warm-up of the length, if there is one."""

    def evaluate(self, predict: Predict) -> dict[str, float]:
        """Scores on the held-out data, "loss" among them where the task keeps its best parameters."""

    def enough(self, best: Best | tuple[()]) -> bool:
        """Whether the run may end before its last step."""

    def finish(self, run: "Finished") -> None:
        """The full evaluation, its pictures and the export; every process evaluates, the first one writes."""


@dataclasses.dataclass(frozen=True)
class Finished:
    """A run at its end, as a stage sees it.

    Attributes:
        config: of the run, nested dicts of plain values.
        name, workdir: what its directory is called, and where its files are written; the same on a disk.
        start: what it began with, if with an export.
        random: makes a state of random parameters.
        predict, untrained: outputs of the trained and, by a call, of such a state.
    """

    config: Mapping[str, Any]
    name: str
    workdir: pathlib.Path
    data: RunData
    state: TrainState
    start: Start | None
    random: Callable[[], TrainState]
    predict: Predict
    untrained: Callable[[], Predict]
    bases_per_s: float

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Within, a part of the full evaluation is made; stderr says how long it took."""
        started = time.perf_counter()
        yield
        say(f"  {name:20} {time.perf_counter() - started:6.1f} s", file=sys.stderr)

    def export(self, save: Callable[[dict[str, Any]], Any], result: Result) -> None:
        """The export, by process 0, with a card of what is known so far. It comes before what takes long, and again
        at the end."""
        first_does("export", lambda: save(self.card(result)) and None)

    def facts(self) -> Result:
        """What every result.json tells of the run itself."""
        steps = int(self.state.step)
        facts: Result = {
            "steps": steps,
            "skipped_steps": int(self.state.guard.skipped),
            "bases_seen": round(self.data.bases_seen(steps)),
        }
        facts |= {"bases_per_s": round(self.bases_per_s)} if self.bases_per_s else {}
        return facts | start.digests(self.start)

    def card(self, result: Result) -> dict[str, Any]:
        """What a model card tells of the run."""
        species = self.data.corpus.manifest["species"] if self.data.corpus else ()
        return {
            "result": result,
            "config": self.config,
            "species": {entry["name"]: entry["splits"]["train"]["bases"] for entry in species},
            "corpus_digest": self.data.corpus.digest if self.data.corpus else None,
            "init_from_digest": self.start.digest if self.start else None,
            "steps": int(self.state.step),
            "date": datetime.date.today().isoformat(),
            "throughput": result.get("bases_per_s"),
            "command": f"python -m vqdna_jax.main {shlex.join(sys.argv[1:])}",
        }

    def close(self, result: Result) -> None:
        """The curves, and last result.json: it marks the run as finished."""
        plots.plot_curves(read_rows(self.workdir / "metrics.jsonl"), self.workdir / "curves.png")
        write_json(self.workdir / "result.json", result)


class BasesAlone:
    """Batches of windows without their species, which no step reads."""

    def __init__(self, windows: WindowBatches):
        self._windows, self.steps_per_epoch = windows, windows.steps_per_epoch

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, step: int) -> Windows:
        return Windows(self._windows[step].bases_BxS)


def open_windows(
    settings: VocabularySettings | MaskedCodesSettings,
) -> tuple[Corpus, WindowBatches, RunData[Windows, Windows]]:
    """A corpus, this process's training windows of it, and what a run reads of them.

    Raises InputError: there is no such corpus, or no window fits.
    """
    data = settings.data
    corpus = open_corpus(data.corpus or bundled_corpus())
    windows = WindowBatches(
        corpus,
        "train",
        data.window_bp,
        data.global_batch,
        settings.seed,
        max_n_share=data.max_n_share,
        mixing=dict(data.species_weights) or (data.temperature if data.temperature != 1 else None),
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    held_out = evaluation_windows(corpus, "validation", data.window_bp, settings.eval.windows, data.max_n_share)
    bundled = "" if data.corpus else " (bundled genomes: no config.data.corpus was named)"
    lines = [
        f"corpus     {corpus.path}{bundled}",
        f"           {windows.summary()}",
        f"           validation: {len(held_out.bases_BxS):,} windows held out, of {settings.eval.windows:,} asked for",
    ]
    bases_per_step = data.global_batch * data.window_bp
    return corpus, windows, RunData(BasesAlone(windows), held_out, bases_per_step, lines, corpus)


class WindowTask(Protocol):
    """A task whose rows are windows of a corpus."""

    def flops_per_base(self, window_bp: int) -> float:
        """Of one training step on windows of so many bases."""


class WindowStage:
    """Stages 1 and 2, whose rows are windows of a corpus."""

    settings: VocabularySettings | MaskedCodesSettings
    task: WindowTask
    data: RunData

    def flops_per_step(self) -> float:
        return self.data.bases_per_step * self.task.flops_per_base(self.settings.data.window_bp)

    def enough(self, best: Best | tuple[()]) -> bool:
        return False


def say_scores(result: Result, names: Sequence[str]) -> None:
    for name in names:
        print(f"{name:28} {result[name]:.4f}")
