"""One FASTA file parsed once into chunks on disk, so that validation can be chosen when all lengths are known."""

import array
import hashlib
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from vqdna_jax.genome.chunks import CHUNK_BP, Chunk, clip_chunk, make_chunk
from vqdna_jax.genome.fasta import Block, Record


class Contig(NamedTuple):
    name: str
    length: int  # bases


class Piece(NamedTuple):
    """A chunk and where it comes from; `contig` indexes Spool.contigs and `start` is in bases, 0-based."""

    contig: int
    start: int
    chunk: Chunk


class Spool:
    """Chunks of one species in a temporary file that disappears with the context."""

    def __init__(self, directory: str | os.PathLike):
        self.contigs: list[Contig] = []
        self.skipped = Counter(empty_records=0, renamed_records=0)
        self.ambiguous = Counter()  # IUPAC letter -> how many became N
        self._table = array.array("q")  # contig, start, length, N runs, soft-mask runs of each chunk
        self._file = tempfile.TemporaryFile(dir=directory)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def fill(self, events: Iterator[Record | Block]) -> None:
        """Takes in what `read_fasta` yields."""
        record, cutter = None, _Cutter()
        for event in events:
            if isinstance(event, Block):
                self.ambiguous.update(event.ambiguous)
                self._write(cutter.add(event.bases, event.soft_mask))
            else:
                self._close_contig(record, cutter)
                record = event
        self._close_contig(record, cutter)

    def _close_contig(self, record: Record | None, cutter: "_Cutter") -> None:
        if record is None:
            return
        self._write(cutter.rest())
        self.skipped["renamed_records"] += record.renamed
        if cutter.length:
            self.contigs.append(Contig(record.id, cutter.length))
        else:
            self.skipped["empty_records"] += 1
        cutter.length = 0

    def _write(self, chunks: Iterator[tuple[int, Chunk]]) -> None:
        for start, chunk in chunks:
            self._table.extend([len(self.contigs), start, chunk.length, len(chunk.n_runs), len(chunk.soft_mask_runs)])
            for values in (chunk.packed, chunk.n_runs, chunk.soft_mask_runs):
                self._file.write(values.data)

    def pieces(self) -> Iterator[Piece]:
        """All chunks in the order of the file."""
        self._file.seek(0)
        for row in range(0, len(self._table), 5):
            contig, start, length, n_runs, soft_mask_runs = self._table[row : row + 5]
            packed = np.frombuffer(self._file.read(-(-length // 4)), np.uint8)
            yield Piece(contig, start, Chunk(packed, length, self._runs(n_runs), self._runs(soft_mask_runs)))

    def _runs(self, count: int) -> np.ndarray:
        return np.frombuffer(self._file.read(8 * count), np.int32).reshape(count, 2)


class _Cutter:
    """Cuts the blocks of one contig at multiples of CHUNK_BP."""

    def __init__(self):
        self.length = 0
        self._bases, self._soft_mask = np.empty(CHUNK_BP, np.uint8), np.empty(CHUNK_BP, bool)

    def add(self, bases: np.ndarray, soft_mask: np.ndarray) -> Iterator[tuple[int, Chunk]]:
        at = 0
        while at < bases.size:
            filled = self.length % CHUNK_BP
            take = min(CHUNK_BP - filled, bases.size - at)
            self._bases[filled : filled + take] = bases[at : at + take]
            self._soft_mask[filled : filled + take] = soft_mask[at : at + take]
            self.length += take
            at += take
            if filled + take == CHUNK_BP:
                yield self.length - CHUNK_BP, make_chunk(self._bases, self._soft_mask)

    def rest(self) -> Iterator[tuple[int, Chunk]]:
        filled = self.length % CHUNK_BP
        if filled:
            yield self.length - filled, make_chunk(self._bases[:filled], self._soft_mask[:filled])


def validation_starts(contigs: list[Contig], share: float) -> list[int]:
    """From which base on each contig is held out; the contig's length where nothing is.

    Whole contigs are taken in the order of a hash of their names while they fit into `share` of all bases. Where they
    reach less than half of it (one chromosome, say), the end of the longest contig that is left makes up the rest.
    """
    starts = [contig.length for contig in contigs]
    wanted = int(sum(starts) * share)
    left = wanted
    by_hash = sorted(range(len(contigs)), key=lambda i: hashlib.sha256(contigs[i].name.encode()).digest())
    for index in by_hash:
        if contigs[index].length <= left:
            starts[index] = 0
            left -= contigs[index].length
    if wanted and left > wanted / 2:
        longest = starts.index(max(starts))
        starts[longest] = (starts[longest] - left) // 4 * 4  # whole bytes of packed bases
    return starts


def split_piece(piece: Piece, validation_start: int) -> Iterator[tuple[str, Piece]]:
    """Yields ("train", piece), ("validation", piece) or, where the border crosses a chunk, both."""
    cut, length = validation_start - piece.start, piece.chunk.length
    if cut <= 0 or cut >= length:
        yield "validation" if cut <= 0 else "train", piece
        return
    yield "train", piece._replace(chunk=clip_chunk(piece.chunk, 0, cut))
    yield "validation", Piece(piece.contig, piece.start + cut, clip_chunk(piece.chunk, cut, length))
