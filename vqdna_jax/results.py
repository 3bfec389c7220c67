"""What a finished run leaves: result.json, two pictures and the exported model."""

import datetime
import json
import pathlib
import shlex
import sys

import jax

from vqdna_jax import evaluation, hub, plots
from vqdna_jax.atomic import replacing
from vqdna_jax.genome.corpus import Corpus
from vqdna_jax.genome.windows import evaluation_windows
from vqdna_jax.metrics import read_rows

SHOWN = ("reconstruction_accuracy", "window_exact_rate", "code_bits_per_base", "hidden_base_accuracy")


def finish(config, workdir: pathlib.Path, corpus: Corpus, task, state, predict, untrained, held_out, speed) -> None:
    """The full evaluation, its pictures and the export; every process evaluates, the first one writes.

    `predict` and `untrained` are evaluation.Predict of the trained and the initial state; `speed` is in bases a second.
    """
    print("evaluating on held-out windows ...", flush=True)
    bases_BxS = held_out["bases"]
    result, counts = evaluation.reconstruction(predict, bases_BxS, task.model)
    result |= evaluation.vocabulary(predict, bases_BxS, task.model)
    seen = evaluation_windows(corpus, "train", config.data.window_bp, len(bases_BxS), config.data.max_n_share)
    result |= evaluation.species_probe(predict, untrained, seen, held_out)
    result |= {
        "held_out_windows": len(bases_BxS),
        "steps": int(state.step),
        "bases_seen": int(state.step) * config.data.global_batch * config.data.window_bp,
    }
    if speed:
        result["bases_per_s"] = round(speed)
    params = jax.tree.map(lambda x: jax.reshard(x, jax.P()), state.params)  # whole on every process, for the export
    if jax.process_index():
        return
    plots.plot_curves(read_rows(workdir / "metrics.jsonl"), workdir / "curves.png")
    plots.plot_codebook_usage(counts, workdir / "codebooks.png")
    card = {
        "result": result,
        "config": config.to_dict(),
        "species": {entry["name"]: entry["splits"]["train"]["bases"] for entry in corpus.manifest["species"]},
        "steps": int(state.step),
        "date": datetime.date.today().isoformat(),
        "throughput": result.get("bases_per_s"),
        "command": f"python -m vqdna_jax.main {shlex.join(sys.argv[1:])}",
    }
    hub.save(workdir / "export", task.model, params, state.codebooks, card)
    write_json(workdir / "result.json", result)  # last: it marks the run as finished
    say(result, task.model.codebook_sizes, workdir)


def say(result: dict, codebook_sizes: tuple[int, ...], workdir: pathlib.Path) -> None:
    for name in SHOWN:
        print(f"{name:28} {result[name]:.4f}")
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


def write_json(path: pathlib.Path, value: dict) -> None:
    """Raises ValueError for a number that JSON does not have, and as `replacing` does."""
    with replacing(path) as new:
        new.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")
