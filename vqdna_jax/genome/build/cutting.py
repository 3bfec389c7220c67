"""Cuts what is read of a FASTA file into chunks, many at once: short records cost little more than one long one."""

import itertools
from typing import NamedTuple

import numpy as np

from vqdna_jax.genome.alphabet import N, pack_bases
from vqdna_jax.genome.chunks import CHUNK_BP
from vqdna_jax.genome.fasta import Batch
from vqdna_jax.genome.runs import runs_of, split_runs


class Chunks(NamedTuple):
    """Consecutive chunks of a species: arrays of an entry for each, and what they hold, one after the other."""

    contig: np.ndarray  # int64 [chunks], the number of the contig, from 0
    start: np.ndarray  # int64 [chunks], 0-based first base on the contig
    length: np.ndarray  # int64 [chunks], bases
    n_count: np.ndarray  # int64 [chunks], runs of N
    soft_mask_count: np.ndarray  # int64 [chunks], runs of soft mask
    packed: np.ndarray  # uint8, ceil(length / 4) bytes of each
    n_runs: np.ndarray  # int32 [runs, 2], (start, length) within the chunk
    soft_mask_runs: np.ndarray  # int32 [runs, 2]

    def contents(self) -> list[tuple[bytes, bytes, bytes]]:
        """packed, n_runs and soft_mask_runs of each chunk."""
        sliced = (
            _sliced(self.packed, packed_bytes(self.length)),
            _sliced(self.n_runs, 8 * self.n_count),
            _sliced(self.soft_mask_runs, 8 * self.soft_mask_count),
        )
        return list(zip(*sliced))


def packed_bytes(length: np.ndarray) -> np.ndarray:
    """How many bytes so many bases take."""
    return (length + 3) // 4


def _sliced(values: np.ndarray, sizes: np.ndarray) -> list[bytes]:
    if not values.size:
        return [b""] * sizes.size
    content, ends = values.tobytes(), np.cumsum(sizes).tolist()
    return [content[start:end] for start, end in itertools.pairwise([0, *ends])]


class Cutter:
    """Takes the batches of a file in turn; of the contig that a batch ends in, what fills no chunk waits for the next.

    Attributes:
        names, lengths: of the contigs that are complete. A record without a base is none.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.lengths: list[int] = []
        self._name, self._done = "", 0  # of the contig that is not complete, and how many bases of it are cut
        self._rest = np.zeros(0, np.uint8)  # the codes of it that are not

    def cut(self, batch: Batch) -> Chunks:
        """The chunks that are complete with this batch."""
        codes = np.concatenate([self._rest, batch.codes])
        sizes = np.diff(batch.starts + self._rest.size, prepend=0, append=codes.size)  # first, of an earlier contig
        done = np.zeros_like(sizes)
        done[0] = self._done
        rest = sizes[-1] % CHUNK_BP
        sizes[-1] -= rest
        numbers = self._close([self._name, *batch.ids], done + sizes)
        self._rest, codes = codes[codes.size - rest :].copy(), codes[: codes.size - rest]
        self._done = done[-1] + sizes[-1]
        piece, within = _chunks_of_pieces(sizes)
        length = np.minimum(sizes[piece] - within, CHUNK_BP)
        return _make(batch._replace(codes=codes), numbers[piece], done[piece] + within, length)

    def finish(self) -> Chunks:
        """The last chunk."""
        nothing = np.zeros(0, np.uint8)
        return self.cut(Batch([""], [""], [0], np.zeros(1, np.int64), nothing, {}))

    def _close(self, names: list[str], lengths: np.ndarray) -> np.ndarray:
        """Takes in all but the last of these contigs; returns the numbers of all, int64."""
        is_contig = lengths > 0
        numbers = len(self.names) + np.cumsum(is_contig) - is_contig
        self.names += itertools.compress(names[:-1], is_contig[:-1].tolist())
        self.lengths += lengths[:-1][is_contig[:-1]].tolist()
        self._name = names[-1]
        return numbers


def _chunks_of_pieces(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pieces of so many bases cut into chunks: of each chunk the piece, and its first base within, [chunks]."""
    counts = -(-sizes // CHUNK_BP)
    piece = np.repeat(np.arange(sizes.size), counts)
    return piece, (np.arange(piece.size) - (np.cumsum(counts) - counts)[piece]) * CHUNK_BP


def _make(batch: Batch, contig: np.ndarray, start: np.ndarray, length: np.ndarray) -> Chunks:
    bases, ends = batch.bases, np.cumsum(length)
    edges = np.append(0, ends)
    n_count, n_runs = split_runs(runs_of(bases == N), edges)
    soft_mask_count, soft_mask_runs = split_runs(runs_of(batch.soft_mask), edges)
    filled_up = np.repeat(ends, -length % 4)  # each chunk begins with a byte of its own
    packed = pack_bases(np.insert(bases, filled_up, 0) if filled_up.size else bases)
    return Chunks(contig, start, length, n_count, soft_mask_count, packed, n_runs, soft_mask_runs)


def divide(chunks: Chunks, validation_starts: np.ndarray) -> tuple[Chunks, np.ndarray]:
    """The same with chunks in two where validation starts within, and which of them are in it, bool [chunks].

    `validation_starts`, int64 [contigs], are multiples of four where they are within a contig.
    """
    cut = validation_starts[chunks.contig] - chunks.start
    across = np.flatnonzero((cut > 0) & (cut < chunks.length))
    if across.size:
        chunks = _cut_in_two(chunks, across, cut[across])
        cut = validation_starts[chunks.contig] - chunks.start
    return chunks, cut <= 0


def _cut_in_two(chunks: Chunks, rows: np.ndarray, at: np.ndarray) -> Chunks:
    """Chunks `rows` cut after `at` bases, a multiple of four: no byte is divided."""
    before = np.cumsum(chunks.length) - chunks.length
    length = chunks.length.copy()
    length[rows] = at
    length = np.insert(length, rows + 1, chunks.length[rows] - at)
    edges = np.append(0, np.cumsum(length))

    def cut_again(runs: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return split_runs(runs + np.stack([np.repeat(before, counts), np.zeros(len(runs), np.int64)], axis=1), edges)

    n_count, n_runs = cut_again(chunks.n_runs, chunks.n_count)
    soft_mask_count, soft_mask_runs = cut_again(chunks.soft_mask_runs, chunks.soft_mask_count)
    contig = np.insert(chunks.contig, rows + 1, chunks.contig[rows])
    start = np.insert(chunks.start, rows + 1, chunks.start[rows] + at)
    return Chunks(contig, start, length, n_count, soft_mask_count, chunks.packed, n_runs, soft_mask_runs)
