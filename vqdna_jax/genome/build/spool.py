"""One FASTA file parsed once into chunks on disk, so that validation can be chosen when all lengths are known."""

import array
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

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
    """Chunks of one species in a binary file, the caller's, and where each of them lies, in memory.

    Fill it once with what `read_fasta` yields; or open one that was filled elsewhere with its `summary`.
    """

    def __init__(self, file: BinaryIO, summary: bytes = b""):
        self.contigs: list[Contig] = []
        self.skipped = Counter(empty_records=0, renamed_records=0)
        self.ambiguous = Counter()  # IUPAC letter -> how many became N
        self._table = array.array("q")  # contig, start, length, N runs, soft-mask runs of each chunk
        self._file = file
        if summary:
            self._restore(summary)

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

    def summary(self) -> bytes:
        """Everything but the chunks, as an npz."""
        names, lengths = zip(*self.contigs)
        notes = json.dumps({"skipped": self.skipped, "ambiguous": self.ambiguous}).encode()
        stored = io.BytesIO()
        np.savez(
            stored,
            names=np.frombuffer("\n".join(names).encode(), np.uint8),
            lengths=np.array(lengths, np.int64),
            table=np.array(self._table, np.int64),
            notes=np.frombuffer(notes, np.uint8),
        )
        return stored.getvalue()

    def _restore(self, summary: bytes) -> None:
        with np.load(io.BytesIO(summary), allow_pickle=False) as stored:
            names, notes = stored["names"].tobytes().decode().split("\n"), json.loads(stored["notes"].tobytes())
            self.contigs = list(map(Contig, names, stored["lengths"].tolist()))
            self._table.frombytes(stored["table"].tobytes())
        self.skipped.update(notes["skipped"])
        self.ambiguous.update(notes["ambiguous"])

    def rows_of(self, split: str, starts: list[int]) -> np.ndarray:
        """Which chunks have bases in a split, int64 [R], in the order of the file; `starts` of `validation_starts`."""
        contig, start, length, _, _ = np.array(self._table, np.int64).reshape(-1, 5).T
        cut = np.array(starts, np.int64)[contig] - start
        return np.flatnonzero(cut > 0 if split == "train" else cut < length)

    def pieces(self, rows: Iterable[int] | None = None) -> Iterator[Piece]:
        """All chunks in the order of the file, or those of some rows."""
        _, _, length, n_runs, soft_mask_runs = np.array(self._table, np.int64).reshape(-1, 5).T
        ends = np.cumsum((length + 3) // 4 + 8 * (n_runs + soft_mask_runs))
        for row in range(ends.size) if rows is None else rows:
            self._file.seek(int(ends[row - 1]) if row else 0)
            contig, start, length, n_runs, soft_mask_runs = self._table[5 * row : 5 * row + 5]
            packed = np.frombuffer(self._read(-(-length // 4)), np.uint8)
            yield Piece(contig, start, Chunk(packed, length, self._runs(n_runs), self._runs(soft_mask_runs)))

    def _runs(self, count: int) -> np.ndarray:
        return np.frombuffer(self._read(8 * count), np.int32).reshape(count, 2)

    def _read(self, size: int) -> bytes:
        found = self._file.read(size)
        if len(found) != size:
            raise OSError("the temporary file of a species was cut short; build the corpus again")
        return found


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
