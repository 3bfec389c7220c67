"""Likelihoods of hidden bases: what training scores, alike on both strands, in all phases, wherever a stretch lies."""

import functools

import jax
import numpy as np
import pytest
from refusals import refusal
from small_sequences import random_bases
from tiny_pretrained import save_tiny_over_fixed, save_tiny_pretrained

from vqdna_jax import partition
from vqdna_jax.genome.alphabet import reverse_complement
from vqdna_jax.genome.windows import Windows
from vqdna_jax.inference import likelihood
from vqdna_jax.inference import load as inference_load
from vqdna_jax.inference.likelihood import Stretch
from vqdna_jax.models.transformer import Compute
from vqdna_jax.tasks.masked_codes import FrozenTokenizer, MaskedCodes
from vqdna_jax.tasks.masking import Masked, Masking, Masks
from vqdna_jax.tokenizers.kmers import Kmers

CLOSE = {"atol": 2e-4, "rtol": 0}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """(bases_per_code, codes of a window) to the pretrained model of an export."""

    @functools.cache
    def load(bases_per_code: int, context: int = 64):
        directory = tmp_path_factory.mktemp("likelihood") / "export"
        save_tiny_pretrained(directory, bases_per_code, context)
        return inference_load.load(directory).pretrained

    return load


def every(model, *stretches: Stretch) -> list[np.ndarray]:
    return list(likelihood.log_probabilities(model, stretches))


def by_training(model, windows_BxS: np.ndarray, positions_B: np.ndarray) -> np.ndarray:
    """ln p of the true base at a position of each training window, by the task that trains such models."""
    r, rows = model.tokenizer.bases_per_code, len(windows_BxS)
    task = MaskedCodes(model.tokenizer.config, model.transformer, Compute(), Masking("bases"), 1.0)
    hidden_BxS = np.zeros((rows, model.length * r), bool)
    np.put_along_axis(hidden_BxS, positions_B[:, None], True, axis=1)
    hidden_BxLxR = hidden_BxS.reshape(rows, -1, r)
    at_Bx1 = (positions_B[:, None] // r).astype(np.int32)
    masks = Masks(at_Bx1, hidden_BxLxR.any(axis=2), np.zeros(rows, bool), np.ones((rows, 1), bool), hidden_BxLxR)
    frozen = FrozenTokenizer(model.tokenizer.params["encoder"], model.tokenizer.codes_KxD)
    with jax.set_mesh(model.mesh):
        batch = partition.batch_to_devices(Masked(Windows(windows_BxS), masks), model.mesh, rows)
        scores = jax.jit(task.predict)(model.weights, (), frozen, batch)
    return -np.asarray(scores["base_loss_BxMxR"])[np.arange(rows), 0, positions_B % r]


def test_it_is_what_training_scores(models):
    """On each strand, in each phase."""
    model, bases_S, position = models(4), random_bases(400), 200
    windows, places = [], []
    for sequence_S, place in ((bases_S, position), (reverse_complement(bases_S), 399 - position)):
        for start in likelihood.starts(model, 400, place, place + 1):
            windows.append(sequence_S[start : start + 64 * 4])
            places.append(place - start)
    expected_2xR = by_training(model, np.stack(windows), np.array(places)).reshape(2, -1)
    (found_Rx1x4,) = likelihood.phase_log_probabilities(model, [Stretch(bases_S, position, position + 1)])
    np.testing.assert_allclose(found_Rx1x4[:, 0, bases_S[position]], expected_2xR.mean(axis=0), **CLOSE)


@pytest.mark.parametrize("bases_per_code", [1, 4])
@pytest.mark.parametrize("start, stop", [(0, 1), (0, 20), (398, 400), (399, 400), (180, 200), (201, 202)])
def test_it_is_a_distribution_and_the_same_from_the_other_strand(models, bases_per_code, start, stop):
    model = models(bases_per_code)
    bases = random_bases(400)
    (log_Mx4,) = every(model, Stretch(bases, start, stop))
    assert log_Mx4.shape == (stop - start, 4) and log_Mx4.dtype == np.float32
    np.testing.assert_allclose(np.exp(log_Mx4).sum(axis=1), 1, atol=1e-5)
    (other_Mx4,) = every(model, Stretch(reverse_complement(bases), 400 - stop, 400 - start))
    np.testing.assert_allclose(other_Mx4[::-1, ::-1], log_Mx4, **CLOSE)


@pytest.mark.parametrize("bases_per_code", [1, 4])
def test_it_does_not_depend_on_where_a_sequence_begins(models, bases_per_code):
    model = models(bases_per_code)
    bases, at = random_bases(1500), 700
    (log_Mx4,) = every(model, Stretch(bases, at, at + 3))
    around = likelihood.reach(model)
    for first in (0, 1, 2, 3, 5, at - around):
        (shifted_Mx4,) = every(model, Stretch(bases[first : at + 3 + around], at - first, at - first + 3))
        np.testing.assert_allclose(shifted_Mx4, log_Mx4, **CLOSE)


def test_the_hidden_base_itself_is_not_seen(models):
    model = models(4)
    bases, others = random_bases(300), []
    for base in range(4):
        bases[150] = base
        others += every(model, Stretch(bases.copy(), 150, 151))
    assert all(np.array_equal(other, others[0]) for other in others)
    bases[152] = (bases[152] + 1) % 4
    assert not np.allclose(every(model, Stretch(bases, 150, 151))[0], others[0], atol=1e-3)


@pytest.mark.parametrize("bases_per_code, length", [(1, 5), (1, 40), (4, 9), (4, 63 * 4 - 1), (4, 63 * 4 + 1)])
def test_short_sequences_and_neighbours_change_nothing(models, bases_per_code, length):
    model = models(bases_per_code)
    stretches = [Stretch(bases, first, len(bases)) for bases in map(random_bases, (length, 90)) for first in (0, 4)]
    stretches = [s._replace(start=max(s.start, s.stop - likelihood.longest(model))) for s in stretches]
    alone = [every(model, stretch)[0] for stretch in stretches]
    assert all(np.isfinite(log_Mx4).all() for log_Mx4 in alone)
    for together, by_itself in zip(every(model, *stretches), alone):
        np.testing.assert_allclose(together, by_itself, **CLOSE)


def test_with_shorter_windows_it_is_a_model_of_such_windows(models):
    stretch = Stretch(random_bases(400), 200, 203)
    shorter, expected = models(4).with_window(160), models(4, 40)
    assert shorter.context == expected.context and likelihood.longest(shorter) == likelihood.longest(expected)
    np.testing.assert_array_equal(every(shorter, stretch), every(expected, stretch))
    assert not np.allclose(every(models(4), stretch), every(shorter, stretch), atol=1e-4)


def test_a_model_over_fixed_tokens_is_refused(tmp_path):
    save_tiny_over_fixed(tmp_path / "export", Kmers(3))
    model = inference_load.load(tmp_path / "export").pretrained
    assert "whose heads name bases" in refusal(likelihood.check, model, "DIR", "score")
