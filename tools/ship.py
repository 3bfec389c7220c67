"""Puts a pretrained model into the package, in float16 and with its card.

    python tools/ship.py mini --words=runs/words --model=runs/mini

--words and --model are the workdirs of stages 1 and 2, finished. The card is that of the export; tools/NAME.md has the
sections that are written by hand, where {SPECIES} stands for its training bases. What the runs left, and what rounding
changes, is added.
"""

import argparse
import pathlib
import re
import sys
from typing import Any

import numpy as np

from vqdna_jax.errors import InputError, report_and_exit
from vqdna_jax.genome.build.bundled import BUNDLED, bundled_corpus
from vqdna_jax.genome.corpus import open_corpus
from vqdna_jax.genome.fasta import load_fasta
from vqdna_jax.inference import load
from vqdna_jax.inference.saved import copies
from vqdna_jax.runtime import exports, shipped
from vqdna_jax.runtime.exports import CARD, CONFIG
from vqdna_jax.runtime.files import read_json
from vqdna_jax.training.metrics import read_rows

MEASURED = {"phiX174": 5386, "h_pylori_G27": 200_000}  # the first bases of a bundled genome
LOGGED = 10  # rows of the log
MOST_BYTES = 12_000_000
STAGES = {"words": "1, vocabulary", "model": "2, masked codes"}


class Run:
    """What a workdir holds, read."""

    def __init__(self, workdir: pathlib.Path):
        self.export = workdir / "export"
        self.config = read_json(workdir / "config.json", "the config of a run")
        self.result = read_json(workdir / "result.json", "the result of a finished run")
        self.described = exports.read_config(self.export / CONFIG)
        self.rows = read_rows(workdir / "metrics.jsonl")
        command = re.search(r"--config=(\S+)", (self.export / CARD).read_text())
        self.experiment = command[1] if command else "not recorded"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    for stage, title in STAGES.items():
        parser.add_argument(f"--{stage}", type=pathlib.Path, required=True, help=f"workdir of stage {title}")
    parser.add_argument("--out", type=pathlib.Path, help="by default in the package")
    options = parser.parse_args()
    with report_and_exit():
        ship(options.name, Run(options.words), Run(options.model), options.out or shipped.SHIPPED / options.name)


def ship(name: str, words: Run, model: Run, out: pathlib.Path) -> None:
    """Raises InputError: the runs do not belong together, a file of theirs is missing, or the copy is too large."""
    if words.described["tokenizer_digest"] != model.described["tokenizer_digest"]:
        raise InputError(
            f"{model.export}: was trained on other words than {words.export}; name the run of its tokenizer"
        )
    corpus = open_corpus(model.config["data"]["corpus"] or bundled_corpus())
    species = {entry["name"]: entry["splits"]["train"]["bases"] for entry in corpus.manifest["species"]}
    hand = pathlib.Path(__file__).with_name(f"{name}.md")
    sections = [written(copies.read_sections(hand), species, hand), trained(words, model, corpus.digest)]
    sections += [
        table("Metrics of the words", "metric", {"value": metrics(words)}),
        *logs(words, model),
        rounding(model.export),
    ]
    facts = {"species": species, "corpus_digest": corpus.digest, "hidden_share": words.config["hidden_share"]}
    told = copies.copy_model(model.export, out, "float16", "\n\n".join(sections), facts)
    print(f"{out}: {told['bytes']:,} bytes, digest {told['digest'][:12]}")
    if told["bytes"] > MOST_BYTES:
        sys.exit(f"error: {out}: {told['bytes']:,} bytes; expected at most {MOST_BYTES:,} in the package")


def written(text: str, species: dict[str, int], file: pathlib.Path) -> str:
    """The sections written by hand, with the bases of each species. Raises InputError: they name others."""
    numbers = {name: f"{bases:,}" for name, bases in (species | {"all": sum(species.values())}).items()}
    missing = [name for name in numbers if f"{{{name}}}" not in text]
    try:
        filled = text.format(**numbers)
    except KeyError as error:
        raise InputError(f"{file}: names {error}, which the corpus has not; correct the table") from error
    if missing:
        raise InputError(f"{file}: does not name {missing[0]}, which the corpus has; add it to the table")
    return filled


def metrics(words: Run) -> dict[str, Any]:
    """Of stage 1, without its tables of k-mers and of single positions."""
    return {key: value for key, value in words.result.items() if not re.search(r"_\dmer_|_at_", key)}


def trained(words: Run, model: Run, digest: str) -> str:
    def facts(run: Run) -> dict[str, Any]:
        config = run.config
        return {
            "experiment": run.experiment,
            "steps": run.result["steps"],
            "windows a step": config["data"]["global_batch"],
            "bases a window": config["data"]["window_bp"],
            "bases seen": run.result["bases_seen"],
            "learning rate": config["optimizer"]["learning_rate"],
            "hidden or masked": config.get("hidden_share", config.get("masking", {}).get("rate")),
            "seed": config["seed"],
            "jax": run.described["versions"]["jax"],
            "source of vqdna_jax": run.described["versions"]["source"],
        }

    text = table("How it was trained", "stage", {STAGES["words"]: facts(words), STAGES["model"]: facts(model)})
    return f"{text}\n\nCorpus digest `{digest}`, in the manifest that `vqdna corpus` writes."


def logs(words: Run, model: Run) -> list[str]:
    """Losses by step: all rows are too many for a card."""
    found = []
    for stage, run in (("words", words), ("model", model)):
        rows = [row for row in run.rows if "loss" in row]
        kept = [rows[i] for i in sorted({round(at) for at in np.linspace(0, len(rows) - 1, LOGGED)})]
        losses = {f"step {row['step']:,}": row["loss"] for row in kept}
        found.append(table(f"Log of stage {STAGES[stage]}", "loss in training", {"nats": losses}))
    return found


def rounding(export: pathlib.Path) -> str:
    """What float16 changes: codes and mean embeddings."""
    model = load.load(export)
    rounded = model.tokenizer.changed(lambda tensors: exports.in_full(exports.in_half(tensors)))
    found = {}
    for name, length in MEASURED.items():
        bases = next(load_fasta(BUNDLED / f"{name}.fa.gz")).bases[:length]
        (codes_LxN,), (other_LxN,) = model.tokenizer.encode([bases]), rounded.encode([bases])
        (decoded_S,), (redecoded_S,) = model.tokenizer.decode([codes_LxN]), rounded.decode([other_LxN])
        differs, changed = (codes_LxN != other_LxN).any(axis=1).mean(), (decoded_S != redecoded_S).mean()
        found[name] = {
            "bases": len(bases),
            "codes that differ (share)": float(differs),
            "decoded bases that differ (share)": float(changed),
        }
        print(f"float16 on {name}: {found[name]}", flush=True)
    return table("What float16 changes", "genome", found)


def table(title: str, what: str, columns: dict[str, dict[str, Any]]) -> str:
    """A section with a row for each key of the columns, all of which have the same."""
    keys = next(iter(columns.values()))
    lines = [[what, *columns], ["---"] * (len(columns) + 1)]
    lines += [[key, *(shown(column[key]) for column in columns.values())] for key in keys]
    return f"## {title}\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shown(value: Any) -> str:
    if value is None:
        return "not defined"
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
