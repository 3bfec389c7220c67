import time

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from small_sequences import random_bases

from vqdna_jax.evaluation import code_statistics
from vqdna_jax.evaluation.code_statistics import best_kmer, kmer_information, strand_consistency, substitution_effect

N = 4


def words(bases_BxS: np.ndarray, k: int) -> np.ndarray:
    """The k-mer at each start as a number read off its digits in base 4: an implementation with strings."""
    return np.array([[int("".join(map(str, row[i : i + k])), 4) for i in range(len(row) - k + 1)] for row in bases_BxS])


def centred_3mers(bases_BxS: np.ndarray) -> np.ndarray:
    """Toy tokenizer: code i is the 3-mer at i - 1, with an A beyond each end of the window."""
    return words(np.pad(bases_BxS, ((0, 0), (1, 1))), 3)


def relabel(codes: np.ndarray, size: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).permutation(size)[codes]


class TestUsage:
    def test_uniform_stream_has_full_perplexity(self):
        stats = code_statistics.usage(np.tile(np.arange(64), (3, 5)), 64)
        assert stats["used"] == 64 and stats["utilisation"] == 1
        assert stats["perplexity"] == pytest.approx(64)
        assert stats["entropy_bits"] == pytest.approx(6)
        assert stats["busiest_share"] == pytest.approx(1 / 64)

    def test_one_code_stream_has_perplexity_one(self):
        stats = code_statistics.usage(np.full((4, 7), 9, np.uint16), 32)
        assert stats == {"used": 1, "utilisation": 1 / 32, "perplexity": 1, "busiest_share": 1, "entropy_bits": 0}

    @hypothesis.given(st.lists(st.integers(0, 20), min_size=1, max_size=200))
    def test_agrees_with_scipy_and_keeps_its_bounds(self, stream):
        stats = code_statistics.usage(np.array(stream), 21)
        shares = [stream.count(code) / len(stream) for code in set(stream)]
        assert stats["entropy_bits"] == pytest.approx(scipy.stats.entropy(shares, base=2), abs=1e-9)
        assert 1 / stats["busiest_share"] <= stats["perplexity"] + 1e-9 <= stats["used"] + 1e-6

    def test_code_of_another_level_is_refused(self):
        with pytest.raises(ValueError, match="outside a codebook of 64"):
            code_statistics.usage(np.array([1, 64]), 64)


class TestRate:
    def test_every_pair_once_is_the_sum_of_both_levels(self):
        codes_1x32x2 = np.stack(np.meshgrid(np.arange(4), np.arange(8)), -1).reshape(1, 32, 2)
        once = code_statistics.code_bits_per_base(codes_1x32x2, [4, 8], 2)
        assert once["plug_in"] == pytest.approx(5 / 2)
        assert (once["tuples_used"], once["unseen_share"]) == (32, 1)
        twice = code_statistics.code_bits_per_base(np.repeat(codes_1x32x2, 2, axis=1), [4, 8], 2)
        assert (twice["plug_in"], twice["unseen_share"]) == (pytest.approx(5 / 2), 0)

    def test_level_that_repeats_the_first_adds_nothing(self):
        level_BxL = np.random.default_rng(0).integers(0, 16, (10, 300))
        both = code_statistics.code_bits_per_base(np.stack([level_BxL, 15 - level_BxL], -1), [16, 16], 1)
        assert both["plug_in"] == pytest.approx(code_statistics.usage(level_BxL, 16)["entropy_bits"])

    def test_correction_removes_most_of_the_bias(self):
        draws = [np.random.default_rng(seed).integers(0, 64, (1, 300, 1)) for seed in range(50)]
        rates = [code_statistics.code_bits_per_base(codes, [64], 1) for codes in draws]
        plug_in, corrected = (np.mean([rate[key] for rate in rates]) for key in ("plug_in", "bits_per_base"))
        assert plug_in < 5.9
        assert abs(corrected - 6) < 0.2 * abs(plug_in - 6)

    def test_joint_codes_are_distinct_and_ordered_by_the_first_level(self):
        codes_1xLx3 = np.stack(np.unravel_index(np.arange(2 * 3 * 5), (2, 3, 5)), -1)[None].astype(np.uint16)
        np.testing.assert_array_equal(code_statistics.joint_codes(codes_1xLx3, [2, 3, 5])[0], np.arange(30))


class TestKmerInformation:
    def test_plug_in_agrees_with_scikit_learn(self):
        bases = random_bases(20, 100)
        codes = (centred_3mers(bases) * 7 + random_bases(20, 100, seed=5)) % 24
        found = kmer_information(codes, bases, 1, 2, 1, 24)
        expected = sklearn.metrics.mutual_info_score(codes[:, :98].ravel(), words(bases, 2)[:, 1:].ravel()) / np.log(2)
        assert found["bits"] == pytest.approx(expected)
        assert found["positions"] == 20 * 98

    def test_code_that_is_a_3mer_holds_all_its_entropy(self):
        bases = random_bases(100, 200)
        found = kmer_information(relabel(centred_3mers(bases), 64), bases, 1, 3, -1, 64)
        assert found["bits"] == pytest.approx(found["kmer_entropy_bits"])
        assert found["corrected_bits"] == pytest.approx(found["kmer_entropy_bits"])
        assert found["kmer_entropy_bits"] == pytest.approx(6, abs=0.01)
        assert found["explained_share"] == pytest.approx(1)

    def test_code_finer_than_the_kmer_holds_all_the_entropy_of_the_kmer(self):
        bases = random_bases(20, 50)
        codes = np.random.default_rng(1).integers(0, 512, (20, 50)) * 4 + bases
        found = kmer_information(codes, bases, 1, 1, 0, 2048)
        assert found["shuffled_bits"] > 1
        assert found["corrected_bits"] == pytest.approx(found["kmer_entropy_bits"])

    def test_independent_codes_hold_nothing_though_the_plug_in_says_so(self):
        bases, codes = random_bases(200, 200), np.random.default_rng(1).integers(0, 1024, (200, 200))
        found = kmer_information(codes, bases, 1, 5, -2, 1024)
        assert found["bits"] > 3
        assert abs(found["corrected_bits"]) < 0.05

    @pytest.mark.parametrize(("size", "noise"), [(64, 0.3), (512, 0.3), (512, 0.7)])
    def test_noisy_code_is_measured_within_15_percent(self, size, noise):
        """The code is a random function of a 4-mer, replaced by a random code with probability `noise`."""
        rng, bases = np.random.default_rng(size), random_bases(200, 300)
        code_of_kmer = rng.integers(0, size, 256)
        codes = np.pad(code_of_kmer[words(bases, 4)], ((0, 0), (0, 3)))
        codes = np.where(rng.random(codes.shape) < noise, rng.integers(0, size, codes.shape), codes)
        p_of_code = np.full(size, noise / size) + (1 - noise) * np.bincount(code_of_kmer, minlength=size) / 256
        p_given_kmer = np.full(size, noise / size)
        p_given_kmer[0] += 1 - noise
        truth = scipy.stats.entropy(p_of_code, base=2) - scipy.stats.entropy(p_given_kmer, base=2)
        found = kmer_information(codes, bases, 1, 4, 0, size)
        assert found["corrected_bits"] == pytest.approx(truth, rel=0.15)
        assert abs(found["corrected_bits"] - truth) < 0.7 * (found["bits"] - truth)

    def test_kmers_with_n_or_beyond_the_window_are_left_out(self):
        bases = random_bases(3, 40)
        clean = kmer_information(centred_3mers(bases), bases, 1, 3, -1, 64)
        assert clean["positions"] == 3 * 38
        bases[1, 20] = N
        spoilt = kmer_information(np.zeros((3, 40), int), bases, 1, 3, -1, 64)
        assert spoilt["positions"] == 3 * 38 - 3

    def test_sorted_and_table_counts_agree(self, monkeypatch):
        bases = random_bases(10, 100)
        table = kmer_information(centred_3mers(bases), bases, 1, 2, 0, 64)
        monkeypatch.setattr(code_statistics, "_DENSE_CELLS", 0)
        assert kmer_information(centred_3mers(bases), bases, 1, 2, 0, 64) == pytest.approx(table)

    def test_codes_that_do_not_cover_the_bases_are_refused(self):
        with pytest.raises(ValueError, match="do not cover"):
            kmer_information(np.zeros((2, 10), int), random_bases(2, 39), 4, 1, 0, 8)

    def test_one_dead_code_holds_nothing(self):
        found = kmer_information(np.zeros((5, 50), int), random_bases(5, 50), 1, 2, 0, 64)
        assert found["corrected_bits"] == found["explained_share"] == 0

    def test_half_a_million_positions_take_under_two_seconds(self):
        bases, codes = random_bases(1000, 500), np.random.default_rng(0).integers(0, 2048, (1000, 500))
        start = time.perf_counter()
        kmer_information(codes, bases, 1, 5, -2, 2048)
        assert time.perf_counter() - start < 2

    def test_profile_shows_exactly_the_context(self):
        bases = random_bases(100, 200)
        rows = code_statistics.kmer_information_profile(relabel(centred_3mers(bases), 64), bases, 1, 3, 64)
        assert [row["offset"] for row in rows] == [-3, -2, -1, 0, 1, 2, 3]
        bits = [row["corrected_bits"] for row in rows]
        np.testing.assert_allclose(bits, [0, 0, 2, 2, 2, 0, 0], atol=0.01)


class TestBestKmer:
    def test_finds_the_3mer_and_where_it_starts(self):
        bases = random_bases(100, 200)
        found = best_kmer(relabel(centred_3mers(bases), 64), bases, 1, [4, 2, 3], 64)
        assert (found["k"], found["offset"]) == (3, -1)
        assert found["explained_share"] == pytest.approx(1)
        assert [row["k"] for row in found["by_k"]] == [2, 3, 4]
        assert found["by_k"][0]["explained_share"] == pytest.approx(4 / 6, abs=0.01)

    def test_finds_the_patch_of_a_4_bases_code(self):
        bases = random_bases(200, 160)
        codes = relabel(words(bases, 4)[:, ::4], 256)
        found = best_kmer(codes, bases, 4, [3, 4, 5], 256)
        assert (found["k"], found["offset"]) == (4, 0)

    def test_a_coarser_code_is_still_explained_in_full(self):
        bases = random_bases(100, 200)
        found = best_kmer(centred_3mers(bases) // 4, bases, 1, [1, 2, 3], 16)
        assert (found["k"], found["offset"]) == (2, -1)
        assert found["explained_share"] == pytest.approx(1)


class TestPurity:
    def test_counted_by_hand(self):
        bases, codes = np.array([[0, 0, 1, 2, 2, 3, N]], np.uint8), np.array([[0, 0, 0, 1, 1, 1, 0]])
        assert code_statistics.purity(codes, bases, 1)["purity"] == pytest.approx(4 / 6)

    def test_code_that_holds_its_base_is_pure_and_one_that_drifts_is_not(self):
        bases = random_bases(50, 400)
        assert code_statistics.purity(centred_3mers(bases), bases, 1)["purity"] == 1
        drifted = code_statistics.purity(np.roll(bases, 1, axis=1), bases, 1)
        assert drifted["purity"] == pytest.approx(0.25, abs=0.02)
        assert drifted["purity"] == pytest.approx(drifted["chance"], abs=0.01)

    def test_averages_over_the_bases_of_the_code(self):
        bases = random_bases(50, 400)
        found = code_statistics.purity(bases[:, ::2], bases, 2)
        assert found["purity"] == pytest.approx((1 + 0.25) / 2, abs=0.02)

    def test_chance_grows_when_codes_are_rarer_than_data(self):
        codes, bases = np.arange(400).reshape(2, 200), random_bases(2, 200)
        assert code_statistics.purity(codes, bases, 1) == {"purity": 1, "chance": 1}


class TestStrandConsistency:
    def both_strands(self, tokenize, windows=60, length=200):
        bases = random_bases(windows, length)
        return tokenize(bases), tokenize(3 - bases[:, ::-1])

    def test_symmetric_context_agrees_everywhere(self):
        forward, reverse = self.both_strands(lambda bases: relabel(words(bases, 3), 64))
        found = strand_consistency(forward, reverse, 64)
        assert found["consistency"] == 1
        assert found["chance"] == pytest.approx(1 / 64, rel=0.1)

    def test_context_on_one_side_does_not(self):
        # Code i is the 3-mer at i, so that only one base of three is shared with the code facing it: 4 / 64 at best.
        forward, reverse = self.both_strands(lambda bases: words(bases, 3)[:, : bases.shape[1] - 4])
        found = strand_consistency(forward, reverse, 64)
        assert found["chance"] == pytest.approx(1 / 64, rel=0.1)
        assert found["consistency"] == pytest.approx(4 / 64, rel=0.2)

    def test_random_codes_of_an_uneven_codebook_agree_by_chance(self):
        draw = np.random.default_rng(0).choice(5, (2, 200, 100), p=[0.6, 0.2, 0.1, 0.06, 0.04])
        found = strand_consistency(draw[0], draw[1], 5)
        assert found["chance"] == pytest.approx(0.6, abs=0.02)
        assert found["consistency"] == pytest.approx(found["chance"], abs=0.02)

    def test_counted_by_hand(self):
        forward = np.array([[0, 0, 0, 1], [0, 1, 1, 2]])
        facing = np.array([[1, 1, 2, 2], [1, 2, 0, 1]])
        found = strand_consistency(forward, facing[:, ::-1], 3)
        # The even window fits 0 -> 1 and 1 -> 2; code 2 is unknown, so it agrees with nothing.
        assert found["consistency"] == pytest.approx(2 / 4)
        assert found["chance"] == pytest.approx(1 / 4 * 2 / 4 + 2 / 4 * 1 / 4)


class TestSubstitutionEffect:
    def substitute(self, bases, position_B, step=1):
        mutated = bases.copy()
        rows = np.arange(len(bases))
        mutated[rows, position_B] = (mutated[rows, position_B] + step) % 4
        return mutated

    def test_centred_3mers_change_three_codes_and_single_bases_one(self):
        bases, position_B = random_bases(30, 40), np.arange(30) + 5
        both = [np.stack([centred_3mers(x), x], -1) for x in (bases, self.substitute(bases, position_B))]
        found = substitution_effect(*both, position_B, 1)
        assert found == {"changed_per_level": [3, 1], "silent_share": 0, "reach_max": 1, "reach_p95": 1}

    def test_window_ends_cut_the_context(self):
        bases, position_B = random_bases(2, 40), np.array([0, 39], np.uint64)
        mutated = self.substitute(bases, position_B.astype(int))
        found = substitution_effect(centred_3mers(bases)[..., None], centred_3mers(mutated)[..., None], position_B, 1)
        assert found["changed_per_level"] == [2]

    def test_silent_substitutions_are_counted(self):
        bases, position_B = np.zeros((8, 12), np.uint8), np.full(8, 6)
        mutated = self.substitute(bases, position_B, step=np.array([1, 1, 1, 1, 1, 1, 2, 2]))
        purines = substitution_effect(bases[..., None] % 2, mutated[..., None] % 2, position_B, 1)
        assert purines["silent_share"] == 2 / 8
        nothing = substitution_effect(bases[..., None], bases[..., None], position_B, 1)
        assert nothing == {"changed_per_level": [0], "silent_share": 1, "reach_max": 0, "reach_p95": 0}

    def test_distance_is_in_codes_from_the_patch_of_the_base(self):
        bases, position_B = random_bases(16, 64), np.arange(16) + 20
        patches = words(bases, 4)[:, ::4, None]
        mutated = words(self.substitute(bases, position_B), 4)[:, ::4, None]
        assert substitution_effect(patches, mutated, position_B, 4)["reach_max"] == 0
        shifted = substitution_effect(np.roll(patches, 3, axis=1), np.roll(mutated, 3, axis=1), position_B, 4)
        assert (shifted["reach_max"], shifted["reach_p95"]) == (3, 3)

    def test_one_far_change_in_a_hundred_is_the_maximum_and_not_the_95th_percentile(self):
        codes = np.zeros((100, 50, 1), int)
        changed = codes.copy()
        changed[np.arange(100), 10] = 1
        changed[0, 10], changed[0, 30] = 0, 1
        found = substitution_effect(codes, changed, np.full(100, 10), 1)
        assert (found["reach_max"], found["reach_p95"]) == (20, 0)


@pytest.mark.parametrize("k", [1, 3])
def test_kmers_agree_with_a_loop(k):
    bases = np.random.default_rng(2).integers(0, 5, (6, 50)).astype(np.uint8)
    bases[5] = N
    expected = np.zeros((6, 4**k))
    for row, window in enumerate(bases):
        for whole in (window[i : i + k] for i in range(50 - k + 1) if N not in window[i : i + k]):
            expected[row, int("".join(map(str, whole)), 4)] += 1
    counts, shares = (of(bases, k) for of in (code_statistics.kmer_counts, code_statistics.kmer_shares))
    np.testing.assert_array_equal(counts.toarray(), expected)
    np.testing.assert_allclose(
        shares.toarray(), expected / np.maximum(expected.sum(axis=1, keepdims=True), 1), rtol=1e-5
    )
    assert counts.dtype == shares.dtype == np.float32 and not shares[[5]].nnz
    assert code_statistics.kmer_counts(bases[:, : k - 1], k).shape == counts.shape
