"""The sequences of a CSV, FASTA or .2bit file as they stand: the caller says which of them are not DNA.

A file that is neither is refused; a record never is. So the FASTA reader here is not `genome.fasta`, which is strict.
"""

import contextlib
import functools
import itertools
import os
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from vqdna_jax.errors import InputError
from vqdna_jax.genome.alphabet import to_text
from vqdna_jax.genome.stream_check import StreamCheck
from vqdna_jax.genome.streams import GZIP_MAGIC, lines_of, read_chunks
from vqdna_jax.genome.two_bit import TwoBitReader, is_two_bit
from vqdna_jax.labels import header as headers
from vqdna_jax.labels.csv_rows import MAX_RECORD, Row, read_rows
from vqdna_jax.labels.header import BLANKS
from vqdna_jax.labels.table import like_dna

ID_COLUMNS = ("id", "name")  # the first that there is
_CSV_NAMES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
_LINE_ENDS = "blanks at line ends are dropped"


class SequenceRow(NamedTuple):
    """id: of FASTA the header's first word; of CSV the column `id` or `name`, else the row's number, from 1."""

    id: str
    text: str | bytes


class SequenceFile(NamedTuple):
    """What one reading of a file found.

    Attributes:
        records: how many, at least 1.
        notes: what was accepted although it is not to the letter, a line per point.
        hint: why none of the records may be DNA; empty where nothing is suspected.
        rows: of a table as many as records, else 0.
        read: reads the file again, from its beginning, a record in memory at a time.
    """

    records: int
    notes: tuple[str, ...]
    hint: str
    rows: int
    read: Callable[[], Iterator[SequenceRow]]


def survey(path: str | os.PathLike, before: int = 0) -> SequenceFile:
    """Reads a file to its end. FASTA begins with '>', .2bit with its number; CSV is named so, or its first line names a
    column of sequences.

    Args:
        before: rows of the tables before this one, which are numbered on.

    Raises:
        InputError: a file that is none of them or cannot be read, CSV without a column `sequence` or without rows or
            that is not CSV (as `csv_rows.read_rows`), damaged compression.
    """
    if is_two_bit(path):
        records = sum(1 for _ in _of_two_bit(path))
        return SequenceFile(records, (), "", 0, functools.partial(_of_two_bit, path))
    start = _start(path)
    notes: dict[str, None] = {}
    if start.startswith(b">"):
        records = sum(1 for _ in _of_fasta(path, notes))
        return SequenceFile(records, tuple(notes), "", 0, functools.partial(_of_fasta, path, {}))
    if not str(path).lower().endswith(_CSV_NAMES) and (fault := _start_fault(start)):
        raise InputError(f"{path}:1:1: {fault}")
    packed = is_gzip(path)
    records = sum(1 for _ in _of_csv(path, packed, notes))
    if not records:
        raise InputError(f"{path}:1:1: no rows after the header; expected a sequence on each line; add rows")
    with contextlib.closing(read_rows(path, packed)) as rows:
        hint = _swapped(*itertools.islice(rows, 2))
    return SequenceFile(records, tuple(notes), hint, records, functools.partial(_of_csv, path, packed, {}, before))


def stream_check() -> StreamCheck:
    """For a pipe that should be FASTA or CSV."""
    return StreamCheck(lambda start: (0, _start_fault(start)), longest=MAX_RECORD)


def _start_fault(start: bytes) -> str:
    start = start.lstrip()
    if start.startswith(b">") or _names_sequences(start):
        return ""
    begin = start[:10].decode("utf-8", "replace").partition("\ufffd")[0] or start[:10]
    found = f"begins with {begin!r}" if start else "is empty"
    return f"{found}; expected FASTA, '>' first, or CSV with a column 'sequence'"


def is_table(path: str | os.PathLike) -> bool:
    """Whether it is CSV, as its name or its first line says. Raises InputError: it cannot be read."""
    if is_two_bit(path):
        return False
    start = _start(path)
    return not start.startswith(b">") and (str(path).lower().endswith(_CSV_NAMES) or _names_sequences(start))


def columns_of(header: Row, notes: dict[str, None]) -> tuple[int, int | None]:
    """The column of the sequences, and of their ids if there is one. Raises InputError: of the former there is none."""
    titles = {headers.find(header, headers.SEQUENCE): headers.SEQUENCE[0]}
    if named := next((name for name in ID_COLUMNS if headers.has(header, [name])), None):
        titles[headers.find(header, [named])] = named
    notes.update(dict.fromkeys(headers.notes(header, titles)))
    sequence, *ids = titles
    return sequence, ids[0] if ids else None


def is_gzip(path: str | os.PathLike) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == GZIP_MAGIC


def _start(path: str | os.PathLike) -> bytes:
    return next((chunk for chunk in _chunks(path) if chunk.strip()), b"").lstrip(b"\n")


def _names_sequences(start: bytes) -> bool:
    line = start.partition(b"\n")[0].decode("utf-8", "replace").lower()
    return "sequence" in line or any(part.strip(' \t"') in headers.SEQUENCE for part in re.split("[,\t;|]", line))


def _swapped(header: Row, first: Row) -> str:
    sequence = headers.find(header, headers.SEQUENCE)
    for column, name in enumerate(header.fields):
        if column != sequence and like_dna(first.fields[column]) and not like_dna(first.fields[sequence]):
            return f"the column {name!r} looks like DNA: are two columns swapped?"
    return ""


def _of_fasta(path: str | os.PathLike, notes: dict[str, None]) -> Iterator[SequenceRow]:
    header, parts = None, []
    for line in lines_of(_chunks(path)):
        if not line.startswith(b">"):
            if line[-1:] in (b" ", b"\t"):
                line = line.rstrip(b" \t")
                notes[_LINE_ENDS] = None
            parts.append(line)
            continue
        if header is not None:
            yield SequenceRow(header, b"".join(parts))
        words = line[1:].decode("utf-8", "backslashreplace").replace("\t", " ").strip()
        header, parts = words.partition(" ")[0], []
    yield SequenceRow(header or "", b"".join(parts))


def _of_two_bit(path: str | os.PathLike) -> Iterator[SequenceRow]:
    name, parts = "", list[str]()
    for batch in TwoBitReader(path):
        if batch.ids:
            if name:
                yield SequenceRow(name, "".join(parts))
            (name,), parts = batch.ids, []
        parts.append(to_text(batch.bases))
    yield SequenceRow(name, "".join(parts))


def _of_csv(path: str | os.PathLike, packed: bool, notes: dict[str, None], before: int = 0) -> Iterator[SequenceRow]:
    with contextlib.closing(read_rows(path, packed)) as rows:
        sequence, ids = columns_of(next(rows), notes)
        for number, row in enumerate(rows, start=before + 1):
            text = row.fields[sequence].strip(BLANKS)
            if len(text) < len(row.fields[sequence]):
                notes[headers.BLANKS_DROPPED] = None
            yield SequenceRow(str(number) if ids is None else row.fields[ids].strip(BLANKS), text)


def _chunks(path: str | os.PathLike) -> Iterator[bytes]:
    try:
        yield from read_chunks(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); expected FASTA or CSV") from error
