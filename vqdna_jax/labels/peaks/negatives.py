"""Windows of the same genome that are as rich in G and C as the peaks, and lie in none of them.

All windows of a stretch are candidates, or two million of them evenly spaced. Each peak gets one that has as many G and
C as it has, drawn at random; where none is left, one with the next number, above or below.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from vqdna_jax.genome.alphabet import N
from vqdna_jax.genome.indexed_fasta import IndexedFasta
from vqdna_jax.labels.peaks.splits import Stretch

MOST_CANDIDATES = 2_000_000  # of a stretch
_BLOCK = 1 << 20  # bases in memory at once


def gc_of(bases: np.ndarray) -> int:
    """How many are G or C."""
    return int(((bases == 1) | (bases == 2)).sum())


class Candidates:
    """Free windows of a stretch, each given once."""

    def __init__(
        self, genome: IndexedFasta, stretch: Stretch, claimed: Sequence[tuple[int, int]], width: int, seed: int
    ):
        found = list(_free(genome, stretch, np.array(claimed, np.int64).reshape(-1, 2), width))
        starts, gc = (np.concatenate(parts) for parts in zip(*found)) if found else (np.zeros(0, np.int64),) * 2
        random = np.random.PCG64(seed).random_raw(starts.size)  # the same under every version of numpy
        order = np.lexsort((random, gc))
        self._starts = starts[order]
        edges = np.searchsorted(gc[order], np.arange(width + 2))
        self._next, self._ends = edges[:-1].tolist(), edges[1:].tolist()  # by G and C

    def near(self, gc: int) -> Iterator[int]:
        """Starts of windows with so many G and C, then of those with one more or fewer, and so on."""
        for distance in range(len(self._next)):
            for wanted in sorted({gc - distance, gc + distance}, reverse=bool(gc % 2)):  # neither side is preferred
                while 0 <= wanted < len(self._next) and self._next[wanted] < self._ends[wanted]:
                    self._next[wanted] += 1
                    yield int(self._starts[self._next[wanted] - 1])


def _free(
    genome: IndexedFasta, stretch: Stretch, claimed: np.ndarray, width: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(starts, their G and C) of windows without N that overlap nothing claimed, a block at a time."""
    stop = stretch.stop - width + 1
    stride = max(1, (stop - stretch.start) // MOST_CANDIDATES)
    step = max(1, _BLOCK // stride) * stride
    for first in range(stretch.start, stop, step):
        last = min(first + step, stop)
        bases = genome.bases(stretch.contig, first, last + width - 1)
        gc, unknown = (_sums(flags, width) for flags in ((bases == 1) | (bases == 2), bases == N))
        good = (unknown == 0) & ~_overlapping(claimed, first, last, width)
        at = np.flatnonzero(good[::stride]) * stride
        yield first + at, gc[at]


def _sums(flags: np.ndarray, width: int) -> np.ndarray:
    """How many are set in each window, int32 [S - width + 1]."""
    sums = np.cumsum(np.concatenate([[False], flags]), dtype=np.int32)
    return sums[width:] - sums[:-width]


def _overlapping(claimed: np.ndarray, first: int, last: int, width: int) -> np.ndarray:
    """bool [last - first], whether the window from there on overlaps one of the spans [spans, 2]."""
    begin, end = (np.clip(where, first, last) - first for where in (claimed[:, 0] - width + 1, claimed[:, 1]))
    counts = (np.bincount(edges, minlength=last - first + 1) for edges in (begin, end))
    return np.cumsum(np.subtract(*counts))[:-1] > 0
