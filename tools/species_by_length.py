"""Which genome is a sequence from, at 1,000 to 1,000,000 bases? HyenaDNA's task on any genomes, by length.

    python tools/species_by_length.py GENOME.fa.gz GENOME.fa.gz ... --out=runs/species

One file is one species. Each genome is split into training, dev and test stretches once, for the longest length, so
that all lengths are drawn from the same ones; rows are read on a strand that is drawn. What is to be trained is trained
on the training stretches alone: VQDNA (HRQ-16, HRQ-4: words of 16 and 4 bases) and Hyena, over single bases, as
HyenaDNA. Each model has a row for a linear probe of its mean context vector, one for a probe of its words' counts, one
fine-tuned with LoRA up to --lora bases, and untrained twins; beside them are k-mer counts. Stopped, the same command
goes on. Ends with results.json, table.md and accuracy_by_length.png.

Intervals are Wilson's (95 %), of as many rows as the test stretches hold without overlap.
"""

import argparse
import dataclasses
import json
import math
import pathlib
import runpy
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vqdna_jax.benchmark import runner
from vqdna_jax.benchmark.cells import Cell, finished
from vqdna_jax.benchmark.jobs import UNTRAINED, Plan
from vqdna_jax.benchmark.sets import species
from vqdna_jax.benchmark.untrained import save_untrained
from vqdna_jax.errors import InputError, report_and_exit
from vqdna_jax.evaluation.plots import plot_by_length
from vqdna_jax.genome.build.build import build_corpus
from vqdna_jax.runtime.devices import machine
from vqdna_jax.runtime.files import read_json, replacing
from vqdna_jax.runtime.shipped import find

TRAINED = runpy.run_path(str(pathlib.Path(__file__).parent / "compare_tokenizers.py"))
steps, Budget = TRAINED["steps"], TRAINED["Budget"]
SET = "species_hyenadna"
_CORE = {"model.layers": 2, "model.width": 64, "model.heads": 2, "model.hidden": 256, "eval.windows": 128}
_GPU = {"model.layers": 8, "model.width": 256, "model.heads": 4, "model.hidden": 1024}
BUDGETS = {  # batches of stage 1 are those of a base a code, see `budget_of`
    "core": Budget(  # minutes of one CPU core
        "tiny",
        steps(400, **{"data.window_bp": 512, "data.global_batch": 2, "eval.every_steps": 1000, "eval.windows": 256}),
        steps(300, **_CORE | {"data.window_bp": 1024, "eval.every_steps": 1000, "optimizer.warmup_steps": 50}),
        {"train.total_epochs": 1.0},
    ),
    "gpu": Budget(
        "base",
        steps(3000, **{"data.global_batch": 64, "eval.every_steps": 1000}),
        steps(
            8000,
            **_GPU | {"data.window_bp": 4096, "data.global_batch": 64, "optimizer.warmup_steps": 500},
            **{"eval.every_steps": 4000},
        ),
        {"train.total_epochs": 3.0},
    ),
}
READOUTS = {
    "mean": ("tuning.method=head", "head.pool=mean"),
    "words": ("tuning.method=head", "head.pool=words"),
    "LoRA": ("tuning.method=lora", "head.pool=mean+words"),
}


class Asked(NamedTuple):
    """A model of the command line: NAME, or NAME=DIR of one that is there, and :N, the longest length that it reads."""

    name: str
    directory: str
    longest: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("genomes", nargs="+", metavar="FASTA", help="one file is one species, named after it")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/species"))
    parser.add_argument("--lengths", default="1000,20000,32000,250000,450000,1000000")
    parser.add_argument(
        "--models",
        default="HRQ-16,HRQ-4,Hyena",
        help="of compare_tokenizers.py, or NAME=DIR of a pretrained model; :N after it: at most so many bases; none",
    )
    parser.add_argument("--budget", choices=BUDGETS, default="core", help="of training what is not there")
    parser.add_argument("--bases", type=int, default=1_000_000, help="of a class for training, and for test")
    parser.add_argument("--rows", type=int, default=400, help="of a class for training, and for test, at most")
    parser.add_argument("--lora", type=int, default=1000, help="fine-tune up to this length")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE of the fine-tuning, after the budget's")
    arguments = parser.parse_args()
    with report_and_exit():
        sys.exit(compare(arguments))


def compare(arguments: argparse.Namespace) -> int:
    lengths, genomes = lengths_of(arguments.lengths), named(arguments.genomes)
    asked = [model_of(text) for text in arguments.models.split(",") if text not in ("", "none")]
    for length in lengths:
        make_set(arguments, genomes, length, max(lengths))
    directories = {model.name: directory_of(model, arguments, genomes, max(lengths)) for model in asked}
    for length in lengths:
        fitting = {model.name: directories[model.name] for model in asked if length <= (model.longest or length)}
        if code := runner.run(plan_of(arguments, length, fitting)):
            return code
        report(arguments.out)
    print((arguments.out / "table.md").read_text())
    return 0


def lengths_of(text: str) -> list[int]:
    """Raises InputError: they are no numbers of bases."""
    parts = text.split(",")
    if not all(part.isdigit() and int(part) for part in parts):
        raise InputError(f"--lengths={text}: expected numbers of bases with commas, for example 1000,32000")
    return sorted(set(map(int, parts)))


def named(genomes: Sequence[str]) -> dict[str, str]:
    """Raises InputError: two species have one name, or a file is missing."""
    found = {species.name_of(path): path for path in genomes}
    if len(found) < len(genomes):
        raise InputError("two FASTA files have the same name before the first dot; rename one")
    for path in genomes:
        if not pathlib.Path(path).exists():
            raise InputError(f"{path}: no such file or directory; check the path")
    return found


def model_of(text: str) -> Asked:
    """Raises InputError: a longest length that is no number, or a model that cannot be trained here."""
    text, _, longest = text.partition(":")
    name, _, directory = text.partition("=")
    kinds = (*TRAINED["NETWORKS"], *TRAINED["FIXED"])
    trainable = name in kinds or name.lower().partition("-")[0] in TRAINED["LEARNED"]
    if not (longest or "0").isdigit() or not (directory or trainable):
        raise InputError(
            f"--models: {text!r}; expected HRQ-16, HRQ-4, Hyena and the like or NAME=DIR, with :N or without"
        )
    return Asked(name, directory, int(longest or 0))


def rows_of(arguments: argparse.Namespace, length: int) -> dict[str, int]:
    """Of a class: as many as --bases has, two or more to learn from, and a quarter of it to choose by."""
    rows = max(1, min(arguments.rows, arguments.bases // length))
    return {"train": max(2, rows), "dev": max(1, rows // 4), "test": rows}


def make_set(arguments: argparse.Namespace, genomes: Mapping[str, str], length: int, longest: int) -> None:
    """Draws the set of a length, unless it is there. Raises InputError: a genome is too short for it, or --out has
    another set of this length."""
    place, items = arguments.out / "sets" / str(length) / SET, rows_of(arguments, length)
    if not place.exists():
        species.prepare(genomes, place, length, items, longest=longest, either_strand=True)
    saved = read_json(place / "prepared.json", "how a set was drawn; name a new --out")
    wanted = {
        "longest": longest,
        "items": items,
        "files": {name: [pathlib.Path(p).name] for name, p in genomes.items()},
    }
    if other := [key for key, value in wanted.items() if saved.get(key) != value]:
        raise InputError(f"{place}: was drawn with other {', '.join(other)}; name a new --out")


def directory_of(model: Asked, arguments: argparse.Namespace, genomes: Mapping[str, str], longest: int) -> pathlib.Path:
    """Of a pretrained model, trained now if it is not there, and its untrained twin beside it."""
    if model.directory:
        directory = find(model.directory)
    else:
        arguments.corpus = corpus_of(arguments.out, genomes, longest)
        of, other = TRAINED["NETWORKS"].get(model.name, (model.name, {}))
        budget = budget_of(of, BUDGETS[arguments.budget])
        tokenizer = TRAINED["tokenizer"](of, arguments, budget)
        directory = TRAINED["pretrain"](model.name, tokenizer, other, arguments, budget)
    save_untrained(directory, arguments.out / "untrained" / model.name)
    return directory


def budget_of(tokenizer: str, budget: Any) -> Any:
    """With as many codes in a step of stage 1, whatever a code stands for."""
    bases = tokenizer.rpartition("-")[2] if tokenizer.lower().startswith(TRAINED["LEARNED"]) else "1"
    vocabulary = budget.vocabulary | {"data.global_batch": budget.vocabulary["data.global_batch"] * int(bases)}
    return dataclasses.replace(budget, vocabulary=vocabulary)


def corpus_of(out: pathlib.Path, genomes: Mapping[str, str], longest: int) -> pathlib.Path:
    """A corpus of the training stretches."""
    if not (out / "corpus").exists():
        build_corpus(species.write_stretches(genomes, out / "stretches", "train", longest), out / "corpus")
    return out / "corpus"


def plan_of(arguments: argparse.Namespace, length: int, models: Mapping[str, pathlib.Path]) -> Plan:
    rows: dict[str, pathlib.Path] = {}
    own: dict[str, Sequence[str]] = {}
    for name, directory in models.items():
        for readout, settings in READOUTS.items():
            if readout == "LoRA" and length > arguments.lora:
                continue
            twins = {} if readout == "words" else {UNTRAINED: arguments.out / "untrained" / name}  # it has these words
            for suffix, place in {"": directory, **twins}.items():
                rows[f"{name}, {readout}{suffix}"], own[f"{name}, {readout}{suffix}"] = place, settings
    tuning = BUDGETS[arguments.budget].finetuning | {"data.strands": "one"}
    settings = [f"{key}={value}" for key, value in tuning.items()] + arguments.set
    folder = pathlib.Path(str(length))
    where = arguments.out / "sets" / folder, rows, arguments.out / "cells" / folder
    return Plan(*where, seeds=arguments.seeds, preset="tiny", settings=settings, controls="counts", own=own)


def report(out: pathlib.Path) -> None:
    """Writes what is there of all lengths that were drawn, in this call or before."""
    lengths = sorted(int(place.name) for place in (out / "sets").iterdir())
    sets = {length: read_json(out / "sets" / str(length) / SET / "prepared.json", "a set") for length in lengths}
    rows = [row for length in lengths for row in results_of(finished(out / "cells" / str(length)), sets[length])]
    found = {"command": " ".join(["python", *sys.argv]), "machine": machine(), "sets": sets, "rows": rows}
    for name, text in (("results.json", json.dumps(found, indent=1)), ("table.md", table(rows, sets))):
        with replacing(out / name) as new:
            new.write_text(text + "\n")
    with replacing(out / "accuracy_by_length.png") as new:
        plot_by_length(rows, 1 / len(sets[lengths[0]]["rules"]), new)


def results_of(cells: Sequence[Cell], drawn: Mapping) -> list[dict]:
    """A row for each model: accuracy on test, the mean over seeds, and its interval."""
    rows = []
    independent = apart(drawn)
    for name in dict.fromkeys(cell.model for cell in cells):
        of = [cell for cell in cells if cell.model == name and cell.test is not None]
        if not of:
            continue
        accuracy, dev = (sum(values) / len(of) for values in ([c.test for c in of], [c.dev or 0 for c in of]))
        low, high = wilson(accuracy, independent)
        row = {"length": drawn["length"], "model": name, "control": of[0].role == "control", "seeds": len(of)}
        row |= {"accuracy": accuracy, "low": low, "high": high, "dev": dev, "seconds": sum(c.seconds for c in of)}
        row |= {"like": name.removesuffix(UNTRAINED)}
        rows.append(row)
    return rows


def apart(drawn: Mapping) -> int:
    """Test rows that can be told apart: of each class, as many as its stretches hold without overlap, at most all."""
    rows, length = drawn["items"]["test"], drawn["length"]
    return sum(min(rows, max(1, of["test"] // length)) for of in drawn["bases"].values())


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share of so many."""
    z2 = 1.96**2
    middle, scale = share + z2 / (2 * count), 1 + z2 / count
    half = math.sqrt(z2 * (share * (1 - share) / count + z2 / (4 * count**2)))
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def table(rows: Sequence[Mapping], sets: Mapping[int, Mapping]) -> str:
    cells = {(row["model"], row["length"]): row for row in rows}
    lines = [f"| accuracy, % | {' | '.join(f'{length:,}' for length in sets)} |", "|---|" + "--:|" * len(sets)]
    of_test = [f"{drawn['items']['test'] * len(drawn['rules'])} ({apart(drawn)})" for drawn in sets.values()]
    lines.append(f"| test rows (apart) | {' | '.join(of_test)} |")
    for name in dict.fromkeys(row["model"] for row in rows):
        found = (cells.get((name, length)) for length in sets)
        lines.append(f"| {name} | {' | '.join(shown(row) for row in found)} |")
    return "\n".join(lines)


def shown(row: Mapping | None) -> str:
    return "" if row is None else f"{100 * row['accuracy']:.1f} ({100 * row['low']:.0f}-{100 * row['high']:.0f})"


if __name__ == "__main__":
    main()
