"""What a pipe brings is looked at while it is copied: one that is no FASTA may have no end, and would fill the disk."""

import zlib
from collections.abc import Callable

from vqdna_jax.genome.faults import MAX_HEADER_BYTES, TOO_LONG, letter_fault, start_fault
from vqdna_jax.genome.streams import GZIP_MAGIC, UTF8_BYTE_ORDER_MARK

_LOOK_BYTES = 1 << 20  # of gzip data, unpacked


class StreamCheck:
    """Called with each block of a stream, says what is wrong with it, as "LINE: what"; "" where nothing is.

    begin: (lines before, what is wrong) with a stream whose first letters are these, newlines plain.
    longest: bytes of a line of what is no FASTA; 0 for any. text: it is text, or gzip of it.
    """

    def __init__(self, begin: Callable[[bytes], tuple[int, str]], longest: int = 0, text: bool = True):
        self._begin, self._longest = begin, longest
        self._first, self._text = True, text
        self._lines, self._line = 0, 0  # whole ones before, and bytes of the one that has begun

    def __call__(self, block: bytes) -> str:
        lines, fault = 0, ""
        if self._first:
            packed = block.startswith(GZIP_MAGIC)
            self._first, self._text = False, self._text and not packed
            start = _plain(_unpacked(block) if packed else block)
            self._longest *= not start.lstrip().startswith(b">")  # a chromosome may be one line
            if start.strip() or len(block) > MAX_HEADER_BYTES:
                lines, fault = self._begin(start)
        if not fault and self._text:
            lines, fault = self._in_text(block)
        return f"{1 + lines}: {fault}" if fault else ""

    def _in_text(self, block: bytes) -> tuple[int, str]:
        before = self._lines
        if (at := block.find(b"\0")) >= 0:
            return before + block.count(b"\n", 0, at), "a zero byte; this is binary, not text"
        head, newline, _ = block.partition(b"\n")
        self._line += len(head)
        if self._longest and self._line > self._longest:
            return before, f"a line of more than {self._longest:,} bytes"
        if newline:
            self._lines += block.count(b"\n")
            self._line = len(block) - 1 - block.rfind(b"\n")
        return 0, ""


def _plain(start: bytes) -> bytes:
    return start.removeprefix(UTF8_BYTE_ORDER_MARK).replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _unpacked(packed: bytes) -> bytes:
    """The first letters of gzip data; none of damaged ones, of which the reader will say more."""
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(packed, _LOOK_BYTES)
    except zlib.error:
        return b""


def lines_check(longest: int = 1 << 20) -> StreamCheck:
    """For a stream of text in lines of so many bytes at most."""
    return StreamCheck(lambda start: (0, ""), longest)


def fasta_check() -> StreamCheck:
    """For a stream that should be FASTA: it begins with a header, and its first sequence is DNA."""
    return StreamCheck(_fasta_fault)


def _fasta_fault(text: bytes) -> tuple[int, str]:
    start = text.lstrip(b" \t\n")
    before = text.count(b"\n") - start.count(b"\n")
    if not start.startswith(b">"):
        return before, start_fault(start)
    header, _, rest = start.partition(b"\n")
    if len(header) > 1 + MAX_HEADER_BYTES:
        return before, TOO_LONG
    lines = enumerate(rest.partition(b"\n>")[0].split(b"\n"), start=before + 1)
    faults = ((number, letter_fault(line.rstrip(b" \t"))) for number, line in lines)
    return next((found for found in faults if found[1]), (0, ""))
