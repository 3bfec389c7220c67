"""The `vqdna` verbs: what each takes, as a typed function whose docstring is its help. `cli.py` makes them commands."""

import json
import pathlib
import sys
from typing import Literal

import tyro

from vqdna_jax import errors
from vqdna_jax.verbs_prepare import AsJson, corpus, doctor, must_exist, plan, species

# jax takes seconds to import, so every verb imports what it needs when it runs: `vqdna --help` stays quick.

Path = pathlib.Path


def encode(fasta: tyro.conf.Positional[Path], model: Path, out: Path) -> None:
    """Turn sequences into codes.

    Args:
        fasta: a FASTA file, plain or .gz
        model: a trained tokenizer, the export directory of a run
        out: the file of codes to write
    """
    must_exist(fasta, model)
    from vqdna_jax.codes import encode_fasta

    encode_fasta(fasta, model, out)
    print(f"codes written to {out}")


def decode(codes: tyro.conf.Positional[Path], model: Path, out: Path) -> None:
    """Turn codes back into sequences.

    Args:
        codes: a file written by `vqdna encode`
        model: the tokenizer that wrote it
        out: the FASTA file to write
    """
    must_exist(codes, model)
    from vqdna_jax.codes import decode_to_fasta

    decode_to_fasta(codes, model, out)
    print(f"sequences written to {out}")


def embed(
    fasta: tyro.conf.Positional[Path],
    model: Path,
    out: Path,
    pool: Literal["mean", "max", "cls", "none"] = "mean",
    layer: int = -1,
    as_json: AsJson = False,
) -> None:
    """Turn sequences into vectors. Stopped and started again, it goes on where it was.

    Args:
        fasta: a FASTA file, plain or .gz
        model: a pretrained model, the export directory of a run with configs/mcm.py
        out: the file of embeddings to write, which numpy.load opens
        pool: one vector a sequence (mean or max of its codes, or CLS), or one a code (none)
        layer: -1 after the last norm, or after so many layers, 0 for the input
        as_json: print the summary as JSON on stdout
    """
    must_exist(fasta, model)
    from vqdna_jax.embeddings import embed_fasta

    summary = embed_fasta(fasta, model, out, pool, layer)
    text = "{records:,} records, {bases:,} bases: {vectors:,} vectors of {width}, {bases_per_s:,.0f} bases/s, in {out}"
    print(json.dumps(summary, indent=2) if as_json else text.format(**summary))


def predict(
    file: tyro.conf.Positional[Path],
    model: Path,
    out: Path,
    base: Path | None = None,
    as_json: AsJson = False,
) -> None:
    """Predict the labels of sequences. A row that cannot be predicted says why, and the others are.

    Args:
        file: a FASTA file, or a CSV file with a column `sequence`; plain or .gz
        model: a fine-tuned model, the export directory of a run with configs/finetune.py
        out: the CSV file to write, a row a sequence in their order: id, prediction, a probability a label, error
        base: the pretrained model under it, if it is no longer where it was
        as_json: print the summary as JSON on stdout
    """
    must_exist(file, model)
    from vqdna_jax.predictions import predict_file

    summary = predict_file(file, model, out, base)
    if summary["errors"]:
        told = "{errors:,} of {records:,} sequences have no prediction; the column error of {out} says why"
        print(told.format(**summary), file=sys.stderr)
    text = "{records:,} sequences, {errors:,} with an error, {records_per_s:,.0f} sequences/s: predictions in {out}"
    print(json.dumps(summary, indent=2) if as_json else text.format(**summary))


def benchmark(
    data: Path,
    out: Path | None = None,
    model: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    tasks: str = "",
    seeds: int = 3,
    preset: Literal["base", "tiny"] = "base",
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    untrained: bool = False,
    shard: str = "0/1",
    check: bool = False,
    as_json: AsJson = False,
) -> None:
    """Fine-tune models on the benchmark's sets, beside published scores. Stopped, it goes on where it was.

    Args:
        data: a folder of sets, GUE as it is unpacked, editing tables, prepared species sets
        out: the directory for cells, table and page
        model: pretrained models, DIRECTORY or NAME=DIRECTORY, several with commas or by repeating
        tasks: names of sets with commas, tf/0,EMP/H3; all that are found
        seeds: runs of each model on each set
        preset: of configs/finetune.py
        set: KEY=VALUE of configs/finetune.py for all sets; may be given several times
        untrained: also run each model's network without pretraining, as a control
        shard: i/n, do every n-th cell from the i-th on; processes may share one --out
        check: only check the folder: columns, labels, letters, sizes, duplicates across splits
        as_json: with --check, print the findings as JSON on stdout
    """
    must_exist(data)
    from vqdna_jax.benchmark import command

    names = [name for name in tasks.split(",") if name]
    if check:
        sys.exit(command.run_check(data, names, as_json))
    models = [one for listed in model for one in listed.split(",")]
    if not models:
        raise errors.InputError("--model: is missing; expected a pretrained model, --model=runs/mcm/export")
    if out is None:
        raise errors.InputError("--out: is missing; expected a directory for the table and the page, --out=runs/gue")
    sys.exit(command.run(data, models, out, names, seeds, preset, set, untrained, shard))


def report(kind: tyro.conf.Positional[Literal["benchmark"]], results: tyro.conf.Positional[Path], out: Path) -> None:
    """Make a self-contained HTML page.

    Args:
        kind: the kind of page
        results: the results.json of a benchmark
        out: the page to write
    """
    must_exist(results)
    from vqdna_jax.benchmark import publish

    publish.page_of(results, out)
    print(f"page written to {out}")


VERBS = {
    "corpus": corpus, "encode": encode, "decode": decode, "embed": embed, "predict": predict, "species": species,
    "benchmark": benchmark, "report": report, "plan": plan, "doctor": doctor,
}  # fmt: skip
