"""Windows: valid, complete, in an order that is a pure function of the seed and the step."""

import hashlib
import itertools
from pathlib import Path

import jax
import numpy as np
import pytest

from vqdna_jax.errors import InputError
from vqdna_jax.genome import corpus as corpus_lib
from vqdna_jax.genome import epochs, fasta, windows
from vqdna_jax.genome.alphabet import to_text
from vqdna_jax.genome.build.build import build_corpus
from vqdna_jax.genome.chunks import CHUNK_BP
from vqdna_jax.genome.corpus import ChunkTable, open_corpus

BUNDLED = Path(corpus_lib.__file__).parent / "bundled"


def bundled_bases(name: str) -> np.ndarray:
    """A real genome with one base in fifty replaced, so that its repeats differ and a window says where it is from."""
    (record,) = fasta.load_fasta(BUNDLED / f"{name}.fa.gz")
    bits = epochs.random_bits(0, count=record.bases.size)
    return np.where(bits % 50 == 0, bits // 50 % 4, record.bases).astype(np.uint8)


def with_n(bases: np.ndarray, *runs: tuple[int, int]) -> np.ndarray:
    bases = bases.copy()
    for start, stop in runs:
        bases[start:stop] = 4
    return bases


@pytest.fixture(scope="module")
def sequences() -> dict[str, dict[str, np.ndarray]]:
    """Species -> contig -> bases: N runs inside, at borders and nearly filling, and records shorter than a window."""
    coli, fly = bundled_bases("e_coli_K12_MG1655")[:400_000], bundled_bases("d_melanogaster_chr2R_5-6Mb")
    dense = [(at, at + 3) for at in range(70_000, 90_000, 40)]
    return {
        "coli": {"chr": with_n(coli, (0, 10), (65_530, 65_540), (131_072, 140_000), (300_000, 300_001), *dense)},
        "fly": {f"s{i}": fly[i * 9_000 : i * 9_000 + 5_000 + 97 * i] for i in range(20)} | {"short": fly[:50]},
        "phage": {"phi": bundled_bases("phiX174")},
    }


@pytest.fixture(scope="module")
def corpus(sequences, tmp_path_factory):
    directory = tmp_path_factory.mktemp("windows")
    for species, contigs in sequences.items():
        text = "".join(f">{name}\n{to_text(bases)}\n" for name, bases in contigs.items())
        (directory / f"{species}.fa").write_text(text)
    build_corpus([directory], directory / "corpus", progress=False)
    return open_corpus(directory / "corpus")


def train(corpus, window_bp=256, global_batch=16, seed=3, **kwargs) -> windows.WindowBatches:
    return windows.WindowBatches(corpus, "train", window_bp, global_batch, seed, **kwargs)


def epoch_of(batches, epoch=0) -> windows.Windows:
    steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
    read = [batches[step] for step in steps]
    return jax.tree.map(lambda *rows: np.concatenate(rows), *read)


def places(batch: windows.Windows, sequences) -> list[tuple[str, str, int]]:
    """Where each window of a batch comes from, by looking its letters up in the FASTA."""
    texts = {
        species: {name: to_text(bases) for name, bases in contigs.items()} for species, contigs in sequences.items()
    }
    found = []
    for bases, species in zip(batch.bases_BxS, batch.species_B):
        name, window = sorted(texts)[species], to_text(bases)
        hits = [(name, contig, text.find(window)) for contig, text in texts[name].items() if window in text]
        assert len(hits) == 1 and texts[name][hits[0][1]].count(window) == 1
        found += hits
    return found


def no_overlap(found, window_bp):
    by_contig = sorted(found)
    for (*contig, start), (*next_contig, next_start) in itertools.pairwise(by_contig):
        assert contig != next_contig or next_start - start >= window_bp


@pytest.mark.parametrize("epoch", [0, 1])
def test_an_epoch_holds_each_window_once_without_overlap(corpus, sequences, epoch):
    batches = train(corpus, global_batch=1)
    found = places(epoch_of(batches, epoch), sequences)
    assert len(found) == batches.windows_per_epoch == batches.steps_per_epoch
    no_overlap(found, 256)
    segments = epochs.find_segments(corpus.chunks("train"), 256, 0.0)
    assert len(found) == segments.windows.sum()
    assert len(found) > 0.8 * (segments.length // 256).sum()


def test_a_partial_batch_is_dropped_and_nothing_repeats(corpus, sequences):
    batches = train(corpus, global_batch=50)
    assert batches.steps_per_epoch == batches.windows_per_epoch // 50
    no_overlap(places(epoch_of(batches), sequences), 256)


def test_epochs_differ_in_order_and_in_phase(corpus, sequences):
    batches = train(corpus, global_batch=1)
    first, second = (places(epoch_of(batches, epoch), sequences) for epoch in (0, 1))
    assert len(set(first) & set(second)) < 0.2 * len(first)


def test_windows_are_well_shuffled(corpus):
    species = epoch_of(train(corpus, global_batch=1)).species_B
    changes = np.count_nonzero(np.diff(species))
    share = np.bincount(species) / species.size
    assert changes > 0.5 * species.size * (1 - (share**2).sum())


def test_training_never_sees_validation(corpus, sequences):
    held_out = windows.evaluation_windows(corpus, "validation", 256, 10**9)
    trained = places(epoch_of(train(corpus, global_batch=1)), sequences)
    no_overlap(trained + places(held_out, sequences), 256)


@pytest.mark.parametrize("process_count", [1, 2, 3, 4, 16])
@pytest.mark.parametrize("global_batch", [16, 48])
def test_the_global_batch_does_not_depend_on_the_number_of_processes(corpus, process_count, global_batch):
    whole = train(corpus, global_batch=global_batch, mixing=2.0)
    parts = [
        train(corpus, global_batch=global_batch, mixing=2.0, process_index=index, process_count=process_count)
        for index in range(process_count)
    ]
    for step in (0, 1, whole.steps_per_epoch - 1, whole.steps_per_epoch, 5 * whole.steps_per_epoch + 3):
        local = [part[step] for part in parts]
        joined = jax.tree.map(lambda *rows: np.concatenate(rows), *local)
        jax.tree.map(np.testing.assert_array_equal, joined, whole[step])


def test_the_order_of_access_does_not_matter(corpus):
    forward = train(corpus, shuffle_windows=64)
    steps = np.random.default_rng(0).permutation(2 * forward.steps_per_epoch)[:60]
    expected = {int(step): train(corpus, shuffle_windows=64)[step].bases_BxS.copy() for step in sorted(steps)[::6]}
    shuffled = {int(step): forward[int(step)].bases_BxS.copy() for step in steps}
    for step, bases in expected.items():
        np.testing.assert_array_equal(shuffled[step], bases)


def test_the_iterator_starts_where_it_is_told_and_reads_the_same(corpus):
    batches = train(corpus)
    start = batches.steps_per_epoch - 2
    for step, batch in zip(range(start, start + 5), windows.train_iterator(batches, start)):
        np.testing.assert_array_equal(batch.bases_BxS, batches[step].bases_BxS)
        assert batch.bases_BxS.dtype == np.uint8 and batch.species_B.dtype == np.int32


def test_another_seed_is_another_order_and_the_same_seed_the_same(corpus):
    one, same, other = (train(corpus, seed=seed)[0].bases_BxS for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_the_order_never_changes_between_versions(corpus):
    """If this fails, interrupted runs would go on with other data: bump the corpus schema and say so in the notes."""
    batches = train(corpus, shuffle_windows=256, mixing=2.0)
    read = [batches[step].bases_BxS.tobytes() for step in (0, 1, 40, batches.steps_per_epoch + 5)]
    assert hashlib.sha256(b"".join(read)).hexdigest()[:16] == "9f71a8b50f70416d"


def test_a_process_reads_only_the_chunks_of_its_lanes(corpus, monkeypatch):
    read = {}
    for count in (1, 8):
        seen = set()
        batches = train(corpus, global_batch=16, shuffle_windows=512, process_index=0, process_count=count)
        getitems = batches._reader._records.__getitems__

        class Counting:
            def __getitems__(self, indices, getitems=getitems, seen=seen):
                seen.update(indices)
                return getitems(indices)

        monkeypatch.setattr(batches._reader, "_records", Counting())
        batches[0]
        read[count] = len(seen)
    assert read[8] < read[1] / 2


def naive_valid_starts(bases: np.ndarray, window_bp: int, max_n: int) -> np.ndarray:
    counts = np.convolve(bases == 4, np.ones(window_bp, int), "valid")
    return counts <= max_n


@pytest.mark.parametrize(("window_bp", "share"), [(37, 0.0), (256, 0.0), (256, 0.05), (4096, 0.08), (17_000, 0.2)])
def test_segments_hold_exactly_the_valid_starts(corpus, sequences, window_bp, share):
    chunks = corpus.chunks("train")
    segments = epochs.find_segments(chunks, window_bp, share)
    offsets = epochs.chunk_offsets(chunks)
    line = np.concatenate(
        [
            sequences[corpus.species[s]][corpus.contigs[c]][start : start + length]
            for s, c, start, length in zip(chunks.species, chunks.contig, chunks.start, chunks.length)
        ]
    )
    starts = np.zeros(line.size, bool)
    for start, length in zip(segments.start, segments.length):
        assert not starts[start : start + length - window_bp + 1].any()
        starts[start : start + length - window_bp + 1] = True
    valid = naive_valid_starts(line, window_bp, int(share * window_bp + 1e-9))
    assert not (starts[: valid.size] & ~valid).any() and not starts[valid.size :].any()
    ends = segments.start + segments.length
    assert (segments.start[1:] >= ends[:-1]).all()
    borders = offsets[np.flatnonzero(np.diff(chunks.contig)) + 1]
    for border in borders:
        assert not ((segments.start < border) & (ends > border)).any()
    if share == 0.0:  # every valid start inside a chunk is used
        for begin, end in itertools.pairwise(offsets):
            inside = slice(begin, max(begin, end - window_bp + 1))
            np.testing.assert_array_equal(starts[inside], valid[inside])


@pytest.mark.parametrize("share", [0.0, 0.05])
def test_windows_respect_the_share_of_n(corpus, share):
    n_share = (epoch_of(train(corpus, global_batch=1, max_n_share=share)).bases_BxS == 4).mean(axis=1)
    assert n_share.max() <= share and (share == 0 or n_share.max() > 0)


def test_every_phase_is_drawn(corpus):
    segments = epochs.find_segments(corpus.chunks("train"), 256, 0.0)
    longest = int(segments.length.argmax())
    quotas = np.bincount(segments.species, segments.windows).astype(int)
    phases = set()
    for epoch in range(400):
        visits = epochs.plan_epoch(segments, quotas, 0, epoch)
        phase = visits.first - segments.start[longest]
        phases.update(phase[(phase >= 0) & (phase < segments.length[longest])].tolist())
    assert min(phases) < 5 and max(phases) > segments.slack[longest] - 5 and len(phases) > 200


def test_windows_longer_than_a_chunk_cross_chunks_of_one_contig(corpus, sequences):
    batches = train(corpus, window_bp=90_000, global_batch=1)
    for step in range(3):
        batch = batches[step]
        assert places(batch, sequences)[0][:2] == ("coli", "chr")


@pytest.mark.parametrize(
    ("mixing", "expected"),
    [
        (float("inf"), [1 / 3, 1 / 3, 1 / 3]),
        ({"coli": 1, "fly": 3}, [0.25, 0.75, 0]),
        ({"phage": 1.0}, [0, 0, 1]),
        (2.0, None),
        (1.0, None),
    ],
)
def test_mixing_gives_the_asked_shares(corpus, mixing, expected):
    batches, natural = train(corpus, global_batch=1, mixing=mixing), train(corpus, global_batch=1)
    assert batches.windows_per_epoch == natural.windows_per_epoch
    species = epoch_of(batches).species_B
    if expected is None:
        weights = np.array(list(natural.shares().values())) ** (1 / mixing)
        expected = weights / weights.sum()
    np.testing.assert_allclose(np.bincount(species, minlength=3) / species.size, expected, atol=1.5 / species.size)
    np.testing.assert_allclose(list(batches.shares().values()), expected, atol=1.5 / species.size)


@pytest.mark.parametrize(
    ("kwargs", "word"),
    [
        ({"mixing": {"human": 1}}, "human"),
        ({"mixing": {"coli": 0}}, "at least one above 0"),
        ({"mixing": {"coli": -1, "fly": 2}}, "weights of 0 or more"),
        ({"mixing": {"coli": float("nan")}}, "weights"),
        ({"mixing": 0.0}, "temperature above 0"),
        ({"mixing": float("nan")}, "temperature above 0"),
        ({"max_n_share": 1.5}, "max_n_share"),
        ({"window_bp": 10**9}, "no window of 1000000000 bp fits"),
        ({"window_bp": 0}, "positive"),
        ({"global_batch": 0}, "rows for every process"),
        ({"seed": -1}, "seed"),
        ({"process_count": 17}, "rows for every process"),
    ],
)
def test_bad_arguments_are_one_line(corpus, kwargs, word):
    with pytest.raises(InputError) as caught:
        train(corpus, **kwargs)
    assert word in str(caught.value) and "\n" not in str(caught.value)


def test_an_unknown_split_is_refused(corpus):
    with pytest.raises(InputError, match="'test'"):
        windows.evaluation_windows(corpus, "test", 256, 4)


def test_a_corpus_smaller_than_a_batch_repeats_its_windows(corpus):
    batches = train(corpus, window_bp=4096, global_batch=512)
    assert batches.windows_per_epoch < 512 and batches.steps_per_epoch == 1
    assert len(np.unique(batches[0].bases_BxS, axis=0)) == batches.windows_per_epoch


def test_batches_cannot_be_changed_by_accident(corpus):
    with pytest.raises(ValueError, match="read-only"):
        train(corpus)[0].bases_BxS[:] = 0


def test_the_summary_counts_what_is_left_out(corpus):
    segments = epochs.find_segments(corpus.chunks("train"), 256, 0.0)
    total = corpus.manifest["splits"]["train"]["bases"]
    assert segments.skipped_bases == total - segments.length.sum() > 0
    assert f"{segments.skipped_bases:,} bp" in train(corpus).summary()
    n_bases = corpus.manifest["splits"]["train"]["n"]
    assert f"({n_bases:,} N in the split)" in train(corpus).summary()


def test_evaluation_is_spread_over_the_split_and_balanced(corpus, sequences):
    everything = windows.evaluation_windows(corpus, "validation", 256, 10**9)
    total = len(everything.species_B)
    no_overlap(places(everything, sequences), 256)
    some = windows.evaluation_windows(corpus, "validation", 256, total // 2)
    again = windows.evaluation_windows(corpus, "validation", 256, total // 2)
    np.testing.assert_array_equal(some.bases_BxS, again.bases_BxS)
    assert len(some.species_B) == total // 2 and set(some.species_B) == {0, 1, 2}
    no_overlap(places(some, sequences), 256)
    shares = [np.bincount(batch.species_B, minlength=3) / len(batch.species_B) for batch in (everything, some)]
    np.testing.assert_allclose(*shares, atol=0.03)
    half = np.bincount(some.species_B[: total // 4], minlength=3) / (total // 4)
    np.testing.assert_allclose(half, shares[1], atol=0.05)
    assert (everything.bases_BxS < 4).all()


def test_a_small_validation_part_is_still_evaluated(corpus):
    assert set(windows.evaluation_windows(corpus, "validation", 256, 3).species_B) == {0, 1, 2}
    assert len(windows.evaluation_windows(corpus, "validation", 256, 1).species_B) == 1


def test_positions_beyond_32_bits_are_places_like_any_other():
    """Three contigs of 3 billion bases, as plants have: no window overlaps another or leaves its contig."""
    size = 46_000  # chunks of a contig
    contig = np.repeat(np.arange(3), size)
    start = np.tile(np.arange(size, dtype=np.int64) * CHUNK_BP, 3)
    none, length = np.zeros((0, 2), np.int32), np.full(3 * size, CHUNK_BP, np.int32)
    chunks = ChunkTable(
        contig.astype(np.int32) // 2, contig.astype(np.int32), start, length, np.zeros(3 * size + 1), none
    )
    segments = epochs.find_segments(chunks, CHUNK_BP, 0.0)
    assert segments.length.sum() == 3 * size * CHUNK_BP
    epoch = epochs.plan_epoch(segments, np.bincount(segments.species, segments.windows), 0, 0)
    first = np.sort(epoch.windows(np.arange(epoch.end[-1]))[0])
    assert first[0] >= 0 and np.diff(first).min() >= CHUNK_BP and first[-1] > 2**33
    assert first[-1] + CHUNK_BP <= 3 * size * CHUNK_BP and (first % (size * CHUNK_BP) <= (size - 1) * CHUNK_BP).all()
