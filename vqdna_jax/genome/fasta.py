"""A strict streaming FASTA reader: what is not DNA is an error with its file and line, never a shorter sequence.

    for batch in FastaReader("x.fa"): ...       the headers and bases of about a megabyte of the file
    for sequence in load_fasta("x.fa"): ...     whole records

Lower case is a soft mask beside the bases, IUPAC letters become N and are counted. Memory is bounded by the batch, not
by the record or the line; of all records only the names are kept, to find one that occurs twice.
"""

import abc
import itertools
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from operator import ne
from typing import Literal, NamedTuple, NoReturn

import numpy as np

from vqdna_jax.errors import InputError
from vqdna_jax.genome.alphabet import AMBIGUOUS_LETTERS, N
from vqdna_jax.genome.faults import MAX_HEADER_BYTES, first_fault, letter_fault, names_of
from vqdna_jax.genome.stream_check import fasta_check
from vqdna_jax.genome.streams import read_chunks
from vqdna_jax.runtime.remote import places

OnDuplicate = Literal["error", "rename"]

# One byte of the code of a letter: the base in the low bits, then case, then which of AMBIGUOUS_LETTERS it is, from 1.
_BASE, SOFT, _AMBIGUOUS_SHIFT, _BAD = 7, 8, 4, 255


def _code_table() -> bytes:
    table = bytearray([_BAD]) * 256
    ambiguous = ((letter, N | which << _AMBIGUOUS_SHIFT) for which, letter in enumerate(AMBIGUOUS_LETTERS, 1))
    for letter, code in [*zip("ACGTN", range(N + 1)), *ambiguous]:
        table[ord(letter)] = code
        table[ord(letter.lower())] = code | SOFT
    return bytes(table)


_CODES = _code_table()
_HEADER = re.compile(rb">(.*)\n")
_BLANK_END = re.compile(rb"[ \t]\n")
_NOT_IN_HEADER = re.compile("[\x00\x02-\x08\x0b-\x1f\x7f\udc80-\udcff]")  # the last are bytes that are not UTF-8


class Batch(NamedTuple):
    """A stretch of a file: the headers in it, and the letters of all its sequence lines."""

    ids: list[str]  # of the records that begin here
    headers: list[str]  # their header lines without '>'; of a renamed record with the new id
    lines: list[int]  # where these are, from 1
    starts: np.ndarray  # int64 [records], where in `codes` each begins; what is before goes on with an earlier record
    codes: np.ndarray  # uint8 [S]
    ambiguous: dict[int, dict[str, int]]  # IUPAC letters read as N: at 0 before record 0, at i + 1 of record i

    @property
    def bases(self) -> np.ndarray:
        """uint8 [S]."""
        return self.codes & _BASE

    @property
    def soft_mask(self) -> np.ndarray:
        """bool [S], True where the letter was lower case."""
        return (self.codes & SOFT).astype(bool)


Block = tuple[np.ndarray, np.ndarray, dict[str, int]]  # bases, soft mask and ambiguous letters of a part of a record


class Sequence(NamedTuple):
    """A whole record."""

    id: str
    header: str  # the line without '>'; of a renamed record with the new id
    line: int  # where it is, from 1
    bases: np.ndarray  # uint8 [S]
    soft_mask: np.ndarray  # bool [S], True where the letter was lower case
    ambiguous: dict[str, int]  # IUPAC letters other than N, all read as N

    @property
    def description(self) -> str:
        """The header after the id, tabs as blanks."""
        return describe(self.header, self.id)


def unlike_any(name: str, seen: dict[str, int]) -> str:
    """The name, or with a number if it was `seen`: a, a_2, a_3; how often each was is counted there."""
    unique = name
    while unique in seen:
        seen[name] += 1
        unique = f"{name}_{seen[name]}"
    seen[unique] = 1
    return unique


def describe(header: str, id: str) -> str:
    """What a header says after the id, tabs as blanks."""
    return header.replace("\t", " ").strip()[len(id) :].strip()


class Reader(abc.ABC):
    """Reads a file once, in batches: each kind of file has its own.

    `advance` hears how many more bytes of the file were read. Readers with the same `names` refuse or rename what
    another of them has seen.

    Attributes:
        path: of the file.
        skipped: how often a record was left out or renamed, and a line ended in blanks.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        on_duplicate: OnDuplicate = "error",
        advance: Callable[[int], object] = lambda file_bytes: None,
        names: dict[str, int] | None = None,
    ):
        self.skipped = Counter(empty_records=0, renamed_records=0)
        self.path, self._advance, self._rename = path, advance, on_duplicate == "rename"
        self._names = {} if names is None else names  # how often each was seen

    @abc.abstractmethod
    def __iter__(self) -> Iterator[Batch]:
        """The batches of the file, from its beginning."""


class FastaReader(Reader):
    """Plain, gzip and bgzip; any newline; a pipe by its name, or "-" for standard input.

    Iterating raises InputError, as `file:line: what; what to do`: what is not DNA, damaged compression, a repeated id
    unless it is to be renamed, a file without a base.
    """

    _line, _at_line_start = 1, True
    _records, _is_empty = 0, False  # records so far, and whether the last one has no base yet

    def __iter__(self) -> Iterator[Batch]:
        any_base = False
        for text in self._texts():
            batch = self._read(text)
            any_base |= batch.codes.size > 0
            yield batch
        if not self._records:
            self._fail("the file is empty; expected FASTA, a '>' header line first")
        if not any_base:
            self._fail(f"all {self._records} records are empty; expected at least one base")
        self.skipped["empty_records"] += self._is_empty

    def _fail(self, reason: str, lines: int = 0) -> NoReturn:
        raise InputError(f"{self.path}:{self._line + lines}: {reason}")

    def _texts(self) -> Iterator[bytes]:
        """The file in pieces that end neither within a header nor in blanks, which may be at the end of a line."""
        held = b""
        try:
            with places.local_copy(self.path, fasta_check()) as self.path:  # a copy has its name
                for chunk in read_chunks(self.path, self._advance):
                    text = held + chunk
                    end = self._settled(text)
                    held = text[end:]
                    if end:
                        yield text[:end]
                    self._check_held(held)
        except OSError as error:
            self._fail(f"{error.strerror}; expected a FASTA file, plain or gzip" if error.strerror else str(error))
        if held:
            yield held + b"\n"

    def _settled(self, text: bytes) -> int:
        last_line = text.rfind(b"\n") + 1
        if text.startswith(b">", last_line) and (last_line or self._at_line_start):
            return last_line
        return len(text.rstrip(b" \t"))

    def _check_held(self, held: bytes) -> None:
        if len(held) > 1 + MAX_HEADER_BYTES:
            if held[:1] != b">":
                self._fail(letter_fault(held))
            self._check(held)

    def _check(self, text: bytes) -> None:
        fault = first_fault(text, self._at_line_start, self._records > 0, () if self._rename else self._names)
        if fault:
            lines, reason = fault
            self._fail(reason, lines)

    def _read(self, text: bytes) -> Batch:
        parts = _HEADER.split(text) if b">" in text else [text]
        sequences, headers = parts[::2], parts[1::2]
        codes, sizes, newlines = self._encode(sequences)
        highest = codes.max(initial=0)
        joined = b"\n".join(headers).decode("utf-8", "surrogateescape")
        names = names_of(joined) if headers else []
        new = len(set(names)) == len(names) and self._names.keys().isdisjoint(names)
        if (
            highest == _BAD
            or (sizes[0] and not self._records)
            or not (new or self._rename)
            or (headers and not self._are_sound(sequences, headers, joined, names))
        ):
            self._check(text)
        starts = np.cumsum(sizes)[:-1]
        batch = Batch(
            ids=self._take(names, new),
            headers=joined.split("\n") if headers else [],
            lines=(self._line + np.cumsum(newlines)[:-1] + np.arange(len(headers))).tolist(),
            starts=starts,
            codes=codes,
            ambiguous=_count_ambiguous(codes, starts) if highest >= 1 << _AMBIGUOUS_SHIFT else {},
        )
        self._count_empty(sizes == 0)
        self._line += int(newlines.sum()) + len(headers)
        self._at_line_start = text.endswith(b"\n")
        self._records += len(headers)
        return batch if new else batch._replace(headers=_renamed(batch.headers, names, batch.ids))

    def _encode(self, sequences: list[bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Codes uint8 [S], without blanks at line ends; how many of them and how many newlines each sequence has."""
        coded = [sequence.translate(_CODES, b"\n") for sequence in sequences]
        codes = np.frombuffer(b"".join(coded), np.uint8)
        if codes.max(initial=0) == _BAD and any(_BLANK_END.search(sequence) for sequence in sequences):
            stripped = [_strip_line_ends(sequence) for sequence in sequences]
            self.skipped["lines_ending_in_blanks"] += sum(count for _, count in stripped)
            return self._encode([sequence for sequence, _ in stripped])
        sizes, lengths = (np.fromiter(map(len, parts), np.int64, len(parts)) for parts in (coded, sequences))
        return codes, sizes, lengths - sizes

    def _are_sound(self, sequences: list[bytes], headers: list[bytes], joined: str, names: list[str]) -> bool:
        line_ends = b"".join([sequence[-1:] for sequence in sequences[:-1]])
        return (
            not line_ends.strip(b"\n")
            and bool(self._at_line_start or sequences[0])
            and all(names)
            and not _NOT_IN_HEADER.search(joined)
            and (len(joined) <= MAX_HEADER_BYTES or max(map(len, headers)) <= MAX_HEADER_BYTES)
        )

    def _take(self, names: list[str], new: bool) -> list[str]:
        """The ids of records with these names."""
        if not new:
            return [self._take_one(name) for name in names]
        self._names.update(dict.fromkeys(names, 1))
        return names

    def _take_one(self, name: str) -> str:
        unique = unlike_any(name, self._names)
        self.skipped["renamed_records"] += unique != name
        return unique

    def _count_empty(self, empty: np.ndarray) -> None:
        """bool [1 + records]: whether each piece of a batch has no base, the first the rest of an earlier record."""
        *closed, last = empty.tolist()
        if closed:
            self.skipped["empty_records"] += (self._is_empty and closed[0]) + sum(closed[1:])
            self._is_empty = last
        else:
            self._is_empty &= last


def _strip_line_ends(sequence: bytes) -> tuple[bytes, int]:
    """Without blanks at line ends, and how many lines had any."""
    lines = sequence.split(b"\n")
    stripped = [line.rstrip(b" \t") for line in lines]
    return b"\n".join(stripped), sum(map(ne, lines, stripped))


def _renamed(headers: list[str], names: list[str], ids: list[str]) -> list[str]:
    return [header.replace(name, id, 1) for header, name, id in zip(headers, names, ids)]


def _count_ambiguous(codes: np.ndarray, starts: np.ndarray) -> dict[int, dict[str, int]]:
    """IUPAC letters of each record that has any, as Batch holds them."""
    places = np.flatnonzero(codes >> _AMBIGUOUS_SHIFT)
    records, letters = np.searchsorted(starts, places, side="right"), codes[places] >> _AMBIGUOUS_SHIFT
    pairs, counts = np.unique(records * 16 + letters, return_counts=True)
    found: dict[int, dict[str, int]] = {}
    for pair, count in zip(pairs.tolist(), counts.tolist()):
        found.setdefault(pair // 16, {})[AMBIGUOUS_LETTERS[pair % 16 - 1]] = count
    return found


def load_fasta(
    path: str | os.PathLike,
    *,
    on_duplicate: OnDuplicate = "error",
    advance: Callable[[int], object] = lambda file_bytes: None,
) -> Iterator[Sequence]:
    """Yields whole records, a batch in memory at a time, none that is empty. Raises as `FastaReader` does."""
    return whole_records(FastaReader(path, on_duplicate=on_duplicate, advance=advance))


def whole_records(reader: Reader) -> Iterator[Sequence]:
    """The records of a file, none that is empty. Raises InputError for one that memory does not hold, too."""
    line = 0  # of the record before
    try:
        for sequence in _whole(reader):
            line = sequence.line
            yield sequence
    except MemoryError as error:
        after = f"the record after that of line {line}" if line else "the first record"
        raise InputError(f"{reader.path}: {after} is longer than memory holds; cut it first") from error


def _whole(batches: Iterable[Batch]) -> Iterator[Sequence]:
    head = ("", "", 0)  # of the record that the batch before was in
    blocks: list[Block] = []
    for batch in batches:
        bases, soft_mask, ends = batch.bases, batch.soft_mask, [*batch.starts.tolist(), batch.codes.size]
        heads = zip(batch.ids, batch.headers, batch.lines)
        for index, (start, stop) in enumerate(itertools.pairwise([0, *ends])):
            if index:
                if blocks:
                    yield _join(head, blocks)
                head, blocks = next(heads), []
            if start < stop:
                blocks.append((bases[start:stop], soft_mask[start:stop], batch.ambiguous.get(index, {})))
    if blocks:
        yield _join(head, blocks)


def sequence_of(id: str, header: str, line: int, codes: np.ndarray) -> Sequence:
    """The record of a stretch of a batch's `codes`."""
    ambiguous = _count_ambiguous(codes, np.zeros(0, np.int64)).get(0, {})
    return Sequence(id, header, line, codes & _BASE, (codes & SOFT).astype(bool), ambiguous)


def _join(head: tuple[str, str, int], blocks: list[Block]) -> Sequence:
    """Copies, so that a record that is kept does not keep its batch."""
    bases, soft_masks, ambiguous = zip(*blocks)
    if len(blocks) == 1:
        return Sequence(*head, bases[0].copy(), soft_masks[0].copy(), ambiguous[0])
    counts: Counter[str] = sum(map(Counter, ambiguous), Counter())
    return Sequence(*head, np.concatenate(bases), np.concatenate(soft_masks), dict(counts))
