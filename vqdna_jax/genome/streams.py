"""A FASTA file's bytes, decompressed and with plain newlines, in bounded memory.

Damage in a compressed file is an error even where the usual readers stop quietly: a truncated member, a wrong CRC,
bytes after the last member, a bgzip without its end marker.
"""

import gzip
import io
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

from vqdna_jax.errors import InputError

_GZIP_ERRORS: tuple[type[Exception], ...] = (EOFError, gzip.BadGzipFile, zlib.error)
try:  # three times the speed of zlib, the same interface
    from isal import igzip, igzip_lib

    _open_gzip = igzip.open
    _GZIP_ERRORS += (igzip_lib.IsalError,)  # type: ignore[operator]  # its stub takes the class for an instance
except ImportError:
    _open_gzip = gzip.open

CHUNK_BYTES = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"
RATIO = "VQDNA_GUNZIP_RATIO"  # how many bytes of text a byte of gzip may become, see `_most_per_byte`
_FREE_BYTES = 1 << 28  # of text, before the ratio counts
_HAS_EXTRA_FIELD = 4
_BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
UTF8_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_chunks(
    path: str | os.PathLike, advance: Callable[[int], object] = lambda file_bytes: None, line_ends: bool = True
) -> Iterator[bytes]:
    """Yields chunks of about a megabyte; CRLF and CR become LF where `line_ends`, a UTF-8 byte order mark is dropped.

    `advance` is called with how many more bytes of the file, as it is on disk, were read. Raises OSError with a message
    of one line when the file cannot be read or its compression is damaged.
    """
    with open(path, "rb") as file:
        if file.read(2) == GZIP_MAGIC:
            chunks = _gunzip(file)
        else:
            file.seek(0)
            chunks = iter(lambda: file.read(CHUNK_BYTES), b"")
        seen = 0
        chunks = _without_mark(chunks)
        for chunk in _plain_newlines(chunks) if line_ends else chunks:
            yield chunk
            position = file.tell()
            advance(position - seen)
            seen = position


def lines_of(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The lines that chunks make up, without their ends; after a last newline an empty one."""
    held: list[bytes] = []
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        held.append(first)
        for line in others:
            yield b"".join(held)
            held = [line]
    yield b"".join(held)


def _gunzip(file: BinaryIO) -> Iterator[bytes]:
    if not _ends_whole(file):
        raise OSError("bgzip end marker is missing, the file is truncated; fetch it again")
    file.seek(0)
    most, size = _most_per_byte(), 0
    try:
        with _open_gzip(file) as text:
            for chunk in iter(lambda: text.read(CHUNK_BYTES), b""):
                size += len(chunk)
                if size > _FREE_BYTES and size > most * file.tell():
                    told = f"gzip data becomes more than {most:g} times as much text, as no genome does"
                    raise OSError(f"{told}; if it is meant so, set ${RATIO} to more")
                yield chunk
    except _GZIP_ERRORS as error:
        raise OSError(f"gzip data is damaged or truncated ({error}); fetch it again") from error


def _most_per_byte() -> float:
    """Genomes become 3 to 4 times as much, one letter again and again 1,000 times, which would fill the disk later."""
    value = os.environ.get(RATIO, "200")
    try:
        return float(value)
    except ValueError as error:
        raise InputError(f"${RATIO}={value}: expected a number, such as 200") from error


def _ends_whole(file: BinaryIO) -> bool:
    """False for a bgzip that ends, or is followed by a plain gzip member, without its end marker."""
    if not _block_size(file, 0):
        return True
    size = file.seek(0, io.SEEK_END)
    if _has_end_marker(file, size):
        return True
    position = 0
    while block := _block_size(file, position):
        position += block
    file.seek(position)
    return position < size and file.read(2) == GZIP_MAGIC and _has_end_marker(file, position)


def is_bgzip(path: str | os.PathLike) -> bool:
    """Whether a file begins as one does. Raises OSError."""
    with open(path, "rb") as file:
        return _block_size(file, 0) > 0


def _block_size(file: BinaryIO, position: int) -> int:
    """Bytes of the bgzip block that begins there; 0 if none does."""
    file.seek(position)
    header = file.read(18)
    is_block = len(header) == 18 and header[:2] == GZIP_MAGIC and header[3] & _HAS_EXTRA_FIELD
    if not is_block or header[12:16] != b"BC\2\0":
        return 0
    return struct.unpack("<H", header[16:18])[0] + 1


def _has_end_marker(file: BinaryIO, position: int) -> bool:
    """Whether the bytes before `position` are the marker."""
    file.seek(max(0, position - len(_BGZF_END)))
    return file.read(len(_BGZF_END)) == _BGZF_END


def _without_mark(chunks: Iterator[bytes]) -> Iterator[bytes]:
    first = next(chunks, b"")
    yield first.removeprefix(UTF8_BYTE_ORDER_MARK)
    yield from chunks


def _plain_newlines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    held = b""  # a CR at the end of a chunk may be the first half of a CRLF
    for chunk in chunks:
        chunk = held + chunk
        held = b"\r" if chunk.endswith(b"\r") else b""
        if b"\r" in chunk:
            chunk = chunk.removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        yield chunk
    if held:
        yield b"\n"
