"""Shuffles: every order of the same pairs, each as often as any other."""

import itertools
from collections import Counter

import numpy as np
import pytest
import scipy.stats

from vqdna_jax.genome.alphabet import to_bases, to_text
from vqdna_jax.labels.peaks.shuffle import shuffle_pairs


def pairs(text: str) -> Counter:
    return Counter(map("".join, itertools.pairwise(text)))


@pytest.mark.parametrize("letters", ["AC", "ACG", "ACGT", "ACGTN"])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 50, 500])
def test_pairs_are_kept_exactly(letters, size):
    rng = np.random.default_rng(size)
    for seed in range(5):
        text = "".join(rng.choice(list(letters), size))
        found = to_text(shuffle_pairs(to_bases(text), seed))
        assert pairs(found) == pairs(text) and Counter(found) == Counter(text)


def test_every_order_is_as_likely():
    """All words with the pairs of one, against a count of shuffles: chi-squared within its 99.9th percentile."""
    text = "ACAGATCA"
    words = {"".join(word) for word in itertools.permutations(text) if pairs("".join(word)) == pairs(text)}
    found = Counter(to_text(shuffle_pairs(to_bases(text), seed)) for seed in range(4000))
    assert set(found) == words and len(words) > 5
    expected = 4000 / len(words)
    apart = sum((count - expected) ** 2 / expected for count in found.values())
    assert apart < scipy.stats.chi2.ppf(0.999, len(words) - 1)


def test_a_seed_gives_one_shuffle():
    bases = to_bases("ACGTTGCATTGACCAGGT" * 9)
    assert to_text(shuffle_pairs(bases, 5)) == to_text(shuffle_pairs(bases, 5)) != to_text(shuffle_pairs(bases, 6))
