"""Where two sequences differ, and windows of both around that, as a model reads them."""

from typing import NamedTuple

import numpy as np

from vqdna_jax.genome.alphabet import reverse_complement

FLANK = 8  # bases on both sides of a stretch of another kind than one for one, which are scored with it


class Change(NamedTuple):
    """uint8 bases [S] of both sequences, and what differs: bases [start, stop) of each, maybe none of one.

    Of an insertion or deletion among repeats that is everywhere it could be: however it was written, it is the same.
    """

    reference: np.ndarray
    alternative: np.ndarray
    start: int
    reference_stop: int
    alternative_stop: int

    @property
    def is_one_for_one(self) -> bool:
        return self.reference_stop - self.start == self.alternative_stop - self.start == 1

    @property
    def sides(self) -> tuple[tuple[np.ndarray, int], tuple[np.ndarray, int]]:
        """Each sequence, and where it differs no more."""
        return (self.reference, self.reference_stop), (self.alternative, self.alternative_stop)

    @property
    def touched(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """The bases [first, stop) of each sequence that change; of all else than one base for another with one base
        more on both sides, so that there are some where bases are missing."""
        beside = 0 if self.is_one_for_one else 1
        first = max(0, self.start - beside)
        reference, alternative = ((first, min(len(bases), stop + beside)) for bases, stop in self.sides)
        return reference, alternative

    @property
    def longest(self) -> int:
        """Bases that are scored, of the longer sequence."""
        return max(self.reference_stop, self.alternative_stop) - self.start + 2 * FLANK * (not self.is_one_for_one)

    def from_other_strand(self) -> "Change":
        stops = len(self.reference) - self.start, len(self.alternative) - self.start
        start = len(self.reference) - self.reference_stop
        return Change(reverse_complement(self.reference), reverse_complement(self.alternative), start, *stops)


class View(NamedTuple):
    """A window of both sequences around a change, of one strand and phase: its codes [L, N], which of them hold what
    changed, and how many differ."""

    codes: tuple[np.ndarray, np.ndarray]
    changed: tuple[slice, slice]
    differing: int


def change_of(reference: np.ndarray, alternative: np.ndarray) -> Change | None:
    """Where two sequences differ; None where they do not."""
    before, behind = alike(reference, alternative, overlap=True)
    if before == len(reference) == len(alternative):
        return None
    shorter = min(len(reference), len(alternative))
    start, after = min(before, shorter - behind), min(behind, shorter - before)
    return Change(reference, alternative, start, len(reference) - after, len(alternative) - after)


def alike(first: np.ndarray, second: np.ndarray, overlap: bool = False) -> tuple[int, int]:
    """How many bases, or codes, are the same from the beginning on, and from the end; what is counted of both is
    counted once, unless they may `overlap`."""
    shorter = min(len(first), len(second))
    before = _same(first[:shorter], second[:shorter])
    rest = shorter if overlap else shorter - before
    return before, _same(first[::-1][:rest], second[::-1][:rest])


def differing(first_LxN: np.ndarray, second_LxN: np.ndarray) -> int:
    """Codes of the longer sequence that the other has not in the same order."""
    return max(len(first_LxN), len(second_LxN)) - sum(alike(first_LxN, second_LxN))


def _same(first: np.ndarray, second: np.ndarray) -> int:
    differ = first != second
    differ = differ.any(axis=1) if differ.ndim > 1 else differ
    return int(differ.argmax()) if differ.any() else len(differ)
