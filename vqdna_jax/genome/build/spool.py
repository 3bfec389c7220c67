"""One FASTA file parsed once into chunks on disk, so that validation can be chosen when all lengths are known."""

import array
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

import numpy as np

from vqdna_jax.genome.build.cutting import Chunks, Cutter, divide, packed_bytes
from vqdna_jax.genome.fasta import Reader


class Spool:
    """Chunks of one species in a binary file, the caller's, and where each of them lies, in memory.

    Fill it once from a reader; or open one that was filled elsewhere with its `summary`. A block is what one batch of
    the reader gave: the file has the packed bases of its chunks, their runs of N, their runs of soft mask.

    Attributes:
        names, lengths: of the contigs.
        skipped, ambiguous: what the reader skipped; IUPAC letters that became N.
    """

    def __init__(self, file: BinaryIO, summary: bytes = b""):
        self.names: list[str] = []
        self.lengths: list[int] = []
        self.skipped: Counter[str] = Counter()
        self.ambiguous: Counter[str] = Counter()
        self._table = array.array("q")  # contig, start, length, N runs, soft-mask runs of each chunk
        self._blocks = array.array("q")  # chunks in each block
        self._file = file
        if summary:
            self._restore(summary)

    def fill(self, reader: Reader) -> None:
        """Takes in a file."""
        cutter = Cutter()
        for batch in reader:
            for counts in batch.ambiguous.values():
                self.ambiguous.update(counts)
            self._write(cutter.cut(batch))
        self._write(cutter.finish())
        self.names, self.lengths, self.skipped = cutter.names, cutter.lengths, reader.skipped

    def _write(self, chunks: Chunks) -> None:
        if not chunks.length.size:
            return
        self._blocks.append(chunks.length.size)
        self._table.frombytes(np.stack(chunks[:5], axis=1).astype(np.int64).tobytes())
        for values in (chunks.packed, chunks.n_runs, chunks.soft_mask_runs):
            self._file.write(values.data)

    def summary(self) -> bytes:
        """Everything but the chunks, as an npz."""
        notes = json.dumps({"skipped": self.skipped, "ambiguous": self.ambiguous}).encode()
        stored = io.BytesIO()
        np.savez(
            stored,
            names=np.frombuffer("\n".join(self.names).encode(), np.uint8),
            lengths=np.array(self.lengths, np.int64),
            table=np.array(self._table, np.int64),
            blocks=np.array(self._blocks, np.int64),
            notes=np.frombuffer(notes, np.uint8),
        )
        return stored.getvalue()

    def _restore(self, summary: bytes) -> None:
        with np.load(io.BytesIO(summary), allow_pickle=False) as stored:
            notes = json.loads(stored["notes"].tobytes())
            self.names, self.lengths = stored["names"].tobytes().decode().split("\n"), stored["lengths"].tolist()
            self._table.frombytes(stored["table"].tobytes())
            self._blocks.frombytes(stored["blocks"].tobytes())
        self.skipped.update(notes["skipped"])
        self.ambiguous.update(notes["ambiguous"])

    def counts(self, split: str, validation_starts: np.ndarray) -> np.ndarray:
        """How many chunks with bases in a split each block has, int64 [blocks]."""
        contig, start, length, _, _ = self._columns()
        cut = validation_starts[contig] - start
        blocks = np.array(self._blocks, np.int64)
        first = np.cumsum(blocks) - blocks
        return np.add.reduceat(cut > 0 if split == "train" else cut < length, first, dtype=np.int64)

    def blocks(
        self, validation_starts: np.ndarray, which: Iterable[int] | None = None
    ) -> Iterator[tuple[Chunks, np.ndarray]]:
        """The chunks of all blocks in the order of the file, or of some, divided as `cutting.divide` does."""
        columns, ends = self._columns(), np.cumsum(self._blocks)
        _, _, length, n_count, soft_mask_count = columns
        sizes = packed_bytes(length) + 8 * (n_count + soft_mask_count)
        offsets = np.append(0, np.cumsum(sizes))
        for block in range(ends.size) if which is None else which:
            rows = slice(ends[block] - self._blocks[block], ends[block])
            self._file.seek(int(offsets[rows.start]))
            yield divide(self._chunks(columns[:, rows]), validation_starts)

    def _columns(self) -> np.ndarray:
        """int64 [5, chunks]."""
        return np.frombuffer(self._table, np.int64).reshape(-1, 5).T

    def _chunks(self, columns: np.ndarray) -> Chunks:
        """What is in the file next, of columns int64 [5, chunks]."""
        contig, start, length, n_count, soft_mask_count = columns
        packed = np.frombuffer(self._read(int(packed_bytes(length).sum())), np.uint8)
        n_runs, soft_mask_runs = (
            np.frombuffer(self._read(8 * int(counts.sum())), np.int32).reshape(-1, 2)
            for counts in (n_count, soft_mask_count)
        )
        return Chunks(contig, start, length, n_count, soft_mask_count, packed, n_runs, soft_mask_runs)

    def _read(self, size: int) -> bytes:
        found = self._file.read(size)
        if len(found) != size:
            raise OSError("the temporary file of a species was cut short; build the corpus again")
        return found


def validation_starts(names: Sequence[str], lengths: Sequence[int], share: float) -> np.ndarray:
    """From which base on each contig is held out, int64 [contigs]; the contig's length where nothing is.

    Whole contigs are taken in the order of a hash of their names while they fit into `share` of all bases. Where they
    reach less than half of it (one chromosome, say), the end of the longest contig that is left makes up the rest.
    """
    starts = list(lengths)
    wanted = int(sum(starts) * share)
    left = wanted
    hashes = [hashlib.sha256(name.encode()).digest() for name in names]
    for index in sorted(range(len(names)), key=hashes.__getitem__):
        if lengths[index] <= left:
            starts[index] = 0
            left -= lengths[index]
    if wanted and left > wanted / 2:
        longest = starts.index(max(starts))
        starts[longest] = (starts[longest] - left) // 4 * 4  # whole bytes of packed bases
    return np.array(starts, np.int64)
