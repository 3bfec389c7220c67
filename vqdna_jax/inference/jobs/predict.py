"""CSV or FASTA to a CSV file of predictions (`vqdna predict`): row i of the one is record i of the other.

    id           of FASTA the record's; of CSV its column `id` or `name`, else the row's number, from 1
    prediction   the likeliest label; multi-label: those over a half, joined by ";"; regression: the value
    LABEL ...    the probability of each label, under its name, or as `error (label)` where another column has that;
                 none of a regression
    error        why there is no prediction, else empty

Positions in errors are counted from 0. A multi-label sequence with no label over a half has an empty prediction.
"""

import codecs
import contextlib
import csv
import itertools
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from vqdna_jax.errors import InputError
from vqdna_jax.genome.alphabet import N, to_bases
from vqdna_jax.inference import load, pretrained
from vqdna_jax.inference.finetuned import FineTuned, Predictions
from vqdna_jax.inference.jobs import sequence_rows
from vqdna_jax.inference.jobs.sequence_rows import SequenceFile, SequenceRow
from vqdna_jax.labels.csv_rows import delimiter_of
from vqdna_jax.runtime.exports import files_of
from vqdna_jax.runtime.files import check_output, writing_by_name
from vqdna_jax.runtime.progress import progress_bar
from vqdna_jax.runtime.remote import places
from vqdna_jax.tokenizers.base import Advance, most_codes
from vqdna_jax.tokenizers.stitch import neighbours

_OTHERS = {"id", "place", "prediction", "error"}  # columns of this table, and of a run's predictions_test.csv


def columns(kind: str, label_names: Sequence[str]) -> list[str]:
    """`prediction`, and a probability per label under the label's name; of a regression the prediction says it all."""
    if kind == "regression":
        return ["prediction"]
    return ["prediction", *(f"{name} (label)" if name in _OTHERS else name for name in label_names)]


def cells_of(kind: str, predicted: Predictions) -> Iterator[list[str]]:
    """The cells under `columns`, of each sequence."""
    for label, values in zip(predicted.labels, predicted.values):
        texts = list(map(str, values))  # of float32, so str is exact
        yield texts if kind == "regression" else [label, *texts]


_LEAST_SLOTS = 64  # that a row counts for in a group, so that empty ones fill it too


class Item(NamedTuple):
    """A record, its bases uint8 [S], and what is wrong with it; then it has none."""

    id: str
    bases: np.ndarray
    error: str = ""


def predict_file(
    file: str | os.PathLike | Sequence[str | os.PathLike],
    model_dir: str | os.PathLike,
    out: str | os.PathLike,
    base: str | os.PathLike | None = None,
    progress: bool = True,
    batch: int | None = None,
) -> dict[str, Any]:
    """Predicts every sequence of a file, or of several, as `Model.predict` does and bitwise the same, into `out`.

    A file is read to its end before the first prediction, so one that is broken is found at once, and then again; a
    pipe by its name, or "-" for standard input, is copied first. `out` appears whole or not at all, and "-", a pipe or
    a device is written through. Memory is bounded by the longest record and a group of them. A sequence that is empty,
    N alone, not DNA or too long for the model costs its own prediction only, unless all of them are.

    Args:
        file: rows of tables without names are numbered over all of them.
        base: the directory of the pretrained model under it; where it lay by default.
        progress: a bar on stderr, or a line now and then where that is no terminal.
        batch: codes that are computed at once, see `load`.

    Returns:
        records, errors (records without a prediction), notes (what was accepted although it is not to the letter),
        seconds, records_per_s, finetuned_digest, out.

    Raises:
        InputError: a file that is not CSV or FASTA, as `sequence_rows.survey`, or has no good sequence; another model,
            or another base than it was trained on, as `inference.load`; a batch for which there is no memory.
            StorageError: `out` cannot be written.
    """
    paths = [file] if isinstance(file, str | os.PathLike) else list(file)
    start = time.perf_counter()
    models = [model_dir] if base is None else [model_dir, base]
    check_output(out, [*paths, *itertools.chain.from_iterable(map(files_of, models))], streams=True)
    with contextlib.ExitStack() as copies:
        source = _survey([copies.enter_context(places.readable(path, sequence_rows.stream_check())) for path in paths])
        model = load.load(model_dir, base=base, batch=batch).predictor()
        model.base.check_room(1)  # a batch beyond all memory is not the fault of any row
        records, errors = _predict(model, source, ", ".join(map(str, paths)), out, progress)
    seconds = time.perf_counter() - start
    summary = {"records": records, "errors": errors, "notes": list(source.notes), "seconds": seconds}
    return summary | {"records_per_s": records / seconds, "finetuned_digest": model.digest, "out": str(out)}


def _survey(paths: Sequence[str | os.PathLike]) -> SequenceFile:
    """All files as one; of several, notes say of which file each is."""
    found = list[SequenceFile]()
    for path in paths:
        found.append(sequence_rows.survey(path, sum(source.rows for source in found)))
    if len(found) == 1:
        return found[0]
    records, rows = sum(source.records for source in found), sum(source.rows for source in found)
    notes = tuple(f"{path}: {note}" for path, source in zip(paths, found) for note in source.notes)
    hint = next((source.hint for source in found if source.hint), "")

    def read() -> Iterator[SequenceRow]:
        return itertools.chain.from_iterable(source.read() for source in found)

    return SequenceFile(records, notes, hint, rows, read)


def _predict(
    model: FineTuned, source: SequenceFile, name: str, out: str | os.PathLike, progress: bool
) -> tuple[int, int]:
    """How many records there are, and how many of them have no prediction. `name`: of the files."""
    header = ["id", *columns(model.kind, model.label_names), "error"]
    with writing_by_name(out) as file, progress_bar("predicting", source.records, " sequences", progress) as bar:
        rows = _table(model, source.read(), bar.update)
        records, errors, first = _write(codecs.getwriter("utf-8")(file), delimiter_of(out), header, rows)
        if records != source.records:
            raise InputError(f"{name}: changed while it was read; run again")
        if errors == records:
            found = f"none of its {records:,} sequences can be predicted, the first: {first}"
            raise InputError(f"{name}: {found}; {source.hint or 'correct them, or name another file'}")
    return records, errors


def _write(
    file: codecs.StreamWriter, delimiter: str, header: list[str], rows: Iterable[list[str]]
) -> tuple[int, int, str]:
    """How many rows there are, how many of them have an error, and the first error."""
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    writer.writerow(header)
    records, errors, first = 0, 0, ""
    for row in rows:
        writer.writerow(row)
        records, errors, first = records + 1, errors + bool(row[-1]), first or row[-1]
    return records, errors, first


def _table(model: FineTuned, rows: Iterable[SequenceRow], advance: Advance) -> Iterator[list[str]]:
    """The cells of each row. `advance` hears of rows."""
    for group in _grouped(model, (_item(model, row) for row in rows)):
        yield from _cells(model, group, advance)


def _item(model: FineTuned, row: SequenceRow) -> Item:
    try:
        bases = to_bases(row.text)
    except InputError as error:
        return Item(row.id, np.zeros(0, np.uint8), str(error).removeprefix("sequence "))
    problem = "" if bases.size else "the sequence is empty; expected at least one base"
    codes = model.base.tokenizer.codes_of(bases.size)
    if bases.size and codes is not None:  # nothing need be encoded to know
        problem = model.problem(codes)
    if bases.size and bases.min() == N:
        problem = "no known base, N or other letters for several alone; expected A, C, G or T among them"
    return Item(row.id, bases[:0] if problem else bases, problem)


def _grouped(model: FineTuned, items: Iterable[Item]) -> Iterator[list[Item]]:
    """Neighbours that fill CALLS_A_GROUP calls; an item that is more than that is alone."""
    limit = pretrained.CALLS_A_GROUP * model.base.slots_per_call
    tokenizer = model.base.tokenizer
    return neighbours(items, lambda item: max(_LEAST_SLOTS, most_codes(tokenizer, item.bases.size)), limit)


def _cells(model: FineTuned, group: list[Item], advance: Advance) -> Iterator[list[str]]:
    errors = [item.error for item in group]
    good = [i for i, error in enumerate(errors) if not error]
    encoded = model.encode([group[i].bases for i in good])
    for i, length in zip(good, encoded.lengths):
        errors[i] = model.problem(length)
    kept = [row for row, i in enumerate(good) if not errors[i]]
    advance(len(group) - len(kept))
    predicted = model.predictions(model.logits(encoded.take(kept), advance))
    cells = dict(zip((good[row] for row in kept), cells_of(model.kind, predicted)))
    nothing = [""] * len(columns(model.kind, model.label_names))
    for i, item in enumerate(group):
        yield [item.id, *cells.get(i, nothing), errors[i]]
