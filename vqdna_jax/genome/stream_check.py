"""What a pipe brings is looked at while it is copied: one that is no FASTA may have no end, and would fill the disk."""

import zlib
from collections.abc import Callable

from vqdna_jax.genome.faults import MAX_HEADER_BYTES, TOO_LONG, letter_fault, start_fault
from vqdna_jax.genome.streams import GZIP_MAGIC, UTF8_BYTE_ORDER_MARK

_LOOK_BYTES = 1 << 20  # of gzip data, unpacked


class StreamCheck:
    """Called with each block of a stream, says what is wrong with it; "" where nothing is.

    begin: what is wrong with a stream whose first letters are these, newlines plain.
    longest: bytes of a line of what is no FASTA; 0 for any. text: it is text, or gzip of it.
    """

    def __init__(self, begin: Callable[[bytes], str], longest: int = 0, text: bool = True):
        self._begin, self._longest = begin, longest
        self._first, self._text, self._line = True, text, 0

    def __call__(self, block: bytes) -> str:
        fault = ""
        if self._first:
            packed = block.startswith(GZIP_MAGIC)
            self._first, self._text = False, self._text and not packed
            start = _plain(_unpacked(block) if packed else block)
            self._longest *= not start.lstrip().startswith(b">")  # a chromosome may be one line
            if start.strip() or len(block) > MAX_HEADER_BYTES:
                fault = self._begin(start)
        return fault or (self._in_text(block) if self._text else "")

    def _in_text(self, block: bytes) -> str:
        if b"\0" in block:
            return "a zero byte; this is binary, not text"
        head, newline, _ = block.partition(b"\n")
        self._line += len(head)
        if self._longest and self._line > self._longest:
            return f"a line of more than {self._longest:,} bytes"
        if newline:
            self._line = len(block) - 1 - block.rfind(b"\n")
        return ""


def _plain(start: bytes) -> bytes:
    return start.removeprefix(UTF8_BYTE_ORDER_MARK).replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _unpacked(packed: bytes) -> bytes:
    """The first letters of gzip data; none of damaged ones, of which the reader will say more."""
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(packed, _LOOK_BYTES)
    except zlib.error:
        return b""


def fasta_check() -> StreamCheck:
    """For a stream that should be FASTA: it begins with a header, and its first sequence is DNA."""
    return StreamCheck(_fasta_fault)


def _fasta_fault(text: bytes) -> str:
    start = text.lstrip(b" \t\n")
    if not start.startswith(b">"):
        return start_fault(start)
    header, _, rest = start.partition(b"\n")
    if len(header) > 1 + MAX_HEADER_BYTES:
        return TOO_LONG
    lines = enumerate(rest.partition(b"\n>")[0].split(b"\n"), start=text.count(b"\n") - rest.count(b"\n") + 1)
    faults = ((number, letter_fault(line.rstrip(b" \t"))) for number, line in lines)
    return next((f"line {number}: {fault}" for number, fault in faults if fault), "")
