"""Windows of one width around intervals, each on the strand of its interval."""

from collections import Counter
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

from vqdna_jax.errors import InputError
from vqdna_jax.genome import contigs
from vqdna_jax.genome.bed import Bed, Interval

At = Literal["auto", "centre", "start"]
MOST_BEYOND = 0.1  # of the intervals, beyond the ends of contigs: more are of another genome
_NO_SUMMIT = "-1"


class Window(NamedTuple):
    """Bases [start, stop) of a contig."""

    contig: str  # as in the FASTA file
    start: int
    stop: int
    strand: str  # + - or . for none, which is read as +

    def __str__(self) -> str:
        return f"{self.contig}:{self.start + 1}-{self.stop}({self.strand})"


Spans = dict[str, list[tuple[int, int]]]  # (start, stop) by contig


class Placed(NamedTuple):
    """Intervals on a genome."""

    windows: list[Window]  # no two are the same, in the order of the contigs and on them
    claimed: Spans  # what is not free: the windows, and the intervals they are in
    left_out: Counter[str]  # how many intervals have no window of their own, by reason
    notes: list[str]


def place(bed: Bed, lengths: Mapping[str, int], width: int, at: At) -> Placed:
    """The windows of a file's intervals. Raises InputError: none is on a contig, or many are beyond their ends."""
    names = contigs.resolve((one.contig for one in bed.intervals), lengths)
    known = [one._replace(contig=names[one.contig]) for one in bed.intervals if one.contig in names]
    _check_genome(bed, known, lengths)
    windows = [around(one, width, at) for one in known]
    within = [one for one, interval in zip(windows, known) if interval.stop <= lengths[interval.contig]]
    inside = [one for one in within if one.start >= 0 and one.stop <= lengths[one.contig]]
    single = _single(inside, lengths)
    left_out = Counter(
        {
            "on contigs that the FASTA file lacks": len(bed.intervals) - len(known),
            "beyond the end of their contig": len(known) - len(within),
            "whose window is not all on the contig": len(within) - len(inside),
            "whose window is that of another": len(inside) - len(single),
        }
    )
    return Placed(single, _claimed(known, windows, at), left_out, _notes(bed, names, at))


def _single(windows: list[Window], lengths: Mapping[str, int]) -> list[Window]:
    """Each once, that of the first interval, in order."""
    order = {name: rank for rank, name in enumerate(lengths)}
    first = {(one.contig, one.start, one.strand == "-"): one for one in reversed(windows)}
    return sorted(first.values(), key=lambda one: (order[one.contig], one.start, one.strand))


def _claimed(intervals: list[Interval], windows: list[Window], at: At) -> Spans:
    """Of what counts from its start, a gene say, the rest is free."""
    claimed: Spans = {}
    for interval, window in zip(intervals, windows):
        spans = claimed.setdefault(window.contig, [])
        spans.append((window.start, window.stop))
        if at != "start":
            spans.append((interval.start, interval.stop))
    return claimed


def around(interval: Interval, width: int, at: At) -> Window:
    """The window whose base width // 2, counted on its strand, is the middle of the interval, its summit or its start.

    Raises InputError: its strand or summit is none.
    """
    strand, backwards = interval.strand, interval.strand == "-"
    if strand not in ("+", "-", "."):
        raise InputError(f"{interval.place}: the strand {strand[:20]!r}; expected + - or .; correct it")
    anchor = _anchor(interval, at, backwards)
    start = anchor - width // 2 if not backwards else anchor + width // 2 - width + 1
    return Window(interval.contig, start, start + width, strand)


def _anchor(interval: Interval, at: At, backwards: bool) -> int:
    if at == "start":
        return interval.stop - 1 if backwards else interval.start
    if at == "auto" and interval.summit not in (None, _NO_SUMMIT):
        return interval.start + _summit(interval)
    half = (interval.stop - interval.start) // 2
    return interval.stop - 1 - half if backwards else interval.start + half


def _summit(interval: Interval) -> int:
    size, summit = interval.stop - interval.start, interval.summit or ""
    if not (summit.isascii() and summit.isdigit() and int(summit[:20]) < size):
        expected = f"expected a narrowPeak's, from 0 to {size - 1} or {_NO_SUMMIT}"
        raise InputError(f"{interval.place}: the summit {summit[:20]!r}; {expected}; correct it, or say --at=centre")
    return int(summit)


def _check_genome(bed: Bed, known: list[Interval], lengths: Mapping[str, int]) -> None:
    if not known:
        found = f"they are on {contigs.few({one.contig: 0 for one in bed.intervals})}, it has {contigs.few(lengths)}"
        raise InputError(f"{bed.path}: no interval is on a contig of the FASTA file: {found}; give both of one genome")
    beyond = [one for one in known if one.stop > lengths[one.contig]]
    if len(beyond) > MOST_BEYOND * len(known):
        end = f"ends at {beyond[0].stop:,}, and {beyond[0].contig} has {lengths[beyond[0].contig]:,} bases"
        many = f"{len(beyond):,} of {len(known):,} intervals are beyond the ends of their contigs"
        raise InputError(f"{beyond[0].place}: {end}; {many}: give BED and FASTA of one genome")


def _notes(bed: Bed, names: Mapping[str, str], at: At) -> list[str]:
    notes = contigs.describe(names)
    if unknown := {one.contig: 0 for one in bed.intervals if one.contig not in names}:
        notes.append(f"{bed.path}: contigs that the FASTA file lacks: {contigs.few(unknown)}")
    if bed.settings:
        notes.append(f"{bed.path}: track and browser lines passed over: {bed.settings:,}")
    if at == "start" and not any(one.strand in ("+", "-") for one in bed.intervals):
        notes.append(f"{bed.path}: no interval has a strand, so each starts on its left")
    return notes


def free_of(windows: list[Window], claimed: Spans) -> list[Window]:
    """Those that overlap nothing claimed."""
    edges = {}
    for contig, spans in claimed.items():
        ordered = np.array(sorted(spans), np.int64)
        edges[contig] = ordered[:, 0], np.maximum.accumulate(ordered[:, 1])
    return [one for one in windows if one.contig not in edges or not _overlaps(one, *edges[one.contig])]


def _overlaps(window: Window, starts: np.ndarray, furthest: np.ndarray) -> bool:
    """`furthest`: the last end of the spans up to each, in the order of their starts."""
    before = int(np.searchsorted(starts, window.stop))
    return before > 0 and bool(furthest[before - 1] > window.start)
