"""Scores of changes by models over tokens, imported and own: their definition, written out, and what it promises."""

import functools
import pathlib

import numpy as np
import pytest
import slow_token_scores
from small_sequences import random_bases
from tiny_pretrained import save_tiny_over_fixed

from vqdna_jax.genome.alphabet import N, reverse_complement
from vqdna_jax.inference import changes, load
from vqdna_jax.rivals.importing import import_model
from vqdna_jax.tokenizers.kmers import OverlappingKmers

GOLDEN = pathlib.Path(__file__).parents[1] / "rivals/golden"
IMPORTED = ["dnabert", "dnabert2", "nt", "hyenadna"]
OWN = {"3-mers": OverlappingKmers(3)}
CLOSE = {"atol": 2e-4, "rtol": 2e-4}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The model of a name; windows are short enough that a contig goes on behind them."""

    @functools.cache
    def make(name: str):
        directory = tmp_path_factory.mktemp("token_effects") / name
        if name in OWN:
            save_tiny_over_fixed(directory, OWN[name])
        else:
            import_model(name.partition("_")[0], GOLDEN / name, directory)
        return load.load(directory)

    return make


def replaced(bases: np.ndarray, start: int, stop: int, by: list[int]) -> np.ndarray:
    return np.concatenate([bases[:start], np.array(by, np.uint8), bases[stop:]])


def one(bases: np.ndarray, at: int) -> np.ndarray:
    return replaced(bases, at, at + 1, [(bases[at] + 1) % 4])


def some(bases: np.ndarray) -> list[np.ndarray]:
    """Of one base for another, in the middle and at both ends, insertions, deletions and others; one beside an N."""
    end, middle = len(bases), len(bases) // 2
    ones = [one(bases, at) for at in (0, 2, middle, end - 40, end - 1)]
    inserted = [(bases[middle] + 1) % 4, (bases[middle - 1] + 1) % 4]  # it can lie nowhere else
    longer = [replaced(bases, middle, middle, inserted), replaced(bases, end - 2, end, [1, 1, 0])]
    return [*ones, *longer, replaced(bases, middle, middle + 1, []), replaced(bases, middle, middle + 2, [3, 3, 1])]


@pytest.mark.parametrize("name", [*IMPORTED, *OWN])
def test_scores_are_what_their_definition_says(models, name):
    model, bases = models(name), replaced(random_bases(400), 358, 359, [N])
    alternatives = some(bases)
    found = model.score([bases] * len(alternatives), alternatives)
    for i, alternative in enumerate(alternatives):
        ratio_R = slow_token_scores.log_ratio(model.pretrained, *changes.change_of(bases, alternative))
        np.testing.assert_allclose([found.llr[i], found.llr_spread[i]], [ratio_R.mean(), ratio_R.std()], **CLOSE)
    assert np.ptp(found.llr) > 0.1
    assert model.tokenizer.phases == (3 if name == "nt" else 1) and found.llr_spread.any() == (name == "nt")


@pytest.mark.parametrize("name", IMPORTED)
def test_the_other_strand_and_more_sequence_around_give_the_same(models, name):
    model, bases = models(name), random_bases(700)
    alternatives = [a for a in some(bases) if (a[:200] == bases[:200]).all() and (a[-200:] == bases[-200:]).all()]
    around = model.score([bases] * len(alternatives), alternatives)
    for first, last in ((0, 700), (31, 680)):
        for strand in (np.copy, reverse_complement):
            behind = 700 - last
            parts = [strand(x[first : len(x) - behind]) for x in alternatives]
            found = model.score([strand(bases[first:last])] * len(parts), parts)
            for field, value, expected in zip(found._fields, found, around):
                np.testing.assert_allclose(value, expected, **CLOSE, err_msg=field)


@pytest.mark.parametrize("name", IMPORTED)
def test_back_again_is_the_opposite_and_neighbours_change_nothing(models, name):
    model, bases = models(name), random_bases(300)
    alternatives = [one(bases, at) for at in (0, 150, 151, 152)]
    there, back = model.score([bases] * 4, alternatives), model.score(alternatives, [bases] * 4)
    np.testing.assert_allclose(there.llr, -back.llr, **CLOSE)
    alone = [model.score(bases, alternative) for alternative in alternatives]
    for field, value in zip(there._fields, there):
        np.testing.assert_array_equal(value, np.concatenate([getattr(x, field) for x in alone]), err_msg=field)


@pytest.mark.parametrize(("name", "codes"), [("dnabert", 3), ("nt", 1), ("hyenadna", 1)])
def test_words_that_have_a_base_change_with_it(models, name, codes):
    bases = random_bases(300)
    found = models(name).score(bases, one(bases, 150))
    assert found.codes_changed == codes
    assert 0 < found.distance < found.distance_at


def test_a_base_between_unknown_ones_has_no_word(models):
    """Of overlapping 3-mers; single bases have one."""
    bases = random_bases(300)
    bases[[149, 151]] = N
    assert models("dnabert").score(bases, one(bases, 150)).llr == 0
    assert models("nt").score(bases, one(bases, 150)).llr != 0


@pytest.mark.parametrize("name", IMPORTED)
def test_with_shorter_windows_it_reads_less(models, name):
    base, bases = models(name).pretrained.with_window(36), random_bases(300)
    assert base.window_bp == 36 and base.length <= models(name).pretrained.length
    far, near = (one(bases, at) for at in (190, 160))
    scores = [changes.change_of(x, one(x, 150)) for x in (bases, far, near)]
    plain, same, other = (slow_token_scores.log_ratio(base, *change).mean() for change in scores)
    assert plain == same != other
