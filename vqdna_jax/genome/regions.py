"""Regions of sequences, as an option or a BED file names them, cut out as sequences of their own.

An option counts from 1 with both ends, as samtools does: chr1:101-200. BED counts from 0 without the end: chr1 100 200.
Both are the region with the id chr1:101-200, of the forward strand whatever BED says of it.
"""

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from vqdna_jax.errors import InputError
from vqdna_jax.genome import bed, fasta
from vqdna_jax.genome.fasta import Batch

_OPTION = re.compile(r"(.+):([0-9,]{1,20})-([0-9,]{1,20})", re.DOTALL)


class Region(NamedTuple):
    """Bases [start, stop) of a sequence, counted from 0; `stop` is None for all of it."""

    sequence: str
    start: int
    stop: int | None
    words: str  # what BED calls it
    place: str  # where it was asked for
    text: str = ""  # of an option; a sequence of that name is meant as a whole, as those have that samtools cuts out

    @property
    def id(self) -> str:
        return self.sequence if self.stop is None else f"{self.sequence}:{self.start + 1}-{self.stop}"


def of_option(text: str) -> Region:
    """NAME:START-END, where commas may divide thousands, or NAME for a whole sequence. Raises InputError."""
    place = f"--region={text[:80]}"
    if not text:
        raise InputError(f"{place}: names no sequence; expected NAME:START-END, or NAME")
    if not (found := _OPTION.fullmatch(text)):
        return Region(text, 0, None, "", place, text)
    start, stop = (int(number.replace(",", "") or 0) for number in found.groups()[1:])
    if not 0 < start <= stop:
        raise InputError(f"{place}: from {start:,} to {stop:,}; expected NAME:START-END, counted from 1 with both ends")
    return Region(found[1], start - 1, stop, "", place, text)


def read_bed(path: str | os.PathLike) -> list[Region]:
    """The regions of a BED file, plain or gzip. Raises InputError, as `file:line: what; what to do`."""
    found = bed.read(path).intervals
    return [Region(one.contig, one.start, one.stop, one.name, one.place) for one in found]


class Regions:
    """Regions that are wanted, those of a sequence in the order in which they were asked for."""

    def __init__(self, asked: Sequence[Region], on_duplicate: fasta.OnDuplicate = "error"):
        """Raises InputError: one is there twice and is not to be numbered."""
        self._asked = asked
        self._of: dict[str, list[tuple[str, Region]]] = {}
        first, seen = dict[str, str](), dict[str, int]()
        for region in asked:
            id = region.id
            if id in first and on_duplicate == "error":
                advice = "remove one, or let --on-duplicate=rename number it"
                raise InputError(f"{region.place}: {id} is there already ({first[id]}); {advice}")
            first.setdefault(id, region.place)
            id = fasta.unlike_any(id, seen)
            self._of.setdefault(region.sequence, []).append((id, region))
            if region.text and region.stop is not None:
                self._of.setdefault(region.text, []).append((id, region._replace(start=0, stop=None)))

    def cut(self, batches: Iterable[Batch]) -> Iterator[fasta.Sequence]:
        """The regions of consecutive batches, sequence after sequence. Raises InputError: one is not within its own."""
        head, blocks = ("", "", 0), list[np.ndarray]()
        for batch in batches:
            heads = zip(batch.ids, batch.headers, batch.lines)
            ends = [0, *batch.starts.tolist(), batch.codes.size]
            for index, (start, stop) in enumerate(itertools.pairwise(ends)):
                if index:
                    yield from self._cut(*head, blocks)
                    head, blocks = next(heads), []
                if head[0] in self._of:
                    blocks.append(batch.codes[start:stop])
        yield from self._cut(*head, blocks)

    def _cut(self, name: str, header: str, line: int, blocks: list[np.ndarray]) -> Iterator[fasta.Sequence]:
        codes = np.concatenate(blocks) if blocks else np.zeros(0, np.uint8)
        for id, region in self._of.get(name, []):
            stop = codes.size if region.stop is None else region.stop
            if not region.start < stop <= codes.size:
                raise InputError(f"{region.place}: {region.id} is not within {name}, which has {codes.size:,} bases")
            own = header if region.stop is None else f"{id} {region.words}".rstrip()
            yield fasta.sequence_of(id, own, line, codes[region.start : stop])

    def check_found(self, names: Mapping[str, int]) -> None:
        """Raises InputError: the `names` of all sequences do not have that of a region."""
        for region in self._asked:
            if region.sequence not in names and region.text not in names:
                few = ", ".join(map(repr, itertools.islice(names, 3)))
                expected = f"expected one of the {len(names):,}, {few}" if len(names) <= 3 else f"there are {few}, ..."
                raise InputError(f"{region.place}: no sequence is named {region.sequence[:80]!r}; {expected}")
