"""Batches of windows for training and evaluation, read through grain.

The batch of a step is a pure function of the seed and the step, the same for any number of processes: a run that
continues needs no iterator state, and a process reads little more than its own rows.
"""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import flax.struct
import grain
import numpy as np

from vqdna_jax.errors import InputError
from vqdna_jax.genome.alphabet import N, unpack_bases
from vqdna_jax.genome.chunks import Chunk, parse_chunk
from vqdna_jax.genome.corpus import Corpus, read_records
from vqdna_jax.genome.epochs import (
    Mixing,
    Segments,
    apportion,
    chunk_offsets,
    find_segments,
    plan_epoch,
    random_bits,
    species_quotas,
)
from vqdna_jax.genome.runs import spread_runs
from vqdna_jax.partition import AnyArray

_ENDLESS = 1 << 48  # steps; grain asks for a length
_BLOCK_BASES = 1 << 26  # the most bases shuffled together, so that long windows do not fill the memory
_CHUNKS_PER_READ = 256
_LANES = 256  # as many processes can share a batch without reading each other's chunks


class Windows(flax.struct.PyTreeNode):
    """Bases uint8 [B, S], A C G T N = 0 1 2 3 4, and where it is known the species int32 [B] of each window."""

    bases_BxS: AnyArray
    species_B: AnyArray = None


Batch = TypeVar("Batch", covariant=True)


class Batches(Protocol[Batch]):
    """`batches[step]`: this process's rows of the global batch of any step, a pure function of it."""

    steps_per_epoch: int

    def __len__(self) -> int: ...

    def __getitem__(self, step: int) -> Batch: ...


class WindowBatches:
    """The rows of one process in every global batch: `batches[step]`, for grain or by hand.

    An epoch visits each segment once, or each species by its quota when `mixing` is given. Consecutive visits are
    shuffled together in blocks of about `shuffle_windows` windows, and a block is read at once. Within a block each
    lane, a fixed part of the rows of every batch, has its own visits: a process reads only the chunks of its lanes.
    """

    def __init__(
        self,
        corpus: Corpus,
        split: str,
        window_bp: int,
        global_batch: int,
        seed: int,
        *,
        max_n_share: float = 0.0,
        mixing: Mixing = None,
        process_index: int = 0,
        process_count: int = 1,
        shuffle_windows: int = 16384,
    ):
        """Raises InputError when no window fits, or when a species of `mixing` has none."""
        if window_bp < 1 or seed < 0 or not 0 <= process_index < process_count <= global_batch:
            raise InputError(
                f"window_bp={window_bp} global_batch={global_batch} seed={seed} process_index={process_index}"
                f" process_count={process_count}: expected a positive window, a seed from 0 up, rows for every process"
            )
        self._segments = _usable_segments(corpus, split, window_bp, max_n_share)
        chunks = corpus.chunks(split)
        contig_bases = np.bincount(chunks.contig, chunks.length)
        self._short_contigs = int(np.count_nonzero((contig_bases > 0) & (contig_bases < window_bp)))
        self._n_bases = int(chunks.n_runs[:, 1].sum(dtype=np.int64))
        self._names, self._split, self._seed, self._global_batch = corpus.species, split, seed, global_batch
        available = _windows_by_species(self._segments, self._segments.windows, len(corpus.species))
        self._quotas = species_quotas(available, corpus.species, mixing)
        self.windows_per_epoch = int(self._quotas.sum())
        self.steps_per_epoch = max(1, self.windows_per_epoch // global_batch)  # the last, partial batch is dropped
        first, stop = (global_batch * index // process_count for index in (process_index, process_index + 1))
        self._rows = slice(first, stop)
        self._lanes = math.gcd(global_batch, _LANES)
        self._block_steps = max(1, min(shuffle_windows, _BLOCK_BASES // window_bp) // global_batch)
        self._reader = _WindowReader(corpus, split, window_bp)
        self._epoch = _Latest(lambda epoch: plan_epoch(self._segments, self._quotas, seed, epoch))
        self._block = _Latest(self._read_block)

    def __len__(self) -> int:
        return _ENDLESS

    def __getitem__(self, step: int) -> Windows:
        """This process's rows, read-only."""
        epoch, step = divmod(int(step), self.steps_per_epoch)
        block, step = divmod(step, self._block_steps)
        bases, species = self._block(epoch, block)
        return Windows(bases[step], species[step])

    def summary(self) -> str:
        """One line: what an epoch holds, and what is left out because it is too short or N."""
        segments = self._segments
        return (
            f"{self._split}: {self.windows_per_epoch:,} windows of {segments.window_bp:,} bp an epoch, "
            f"{self.steps_per_epoch:,} batches of {self._global_batch:,}, {np.count_nonzero(self._quotas)} species; "
            f"left out: {segments.skipped_bases:,} bp that are N or in stretches shorter than a window, "
            f"{self._short_contigs:,} whole contigs among them ({self._n_bases:,} N in the split)"
        )

    def shares(self) -> dict[str, float]:
        """The share of each species in an epoch's windows."""
        return {name: float(quota) / self.windows_per_epoch for name, quota in zip(self._names, self._quotas)}

    def _read_block(self, epoch: int, block: int) -> tuple[np.ndarray, np.ndarray]:
        """(bases [batches, rows, S], species [batches, rows]) of the batches of a block."""
        slots = self._slots(epoch, block)[:, self._rows]
        positions, species = self._epoch(epoch).windows(slots % self.windows_per_epoch)
        bases = self._reader.read(positions.ravel()).reshape(*slots.shape, -1)
        bases.flags.writeable = species.flags.writeable = False  # the batches are views of a block that is kept
        return bases, species

    def _slots(self, epoch: int, block: int) -> np.ndarray:
        """Which window of the epoch each row of each batch of the block is, int64 [batches, global batch]."""
        batches = min(self._block_steps, self.steps_per_epoch - block * self._block_steps)
        count = batches * self._global_batch
        bits = random_bits(self._seed, epoch, 3, block, count=count).reshape(self._lanes, -1)
        within_lane = np.argsort(bits, axis=1, kind="stable") + np.arange(self._lanes)[:, None] * bits.shape[1]
        by_batch = within_lane.reshape(self._lanes, batches, -1).transpose(1, 0, 2).reshape(batches, -1)
        return by_batch + block * self._block_steps * self._global_batch


def train_iterator(
    batches: Batches[Batch], start_step: int = 0, *, threads: int = 1, prefetch: int = 8
) -> Iterator[Batch]:
    """The batches of start_step, start_step + 1, ... without end, read ahead in the background.

    More threads make reading from the page cache slower, they compete for the interpreter. An error while reading is
    raised by `next`; do not call it again after that, grain would go on with the batch after the failed one.
    """
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
    return iter(grain.MapDataset.source(batches)[start_step:].to_iter_dataset(options))


def evaluation_windows(corpus: Corpus, split: str, window_bp: int, count: int, max_n_share: float = 0.0) -> Windows:
    """The same windows at every call, none overlapping.

    `count` windows (or all, when there are fewer) spread evenly over the split and over the species in proportion to
    their bases, with at least one of each species that has one while the count allows it. Any first part of the result
    is as balanced as the whole. Raises InputError when no window fits.
    """
    if window_bp < 1 or count < 1:
        raise InputError(f"window_bp={window_bp} count={count}: expected both to be positive")
    segments = _usable_segments(corpus, split, window_bp, max_n_share)
    fit = segments.length // window_bp
    available = _windows_by_species(segments, fit, len(corpus.species))
    quotas = _evaluation_quotas(available, count)
    end = np.cumsum(fit)
    first = np.cumsum(available) - available  # a corpus holds one species after the other, and so do its windows
    species = np.repeat(np.arange(quotas.size, dtype=np.int32), quotas)
    place = (np.arange(species.size) - np.repeat(np.cumsum(quotas) - quotas, quotas) + 0.5) / quotas[species]
    order = np.argsort(place, kind="stable")
    species, place = species[order], place[order]
    window = first[species] + (place * available[species]).astype(np.int64)
    segment = np.searchsorted(end, window, side="right")
    positions = segments.start[segment] + (window - (end[segment] - fit[segment])) * window_bp
    return Windows(_WindowReader(corpus, split, window_bp).read(positions), species)


def _evaluation_quotas(available: np.ndarray, count: int) -> np.ndarray:
    total = int(available.sum())
    if count >= total:
        return available
    guaranteed = (available > 0).astype(np.int64)
    if count < guaranteed.sum():
        return apportion(count, available)
    return guaranteed + apportion(count - int(guaranteed.sum()), available - guaranteed)


def _usable_segments(corpus: Corpus, split: str, window_bp: int, max_n_share: float) -> Segments:
    if not 0 <= max_n_share <= 1:
        raise InputError(f"max_n_share={max_n_share}: expected a share from 0 to 1")
    segments = find_segments(corpus.chunks(split), window_bp, max_n_share)
    if not segments.start.size:
        raise InputError(
            f"{corpus.path}: no window of {window_bp} bp fits into the {split} split, all records are shorter or hold"
            " too many N; choose a smaller window_bp or a larger corpus"
        )
    return segments


def _windows_by_species(segments: Segments, windows: np.ndarray, species_count: int) -> np.ndarray:
    return np.bincount(segments.species, windows, species_count).astype(np.int64)


class _WindowReader:
    """Windows by their position on the split; each chunk is read once per call."""

    def __init__(self, corpus: Corpus, split: str, window_bp: int):
        self._corpus, self._records = corpus, corpus.records(split)
        self._offsets = chunk_offsets(corpus.chunks(split))
        self._window_bp = window_bp

    def read(self, positions: np.ndarray) -> np.ndarray:
        """positions int64 [n] to bases uint8 [n, window_bp], in any order."""
        chunks, nth_chunk = np.unique(self._chunk_of(positions), return_inverse=True)
        if chunks.size <= _CHUNKS_PER_READ:
            return self._read_together(positions)
        windows = np.empty((positions.size, self._window_bp), np.uint8)
        for group in range(0, chunks.size, _CHUNKS_PER_READ):
            rows = np.flatnonzero((nth_chunk >= group) & (nth_chunk < group + _CHUNKS_PER_READ))
            windows[rows] = self._read_together(positions[rows])
        return windows

    def _chunk_of(self, positions: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._offsets, positions, side="right") - 1

    def _read_together(self, positions: np.ndarray) -> np.ndarray:
        first, last = self._chunk_of(positions), self._chunk_of(positions + self._window_bp - 1)
        needed = np.unique(np.concatenate([np.minimum(first + step, last) for step in range((last - first).max() + 1)]))
        chunks = [parse_chunk(record) for record in read_records(self._corpus, self._records, needed)]
        offsets = np.cumsum([0] + [chunk.length for chunk in chunks])
        bases = _join_chunks(chunks, offsets)
        # the chunks of one window are neighbours here too, because `needed` is sorted and holds all of them
        starts = positions - self._offsets[first] + offsets[np.searchsorted(needed, first)]
        return np.lib.stride_tricks.sliding_window_view(bases, self._window_bp)[starts]


def _join_chunks(chunks: list[Chunk], offsets: np.ndarray) -> np.ndarray:
    bases = np.empty(offsets[-1], np.uint8)
    for chunk, start in zip(chunks, offsets):
        bases[start : start + chunk.length] = unpack_bases(chunk.packed, chunk.length)
        if chunk.n_runs.size:
            bases[spread_runs(chunk.n_runs, start)] = N
    return bases


class _Latest:
    """The last two values of a costly function; threads that ask for the same one wait for it together."""

    def __init__(self, compute: Callable[..., Any]):
        self._compute = compute
        self._values: OrderedDict[tuple, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, *key: int) -> Any:
        with self._lock:
            if key not in self._values:
                self._values[key] = self._compute(*key)
            self._values.move_to_end(key)
            while len(self._values) > 2:
                self._values.popitem(last=False)
            return self._values[key]
