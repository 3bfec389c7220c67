"""The rows of a set: windows with their bases and labels, no sequence twice on either strand."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from vqdna_jax.genome.alphabet import N, reverse_complement, to_text
from vqdna_jax.genome.indexed_fasta import IndexedFasta
from vqdna_jax.labels.divide import strand_hash
from vqdna_jax.labels.layout import draw
from vqdna_jax.labels.peaks.negatives import Candidates, gc_of
from vqdna_jax.labels.peaks.shuffle import shuffle_pairs
from vqdna_jax.labels.peaks.splits import Stretch
from vqdna_jax.labels.peaks.windows import Spans, Window

COLUMNS = ("sequence", "label", "chrom", "start", "end", "strand")
POSITIVE, NEGATIVE = "1", "0"
WITH_N, REPEATED = "with N in the window", "whose sequence is that of another, on either strand"
_SHUFFLES = 20  # tries at another sequence


class Row(NamedTuple):
    """A row. That of a shuffled sequence has the window of the peak it was made of."""

    window: Window
    bases: np.ndarray  # uint8 [S], on the window's strand
    label: str
    split: str = ""  # until it is known

    @property
    def text(self) -> str:
        return ",".join([to_text(self.bases), self.label, *map(str, self.window)])


class Rows:
    """Makes rows, and counts what it leaves out."""

    def __init__(self, genome: IndexedFasta, seed: int, advance: Callable[[], object]):
        self._genome, self._seed, self._advance = genome, seed, advance
        self._seen: set[bytes] = set()
        self.left_out: dict[str, Counter[str]] = {POSITIVE: Counter(), NEGATIVE: Counter()}  # by label and reason
        self.gc_apart: Counter[int] = Counter()  # by how many G and C a negative differs from its peak

    def of(self, windows: Iterable[Window], label: str) -> list[Row]:
        """Those of the windows that have no N and a new sequence."""
        found = []
        for window in windows:
            self._advance()
            bases = self._read(window)
            if (bases == N).any():
                self.left_out[label][WITH_N] += 1
            elif not self._is_new(bases):
                self.left_out[label][REPEATED] += 1
            else:
                found.append(Row(window, bases, label))
        return found

    def matched(self, peaks: Sequence[Row], stretch: Stretch, claimed: Spans, ratio: int) -> list[Row]:
        """As many negatives of the stretch for each of its peaks, with its G and C and its strand."""
        if not peaks:
            return []
        spans, seed = claimed.get(stretch.contig, ()), draw(self._seed, "negatives", *stretch)
        candidates = Candidates(self._genome, stretch, spans, peaks[0].bases.size, seed)
        found = [self._match(peak, candidates) for peak in peaks for _ in range(ratio)]
        self.left_out[NEGATIVE]["for which no free window was left"] += found.count(None)
        return [row for row in found if row]

    def _match(self, peak: Row, candidates: Candidates) -> Row | None:
        self._advance()
        gc = gc_of(peak.bases)
        for start in candidates.near(gc):
            window = peak.window._replace(start=start, stop=start + peak.bases.size)
            bases = self._read(window)
            if self._is_new(bases):
                self.gc_apart[abs(gc_of(bases) - gc)] += 1
                return Row(window, bases, NEGATIVE, peak.split)
        return None

    def shuffled(self, peaks: Sequence[Row], ratio: int) -> list[Row]:
        """As many shuffles of each peak, with as many of each pair of bases."""
        found = [self._shuffle(peak, number) for peak in peaks for number in range(ratio)]
        self.left_out[NEGATIVE]["for which no other order has the same pairs"] += found.count(None)
        return [row for row in found if row]

    def _shuffle(self, peak: Row, number: int) -> Row | None:
        self._advance()
        for attempt in range(_SHUFFLES):
            bases = shuffle_pairs(peak.bases, draw(self._seed, "shuffle", *peak.window, number, attempt))
            if self._is_new(bases):
                return Row(peak.window, bases, NEGATIVE, peak.split)
        return None

    def _read(self, window: Window) -> np.ndarray:
        bases = self._genome.bases(window.contig, window.start, window.stop)
        return reverse_complement(bases) if window.strand == "-" else bases

    def _is_new(self, bases: np.ndarray) -> bool:
        before = len(self._seen)
        self._seen.add(strand_hash(bases))
        return len(self._seen) > before
