"""Scores of changes: their definition, written out; the same however a change is written and from either strand."""

import functools

import numpy as np
import pytest
import slow_scores
from refusals import refusal
from small_sequences import random_bases
from tiny_pretrained import save_tiny_pretrained

from vqdna_jax.genome.alphabet import reverse_complement, to_text
from vqdna_jax.inference import changes
from vqdna_jax.inference import load as inference_load

CLOSE = {"atol": 2e-4, "rtol": 1e-4}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """bases_per_code to a model whose windows have 47 bases or 46."""

    @functools.cache
    def load(bases_per_code: int):
        directory = tmp_path_factory.mktemp("effects") / "export"
        save_tiny_pretrained(directory, bases_per_code, 48 // bases_per_code)
        return inference_load.load(directory)

    return load


def replaced(bases: np.ndarray, start: int, stop: int, by: str) -> np.ndarray:
    return np.concatenate([bases[:start], np.frombuffer(by.encode(), np.uint8) - ord("0"), bases[stop:]])


CHANGES = [  # in a sequence of 300 bases
    (150, 151, "one"),
    (2, 3, "one"),
    (299, 300, "one"),
    (150, 152, ""),
    (149, 149, "0210"),
    (298, 300, "11"),
]


def changed(bases: np.ndarray, start: int, stop: int, by: str) -> np.ndarray:
    return replaced(bases, start, stop, str((bases[start] + 1) % 4) if by == "one" else by)


@pytest.mark.parametrize("bases_per_code", [1, 2])
def test_scores_are_what_their_definition_says(models, bases_per_code):
    model, bases = models(bases_per_code), random_bases(300)
    alternatives = [changed(bases, *change) for change in CHANGES]
    found = model.score([bases] * len(CHANGES), alternatives)
    for i, alternative in enumerate(alternatives):
        change = changes.change_of(bases, alternative)
        ratio_R = slow_scores.log_ratio(model.pretrained, *change)
        assert abs(found.llr[i] - ratio_R.mean()) < 1e-3 and abs(found.llr_spread[i] - ratio_R.std()) < 1e-3
        mean, at, embedding = slow_scores.distances(model.pretrained, *change)
        np.testing.assert_allclose([found.distance[i], found.distance_at[i]], [mean, at], **CLOSE)
        np.testing.assert_allclose(found.embeddings[i], embedding, **CLOSE)


@pytest.mark.parametrize("bases_per_code", [1, 2])
def test_the_other_strand_and_more_sequence_around_give_the_same(models, bases_per_code):
    model, bases = models(bases_per_code), random_bases(900)
    around = model.score([bases] * 4, [changed(bases, 450 + a, 450 + b, by) for a, b, by in SHIFTED])
    for first, last in ((0, 900), (3, 890), (449 - 128, 453 + 128)):
        part = bases[first:last]
        alternatives = [changed(part, 450 + a - first, 450 + b - first, by) for a, b, by in SHIFTED]
        for strand in (np.copy, reverse_complement):
            found = model.score([strand(part)] * 4, list(map(strand, alternatives)))
            for name, value, expected in zip(found._fields, found, around):
                np.testing.assert_allclose(value, expected, **CLOSE, err_msg=name)


SHIFTED = [(0, 1, "one"), (0, 2, ""), (1, 1, "33"), (0, 3, "2")]


def test_a_change_among_repeats_is_everywhere_it_could_be():
    reference = np.array([0, 1, 3, 1, 3, 1, 3, 2, 0], np.uint8)
    for first in (1, 2, 3, 4, 5):
        change = changes.change_of(reference, replaced(reference, first, first + 2, ""))
        assert (change.start, change.reference_stop, change.alternative_stop) == (1, 7, 5)
    assert changes.change_of(reference, reference.copy()) is None
    insertion = changes.change_of(reference, replaced(reference, 8, 8, "2"))
    assert insertion[2:] == (7, 8, 9)


@pytest.mark.parametrize("bases_per_code", [1, 2])
def test_codes_far_from_a_change_are_not_counted(models, bases_per_code):
    model, bases = models(bases_per_code), random_bases(300)
    r, halo = bases_per_code, model.tokenizer.config.receptive_codes
    alternatives = [changed(bases, *change) for change in ((150, 151, "one"), (150, 154, ""), (150, 150, "0210"))]
    found = model.score([bases] * 3, alternatives)
    assert (found.codes_changed > 0).all() and (found.codes_changed <= 2 * halo + 1 + 16 // r).all()


def test_codes_that_change_are_counted_on_both_strands(models):
    model, bases = models(1), random_bases(200)  # of four windows, in the middle of which a base changes
    alternative, counts = changed(bases, 100, 101, "one"), []
    for before, after in ((bases, alternative), tuple(map(reverse_complement, (bases, alternative)))):
        counts.append((model.encode(before) != model.encode(after)).any(axis=1).sum())
    assert model.score(bases, alternative).codes_changed == np.mean(counts)


def test_letters_and_single_sequences(models):
    model, bases = models(1), random_bases(200)
    alternative = changed(bases, 100, 101, "one")
    one, many = model.score(to_text(bases), to_text(alternative)), model.score([bases], [alternative])
    assert all(np.array_equal(a, b) for a, b in zip(one, many)) and one.llr.shape == (1,)
    assert model.score([], []).embeddings.shape == (0, 32)


@pytest.mark.parametrize(
    "reference, alternative, words",
    [
        ("ACGT" * 9, "ACGT" * 9, "sequence 0: both are the same"),
        ("ACGTNCGT", "ACGTACGT", "sequence 0, position 4: changes from or to N"),
        ("ACGT" * 9, "ACGT" * 4 + "A" * 50 + "ACGT" * 5, "are 67 bases; expected 23 at most"),
        (["ACGT"], ["ACG", "ACT"], "1 references, 2 alternatives"),
        ("", "A", "is empty"),
    ],
)
def test_what_cannot_be_scored_is_refused(models, reference, alternative, words):
    assert words in refusal(models(1).score, reference, alternative)


def test_a_tokenizer_says_what_it_lacks(tokenizer_dir):
    assert "score needs a pretrained model" in refusal(inference_load.load(tokenizer_dir).score, "ACGT", "ACCT")
