"""A strict streaming reader of UCSC's .2bit files, which gives the same batches as that of FASTA.

A file has a header, an index of names and offsets, and for each sequence its runs of N and of lower case and its bases,
four a byte, the first in the highest bits (https://genome.ucsc.edu/FAQ/FAQformat.html#format7). Either byte order, and
version 1 with its longer offsets. A library is not used: of py2bit 1.0 a damaged file kills the process and one that is
cut short is read as if it were whole, and twobitreader 4.0 takes a second for 30 million bases.
"""

import os
from collections.abc import Iterator
from typing import BinaryIO, NoReturn

import numpy as np

from vqdna_jax.errors import InputError
from vqdna_jax.genome import fasta
from vqdna_jax.genome.alphabet import N
from vqdna_jax.genome.fasta import Batch
from vqdna_jax.genome.faults import names_of
from vqdna_jax.genome.runs import spread_runs

PIECE = 1 << 20  # bases of a batch, a multiple of four
_MAGIC = 0x1A412743
_BASES = np.array([3, 1, 0, 2], np.uint8)  # T C A G as they are numbered there
_UNPACKED = _BASES[np.arange(256)[:, None] >> np.array([6, 4, 2, 0]) & 3]  # [256, 4]
_NOTHING = np.zeros(0, np.int64)


def is_two_bit(path: str | os.PathLike) -> bool:
    """Whether a file begins as one does; False for what is no file."""
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return _order(file.read(4)) != ""


def _order(magic: bytes) -> str:
    """Of the bytes in a number, as numpy says it; "" where these are not the first four of such a file."""
    return next((order for order in "<>" if len(magic) == 4 and np.frombuffer(magic, f"{order}u4")[0] == _MAGIC), "")


class TwoBitReader(fasta.Reader):
    """A sequence's line is its number, from 1.

    Iterating raises InputError, as `file: what; what to do`.
    """

    _order, _size = "", 0

    def __iter__(self) -> Iterator[Batch]:
        try:
            with open(self.path, "rb") as file:
                self._size = os.fstat(file.fileno()).st_size
                index, any_base = self._index(file), False
                for number, (name, offset) in enumerate(index, start=1):
                    for batch in self._sequence(file, name, offset, number):
                        any_base |= batch.codes.size > 0
                        yield batch
        except OSError as error:
            self._fail(f"{error.strerror or error}; expected a .2bit file")
        if not any_base:
            self._fail(f"all {len(index)} sequences are empty; expected at least one base")

    def _fail(self, reason: str) -> NoReturn:
        raise InputError(f"{self.path}: {reason}")

    def _bytes(self, file: BinaryIO, count: int) -> bytes:
        content = file.read(count) if count <= self._size - file.tell() else b""  # no memory for what is not there
        if len(content) != count:
            self._fail("is cut short or damaged; fetch it again")
        self._advance(count)
        return content

    def _numbers(self, file: BinaryIO, count: int, bits: int = 32) -> np.ndarray:
        kind = np.dtype(f"{self._order}u{bits // 8}")
        return np.frombuffer(self._bytes(file, count * kind.itemsize), kind).astype(np.int64)

    def _index(self, file: BinaryIO) -> list[tuple[str, int]]:
        """(name, offset) of each sequence."""
        self._order = _order(self._bytes(file, 4))
        version, count, _ = self._numbers(file, 3).tolist() if self._order else (-1, 0, 0)
        if version not in (0, 1):
            self._fail(f"is no .2bit file of version 0 or 1 but {version}; convert it with faToTwoBit")
        index = []
        for _ in range(count):
            name = self._bytes(file, self._bytes(file, 1)[0])
            index.append((self._name(name), int(self._numbers(file, 1, 64 if version else 32)[0])))
        return index

    def _name(self, raw: bytes) -> str:
        name = raw.decode("utf-8", "backslashreplace")
        if not name or names_of(name) != [name] or not name.isprintable():
            self._fail(f"a sequence is named {name[:80]!r}; expected one word; write the file anew with faToTwoBit")
        if name in self._names and not self._rename:
            self._fail(f"a second record is named {name[:80]!r}; rename it, or let --on-duplicate=rename number it")
        unique = fasta.unlike_any(name, self._names)
        self.skipped["renamed_records"] += unique != name
        return unique

    def _sequence(self, file: BinaryIO, name: str, offset: int, number: int) -> Iterator[Batch]:
        """The batches of a sequence, of which the first has its name."""
        file.seek(offset)
        (size,) = self._numbers(file, 1).tolist()
        unknown, soft = self._runs(file, name, size), self._runs(file, name, size)
        self._numbers(file, 1)
        self.skipped["empty_records"] += not size
        head: tuple[list[str], list[int], np.ndarray] = [name], [number], np.zeros(1, np.int64)
        for start in range(0, max(size, 1), PIECE):
            stop = min(start + PIECE, size)
            packed = np.frombuffer(self._bytes(file, -(-(stop - start) // 4)), np.uint8)
            codes = _UNPACKED[packed].reshape(-1)[: stop - start]
            codes[_within(unknown, start, stop)] = N
            codes[_within(soft, start, stop)] |= fasta.SOFT
            ids, lines, starts = head
            yield Batch(ids, list(ids), lines, starts, codes, {})
            head = [], [], _NOTHING

    def _runs(self, file: BinaryIO, name: str, size: int) -> np.ndarray:
        """(start, length) of runs in their order, int64 [runs, 2]."""
        (count,) = self._numbers(file, 1).tolist()
        if count > size:
            self._fail(f"{name}: {count:,} runs in {size:,} bases; the file is damaged, fetch it again")
        runs = self._numbers(file, 2 * count).reshape(2, -1).T
        starts, ends = runs[:, 0], runs.sum(axis=1)
        if (runs[:, 1] < 1).any() or (starts[1:] < ends[:-1]).any() or (ends > size).any():
            self._fail(f"{name}: runs out of order or beyond its end; the file is damaged, fetch it again")
        return runs


def _within(runs: np.ndarray, start: int, stop: int) -> np.ndarray:
    """The positions of runs that lie in [start, stop), counted from `start`."""
    first = np.searchsorted(runs.sum(axis=1), start, side="right")
    last = np.searchsorted(runs[:, 0], stop)
    begin = np.maximum(runs[first:last, 0], start) - start
    end = np.minimum(runs[first:last].sum(axis=1), stop) - start
    return spread_runs(np.stack([begin, end - begin], axis=1))
