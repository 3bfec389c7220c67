"""Splits of one file: a class in each of them, copies together, and a function of what the rows are."""

from collections import Counter

import hypothesis
import hypothesis.strategies as st
import numpy as np

from vqdna_jax.genome.alphabet import reverse_complement
from vqdna_jax.labels import divide

SEQUENCES = list(np.random.default_rng(0).integers(0, 4, (1200, 20)).astype(np.uint8))
few = hypothesis.settings(max_examples=100)


def groups_of(bases) -> np.ndarray:
    return divide.group([divide.strand_hash(bases_S) for bases_S in bases])


def shares_of(split_B: np.ndarray) -> np.ndarray:
    return np.bincount(split_B, minlength=3) / len(split_B)


class TestGroup:
    def test_strands_of_a_sequence_are_one_and_others_are_others(self):
        rng = np.random.default_rng(1)
        bases = [rng.integers(0, 5, n).astype(np.uint8) for n in (1, 2, 3, 50, 51, 50)] + [np.full(3, 4, np.uint8)]
        groups = groups_of(bases + [reverse_complement(bases_S) for bases_S in bases])
        assert groups[:7].tolist() == groups[7:].tolist() and sorted(set(groups)) == list(range(7))

    def test_order_is_that_of_no_row(self):
        order = np.random.default_rng(2).permutation(100)
        groups = groups_of(SEQUENCES[:100])
        np.testing.assert_array_equal(groups_of([SEQUENCES[i] for i in order]), groups[order])
        assert np.abs(np.corrcoef(groups, np.arange(100))[0, 1]) < 0.4

    def test_sequences_with_several_labels_are_counted(self):
        groups_B = np.array([4, 0, 1, 1, 0, 2, 2, 2, 4])
        assert divide.count_of_several(groups_B, np.array([0, 1, 2, 2, 0, 5, 5, 6, 0])) == 2
        assert divide.count_of_several(groups_B, np.eye(9, 2) > 0) == 2
        assert divide.count_of_several(np.arange(9), np.arange(9)) == 0


class TestDivideClasses:
    @few
    @hypothesis.given(st.lists(st.integers(3, 60), min_size=1, max_size=6), st.integers(0, 99))
    def test_each_split_has_its_share_of_each_class(self, sizes, seed):
        labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
        split_B = divide.divide_classes(groups_of(SEQUENCES[: len(labels)]), labels)
        for label, size in enumerate(sizes):
            train, dev, test = np.bincount(split_B[labels == label], minlength=3)
            assert dev == test and abs(dev - max(size / 10, 1)) <= 0.5 and train >= 1

    @few
    @hypothesis.given(st.integers(0, 9999))
    def test_a_class_is_in_each_split_though_its_sequences_have_other_labels_too(self, seed):
        """Sequences have up to three of four labels, of which one is rare."""
        rng = np.random.default_rng(seed)
        rows = [(group, label) for group in range(12) for label in rng.choice(4, rng.integers(1, 4), replace=False)]
        groups_B, labels_B = np.array(rows).T
        groups_B = np.unique(groups_B, return_inverse=True)[1]
        split_B = divide.divide_classes(groups_B, labels_B)
        assert all(len(set(split_B[groups_B == group])) == 1 for group in range(12))
        for label, count in Counter(labels_B.tolist()).items():
            assert count < 3 or set(split_B[labels_B == label]) == {0, 1, 2}
