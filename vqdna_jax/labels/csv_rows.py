"""A strict streaming reader of separated values: what is not one is an error with its file, line and column.

The name of the file says what is between the fields, tabs in .tsv and commas in any other, and by .gz that it is gzip.
Accepted: UTF-8 with or without a byte order mark, LF or CRLF, quoted fields with or without blanks around the quotes,
line breaks within quotes, blank lines. Memory is bounded by the record, and a record by MAX_FIELD; the csv module knows
no columns and has one global limit.
"""

import io
import os
import re
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, NamedTuple, NoReturn, TextIO

from vqdna_jax.errors import InputError
from vqdna_jax.genome.streams import read_chunks

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_FIELD = 8_000_000  # characters; whole chromosomes belong in FASTA
MAX_RECORD = 2 * MAX_FIELD
_NAMES = {",": "a comma", "\t": "a tab"}  # of the delimiters
_QUOTED = re.compile(r' *+"([^"]*+(?:""[^"]*+)*+)" *+')  # possessive: no second try at each letter of a long field
_NOT_TEXT = re.compile("\0|\r(?!\n)|[\udc80-\udcff]")  # the last are bytes that are not UTF-8, see surrogateescape
_EXPLAIN_START = [
    (b"\x1f\x8b", "this is gzip, not text; expected a CSV file; decompress it first (gunzip), or call it .gz"),
    (b"PK\x03\x04", "this is a zip archive or a spreadsheet; expected a CSV file; extract it or export it as CSV"),
    (b"BZh", "this is bzip2, not text; expected a CSV file; decompress it first (bunzip2)"),
    (b"\xfd7zXZ", "this is xz, not text; expected a CSV file; decompress it first (unxz)"),
    (b"\x28\xb5\x2f\xfd", "this is zstd, not text; expected a CSV file; decompress it first (unzstd)"),
    (b"\xff\xfe", "this is UTF-16; expected UTF-8; save it as CSV in UTF-8"),
    (b"\xfe\xff", "this is UTF-16; expected UTF-8; save it as CSV in UTF-8"),
]


class Row(NamedTuple):
    """One record."""

    path: str
    line: int  # 1-based, of its first letter
    fields: list[str]
    text: str  # as in the file, without the last line end
    starts: list[int] | None  # of each field in `text`; None where nothing is quoted

    def place(self, column: int, letter: int | None = None) -> str:
        """file:line:column of the start of a field, or of one of its letters, counted from 0.

        `column` may be one too many, which is where the record ends.
        """
        if column >= len(self.fields):
            return _place(self.path, self.line, self.text, len(self.text))
        if self.starts is None:  # and so no line breaks either
            return f"{self.path}:{self.line}:{sum(map(len, self.fields[:column])) + column + (letter or 0) + 1}"
        start = self.starts[column]
        quote = letter is not None and self.text.startswith('"', start)
        return _place(self.path, self.line, self.text, start + quote + (letter or 0))


def delimiter_of(path: str | os.PathLike) -> str:
    """What is between the fields of a file of this name: a tab for .tsv and .tsv.gz, in any case, else a comma."""
    return "\t" if str(path).lower().removesuffix(".gz").endswith(".tsv") else ","


def read_rows(path: str | os.PathLike, packed: bool | None = None) -> Generator[Row, None, None]:
    """Yields the header and then each record, with as many fields as the header has.

    Args:
        packed: whether the file may be gzip; where its name ends in .gz by default.

    Raises:
        InputError: as `file:line:column: what; expected ...; what to do`, on anything else, and without line and column
            where the file cannot be read at all.
    """
    header, delimiter = None, delimiter_of(path)
    packed = str(path).lower().endswith(".gz") if packed is None else packed
    try:
        with _open(path, packed) as raw:
            start = raw.peek(5)
            if reason := next((why for magic, why in _EXPLAIN_START if start.startswith(magic)), None):
                raise InputError(f"{path}:1:1: {reason}")
            for row in _records(
                str(path), io.TextIOWrapper(raw, "utf-8-sig", "surrogateescape", newline=""), delimiter
            ):
                header = header or row
                if len(row.fields) != len(header.fields):
                    _fail_at_count(row, len(header.fields), delimiter)
                yield row
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}); expected a CSV file; check the path"
        ) from error
    if header is None:
        raise InputError(f"{path}:1:1: the file is empty; expected a header line and rows; give another file")


def _open(path: str | os.PathLike, packed: bool) -> io.BufferedReader:
    return io.BufferedReader(_Chunks(read_chunks(path, line_ends=False))) if packed else open(path, "rb")


class _Chunks(io.RawIOBase):
    """Chunks of bytes as a file."""

    def __init__(self, chunks: Iterator[bytes]):
        self._chunks, self._held = chunks, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        while not self._held:
            if (chunk := next(self._chunks, None)) is None:
                return 0
            self._held = memoryview(chunk)
        space = memoryview(buffer)
        size = min(len(space), len(self._held))
        space[:size], self._held = self._held[:size], self._held[size:]
        return size


def _records(path: str, file: TextIO, delimiter: str) -> Iterator[Row]:
    line = 1
    while text := file.readline(MAX_RECORD):
        quotes = text.count('"')
        if quotes % 2:
            text, quotes = _read_to_last_quote(file, text)
        if len(text) >= MAX_RECORD:
            _fail_at_size(path, line, text, quotes, delimiter)
        body = text[:-2] if text.endswith("\r\n") else text.removesuffix("\n")
        if not body.isascii() or "\0" in body or "\r" in body:
            _check_text(path, line, body)
        if body:
            fields, starts = _scan(path, line, body, delimiter) if quotes else (body.split(delimiter), None)
            if len(body) > MAX_FIELD and max(map(len, fields)) > MAX_FIELD:
                _fail_at_size(path, line, body, quotes, delimiter)
            yield Row(path, line, fields, body, starts)
        line += text.count("\n") if quotes else 1


def _read_to_last_quote(file: TextIO, text: str) -> tuple[str, int]:
    """`text` with the lines that follow until all quotes are in pairs, or to the end, and how many quotes it has."""
    parts, size, quotes = [text], len(text), text.count('"')
    while quotes % 2 and size < MAX_RECORD and (more := file.readline(MAX_RECORD - size)):
        parts.append(more)
        size += len(more)
        quotes += more.count('"')
    return "".join(parts), quotes


def _scan(path: str, line: int, text: str, delimiter: str) -> tuple[list[str], list[int]]:
    """Fields and where they start, of a record with quotes; a quoted field starts at its quote."""
    fields, starts, at = [], [], 0
    while True:
        stop = text.find(delimiter, at)
        end = stop if stop >= 0 else len(text)
        quote = text.find('"', at, end)
        if quote < 0:
            starts.append(at)
            fields.append(text[at:end])
        elif text[at:quote].strip(" "):
            _fail(path, line, text, quote, "a quote within a field; expected it around the field; remove it")
        else:
            if not (match := _QUOTED.match(text, at)):
                within = f"in {MAX_RECORD:,} characters" if len(text) >= MAX_RECORD else "by the end of the file"
                why = f"a quote not closed {within}; expected a second one; close or remove it"
                _fail(path, line, text, quote, why)
            starts.append(quote)
            fields.append(match[1].replace('""', '"'))
            end = match.end()
            if text[end : end + 1] not in ("", delimiter):
                expected = f"expected {_NAMES[delimiter]}; quote all of it"
                _fail(path, line, text, end, f"{text[end]!r} after a quoted field; {expected}")
        if end == len(text):
            return fields, starts
        at = end + 1


def _check_text(path: str, line: int, text: str) -> None:
    if not (match := _NOT_TEXT.search(text)):
        return
    if match[0] == "\0":
        message = "a NUL byte; expected text; the file is binary, damaged or UTF-16, save it as CSV in UTF-8"
    elif match[0] == "\r":
        message = "a carriage return alone; expected lines that end in LF or CRLF; convert the line ends"
    else:
        message = f"the byte 0x{ord(match[0]) - 0xDC00:02x} is not UTF-8; expected UTF-8; save it as CSV in UTF-8"
    _fail(path, line, text, match.start(), message)


def _fail_at_count(row: Row, expected: int, delimiter: str) -> NoReturn:
    advice = "complete the row" if len(row.fields) < expected else f"quote fields that hold {_NAMES[delimiter]}"
    place = row.place(min(len(row.fields), expected))
    raise InputError(f"{place}: {len(row.fields)} fields; expected {expected} as in the header; {advice}")


def _fail_at_size(path: str, line: int, text: str, quotes: int, delimiter: str) -> NoReturn:
    if quotes % 2:
        _scan(path, line, text, delimiter)  # names the quote that swallowed the lines
    start = 0
    while 0 <= (comma := text.find(delimiter, start)) <= start + MAX_FIELD:
        start = comma + 1
    longest = f"{MAX_FIELD:,} in a field and {MAX_RECORD:,} in a row"
    _fail(path, line, text, start, f"too many characters; expected at most {longest}; cut long sequences first")


def _fail(path: str, line: int, text: str, offset: int, message: str) -> NoReturn:
    raise InputError(f"{_place(path, line, text, offset)}: {message}")


def _place(path: str, line: int, text: str, offset: int) -> str:
    return f"{path}:{line + text.count(chr(10), 0, offset)}:{offset - text.rfind(chr(10), 0, offset)}"
