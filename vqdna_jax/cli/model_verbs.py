"""The verbs that use a trained model: encode, decode, embed, predict, models, export, import, and map. As in
`cli/verbs.py`, docstrings are the help.
"""

import json
from pathlib import Path
from typing import Annotated, Literal

import tyro

from vqdna_jax.cli.options import (
    AsJson,
    FastaFiles,
    ModelName,
    OnDuplicate,
    OptionalModel,
    OptionalPath,
    OutputFile,
    PoolName,
    RegionNames,
    SequenceFiles,
    must_be_given,
    must_exist,
    regions_of,
    tell,
    warn,
)
from vqdna_jax.runtime.devices import Device, choose
from vqdna_jax.runtime.shipped import find


def encode(
    fasta: FastaFiles,
    model: ModelName,
    out: OutputFile,
    region: RegionNames = (),
    bed: OptionalPath = None,
    on_duplicate: OnDuplicate = "error",
    batch: int = 0,
    device: Device = "auto",
    quiet: bool = False,
    as_json: AsJson = False,
) -> None:
    """Turn sequences into codes.

    Args:
        fasta: FASTA files, plain or .gz, .2bit files, or - for standard input; names are unique over all of them
        model: a trained tokenizer: the export directory of a run, or the name of a model that ships (`vqdna models`)
        out: the file of codes to write
        region: NAME:START-END, counted from 1 with both ends, or NAME: this stretch alone, as a sequence of its own;
            may be given several times
        bed: a BED file of such regions, plain or .gz, counted from 0 without the end; the strand is not heeded
        on_duplicate: refuse a name that occurs twice, or number it
        batch: codes computed at once, 0: as many as suit the device; fewer need less memory; same result
        device: what to compute on; auto: the best that there is
        quiet: no progress and no summary; warnings and errors still go to stderr
        as_json: print the summary as JSON on stdout
    """
    must_be_given(fasta)
    must_exist(*fasta)
    find(model)
    choose(device)
    from vqdna_jax.inference.jobs.encode import describe, encode_fasta, notes_of

    summary = encode_fasta(fasta, model, out, not quiet, on_duplicate, batch or None, regions_of(region, bed, out))
    warn(fasta, notes_of(summary))
    tell(summary, f"{describe(summary)}\ncodes written to {out}", quiet, as_json)


def decode(
    codes: tyro.conf.Positional[Path],
    model: ModelName,
    out: OutputFile,
    batch: int = 0,
    device: Device = "auto",
    quiet: bool = False,
    as_json: AsJson = False,
) -> None:
    """Turn codes back into sequences.

    Args:
        codes: a file written by `vqdna encode`
        model: the tokenizer that wrote it, in the same way
        out: the FASTA file to write, gzip if it ends in .gz, or - for standard output
        batch: codes computed at once, 0: as many as suit the device; fewer need less memory; same result
        device: what to compute on; auto: the best that there is
        quiet: no progress and no summary; errors still go to stderr
        as_json: print the summary as JSON on stdout, or on stderr if the output is not a file
    """
    must_exist(codes)
    find(model)
    choose(device)
    from vqdna_jax.inference.jobs.encode import decode_to_fasta

    summary = decode_to_fasta(codes, model, out, progress=not quiet, batch=batch or None)
    text = "{records:,} records, {bases:,} bases, {mismatches:,} of them not as in the original".format(**summary)
    tell(summary, f"{text}; sequences in {out}", quiet, as_json, out)


def embed(
    file: SequenceFiles,
    model: ModelName,
    out: OutputFile,
    pool: PoolName = "mean",
    layer: int = -1,
    region: RegionNames = (),
    bed: OptionalPath = None,
    on_duplicate: OnDuplicate = "error",
    batch: int = 0,
    device: Device = "auto",
    quiet: bool = False,
    as_json: AsJson = False,
) -> None:
    """Turn sequences into vectors. Stopped and started again, it goes on where it was.

    Args:
        file: FASTA files, or CSV or .tsv files with a column `sequence` (their column `id` or `name`, or the row's
            number, is the name); plain or .gz, .2bit files, or - for standard input; names are unique over all of them
        model: a pretrained or fine-tuned model: the export directory of a run with configs/mcm.py or finetune.py, or
            the name of a model that ships (`vqdna models`)
        out: the file of embeddings to write: .npy, with names and lengths in OUT.json beside it; .parquet, a row per
            vector; under any other name a zip of arrays that numpy.load opens
        pool: how the vectors of a sequence's codes become one, several joined by +, or "none": one per code
        layer: of the network: -1 after the last norm, -2 without the last layer, -3 without the last two, and so on; or
            after so many layers, 0 for the input
        region: NAME:START-END, counted from 1 with both ends, or NAME: this stretch alone, as a sequence of its own;
            may be given several times
        bed: a BED file of such regions, plain or .gz, counted from 0 without the end; the strand is not heeded
        on_duplicate: refuse a name that occurs twice, or number it
        batch: codes computed at once, 0: as many as suit the device; fewer need less memory; vectors agree to rounding
        device: what to compute on; auto: the best that there is
        quiet: no progress and no summary; warnings and errors still go to stderr
        as_json: print the summary as JSON on stdout
    """
    must_be_given(file)
    must_exist(*file)
    find(model)
    choose(device)
    from vqdna_jax.genome.fasta_files import describe_skipped
    from vqdna_jax.inference.jobs.embed import embed_fasta

    summary = embed_fasta(
        file, model, out, pool, layer, not quiet, on_duplicate, batch or None, regions_of(region, bed, out)
    )
    warn(file, [*summary["notes"], *describe_skipped(summary["skipped"])])
    text = "{records:,} records, {bases:,} bases: {vectors:,} vectors of {width}, {bases_per_s:,.0f} bases/s, in {out}"
    tell(summary, text.format(**summary), quiet, as_json, out)


def predict(
    file: SequenceFiles,
    model: ModelName,
    out: OutputFile,
    base: OptionalModel = None,
    batch: int = 0,
    device: Device = "auto",
    quiet: bool = False,
    as_json: AsJson = False,
) -> None:
    """Predict the labels of sequences. A row that cannot be predicted says why, and the others are.

    Sequences beyond the model's context are cut into windows if it was trained so (data.long=window), else refused.

    Args:
        file: FASTA files, or CSV or .tsv files with a column `sequence` (their column `id` or `name`, or the row's
            number, is the id); plain or .gz, .2bit files, or - for standard input
        model: a fine-tuned model, the export directory of a run with configs/finetune.py
        out: the CSV file to write (.tsv: with tabs; .gz), or - for standard output; a row per sequence in their order:
            id, prediction, a probability per label, error
        base: the pretrained model under it, if it is no longer where it was; a directory or a name
        batch: codes computed at once, 0: as many as suit the device; fewer need less memory; probabilities agree to
            rounding
        device: what to compute on; auto: the best that there is
        quiet: no progress and no summary; warnings and errors still go to stderr
        as_json: print the summary as JSON on stdout, or on stderr if the output is not a file
    """
    must_be_given(file)
    must_exist(*file)
    find(model)
    choose(device)
    from vqdna_jax.inference.jobs.predict import predict_file

    summary = predict_file(file, model, out, base, not quiet, batch or None)
    warn(file, summary["notes"])
    if summary["errors"]:
        told = "{errors:,} of {records:,} sequences have no prediction; the column error of {out} says why"
        warn([], [told.format(**summary)])
    text = "{records:,} sequences, {errors:,} with an error, {records_per_s:,.0f} sequences/s: predictions in {out}"
    tell(summary, text.format(**summary), quiet, as_json, out)


def models(as_json: AsJson = False) -> None:
    """List the models that come with the package: any of their names does in the place of a model's directory.

    Args:
        as_json: print the list as JSON on stdout
    """
    from vqdna_jax.inference.saved import listing

    found = listing.shipped_models()
    print(json.dumps(found, indent=2) if as_json else listing.describe(found))


def export(
    model: tyro.conf.Positional[ModelName],
    out: str,
    dtype: Literal["float16", "float32"] = "float16",
    card: OptionalPath = None,
    quiet: bool = False,
    as_json: AsJson = False,
) -> None:
    """Copy a model to a directory, in half the room.

    Args:
        model: the export directory of a run, or the name of a model that ships (`vqdna models`)
        out: the directory to write, new or empty, or a copy that was made before
        dtype: of the matrices on the disk; they are read as float32 in any case. What float16 rounds is another model,
            with digests of its own: codes and fine-tuned models of the original refuse it
        card: Markdown of sections, "## Licence" and the like, for the copy's README.md: in the place of those of the
            same title, or new
        quiet: no summary
        as_json: print the summary as JSON on stdout
    """
    find(model)
    must_exist(*([card] if card else []))
    from vqdna_jax.inference.saved.copies import copy_model, read_sections

    summary = copy_model(model, out, dtype, read_sections(card) if card else "")
    text = "{model}: {mb:.1f} MB in {dtype}, digest {digest:.12}, in {out}".format(**summary, mb=summary["bytes"] / 1e6)
    tell(summary, text, quiet, as_json)


def import_(
    rival: tyro.conf.Positional[
        Annotated[Literal["dnabert", "dnabert2", "nt", "hyenadna"], tyro.conf.arg(metavar="RIVAL")]
    ],
    directory: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DIR")]],
    out: str,
    quiet: bool = False,
    as_json: AsJson = False,
) -> None:
    """Make a model of this package from one that others published, as it is downloaded (docs/rivals.md).

    Args:
        rival: dnabert, dnabert2, nt or hyenadna; size and version are read from its config.json
        directory: with config.json, model.safetensors and the vocabulary; pickles (.bin, .ckpt) are not read
        out: the directory to write, new or empty, or an imported model
        quiet: no summary
        as_json: print the summary as JSON on stdout
    """
    must_exist(directory)
    from vqdna_jax.rivals.importing import import_model

    summary = import_model(rival, directory, out)
    text = "{title}: {m:.2f} M parameters, {vocabulary:,} tokens, windows of {length:,}, digest {digest:.12}, in {out}"
    tell(summary, f"{text.format(**summary, m=summary['parameters'] / 1e6)}\n{summary['licence']}", quiet, as_json)


def map(
    file: tyro.conf.Positional[
        Annotated[tuple[Path, ...], tyro.conf.arg(metavar="EMBEDDINGS...", help_behavior_hint="(one or more)")]
    ],
    out: OutputFile,
    labels: OptionalPath = None,
    quiet: bool = False,
    as_json: AsJson = False,
) -> None:
    """Draw embeddings as a map: a point for each sequence, coloured by its label, or by its file.

    The axes are the first two principal components. The title says how often the nearest other sequence, in all
    dimensions, has the same label.

    Args:
        file: files of one width, written by vqdna embed
        out: the PNG to write
        labels: the CSV or .tsv file that was embedded, with a column `label`; a labels.txt beside it has the names
        quiet: no summary
        as_json: print the summary as JSON on stdout
    """
    must_be_given(file)
    must_exist(*file, *([labels] if labels else []))
    from vqdna_jax.evaluation.embedding_map import draw_map

    summary = draw_map(file, out, labels)
    same = (
        ""
        if summary["alike"] is None
        else ", nearest neighbour of the same label: {alike:.1%} (any other: {chance:.1%})"
    )
    tell(summary, f"{summary['points']:,} points{same.format(**summary)}; map in {out}", quiet, as_json)
