"""What a finished run leaves: result.json, pictures and the exported model."""

import dataclasses
import datetime
import json
import pathlib
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax

from vqdna_jax import plots
from vqdna_jax.atomic import replacing
from vqdna_jax.metrics import read_rows
from vqdna_jax.run_data import RunData


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


def whole(params):
    """Parameters whole on every process, for the export."""
    return jax.tree.map(lambda x: jax.reshard(x, jax.P()), params)


def say_vocabulary(result: dict, codebook_sizes: tuple[int, ...], workdir: pathlib.Path) -> None:
    _say(result, ("reconstruction_accuracy", "window_exact_rate", "code_bits_per_base", "hidden_base_accuracy"))
    for n, size in enumerate(codebook_sizes, start=1):
        of = {
            key: result[f"codebook_{n}_{key}"]
            for key in ("used", "perplexity", "busiest_share", "best_kmer_k", "best_kmer_explained_share")
        }
        print(
            f"codebook {n}: {of['used']} of {size} codes used ({100 * of['used'] / size:.1f} %), perplexity"
            f" {of['perplexity']:.1f}, busiest {100 * of['busiest_share']:.2f} %; {of['best_kmer_k']}-mers explain"
            f" {100 * of['best_kmer_explained_share']:.0f} % of its information"
        )
    print(f"results, curves.png, codebooks.png, metrics.jsonl in {workdir}; the model in {workdir / 'export'}")


def say_masked_codes(result: dict, workdir: pathlib.Path) -> None:
    _say(result, [name for name in result if name.startswith("code_") or name.startswith("probe_mean")])
    print("bits a hidden base (hidden before the tokenizer), and how often the best guess is right:")
    for name in ("masked_base", "order0", "markov11", "context55"):
        print(f"  {name:26} {result[f'{name}_bits']:.4f}  {100 * result[f'{name}_accuracy']:.1f} %")
    print(f"results, curves.png, metrics.jsonl in {workdir}; the model in {workdir / 'export'}")


def say_masked_tokens(result: dict, workdir: pathlib.Path) -> None:
    _say(result, ("token_accuracy", "token_perplexity", "bits_per_base"))
    print(f"results, curves.png, metrics.jsonl in {workdir}; the model in {workdir / 'export'}")


def say_finetuned(result: dict, workdir: pathlib.Path) -> None:
    for name, value in result.items():
        if name.startswith(("dev_", "test_", "best_")) and isinstance(value, float):
            print(f"{name:28} {value:.4f}")
    if result.get("dev_collapsed"):
        print("warning: it predicts one class (or value) for all of dev: this run learnt nothing", file=sys.stderr)
    print(f"results, predictions, curves.png, metrics.jsonl in {workdir}; the model in {workdir / 'export'}")


def _say(result: dict, names: Sequence[str]) -> None:
    for name in names:
        print(f"{name:28} {result[name]:.4f}")


def write_json(path: pathlib.Path, value: dict) -> None:
    """Raises ValueError for a number that JSON does not have, and as `replacing` does."""
    with replacing(path) as new:
        new.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")
