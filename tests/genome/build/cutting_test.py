"""Many records cut into chunks at once are what each record gives on its own, however a file comes in batches."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vqdna_jax.genome.build import cutting
from vqdna_jax.genome.chunks import Chunk, chunk_bases
from vqdna_jax.genome.fasta import Batch
from vqdna_jax.genome.runs import runs_of, split_runs, spread_runs

CHUNK_BP = 16  # small, so that there are many borders
records_strategy = st.lists(
    st.binary(max_size=70).map(lambda raw: bytes(b % 5 | b & 8 for b in raw)), min_size=1, max_size=12
)
prepared = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(cutting, "CHUNK_BP", CHUNK_BP)


def batches_of(records: list[bytes], cuts: list[int]) -> Iterator[Batch]:
    """The records' codes, cut into batches at some positions of all of them; a record begins in the first that may."""
    codes = np.frombuffer(b"".join(records), np.uint8)
    starts = np.cumsum([0, *map(len, records[:-1])])
    edges = [0, *sorted(cut % (codes.size + 1) for cut in cuts), codes.size]
    taken = 0
    for start, stop in zip(edges, edges[1:]):
        upto = int(np.searchsorted(starts, stop)) if stop < codes.size else len(records)
        here = range(taken, upto)
        yield Batch([f"r{i}" for i in here], [], [], starts[here.start : here.stop] - start, codes[start:stop], {})
        taken = upto


def chunks_alone(records: list[bytes]) -> list[tuple[int, int, list[int], list[bool]]]:
    """(contig, start, bases, soft mask) of each chunk."""
    contigs = [np.frombuffer(record, np.uint8) for record in records if record]
    return [
        (number, start, (codes[start : start + CHUNK_BP] & 7).tolist(), (codes[start : start + CHUNK_BP] > 7).tolist())
        for number, codes in enumerate(contigs)
        for start in range(0, codes.size, CHUNK_BP)
    ]


def unpacked(chunks: cutting.Chunks) -> Iterator[tuple[int, int, list[int], list[bool]]]:
    for contig, start, length, content in zip(chunks.contig, chunks.start, chunks.length, chunks.contents()):
        packed, n_runs, soft_mask_runs = (np.frombuffer(c, t) for c, t in zip(content, (np.uint8, np.int32, np.int32)))
        chunk = Chunk(packed, length, n_runs.reshape(-1, 2), soft_mask_runs.reshape(-1, 2))
        mask = np.zeros(length, bool)
        mask[spread_runs(chunk.soft_mask_runs)] = True
        yield int(contig), int(start), chunk_bases(chunk).tolist(), mask.tolist()


@given(records_strategy, st.lists(st.integers(0, 10_000), max_size=6))
@prepared
def test_batches_make_the_chunks_of_each_record_alone(records, cuts):
    cutter = cutting.Cutter()
    found = [row for batch in batches_of(records, cuts) for row in unpacked(cutter.cut(batch))]
    found += unpacked(cutter.finish())
    assert found == chunks_alone(records)
    assert list(zip(cutter.names, cutter.lengths)) == [(f"r{i}", len(r)) for i, r in enumerate(records) if r]


@given(records_strategy, st.lists(st.integers(0, 20), min_size=12, max_size=12))
@prepared
def test_a_chunk_that_validation_starts_in_becomes_two(records, shares):
    cutter = cutting.Cutter()
    for batch in batches_of(records, []):
        chunks = cutter.cut(batch)
    last = cutter.finish()
    starts = np.array([4 * min(share, length // 4) for share, length in zip(shares, cutter.lengths)], np.int64)
    starts = np.where(np.array(shares[: starts.size]) > 18, cutter.lengths, starts)  # nothing of it
    found = [cutting.divide(part, starts) for part in (chunks, last) if part.length.size]
    rows = [(*row, held) for part, in_validation in found for row, held in zip(unpacked(part), in_validation)]
    whole = {}
    for contig, start, bases, mask, held in rows:
        assert held == (start >= starts[contig])
        known_bases, known_mask = whole.setdefault(contig, ([], []))
        assert start == len(known_bases)
        known_bases += bases
        known_mask += mask
    contigs = [np.frombuffer(record, np.uint8) for record in records if record]
    assert [whole[number] for number in range(len(contigs))] == [
        ((codes & 7).tolist(), (codes > 7).tolist()) for codes in contigs
    ]


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=9), min_size=1, max_size=9))
@prepared
def test_runs_split_at_edges_are_the_runs_of_each_piece(pieces):
    counts, runs = split_runs(runs_of(np.concatenate(pieces)), np.cumsum([0, *map(len, pieces)]))
    alone = [runs_of(np.array(piece)) for piece in pieces]
    assert counts.tolist() == [len(one) for one in alone]
    assert runs.dtype == np.int32 and runs.tolist() == np.concatenate(alone).tolist()
