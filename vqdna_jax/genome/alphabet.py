"""Bases as small integers: A C G T are 0 1 2 3 and everything unknown (N, any other IUPAC letter) is 4.

The order makes the complement of x equal to 3 - x. Two bits per base are enough on disk: where the Ns are is kept
beside the packed bases, as runs.
"""

import contextlib

import numpy as np

from vqdna_jax.errors import InputError

N = 4
AMBIGUOUS_LETTERS = "RYSWKMBDHV"  # IUPAC letters for more than one base; read as N and counted

_LETTERS = np.frombuffer(b"ACGTN", np.uint8)
_NOT_A_BASE = 255


def _letter_table() -> bytes:
    table = bytearray([_NOT_A_BASE]) * 256
    for letters, base in [("A", 0), ("C", 1), ("G", 2), ("T", 3), ("N" + AMBIGUOUS_LETTERS, N)]:
        for letter in letters + letters.lower():
            table[ord(letter)] = base
    return bytes(table)


_BASE_OF_LETTER = _letter_table()

_PACKED = np.arange(256, dtype="<u4")
# The four bases of each packed byte, first base in the lowest bits, as one little-endian word: one gather per byte.
_UNPACKED = (_PACKED & 3) | (_PACKED >> 2 & 3) << 8 | (_PACKED >> 4 & 3) << 16 | (_PACKED >> 6 & 3) << 24


def to_bases(text: str | bytes) -> np.ndarray:
    """Letters, in either case, to uint8 bases [S]; any other IUPAC DNA letter becomes N.

    Raises InputError, with the 0-based position, on everything else (gaps, U, digits, blanks, protein letters).
    """
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else bytes(text)
    bases = raw.translate(_BASE_OF_LETTER)
    if (position := bases.find(_NOT_A_BASE)) >= 0:
        raise InputError(
            f"sequence position {position}: {letter_at(raw, position)} is not a DNA letter (A C G T N or IUPAC)"
        )
    return np.frombuffer(bases, np.uint8).copy()


def letter_at(text: bytes, place: int) -> str:
    """The letter that begins there, quoted, or the byte where it begins none in UTF-8."""
    for end in range(place + 1, place + 5):
        with contextlib.suppress(UnicodeDecodeError):
            return repr(text[place:end].decode())
    return rf"'\x{text[place]:02x}'"


def to_text(bases: np.ndarray) -> str:
    """Bases [S] to upper-case letters; the inverse of `to_bases` on A C G T N."""
    return _LETTERS[np.asarray(bases, np.uint8)].tobytes().decode("ascii")


def reverse_complement(bases: np.ndarray) -> np.ndarray:
    """The other strand of uint8 bases [..., S], read along the last axis; N stays N."""
    return np.minimum(3 - bases[..., ::-1], N)  # 3 - 4 wraps to 255, and the minimum brings it back to N


def pack_bases(bases: np.ndarray) -> np.ndarray:
    """uint8 bases [S] to two bits each, uint8 [ceil(S / 4)]; N is stored as A, so keep its runs beside."""
    padded = np.zeros(-(-bases.size // 4) * 4, np.uint8)
    np.bitwise_and(bases, 3, out=padded[: bases.size])
    word = padded.view("<u4")
    return (word | word >> 6 | word >> 12 | word >> 18).astype(np.uint8)


def unpack_bases(packed: np.ndarray, length: int) -> np.ndarray:
    """The first `length` bases of `packed`, uint8 [length]; every N comes back as A."""
    return np.take(_UNPACKED, packed).view(np.uint8)[:length]
