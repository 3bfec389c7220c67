"""A strict streaming FASTA reader: what is not DNA is an error with its file and line, never a shorter sequence.

Lower case is a soft mask beside the bases, IUPAC letters become N and are counted. Memory is bounded by the block,
not by the record or the line.
"""

import os
import pathlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple, NoReturn, TypeVar

import numpy as np

from vqdna_jax.errors import InputError
from vqdna_jax.genome.alphabet import AMBIGUOUS_LETTERS, N
from vqdna_jax.genome.streams import read_chunks

MAX_HEADER_BYTES = 1 << 16

# One byte of the code of a letter: the base in the low bits, then case, then what needs a second look.
_BASE, _SOFT, _AMBIGUOUS, _BAD = 7, 8, 16, 255


def _code_table() -> bytes:
    table = bytearray([_BAD]) * 256
    for letter, code in [*zip("ACGTN", range(N + 1)), *((letter, N | _AMBIGUOUS) for letter in AMBIGUOUS_LETTERS)]:
        table[ord(letter)] = code
        table[ord(letter.lower())] = code | _SOFT
    return bytes(table)


_CODES = _code_table()
_NOT_DNA = re.compile(rb"[^\nACGTN%b]" % AMBIGUOUS_LETTERS.encode(), re.IGNORECASE)
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_EXPLAIN_LETTER = [
    (b"-.*", "is an alignment gap; remove the gaps first"),
    (b"Uu", "is RNA; replace U by T first"),
    (b"EFILPQXZJOefilpqxzjo", "is not a DNA letter (protein?); expected A C G T N or IUPAC"),
    (b"0123456789 \t", "is a digit or blank; expected bare sequence lines without numbering"),
    (b">", "inside a sequence line; a header must start its own line"),
    (b";", "starts a comment; remove comment lines"),
    (b"@+", "looks like FASTQ; convert it to FASTA"),
]
_EXPLAIN_START = [
    (b"@", "this is FASTQ; convert it to FASTA"),
    (b";", "';' comments are not supported; remove them"),
    (b"\xff\xfe", "this is UTF-16; save it as plain text"),
    (b"\xfe\xff", "this is UTF-16; save it as plain text"),
    (b"BZh", "this is bzip2; decompress it first or use gzip"),
    (b"\xfd7zXZ", "this is xz; decompress it first or use gzip"),
    (b"\x28\xb5\x2f\xfd", "this is zstd; decompress it first or use gzip"),
    (b"PK", "this is a zip archive; extract it first"),
    (b"\x1f\x8b", "this is gzip inside gzip; decompress it once"),
]


class Record(NamedTuple):
    """A header. The blocks that follow, up to the next Record, are its sequence."""

    id: str
    description: str  # the header after the id
    line: int  # 1-based
    renamed: bool  # the id was taken, and on_duplicate="rename" changed it


class Block(NamedTuple):
    """A piece of sequence, never empty."""

    bases: np.ndarray  # uint8 [S]
    soft_mask: np.ndarray  # bool [S], True where the letter was lower case
    ambiguous: dict[str, int]  # IUPAC letters other than N in this block, all read as N


class Sequence(NamedTuple):
    """A whole record."""

    id: str
    description: str
    line: int  # of its header
    bases: np.ndarray  # uint8 [S]
    soft_mask: np.ndarray  # bool [S]
    ambiguous: dict[str, int]


def read_fasta(
    path: str | os.PathLike,
    *,
    on_duplicate: Literal["error", "rename"] = "error",
    advance: Callable[[int], None] = lambda file_bytes: None,
    shown: str | os.PathLike = "",
) -> Iterator[Record | Block]:
    """Yields each Record followed by its Blocks (none for an empty record), in memory bounded by a few megabytes.

    Plain, gzip and bgzip files; any newline. `advance` hears how many more bytes of the file were read. `shown` names
    the file in messages, where `path` is a copy of it. Raises InputError, as `file:line: what; what to do`, on anything
    that is not DNA, on damaged compression, on a repeated id unless it is to be renamed, and when there is no base.
    """
    scanner = _Scanner(shown or path, rename=on_duplicate == "rename")
    try:
        for chunk in read_chunks(path, advance):
            yield from scanner.feed(chunk)
    except OSError as error:
        scanner.fail(f"{error.strerror}; expected a FASTA file, plain or gzip" if error.strerror else str(error))
    yield from scanner.finish()


def load_fasta(
    path: str | os.PathLike,
    *,
    on_duplicate: Literal["error", "rename"] = "error",
    advance: Callable[[int], None] = lambda file_bytes: None,
    keep_empty: bool = False,
) -> Iterator[Sequence]:
    """Yields whole records, one in memory at a time; empty ones only if wanted. Raises as `read_fasta` does."""
    record, blocks = None, []
    for event in read_fasta(path, on_duplicate=on_duplicate, advance=advance):
        if isinstance(event, Block):
            blocks.append(event)
            continue
        if record and (blocks or keep_empty):
            yield _join(record, blocks)
        record, blocks = event, []
    if record and (blocks or keep_empty):
        yield _join(record, blocks)


def _join(record: Record, blocks: list[Block]) -> Sequence:
    """Empties `blocks`, so that no sequence is in memory twice."""
    bases = np.concatenate([np.zeros(0, np.uint8), *(block.bases for block in blocks)])
    soft_mask = np.concatenate([np.zeros(0, bool), *(block.soft_mask for block in blocks)])
    ambiguous = sum((Counter(block.ambiguous) for block in blocks), Counter())
    blocks.clear()
    return Sequence(record.id, record.description, record.line, bases, soft_mask, dict(ambiguous))


class _Scanner:
    """Cuts chunks into headers and sequence and knows the line it is at."""

    def __init__(self, path: str | os.PathLike, rename: bool):
        self.path, self.rename = path, rename
        self.line, self.at_line_start = 1, True
        self.header: bytearray | None = None  # the part seen so far of an unfinished header line
        self.copies: dict[str, int] = {}  # how often each id was seen
        self.any_base = False

    def fail(self, message: str) -> NoReturn:
        raise InputError(f"{self.path}:{self.line}: {message}")

    def feed(self, chunk: bytes) -> Iterator[Record | Block]:
        at = 0
        while at < len(chunk):
            stop = chunk.find(b">" if self.header is None else b"\n", at)
            piece, found = (chunk[at:stop], True) if stop >= 0 else (chunk[at:], False)
            if self.header is None:
                yield from self._sequence(piece)
                if found:
                    self._open_header()
            else:
                self._extend_header(piece)
                if found:
                    yield self._close_header()
            at += len(piece) + found

    def finish(self) -> Iterator[Record | Block]:
        if self.header is not None:
            yield self._close_header()
        if not self.copies:
            self.fail("the file is empty; expected FASTA, a '>' header line first")
        if not self.any_base:
            self.fail(f"all {sum(self.copies.values())} records are empty; expected at least one base")

    def _sequence(self, piece: bytes) -> Iterator[Block]:
        if not self.copies:
            self._check_nothing_before_header(piece)
        codes = np.frombuffer(piece.translate(_CODES, b"\n"), np.uint8)
        highest = codes.max(initial=0)
        if highest == _BAD:
            self._fail_at_letter(piece)
        if codes.size:
            self.any_base = True
            ambiguous = _count_ambiguous(piece) if highest >= _AMBIGUOUS else {}
            yield Block(codes & _BASE, (codes & _SOFT).astype(bool), ambiguous)
        if piece:
            self.line += piece.count(b"\n")
            self.at_line_start = piece.endswith(b"\n")

    def _open_header(self) -> None:
        if not self.at_line_start:
            self.fail("'>' inside a sequence line; a header must start its own line")
        self.header = bytearray()

    def _extend_header(self, piece: bytes) -> None:
        self.header += piece
        if len(self.header) > MAX_HEADER_BYTES:
            self.fail(f"the header line is longer than {MAX_HEADER_BYTES} bytes; shorten it")

    def _close_header(self) -> Record:
        if _CONTROL.search(self.header):
            self.fail("control characters in the header; the file is binary or UTF-16, expected plain text")
        try:
            name, _, description = self.header.decode("utf-8").replace("\t", " ").strip().partition(" ")
        except UnicodeDecodeError as error:
            self.fail(f"the header is not UTF-8 at byte {error.start + 1}; re-encode the file")
        if not name:
            self.fail("the header has no name; expected '>name'")
        unique = self._unique(name)
        record = Record(unique, description.strip(), self.line, unique != name)
        self.header, self.at_line_start = None, True
        self.line += 1
        return record

    def _unique(self, name: str) -> str:
        unique = name
        while unique in self.copies:
            if not self.rename:
                self.fail(
                    f"a second record is named {name[:80]!r}; rename it (vqdna corpus --on-duplicate=rename does)"
                )
            self.copies[name] += 1
            unique = f"{name}_{self.copies[name]}"
        self.copies[unique] = 1
        return unique

    def _check_nothing_before_header(self, piece: bytes) -> None:
        text = piece.lstrip(b"\n")
        if text:
            self.line += len(piece) - len(text)
            reason = next((why for start, why in _EXPLAIN_START if text.startswith(start)), None)
            if reason is None and _CONTROL.search(text[:4096].replace(b"\n", b"")):
                reason = "this is binary, not text"
            self.fail(f"{reason or 'sequence before any header'}; expected FASTA, a '>' header line first")

    def _fail_at_letter(self, piece: bytes) -> NoReturn:
        position = _NOT_DNA.search(piece).start()
        self.line += piece.count(b"\n", 0, position)
        letter = piece[position : position + 1]
        reason = next((why for letters, why in _EXPLAIN_LETTER if letter in letters), "is not DNA; the file is damaged")
        self.fail(f"{letter.decode('latin-1')!r} {reason}")


def _count_ambiguous(piece: bytes) -> dict[str, int]:
    upper = piece.upper()
    counts = {letter: upper.count(letter.encode()) for letter in AMBIGUOUS_LETTERS}
    return {letter: count for letter, count in counts.items() if count}


Item = TypeVar("Item")
GROUP_BASES = 4_000_000


def records(paths: Iterable[pathlib.Path], advance: Callable[[int], None]) -> Iterator[Sequence]:
    """Whole records of all files, empty ones too; ids are unique over the files."""
    seen: set[str] = set()
    for path in paths:
        for record in load_fasta(path, advance=advance, keep_empty=True):
            if record.id in seen:
                raise InputError(f"{path}:{record.line}: {record.id[:80]!r} is in another file too; rename one")
            seen.add(record.id)
            yield record


def grouped(items: Iterable[Item], bases: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Neighbours, as few as have GROUP_BASES together: many short records fill the network's windows, long ones do."""
    group, total = [], 0
    for item in items:
        group.append(item)
        total += bases(item)
        if total >= GROUP_BASES:
            yield group
            group, total = [], 0
    if group:
        yield group
