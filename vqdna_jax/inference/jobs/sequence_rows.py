"""The sequences of a CSV or FASTA file, plain or gzip, as they stand: the caller says which of them are not DNA.

A file that is neither is refused; a record never is. So the FASTA reader here is not `genome.fasta`, which is strict.
"""

import contextlib
import functools
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from vqdna_jax.errors import InputError
from vqdna_jax.genome.streams import read_chunks
from vqdna_jax.labels.csv_rows import read_rows
from vqdna_jax.labels.table import find_column

ID_COLUMNS = ("id", "name")  # the first that there is
_CSV_NAMES = (".csv", ".csv.gz")
_GZIP_MAGIC = b"\x1f\x8b"


class SequenceRow(NamedTuple):
    """id: of FASTA the header's first word; of CSV the column `id` or `name`, else the row's number, from 1."""

    id: str
    text: str | bytes


@contextlib.contextmanager
def reading(path: str | os.PathLike) -> Iterator[Callable[[], Iterator[SequenceRow]]]:
    """A function that reads the file from its beginning, as often as it is called, a record in memory at a time.

    FASTA begins with '>'. CSV is named so, or has `sequence` in its first line.

    Raises:
        InputError: here, a file that is neither or cannot be read; from the function, a CSV file without a column
            `sequence` or without rows, one that is not CSV (as `csv_rows.read_rows`), damaged compression.
    """
    start = next((chunk for chunk in _chunks(path) if chunk.strip()), b"").lstrip(b"\n")
    if start.startswith(b">"):
        yield functools.partial(_of_fasta, path)
    elif str(path).lower().endswith(_CSV_NAMES) or b"sequence" in start.partition(b"\n")[0]:
        with _unpacked(path) as plain:
            yield functools.partial(_of_csv, plain)
    else:
        found = f"begins with {start[:10].decode('latin-1')!r}" if start else "is empty"
        raise InputError(f"{path}:1:1: {found}; expected FASTA, '>' first, or CSV with a column 'sequence'")


def _of_fasta(path: str | os.PathLike) -> Iterator[SequenceRow]:
    header, parts = None, []
    for line in _lines(_chunks(path)):
        if not line.startswith(b">"):
            parts.append(line)
            continue
        if header is not None:
            yield SequenceRow(header, b"".join(parts))
        words = line[1:].decode("utf-8", "backslashreplace").replace("\t", " ").strip()
        header, parts = words.partition(" ")[0], []
    yield SequenceRow(header, b"".join(parts))


def _of_csv(path: str | os.PathLike) -> Iterator[SequenceRow]:
    rows = read_rows(path)
    header, number = next(rows), 0
    sequence = find_column(header, "sequence")
    named = next((find_column(header, name) for name in ID_COLUMNS if name in header.fields), None)
    for number, row in enumerate(rows, start=1):
        yield SequenceRow(str(number) if named is None else row.fields[named], row.fields[sequence])
    if not number:
        raise InputError(f"{path}:1:1: no rows after the header; expected a sequence on each line; add rows")


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    held: list[bytes] = []
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        held.append(first)
        for line in others:
            yield b"".join(held)
            held = [line]
    yield b"".join(held)


def _chunks(path: str | os.PathLike) -> Iterator[bytes]:
    try:
        yield from read_chunks(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); expected FASTA or CSV") from error


@contextlib.contextmanager
def _unpacked(path: str | os.PathLike) -> Iterator[str | os.PathLike]:
    """The file itself, or if it is gzip a copy, on disk, that is not."""
    with open(path, "rb") as file:
        packed = file.read(2) == _GZIP_MAGIC
    if not packed:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="vqdna-") as directory:
        copy = pathlib.Path(directory) / "unpacked.csv"
        with open(copy, "wb") as file:
            file.writelines(_chunks(path))
        yield _Copy(copy, path)


class _Copy(os.PathLike):
    """Opens `where`; errors name `original`."""

    def __init__(self, where: pathlib.Path, original: str | os.PathLike):
        self._where, self._original = where, original

    def __fspath__(self) -> str:
        return str(self._where)

    def __str__(self) -> str:
        return str(self._original)
