"""What an audit reads of genomes: all, the regions that are asked for, or stretches at even distances, and where on
them the annotation says what.
"""

import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from vqdna_jax.errors import InputError, shown
from vqdna_jax.genome.alphabet import N
from vqdna_jax.genome.fasta_files import FastaFiles
from vqdna_jax.genome.regions import Region
from vqdna_jax.inference.jobs.tracks import Span, spans_of
from vqdna_jax.runtime.progress import progress_bar

STRETCH = 100_000  # bases of a stretch, of genomes that are larger than the sample
FEWEST = 10  # stretches, which are shorter where the sample is small
WINDOW = 240  # bases of a window, a multiple of all usual numbers of bases a code
MOST_WINDOWS = 1024
Path = str | os.PathLike


class Stretch(NamedTuple):
    """Bases [start, start + S) of a contig."""

    species: str  # the name of its file
    contig: str
    start: int
    bases: np.ndarray  # uint8 [S]
    soft_mask: np.ndarray  # bool [S]

    @property
    def stop(self) -> int:
        return self.start + len(self.bases)


class Sample(NamedTuple):
    """What is read.

    Attributes:
        lengths: of all contigs of the files.
        stretches: in the order of the files. total: bases that there are, or that were asked for.
        notes: what is worth a line.
    """

    lengths: Mapping[str, int]
    stretches: list[Stretch]
    total: int
    notes: list[str]

    @property
    def size(self) -> int:
        return sum(len(stretch.bases) for stretch in self.stretches)

    @property
    def described(self) -> str:
        if self.size == self.total:
            return f"all {self.total:,} bases"
        stretches = f"{len(self.stretches):,} stretches at even distances"
        return f"{self.size:,} of {self.total:,} bases, {stretches} (--sample)"


def read_sample(fasta: Sequence[Path], regions: Sequence[Region], most: int, progress: bool) -> Sample:
    """At most about `most` bases of the files, 0: all.

    Raises InputError: bad FASTA, a region that is not there, nothing but N.
    """
    with FastaFiles(fasta) as files:
        lengths, size = dict[str, int](), 2 * files.size
        with progress_bar("reading", size, "B", progress) as bar:
            for record in files.read(bar.update):
                lengths[record.id] = len(record.bases)
            spans, notes = spans_of(lengths, regions)
            chosen = thinned(spans, most)
            stretches = list(_stretches(files, chosen, bar.update))
    if not any((stretch.bases < N).any() for stretch in stretches):
        raise InputError(f"{shown(fasta[0])}: holds nothing but N where it is read; name other files or regions")
    return Sample(lengths, stretches, sum(span.stop - span.start for span in spans), notes)


def _stretches(files: FastaFiles, spans: Sequence[Span], advance) -> Iterator[Stretch]:
    for record in files.read(advance):
        for span in spans:
            if span.contig == record.id:
                here, species = slice(span.start, span.stop), pathlib.Path(files.path).name.split(".")[0]
                yield Stretch(species, record.id, span.start, record.bases[here].copy(), record.soft_mask[here].copy())


def thinned(spans: Sequence[Span], most: int) -> list[Span]:
    """The spans, or stretches of them at even distances that are about `most` bases together."""
    ends = np.cumsum([span.stop - span.start for span in spans])
    total = int(ends[-1])
    if not most or total <= most:
        return list(spans)
    size = min(STRETCH, -(-most // FEWEST))
    count = -(-most // size)
    size = min(size, total // count)
    found = []
    for number in range(count):
        at = round(number * total / count)
        place = int(np.searchsorted(ends, at, side="right"))
        span = spans[place]
        start = span.stop - int(ends[place]) + at
        found.append(span._replace(start=start, stop=min(start + size, span.stop)))
    return found


def windows_of(sample: Sample) -> np.ndarray:
    """Windows without N, uint8 [B, WINDOW], at even distances. Raises InputError: there are not two."""
    rows = [stretch.bases[: len(stretch.bases) // WINDOW * WINDOW].reshape(-1, WINDOW) for stretch in sample.stretches]
    known_BxS = [window for of_stretch in rows for window in of_stretch[(of_stretch < N).all(axis=1)]]
    if len(known_BxS) < 2:
        raise InputError(
            f"--fasta: what is read has {len(known_BxS)} windows of {WINDOW} bases without N; two are needed"
        )
    chosen = np.linspace(0, len(known_BxS) - 1, min(MOST_WINDOWS, len(known_BxS))).astype(int)
    return np.stack([known_BxS[row] for row in chosen])
