"""What a tokenizer is, whether its codes were learned or not: DNA to codes and back."""

import os
from collections.abc import Callable, Sequence
from typing import Protocol, Self

import numpy as np
from jax import Array

from vqdna_jax.errors import InputError
from vqdna_jax.genome.alphabet import N, to_bases

DNA = str | bytes | np.ndarray
Advance = Callable[[int], None]


def no_advance(codes: int) -> None:
    """For who needs no progress."""


class Tokenizer(Protocol):
    """Sequences of uint8 bases [S] (A C G T N = 0 1 2 3 4) to codes [L, N], integers, and back.

    A new one is a class in a file of its own, and a line in `load.TOKENIZERS`.
    """

    @property
    def digest(self) -> str:
        """sha256 of what decides the codes; models and files of codes name their tokenizer by it."""

    @property
    def description(self) -> str:
        """In a few words, for logs and model cards."""

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """K of each of the N levels: codes are 0 to K - 1."""

    @property
    def codes_KxD(self) -> tuple[Array, ...]:
        """The vectors of each level's codes, f32; none where codes were not learned: the transformer that reads such
        tokens trains a table of its own."""

    @property
    def bases_per_code(self) -> int | None:
        """R, where code l stands for bases [l R, (l + 1) R) of any sequence and every code has bases; else None."""

    @property
    def phases(self) -> int:
        """In how many ways codes can be laid over a sequence, by where they begin."""

    def codes_of(self, bases: int) -> int | None:
        """L of a sequence of `bases` bases; None where only encoding tells."""

    def encode(self, bases: Sequence[np.ndarray], advance: Advance = no_advance) -> list[np.ndarray]:
        """Codes [L, N] of each sequence, as if alone and whole. `advance` hears how many more codes are done."""

    def decode(self, codes: Sequence[np.ndarray], advance: Advance = no_advance) -> list[np.ndarray]:
        """Bases [S] of the codes of each sequence, which are in range. Raises InputError: a code that has no bases."""

    def spans(self, bases: np.ndarray) -> np.ndarray:
        """First base of each code of a sequence, and the base after its last one, int64 [L, 2]."""

    def with_batch(self, codes: int) -> Self:
        """The same, which computes about so many codes at once: codes do not depend on it."""

    def save(self, directory: str | os.PathLike) -> str:
        """Writes what `load.load` reads, whole or not at all; returns the digest.

        Raises InputError: the directory holds something else. StorageError: it cannot be written.
        """


def most_codes(tokenizer: Tokenizer, bases: int) -> int:
    """The most codes that so many bases can have: a code stands for one base at least."""
    codes = tokenizer.codes_of(bases)
    return bases if codes is None else codes


def check_codes(name: int | str, codes: np.ndarray, codebook_sizes: tuple[int, ...]) -> np.ndarray:
    """The same codes [L, N] as an array. Raises InputError with `name` (and position) if they are not codes."""
    codes, levels = np.asarray(codes), len(codebook_sizes)
    if codes.ndim != 2 or codes.shape[1] != levels or not len(codes) or codes.dtype.kind not in "iu":
        found = f"{codes.dtype}{list(codes.shape)}"
        raise InputError(f"codes {name}: expected integers [L, {levels}] as encode gives them, found {found}")
    bad = (codes < 0) | (codes >= np.asarray(codebook_sizes, np.int64)[None])
    if bad.any():
        at, level = (int(i) for i in np.argwhere(bad)[0])
        found, last = codes[at, level], codebook_sizes[level] - 1
        raise InputError(f"codes {name}, position {at}, level {level + 1}: {found} is not in 0 to {last}")
    return codes


def as_bases(index: int, sequence: DNA) -> np.ndarray:
    """Bases of letters, or the same bases. Raises InputError: they are not DNA, or none, with `index` and position."""
    if isinstance(sequence, np.ndarray):
        bases = _checked(index, sequence)
    elif isinstance(sequence, str | bytes):
        try:
            bases = to_bases(sequence)
        except InputError as error:
            raise InputError(f"sequence {index}, {str(error).removeprefix('sequence ')}") from error
    else:
        raise InputError(f"sequence {index}: expected letters or uint8 bases [S], found {type(sequence).__name__}")
    if not bases.size:
        raise InputError(f"sequence {index}: is empty; expected at least one base")
    return bases


def _checked(index: int, bases: np.ndarray) -> np.ndarray:
    if bases.dtype != np.uint8 or bases.ndim != 1:
        found = f"{bases.dtype}{list(bases.shape)}"
        raise InputError(f"sequence {index}: expected letters or uint8 bases [S], found {found}")
    if bases.size and bases.max() > N:
        at = int(np.argmax(bases > N))
        raise InputError(f"sequence {index}, position {at}: {bases[at]} is not a base (A C G T N = 0 1 2 3 4)")
    return bases
