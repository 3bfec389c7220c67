"""FASTA files and tables of sequences, CSV and the like, read alike and as strictly: for `vqdna embed`."""

import contextlib
import os
from collections.abc import Callable, Iterator

import numpy as np

from vqdna_jax.errors import InputError
from vqdna_jax.genome import fasta
from vqdna_jax.genome.fasta_files import FastaFiles
from vqdna_jax.inference.jobs.sequence_rows import columns_of, is_gzip, is_table, stream_check
from vqdna_jax.labels.csv_rows import Row, read_rows
from vqdna_jax.labels.header import BLANKS
from vqdna_jax.labels.table import bases_of


class SequenceFiles(FastaFiles):
    """`FastaFiles` some of which may be tables with a column of sequences; labels and other columns are passed over.

    The id of a row is in its column `id` or `name`, else its number among the rows of all files, from 1. What is no DNA
    is an InputError with its line and column.

    Attributes:
        notes: what the last reading accepted although it is not to the letter, each once.
    """

    notes: tuple[str, ...] = ()
    _check = staticmethod(stream_check)

    def read(self, advance: Callable[[int], object] = lambda file_bytes: None) -> Iterator[fasta.Sequence]:
        self.notes, self._rows = (), 0
        yield from super().read(advance)

    def _read(
        self, path: str | os.PathLike, advance: Callable[[int], object], names: dict[str, int]
    ) -> Iterator[fasta.Sequence]:
        if not is_table(path):
            yield from super()._read(path, advance, names)
            return
        if self._regions:
            raise InputError(f"{path}: is a table, and regions are of FASTA; leave --region and --bed out")
        yield from self._rows_of(path, names)
        advance(os.path.getsize(path))

    def _rows_of(self, path: str | os.PathLike, names: dict[str, int]) -> Iterator[fasta.Sequence]:
        header_notes, notes, before = dict[str, None](), list[str](), self._rows
        with contextlib.closing(read_rows(path, is_gzip(path))) as rows:
            yield from self._named(rows, names, header_notes, notes)
        if self._rows == before:
            raise InputError(f"{path}:1:1: no rows after the header; expected a sequence on each line; add rows")
        self.notes = tuple(dict.fromkeys([*self.notes, *header_notes, *notes]))

    def _named(
        self, rows: Iterator[Row], names: dict[str, int], header_notes: dict[str, None], notes: list[str]
    ) -> Iterator[fasta.Sequence]:
        sequence, ids = columns_of(next(rows), header_notes)
        for row in rows:
            self._rows += 1
            id = str(self._rows) if ids is None else row.fields[ids].strip(BLANKS)
            if id in names and self._on_duplicate == "error":
                advice = "rename it, or let --on-duplicate=rename number it"
                raise InputError(f"{row.place(ids or 0)}: a second row is named {id[:80]!r}; {advice}")
            unique = fasta.unlike_any(id, names)
            self.skipped["renamed_records"] += unique != id
            bases = bases_of(row, sequence, (), notes)
            yield fasta.Sequence(unique, unique, row.line, bases, np.zeros(bases.size, bool), {})
