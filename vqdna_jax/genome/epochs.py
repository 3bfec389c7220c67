"""Which windows an epoch holds and in which order: arithmetic on the chunk index, no sequence is read.

A split is seen as one long line of bases, its chunks end to end, and a window is a position on it. A segment is a
stretch in which every window start is valid; an epoch visits each segment once, cut into windows from a fresh phase.
All randomness comes from raw Philox bits, the part of numpy's random numbers that is promised never to change.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from vqdna_jax.errors import InputError
from vqdna_jax.genome.chunks import CHUNK_BP
from vqdna_jax.genome.corpus import ChunkTable
from vqdna_jax.genome.runs import runs_of, spread_runs

_WINDOWS_PER_UNIT = 4  # long windows are drawn from several chunks in a row, at least this many windows' worth

Mixing = None | float | Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Segments:
    """Stretches of the split, arrays [segments]; no two overlap."""

    species: np.ndarray  # int32
    start: np.ndarray  # int64, position on the split
    length: np.ndarray  # int64, bases, at least a window
    window_bp: int
    skipped_bases: int  # on no segment: N, or in a stretch shorter than a window

    @functools.cached_property
    def windows(self) -> np.ndarray:
        """Windows in a visit, int64 [segments]: one fewer than fit where several do, so any phase is possible."""
        fit = self.length // self.window_bp
        return np.where(fit > 1, fit - 1, fit)

    @functools.cached_property
    def slack(self) -> np.ndarray:
        """The largest phase, int64 [segments]."""
        return self.length - self.windows * self.window_bp


def find_segments(chunks: ChunkTable, window_bp: int, max_n_share: float) -> Segments:
    """Every stretch in which each window of `window_bp` bases has at most `max_n_share` of N."""
    max_n = int(max_n_share * window_bp + 1e-9)
    offsets = chunk_offsets(chunks)
    first = _unit_starts(chunks, window_bp)
    bounds = np.append(first, chunks.length.size)
    start, length = offsets[first], np.diff(offsets[bounds])
    has_n = np.diff(chunks.n_offset[bounds]) > 0
    stretches = [np.stack([np.flatnonzero(~has_n), start[~has_n], length[~has_n]], axis=1)]
    for unit in np.flatnonzero(has_n):
        found = _stretches_within_n(chunks, bounds[unit], bounds[unit + 1], window_bp, max_n)
        stretches.append(np.insert(found + [start[unit], 0], 0, unit, axis=1))
    unit, start, length = np.concatenate(stretches).astype(np.int64).T
    keep = np.flatnonzero(length >= window_bp)
    keep = keep[np.argsort(start[keep], kind="stable")]
    skipped_bases = int(chunks.length.sum()) - int(length[keep].sum())
    species = chunks.species[first[unit[keep]]]
    return Segments(species, start[keep], length[keep], window_bp, skipped_bases)


def chunk_offsets(chunks: ChunkTable) -> np.ndarray:
    """Where each chunk begins on the split, and where the last one ends, int64 [chunks + 1]."""
    return np.append(0, np.cumsum(chunks.length, dtype=np.int64))


def _unit_starts(chunks: ChunkTable, window_bp: int) -> np.ndarray:
    """The chunks at which a unit begins: neighbours on a contig, as many as a few windows need."""
    unit_chunks = -(-window_bp * _WINDOWS_PER_UNIT // CHUNK_BP)
    ends = chunks.start + chunks.length
    breaks = (chunks.contig[1:] != chunks.contig[:-1]) | (chunks.start[1:] != ends[:-1])
    run_starts = np.append(0, np.flatnonzero(breaks) + 1)
    index = np.arange(chunks.length.size)
    index_in_run = index - np.repeat(run_starts, np.diff(np.append(run_starts, index.size)))
    return np.flatnonzero(index_in_run % unit_chunks == 0)


def _stretches_within_n(chunks: ChunkTable, first: int, stop: int, window_bp: int, max_n: int) -> np.ndarray:
    """(start, length) int64 [runs, 2] within the unit of chunks [first, stop), by counting the N of every window."""
    lengths = chunks.length[first:stop].astype(np.int64)
    runs_per_chunk = np.diff(chunks.n_offset[first : stop + 1])
    runs = chunks.n_runs[chunks.n_offset[first] : chunks.n_offset[stop]]
    is_n = np.zeros(lengths.sum(), np.int32)
    is_n[spread_runs(runs, np.repeat(np.cumsum(lengths) - lengths, runs_per_chunk))] = 1
    if is_n.size < window_bp:
        return np.array([[0, is_n.size]])
    before = np.append(np.int32(0), np.cumsum(is_n, dtype=np.int32))
    stretches, end = [], 0
    for start, count in runs_of(before[window_bp:] - before[:-window_bp] <= max_n):
        last = start + count - 1 + window_bp
        start, end = max(start, end), last  # with max_n > 0 two stretches may share bases: the first has them
        stretches.append((start, end - start))
    return np.array(stretches, np.int64).reshape(-1, 2)


def species_quotas(windows: np.ndarray, names: tuple[str, ...], mixing: Mixing) -> np.ndarray:
    """How many windows of each species an epoch holds, int64 [species], of the same sum as `windows` [species].

    `mixing` is None for the natural shares, a temperature T for shares in proportion to windows ** (1 / T) (1 is
    natural, infinity is uniform), or weights by species name, where a species that is not named is left out.
    """
    if mixing is None:
        return windows
    if isinstance(mixing, Mapping):
        unknown = sorted(set(mixing) - {name for name, count in zip(names, windows) if count})
        if unknown:
            raise InputError(f"mixing: no window of species {', '.join(unknown)}; the corpus has {', '.join(names)}")
        weights = np.array([float(mixing.get(name, 0)) for name in names])
    else:
        if not mixing > 0:
            raise InputError(f"mixing={mixing}: expected a temperature above 0")
        weights = np.where(windows > 0, np.maximum(windows, 1) ** (1 / float(mixing)), 0.0)
    if not (np.all(weights >= 0) and np.isfinite(weights).all() and weights.sum() > 0):
        raise InputError(f"mixing={mixing}: expected weights of 0 or more, and at least one above 0")
    return apportion(int(windows.sum()), weights)


def apportion(total: int, weights: np.ndarray) -> np.ndarray:
    """`total` in whole parts proportional to `weights` [n], by largest remainder, int64 [n]."""
    exact = total * (weights / weights.sum())
    parts = np.floor(exact).astype(np.int64)
    largest = np.argsort(parts - exact, kind="stable")[: total - int(parts.sum())]
    parts[largest] += 1
    return parts


def random_bits(seed: int, *path: int, count: int) -> np.ndarray:
    """uint64 [count], a pure function of the seed and the path."""
    return np.random.Philox(np.random.SeedSequence(seed, spawn_key=path)).random_raw(count)


class Epoch(NamedTuple):
    """The visits of an epoch in order, arrays [visits]."""

    species: np.ndarray  # int32
    first: np.ndarray  # int64, position of the first window
    size: np.ndarray  # int64, windows
    end: np.ndarray  # int64, windows up to and with this visit
    window_bp: int

    def windows(self, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions int64 and species int32 of the windows at `slots` of the epoch, of the shape of `slots`."""
        visit = np.searchsorted(self.end, slots, side="right")
        nth = slots - (self.end[visit] - self.size[visit])
        return self.first[visit] + nth * self.window_bp, self.species[visit]


def plan_epoch(segments: Segments, quotas: np.ndarray, seed: int, epoch: int) -> Epoch:
    """The order of an epoch: every species fills its quota, passing over its segments as often as that takes."""
    bits = random_bits(seed, epoch, 0, count=segments.start.size)
    passes = [_passes(segments, species, int(quota), bits) for species, quota in enumerate(quotas) if quota]
    segment, count = (np.concatenate(parts) for parts in zip(*passes))
    order = np.argsort(random_bits(seed, epoch, 1, count=segment.size), kind="stable")
    segment, count = segment[order], count[order]
    phase = random_bits(seed, epoch, 2, count=segment.size) % (segments.slack[segment] + 1).astype(np.uint64)
    first = segments.start[segment] + phase.astype(np.int64)
    return Epoch(segments.species[segment], first, count, np.cumsum(count), segments.window_bp)


def _passes(segments: Segments, species: int, quota: int, bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Segments and windows of the visits that give a species `quota` windows: whole passes, then part of one."""
    own = np.flatnonzero(segments.species == species)
    own = own[np.argsort(bits[own], kind="stable")]
    end = np.cumsum(segments.windows[own])
    whole, rest = divmod(quota, int(end[-1]))
    last = int(np.searchsorted(end, rest)) + 1 if rest else 0
    segment = np.concatenate([np.tile(own, whole), own[:last]])
    count = segments.windows[segment]
    if rest:
        count[-1] -= end[last - 1] - rest
    return segment, count
