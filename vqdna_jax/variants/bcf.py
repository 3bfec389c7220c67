"""BCF whose records stay byte for byte as they are, but for INFO fields that are added: pysam, when it writes a record,
sets its END or takes it away, and numbers that become text lose digits. The layout is that of the VCF specification,
section 6.
"""

import os
import re
import struct
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import pysam

from vqdna_jax.variants.fields import Values

_FIXED = 24  # bytes of a record before ID
_COUNTS = 16  # where the numbers of INFO fields and alleles are
_TYPE_BYTES = {0: 0, 1: 1, 2: 2, 3: 4, 5: 4, 7: 1}
_FLOAT, _TEXT, _INT32 = 5, 7, 3
_MOST_IN_A_BYTE = 15  # values whose count fits beside their type
_MISSING = 0x7F800001
_MAGIC, _NUMBER = b"BCF\2\2", re.compile(rb"[<,]ID=([^,>]+).*[,]IDX=([0-9]+)>")


class _Header(NamedTuple):
    """lines: as they lie in the file, with the number of each name. ids: the numbers of names of INFO, FILTER, FORMAT,
    which they share."""

    lines: list[bytes]
    ids: dict[str, int]


def copy(
    source: str | os.PathLike, new: Path, header: Sequence[str], drop: Sequence[bytes], added: Iterable[Values]
) -> None:
    """Of a BCF file that is whole, with the values of each record, and `header` in the place of lines that begin as one
    of `drop`."""
    before = _header(source, new)
    ids = {name: max(before.ids.values()) + number for number, name in enumerate(_names(header), start=1)}
    numbered = [f"{line[:-1]},IDX={ids[_name(line)]}>" if _name(line) else line for line in header]
    kept = [line for line in before.lines if not line.startswith(tuple(drop))]
    text = b"\n".join([*kept[:-1], *(line.encode() for line in numbered), kept[-1], b"\0"])
    old = {before.ids[name] for name in ids if name in before.ids}
    with _opened(source, "rb") as file, _opened(new, "wb") as out:
        _after_header(file)
        out.write(_MAGIC + struct.pack("<I", len(text)) + text)
        for (shared, own), values in zip(_records(file), added):
            changed = _with(shared, old, [(ids[name], column) for name, column in values.items()])
            out.write(struct.pack("<II", len(changed), len(own)) + changed + own)


def _header(source: str | os.PathLike, new: Path) -> _Header:
    """As htslib writes it, which says all numbers."""
    with pysam.VariantFile(os.fspath(source)) as file, pysam.VariantFile(os.fspath(new), "wb", header=file.header):
        pass
    with _opened(new, "rb") as written:
        lines = _after_header(written).rstrip(b"\0\n").split(b"\n")
    found = [_NUMBER.search(line) for line in lines if line.startswith((b"##INFO", b"##FILTER", b"##FORMAT"))]
    return _Header(lines, {one[1].decode("latin-1"): int(one[2]) for one in found if one})


def _name(line: str) -> str:
    """Of an INFO field that a line of the header defines."""
    return line.removeprefix("##INFO=<ID=").partition(",")[0] if line.startswith("##INFO") else ""


def _names(header: Sequence[str]) -> list[str]:
    return list(filter(None, map(_name, header)))


def _opened(path: str | os.PathLike, mode: Literal["rb", "wb"]) -> pysam.BGZFile:
    return pysam.BGZFile(os.fspath(path), mode, None)


def _after_header(file: pysam.BGZFile) -> bytes:
    """The text of the header, behind which the records begin."""
    file.read(len(_MAGIC))
    return file.read(*struct.unpack("<I", file.read(4)))


def _records(file: pysam.BGZFile) -> Iterator[tuple[bytes, bytes]]:
    """Of each what describes the site, and what the samples have."""
    while sizes := file.read(8):
        shared, own = struct.unpack("<II", sizes)
        yield file.read(shared), file.read(own)


def _with(shared: bytes, drop: Collection[int], added: Iterable[tuple[int, Sequence[float | str | None]]]) -> bytes:
    """A record's site without the INFO fields of these numbers, and with others."""
    fields, alleles = struct.unpack_from("<HH", shared, _COUNTS)
    at = _FIXED
    for _ in range(1 + alleles + 1):  # ID, alleles, FILTER
        at = _end(shared, at)
    before, infos = shared[:at], list[bytes]()
    for _ in range(fields):
        key, value = _integer(shared, at)
        stop = _end(shared, value)
        if key not in drop:
            infos.append(shared[at:stop])
        at = stop
    infos += [_one(_INT32) + struct.pack("<i", key) + _encoded(column) for key, column in added]
    return b"".join([before[:_COUNTS], struct.pack("<H", len(infos)), before[_COUNTS + 2 :], *infos])


def _integer(data: bytes, at: int) -> tuple[int, int]:
    """A single number with its type, and where it ends."""
    start = at + 1
    stop = start + _TYPE_BYTES[data[at] & 15]
    return int.from_bytes(data[start:stop], "little", signed=True), stop


def _end(data: bytes, at: int) -> int:
    """Where values with their type end."""
    count, start = data[at] >> 4, at + 1
    if count == _MOST_IN_A_BYTE:
        count, start = _integer(data, start)
    return start + count * _TYPE_BYTES[data[at] & 15]


def _one(kind: int, count: int = 1) -> bytes:
    """What goes before so many values of a type."""
    if count < _MOST_IN_A_BYTE:
        return bytes([count << 4 | kind])
    return bytes([_MOST_IN_A_BYTE << 4 | kind]) + _one(_INT32) + struct.pack("<i", count)


def _encoded(column: Sequence[float | str | None]) -> bytes:
    if any(isinstance(value, str) for value in column):
        text = ",".join(map(str, column)).encode()
        return _one(_TEXT, len(text)) + text
    missing = struct.pack("<I", _MISSING)
    values = [missing if value is None else struct.pack("<f", value) for value in column]
    return _one(_FLOAT, len(values)) + b"".join(values)
