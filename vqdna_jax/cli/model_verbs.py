"""The verbs that use a trained model: encode, decode, embed, predict. As in `cli/verbs.py`, docstrings are the help."""

import json
import sys
from pathlib import Path

import tyro

from vqdna_jax.cli.options import AsJson, OnDuplicate, OutputFile, PoolName, must_exist
from vqdna_jax.runtime.files import is_stream


def encode(
    fasta: tyro.conf.Positional[Path], model: Path, out: OutputFile, on_duplicate: OnDuplicate = "error"
) -> None:
    """Turn sequences into codes.

    Args:
        fasta: a FASTA file, plain or .gz, or - for standard input
        model: a trained tokenizer, the export directory of a run
        out: the file of codes to write
        on_duplicate: refuse a name that occurs twice, or number it
    """
    must_exist(fasta, model)
    from vqdna_jax.inference.jobs.encode import encode_fasta

    encode_fasta(fasta, model, out, on_duplicate=on_duplicate)
    print(f"codes written to {out}")


def decode(codes: tyro.conf.Positional[Path], model: Path, out: OutputFile) -> None:
    """Turn codes back into sequences.

    Args:
        codes: a file written by `vqdna encode`
        model: the tokenizer that wrote it
        out: the FASTA file to write, gzip if it ends in .gz, or - for standard output
    """
    must_exist(codes, model)
    from vqdna_jax.inference.jobs.encode import decode_to_fasta

    decode_to_fasta(codes, model, out)
    if not is_stream(out):
        print(f"sequences written to {out}")


def embed(
    fasta: tyro.conf.Positional[Path],
    model: Path,
    out: OutputFile,
    pool: PoolName = "mean",
    layer: int = -1,
    on_duplicate: OnDuplicate = "error",
    as_json: AsJson = False,
) -> None:
    """Turn sequences into vectors. Stopped and started again, it goes on where it was.

    Args:
        fasta: a FASTA file, plain or .gz, or - for standard input
        model: a pretrained or fine-tuned model, the export directory of a run with configs/mcm.py or finetune.py
        out: the file of embeddings to write, which numpy.load opens
        pool: how the vectors of a sequence's codes become one, or "none": one per code
        layer: of the network: -1 after the last norm, -2 without the last layer, -3 without the last two, and so on; or
            after so many layers, 0 for the input
        on_duplicate: refuse a name that occurs twice, or number it
        as_json: print the summary as JSON on stdout
    """
    must_exist(fasta, model)
    from vqdna_jax.genome.fasta_files import describe_skipped
    from vqdna_jax.inference.jobs.embed import embed_fasta

    summary = embed_fasta(fasta, model, out, pool, layer, on_duplicate=on_duplicate)
    for note in describe_skipped(summary["skipped"]):
        print(f"{fasta}: {note}", file=sys.stderr)
    text = "{records:,} records, {bases:,} bases: {vectors:,} vectors of {width}, {bases_per_s:,.0f} bases/s, in {out}"
    print(json.dumps(summary, indent=2) if as_json else text.format(**summary))


def predict(
    file: tyro.conf.Positional[Path],
    model: Path,
    out: OutputFile,
    base: Path | None = None,
    as_json: AsJson = False,
) -> None:
    """Predict the labels of sequences. A row that cannot be predicted says why, and the others are.

    Sequences beyond the model's context are cut into windows if it was trained so (data.long=window), else refused.

    Args:
        file: a FASTA file, or a CSV or .tsv file with a column `sequence`; plain or .gz, or - for standard input
        model: a fine-tuned model, the export directory of a run with configs/finetune.py
        out: the CSV file to write, or - for standard output; a row per sequence in their order: id, prediction, a
            probability per label, error
        base: the pretrained model under it, if it is no longer where it was
        as_json: print the summary as JSON on stdout
    """
    must_exist(file, model)
    from vqdna_jax.inference.jobs.predict import predict_file

    summary = predict_file(file, model, out, base)
    for note in summary["notes"]:
        print(f"{file}: {note}", file=sys.stderr)
    if summary["errors"]:
        told = "{errors:,} of {records:,} sequences have no prediction; the column error of {out} says why"
        print(told.format(**summary), file=sys.stderr)
    text = "{records:,} sequences, {errors:,} with an error, {records_per_s:,.0f} sequences/s: predictions in {out}"
    told = json.dumps(summary, indent=2) if as_json else text.format(**summary)
    print(told, file=sys.stderr if is_stream(out) else sys.stdout)
