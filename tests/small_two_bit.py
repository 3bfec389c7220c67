"""A .2bit file written by the letter of its description, for tests."""

import re
import struct


def runs(pattern: str, text: str) -> list[tuple[int, int]]:
    return [(match.start(), match.end() - match.start()) for match in re.finditer(pattern, text)]


def two_bit(sequences: dict[str, str], order: str = "<", version: int = 0) -> bytes:
    """The file of these names and letters; `order` as in `struct`."""

    def numbers(*values: int) -> bytes:
        return struct.pack(f"{order}{len(values)}I", *values)

    def record(text: str) -> bytes:
        parts = [numbers(len(text))]
        for found in (runs("[Nn]+", text), runs("[a-z]+", text)):
            parts.append(numbers(len(found), *(start for start, _ in found), *(length for _, length in found)))
        codes = [("TCAG".find(letter) if letter in "TCAG" else 0) for letter in text.upper()]
        codes += [0] * (-len(codes) % 4)
        packed = bytes(a << 6 | b << 4 | c << 2 | d for a, b, c, d in zip(*(codes[i::4] for i in range(4))))
        return b"".join([*parts, numbers(0), packed])

    offset_bytes = 8 if version else 4
    records = [record(text) for text in sequences.values()]
    at = 16 + sum(1 + len(name.encode()) + offset_bytes for name in sequences)
    index = b""
    for name, content in zip(sequences, records):
        raw = name.encode()
        index += bytes([len(raw)]) + raw + struct.pack(f"{order}{'Q' if version else 'I'}", at)
        at += len(content)
    return numbers(0x1A412743, version, len(sequences), 0) + index + b"".join(records)
