"""Context tables: counts and smoothing against an implementation with dictionaries, and what a baseline must not do."""

import collections
import dataclasses

import numpy as np
import pytest
from small_sequences import random_bases

from vqdna_jax.errors import InputError
from vqdna_jax.evaluation import context_counts, context_tables
from vqdna_jax.evaluation.context_tables import (
    CONTEXT55,
    MARKOV11,
    ORDER0,
    STRENGTHS,
    ContextTable,
    bits_and_accuracy,
    fit,
)
from vqdna_jax.genome.alphabet import N, reverse_complement, to_text
from vqdna_jax.genome.build.build import build_corpus
from vqdna_jax.genome.chunks import CHUNK_BP, chunk_bases, parse_chunk
from vqdna_jax.genome.corpus import open_corpus

GAPPED = (2, -1, -4)  # neither contiguous nor symmetric


def corpus_of(directory, contigs, validation_share=0.0):
    text = "".join(f">contig{index}\n{to_text(bases_S)}\n" for index, bases_S in enumerate(contigs))
    (directory / "genome.fa").write_text(text)
    build_corpus([directory / "genome.fa"], directory / "corpus", validation_share=validation_share, progress=False)
    return open_corpus(directory / "corpus")


@pytest.fixture(scope="module")
def phage(bundled, tmp_path_factory):
    out = tmp_path_factory.mktemp("phage") / "corpus"
    build_corpus([bundled / "phiX174.fa.gz"], out, validation_share=0.0, progress=False)
    return open_corpus(out)


@pytest.fixture(scope="module")
def patchy(tmp_path_factory):
    """A contig of two chunks, one of eight bases, and one with N alone and in a row."""
    contigs = [random_bases(CHUNK_BP + 50), random_bases(8), random_bases(400, seed=1)]
    contigs[2][[0, 30, 31, 32, 33, 34, 200]] = N
    return corpus_of(tmp_path_factory.mktemp("patchy"), contigs)


@pytest.fixture(scope="module")
def phage_tables(phage):
    return context_tables.fit_tables(phage)


def chunks_of(corpus) -> list[np.ndarray]:
    records = corpus.records("train")
    return [chunk_bases(parse_chunk(records[index])) for index in range(len(records))]


def observations(chunks, offsets) -> list[tuple[tuple[int, ...], int]]:
    """(context, nearest base first, and the base) of every position of both strands that has all of them."""
    found = []
    for chunk_S in chunks:
        for strand in (chunk_S.tolist(), [N if base == N else 3 - base for base in reversed(chunk_S.tolist())]):
            for i, base in enumerate(strand):
                if base != N and all(0 <= i + offset < len(strand) for offset in offsets):
                    context = tuple(strand[i + offset] for offset in offsets)
                    if N not in context:
                        found.append((context, base))
    return found


class BruteForce:
    """Counts in dictionaries, and the formula as it is written."""

    def __init__(self, chunks, offsets):
        self.seen, self.num_offsets = observations(chunks, offsets), len(offsets)
        self.counts = collections.Counter(
            (context[:k], base) for context, base in self.seen for k in range(len(offsets) + 1)
        )

    def p(self, context, base, strengths, own=0) -> float:
        """p of base after context, one strength an order; `own` is taken from the count of the base at each order."""
        p = 1 / 4
        for k, strength in enumerate(strengths):
            c_x = self.counts[context[:k], base] - own
            n = sum(self.counts[context[:k], x] for x in range(4)) - own
            p = (c_x + strength * p) / (n + strength)
        return p

    def left_out_bits(self, strengths) -> float:
        return -np.mean([np.log2(self.p(context, base, strengths, own=1)) for context, base in self.seen])


def place_all(bases_S, offsets):
    """(window, rows, positions) of every position of one window that has all of its context."""
    inside = [i for i in range(bases_S.size) if all(0 <= i + offset < bases_S.size for offset in offsets)]
    return bases_S[None], np.zeros(len(inside), int), np.array(inside)


class TestAgainstBruteForce:
    @pytest.mark.parametrize("offsets", [ORDER0, CONTEXT55, GAPPED, MARKOV11[:7]])
    def test_counts_agree(self, phage, patchy, offsets):
        for corpus in (phage, patchy):
            found = fit(corpus, "train", offsets).counts
            expected = BruteForce(chunks_of(corpus), offsets).counts
            assert sum(np.count_nonzero(counts_Cx4) for counts_Cx4 in found) == len(expected)
            for (context, base), count in expected.items():
                index = sum(letter * 4**place for place, letter in enumerate(context))
                assert found[len(context)][index, base] == count

    @pytest.mark.parametrize("name", ["order0", "markov11", "context55"])
    def test_probabilities_agree(self, phage, phage_tables, name):
        table, brute = phage_tables[name], BruteForce(chunks_of(phage), context_tables.BASELINES[name])
        window_1xS, rows_P, positions_P = place_all(random_bases(300), table.offsets)
        window_1xS[0, :150] = chunks_of(phage)[0][2000:2150]  # contexts that were seen, and random ones
        found = 2 ** table.log2_probabilities(window_1xS, rows_P, positions_P)
        for p_4, position in zip(found, positions_P):
            context = tuple(window_1xS[0, position + offset] for offset in table.offsets)
            expected = [brute.p(context, base, table.strengths) for base in range(4)]
            np.testing.assert_allclose(p_4, expected, rtol=1e-9)

    @pytest.mark.parametrize("offsets", [ORDER0, MARKOV11[:5], GAPPED])
    def test_each_strength_is_the_best_of_the_grid_with_positions_left_out(self, phage, offsets):
        strengths, brute = fit(phage, "train", offsets).strengths, BruteForce(chunks_of(phage), offsets)
        for k in range(len(offsets) + 1):
            bits = [brute.left_out_bits((*strengths[:k], strength)) for strength in STRENGTHS]
            assert bits[STRENGTHS.index(strengths[k])] == pytest.approx(min(bits), abs=1e-12)

    def test_the_sample_is_in_proportion_to_the_counts(self, phage_tables, monkeypatch):
        monkeypatch.setattr(context_tables, "_SAMPLE", 1000)
        counts_K = phage_tables["context55"].counts[3].ravel()
        sampled_K = np.bincount(context_tables._sample_keys(counts_K.reshape(-1, 4)), minlength=counts_K.size)
        assert sampled_K.sum() == 1000
        assert np.abs(sampled_K - counts_K * 1000 / counts_K.sum()).max() <= 1

    @pytest.mark.parametrize("group_bases", [1, 40_000])
    def test_counts_do_not_depend_on_how_chunks_are_grouped(self, patchy, monkeypatch, group_bases):
        expected = fit(patchy, "train", CONTEXT55)
        monkeypatch.setattr(context_tables, "_GROUP_BASES", group_bases)
        np.testing.assert_array_equal(fit(patchy, "train", CONTEXT55).counts[-1], expected.counts[-1])

    def test_tables_fitted_together_are_those_fitted_alone(self, phage, phage_tables):
        for name, offsets in context_tables.BASELINES.items():
            alone = fit(phage, "train", offsets)
            np.testing.assert_array_equal(phage_tables[name].counts[-1], alone.counts[-1])
            assert phage_tables[name].strengths == alone.strengths


class TestCounts:
    @pytest.mark.parametrize("k", [0, 1, 4, 9])
    @pytest.mark.parametrize("offsets", [MARKOV11, CONTEXT55])
    def test_lower_orders_are_those_counted_directly_but_for_the_ends_of_the_chunk(self, phage, offsets, k):
        derived, direct = fit(phage, "train", offsets).counts[k], fit(phage, "train", offsets[:k]).counts[k]

        def span(of):
            return max((0, *of)) - min((0, *of))

        assert (direct >= derived).all()
        assert (direct - derived).sum() == 2 * (span(offsets) - span(offsets[:k]))

    @pytest.mark.parametrize("offsets", [MARKOV11[:6], CONTEXT55[:6], GAPPED])
    def test_a_corpus_and_its_reverse_complement_give_the_same_table(self, tmp_path, offsets):
        contigs = [np.minimum(random_bases(length, seed=length), 2) for length in (3000, 500)]  # A C G, and no T
        contigs[0][100:110] = N
        tables = []
        for name, strand in (("forward", contigs), ("reverse", [reverse_complement(contig) for contig in contigs])):
            (tmp_path / name).mkdir()
            tables.append(fit(corpus_of(tmp_path / name, strand), "train", offsets))
        np.testing.assert_array_equal(tables[0].counts[-1], tables[1].counts[-1])
        assert tables[0].strengths == tables[1].strengths

    def test_a_split_without_a_whole_context_is_refused(self, tmp_path):
        corpus = corpus_of(tmp_path, [random_bases(11), random_bases(11)])
        assert fit(corpus, "train", CONTEXT55).counts[-1].sum() == 4
        with pytest.raises(InputError, match="no base of the train split has known bases at all of"):
            fit(corpus, "train", MARKOV11)
        with pytest.raises(InputError, match="no base of the validation split"):
            fit(corpus, "validation", ORDER0)


class TestPrediction:
    def score(self, table: ContextTable, bases_S: np.ndarray) -> tuple[float, float]:
        windows_1xS, rows_P, positions_P = place_all(bases_S, table.offsets)
        return bits_and_accuracy(table.log2_probabilities(windows_1xS, rows_P, positions_P), bases_S[positions_P])

    @pytest.mark.parametrize("offsets", [MARKOV11, CONTEXT55])
    def test_a_repeated_motif_is_predicted_on_both_strands(self, tmp_path, offsets):
        motif_S = random_bases(400)
        table = fit(corpus_of(tmp_path, [np.tile(motif_S, 50)]), "train", offsets)
        for strand_S in (motif_S, reverse_complement(motif_S)):
            bits, accuracy = self.score(table, strand_S)
            assert bits < 0.03 and accuracy > 0.99

    @pytest.mark.parametrize("offsets", [MARKOV11, CONTEXT55])
    def test_random_bases_cost_two_bits_and_no_more_though_the_contexts_are_sparse(self, tmp_path, offsets):
        table = fit(corpus_of(tmp_path, [random_bases(150_000)]), "train", offsets)
        bits, accuracy = self.score(table, random_bases(20_000, seed=1))
        assert 1.999 < bits < 2.02
        assert accuracy == pytest.approx(0.25, abs=0.02)
        unsmoothed = dataclasses.replace(table, strengths=(0.5,) * len(table.strengths))
        assert self.score(unsmoothed, random_bases(20_000, seed=1))[0] > 2.05

    def test_probabilities_sum_to_one_wherever_and_whatever_is_asked(self, phage_tables):
        windows_BxS = np.random.default_rng(2).integers(0, 5, (3, 40)).astype(np.uint8)
        rows_P, positions_P = (grid.ravel() for grid in np.indices((3, 40)))
        for table in phage_tables.values():
            p_Px4 = 2 ** table.log2_probabilities(windows_BxS, rows_P, positions_P.astype(np.uint16))
            np.testing.assert_allclose(p_Px4.sum(axis=1), 1, rtol=1e-12)
            assert p_Px4.min() > 0

    def test_the_base_itself_is_not_looked_at(self, phage_tables):
        windows_BxS = np.tile(random_bases(30), (5, 1))
        windows_BxS[:, 15] = range(5)
        for table in phage_tables.values():
            log2_Bx4 = table.log2_probabilities(windows_BxS, np.arange(5), np.full(5, 15))
            assert (log2_Bx4 == log2_Bx4[0]).all()

    @pytest.mark.parametrize("unknown_at", range(11))
    def test_an_n_in_the_context_ends_it(self, phage, phage_tables, unknown_at):
        """The table of the shorter context, cut from the long one, needs none of the bases from the N on."""
        windows_BxS = chunks_of(phage)[0][:5000].reshape(100, 50).copy()
        rows_P, positions_P = np.arange(100), np.full(100, 25)
        for table in phage_tables.values():
            k = min(unknown_at, len(table.offsets))
            shorter = ContextTable(table.offsets[:k], table.counts[: k + 1], table.strengths[: k + 1])
            spoilt_BxS = windows_BxS.copy()
            spoilt_BxS[:, [25 + offset for offset in table.offsets[k : k + 1]]] = N
            np.testing.assert_array_equal(
                table.log2_probabilities(spoilt_BxS, rows_P, positions_P),
                shorter.log2_probabilities(windows_BxS, rows_P, positions_P),
            )

    @pytest.mark.parametrize(
        ("name", "position", "order"),
        [("markov11", 0, 0), ("markov11", 4, 4), ("markov11", 49, 11), ("markov11", 11, 11)]
        + [("context55", 0, 0), ("context55", 2, 4), ("context55", 47, 5), ("context55", 48, 3), ("context55", 49, 1)],
    )
    def test_the_end_of_the_window_ends_the_context(self, phage, phage_tables, name, position, order):
        bases_S = chunks_of(phage)[0]
        starts_B = np.arange(100, 5000, 100)
        windows_BxS = bases_S[starts_B[:, None] + np.arange(50)]
        rows_B, table = np.arange(len(starts_B)), phage_tables[name]
        shorter = ContextTable(table.offsets[:order], table.counts[: order + 1], table.strengths[: order + 1])
        np.testing.assert_array_equal(
            table.log2_probabilities(windows_BxS, rows_B, np.full(len(starts_B), position)),
            shorter.log2_probabilities(bases_S[None], np.zeros_like(starts_B), starts_B + position),
        )

    def test_bits_and_accuracy_by_hand(self):
        log2_Px4 = np.log2([[0.5, 0.25, 0.125, 0.125], [0.25, 0.5, 0.125, 0.125], [1, 1, 1, 1]])
        assert bits_and_accuracy(log2_Px4, np.array([0, 2, N], np.uint8)) == (pytest.approx((1 + 3) / 2), 0.5)


class TestKept:
    """Counts of a large corpus, beside it."""

    @pytest.fixture
    def corpus(self, tmp_path, monkeypatch):
        """Large enough, with tables whose file is of kilobytes, not of the 34 MB of 4^11 contexts."""
        monkeypatch.setattr(context_counts, "KEPT_FROM", 1000)
        monkeypatch.setattr(context_tables, "BASELINES", {"order0": ORDER0, "markov4": MARKOV11[:4]})
        return corpus_of(tmp_path, [random_bases(3000)])

    def counted(self, corpus, monkeypatch) -> list[int]:
        """How often the split is read by two fits, the first from what is there."""
        read, count = [], context_tables._count_split
        monkeypatch.setattr(context_tables, "_count_split", lambda *given: read.append(1) or count(*given))
        first, second = context_tables.fit_tables(corpus), context_tables.fit_tables(corpus)
        for name in first:
            assert first[name].strengths == second[name].strengths
            for a_Kx4, b_Kx4 in zip(first[name].counts, second[name].counts):
                assert a_Kx4.dtype == b_Kx4.dtype == np.int64
                np.testing.assert_array_equal(a_Kx4, b_Kx4)
        return read

    def test_they_are_counted_once_and_are_the_same(self, corpus, monkeypatch):
        assert len(self.counted(corpus, monkeypatch)) == 1
        assert open_corpus(corpus.path).digest == corpus.digest

    def test_those_of_another_corpus_are_not_taken(self, corpus, monkeypatch, tmp_path):
        context_tables.fit_tables(corpus)
        (tmp_path / "other").mkdir()
        other = corpus_of(tmp_path / "other", [random_bases(3000, seed=1)])
        name = "context_counts-train.npz"
        (other.path / name).write_bytes((corpus.path / name).read_bytes())
        assert len(self.counted(other, monkeypatch)) == 1

    @pytest.mark.parametrize("at", [0.1, 0.5, 0.999])
    @pytest.mark.parametrize("how", ["flipped", "cut"])
    def test_damaged_ones_are_counted_again(self, corpus, monkeypatch, at, how):
        whole = context_tables.fit_tables(corpus)
        file = corpus.path / "context_counts-train.npz"
        content = bytearray(file.read_bytes())
        place = int(at * len(content))
        content[place] ^= 0xFF
        file.write_bytes(content[:place] if how == "cut" else content)
        assert len(self.counted(corpus, monkeypatch)) <= 1
        for name, table in context_tables.fit_tables(corpus).items():
            np.testing.assert_array_equal(table.counts[-1], whole[name].counts[-1])

    def test_where_nothing_can_be_written_it_is_said(self, corpus, monkeypatch, capsys):
        (corpus.path / "context_counts-train.npz").mkdir()
        assert len(self.counted(corpus, monkeypatch)) == 2
        assert capsys.readouterr().err.count("context counts are not kept") == 2

    def test_a_small_corpus_has_no_such_file(self, phage):
        context_tables.fit_tables(phage)
        assert not list(phage.path.glob("context_counts*"))
