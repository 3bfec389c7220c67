"""What a finished run leaves: result.json, pictures and the exported model."""

import dataclasses
import datetime
import pathlib
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from vqdna_jax.evaluation import plots
from vqdna_jax.genome.build.bundled import bundled_corpus
from vqdna_jax.genome.corpus import Corpus, open_corpus
from vqdna_jax.genome.windows import WindowBatches, evaluation_windows
from vqdna_jax.runtime.files import write_json
from vqdna_jax.tasks.masked_codes import MaskedCodes
from vqdna_jax.tasks.vocabulary import Vocabulary
from vqdna_jax.training.metrics import read_rows


@dataclasses.dataclass(frozen=True)
class RunData:
    """Attributes:
    batches: `batches[step]` is this process's rows, a dict of numpy arrays [B, ...]; steps_per_epoch.
    held_out: what the stage evaluates on.
    digests: into every checkpoint's meta.
    lines: of the plan that is printed before the first step.
    bases_per_step: over all processes.
    """

    batches: Any
    held_out: Any
    digests: dict[str, str]
    lines: list[str]
    bases_per_step: float
    corpus: Corpus | None = None


def open_windows(config) -> RunData:
    """Windows of a corpus. Raises InputError: there is no such corpus, or no window fits."""
    data = config.data
    corpus = open_corpus(data.corpus or bundled_corpus())
    mixing = data.species_weights.to_dict() or (data.temperature if data.temperature != 1 else None)
    batches = WindowBatches(
        corpus,
        "train",
        data.window_bp,
        data.global_batch,
        config.seed,
        max_n_share=data.max_n_share,
        mixing=mixing,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    held_out = evaluation_windows(corpus, "validation", data.window_bp, config.eval.windows, data.max_n_share)
    bundled = "" if data.corpus else " (bundled genomes: no config.data.corpus was named)"
    lines = [
        f"corpus     {corpus.path}{bundled}",
        f"           {batches.summary()}",
        f"           validation: {len(held_out['bases']):,} windows held out, of {config.eval.windows:,} asked for",
    ]
    digests = {"corpus_digest": corpus.digest}
    return RunData(batches, held_out, digests, lines, data.global_batch * data.window_bp, corpus)


@dataclasses.dataclass(frozen=True)
class Run:
    """A run at its end, as a stage sees it.

    `predict` and `untrained()` give numpy outputs for a numpy batch, of the trained and of the initial state;
    `initial()` is that state.
    """

    config: Any
    workdir: pathlib.Path
    data: RunData
    state: Any
    initial: Callable[[], Any]
    predict: Callable
    untrained: Callable[[], Callable]
    bases_per_s: float

    def facts(self) -> dict[str, float]:
        steps = int(self.state.step)
        facts = {
            "steps": steps,
            "skipped_steps": int(self.state.guard.skipped),
            "bases_seen": round(steps * self.data.bases_per_step),
        }
        return facts | ({"bases_per_s": round(self.bases_per_s)} if self.bases_per_s else {})

    def card(self, result: dict) -> dict[str, Any]:
        species = self.data.corpus.manifest["species"] if self.data.corpus else ()
        return {
            "result": result,
            "config": self.config.to_dict(),
            "species": {entry["name"]: entry["splits"]["train"]["bases"] for entry in species},
            "steps": int(self.state.step),
            "date": datetime.date.today().isoformat(),
            "throughput": result.get("bases_per_s"),
            "command": f"python -m vqdna_jax.main {shlex.join(sys.argv[1:])}",
        }

    def close(self, result: dict) -> None:
        """The curves, and last result.json: it marks the run as finished."""
        plots.plot_curves(read_rows(self.workdir / "metrics.jsonl"), self.workdir / "curves.png")
        write_json(self.workdir / "result.json", result)


def _say(result: dict, names: Sequence[str]) -> None:
    for name in names:
        print(f"{name:28} {result[name]:.4f}")


class WindowStage:
    """`frozen` goes into every batch; `digests` into every checkpoint's meta."""

    frozen: dict[str, Any] = {}
    digests: dict[str, str] = {}
    task: Vocabulary | MaskedCodes

    def open_data(self) -> RunData:
        return open_windows(self._config)

    def inputs(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"bases": batch["bases"]}

    def flops_per_step(self, data: RunData) -> float:
        return data.bases_per_step * self.task.flops_per_base(self._config.data.window_bp)

    def enough(self, state) -> bool:
        return False
