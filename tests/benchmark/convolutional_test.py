"""The control that is a network trained from nothing: what it learns, what it cannot, and that a seed is a result."""

import dataclasses
import functools
import pathlib

import jax
import numpy as np
import pytest
from small_labelled import write_splits
from small_sequences import random_bases

from vqdna_jax.benchmark import convolutional
from vqdna_jax.genome.alphabet import to_text
from vqdna_jax.labels import sets
from vqdna_jax.labels.sets import LabelledSet
from vqdna_jax.models.convolutional import Convolutional

ROWS, BASES = {"train": 640, "dev": 128, "test": 128}, 32
MOTIF = np.array([1, 2, 1, 0, 2, 3, 2, 2], np.uint8)
SMALL = functools.partial(Convolutional, motifs=64, width=32, hidden=64)  # runner_test.py trains the whole one
METRICS = {"classification": "mcc", "multilabel": "mcc", "regression": "spearman"}


def planted(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random bases and, in every second row, a motif at a place of its own."""
    count, rng = sum(ROWS.values()), np.random.default_rng(seed)
    bases_BxS, labels_B = random_bases(count, BASES, seed=seed), np.arange(count) % 2
    for row in np.flatnonzero(labels_B):
        at = rng.integers(0, BASES - len(MOTIF))
        bases_BxS[row, at : at + len(MOTIF)] = MOTIF
    return bases_BxS, labels_B


def read(folder: pathlib.Path, bases_BxS: np.ndarray, labels, kind: str = "classification") -> LabelledSet:
    ends = np.cumsum([0, *ROWS.values()])
    rows = [(to_text(bases), label) for bases, label in zip(bases_BxS, labels)]
    parts = {name: rows[start:end] for name, start, end in zip(ROWS, ends, ends[1:])}
    return sets.read_set(write_splits(folder, **parts), kind)


def run(labelled_set: LabelledSet, seed: int = 0) -> dict:
    return convolutional.run(labelled_set, METRICS[labelled_set.kind], seed, SMALL)


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> tuple[LabelledSet, dict]:
    labelled_set = read(tmp_path_factory.mktemp("planted"), *planted())
    return labelled_set, run(labelled_set)


def test_a_motif_at_any_place_is_learnt(found):
    assert found[1]["dev"]["mcc"] > 0.9 and found[1]["test"]["mcc"] > 0.85


def test_a_seed_is_a_result_and_test_rows_choose_nothing(found):
    """Inverted labels of test invert its score, to the bit, and leave dev as it was."""
    labelled_set, scores = found
    test = dataclasses.replace(labelled_set.splits["test"], labels=1 - labelled_set.splits["test"].labels)
    inverted = run(dataclasses.replace(labelled_set, splits={**labelled_set.splits, "test": test}))
    assert inverted["dev"] == scores["dev"] and inverted["test"]["mcc"] == -scores["test"]["mcc"]


def test_shuffled_labels_give_nothing(tmp_path):
    bases_BxS, labels_B = planted()
    labelled_set = read(tmp_path / "shuffled", bases_BxS, np.random.default_rng(1).permutation(labels_B))
    assert abs(run(labelled_set)["test"]["mcc"]) < 0.25


def test_a_position_is_learnt(tmp_path):
    """The same letters in all rows, in the other half of them."""
    count = sum(ROWS.values())
    bases_BxS, labels_B = np.zeros((count, BASES), np.uint8), np.arange(count) % 2
    for row, (label, at) in enumerate(zip(labels_B, np.random.default_rng(0).integers(0, 8, count))):
        bases_BxS[row, 16 * label + at : 16 * label + at + len(MOTIF)] = MOTIF
    assert run(read(tmp_path / "position", bases_BxS, labels_B))["test"]["mcc"] > 0.9


def test_values_are_learnt_on_their_own_scale(tmp_path):
    bases_BxS = random_bases(sum(ROWS.values()), BASES)
    values_B = 1000 + 50 * np.isin(bases_BxS, (1, 2)).mean(axis=1) + 0.5
    scores = run(read(tmp_path / "values", bases_BxS, values_B, "regression"))["test"]
    assert scores["spearman"] > 0.9 and scores["r2"] > 0.7


@pytest.mark.parametrize("length", [1, 5, 41, 300])
def test_any_length_is_read_and_a_row_by_itself_as_among_others(length):
    network, bases_BxS = SMALL(2), random_bases(6, length)
    weights = jax.jit(network.init)(jax.random.key(0), bases_BxS)
    logits_BxV, alone_BxV = (jax.jit(network.apply)(weights, rows) for rows in (bases_BxS, bases_BxS[:2]))
    assert logits_BxV.shape == (6, 2) and np.isfinite(logits_BxV).all()
    np.testing.assert_allclose(alone_BxV, logits_BxV[:2], atol=1e-5)


@pytest.mark.parametrize("length", [70, 101, 300])
def test_it_is_of_about_a_million_weights(length):
    weights = jax.eval_shape(Convolutional(2).init, jax.random.key(0), np.zeros((1, length), np.uint8))
    assert 0.8e6 < sum(leaf.size for leaf in jax.tree.leaves(weights)) < 2e6
