"""The vocabulary task: augmentation on device, the loss, and what hiding does."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqdna_jax import partition
from vqdna_jax.genome import alphabet
from vqdna_jax.genome.windows import Windows
from vqdna_jax.models.tokenizer import TokenizerConfig
from vqdna_jax.tasks import base, vocabulary

MODEL = TokenizerConfig(code_size=4, width=8, blocks=2, expansion=2, stem_channels=6, dtype="float32")
TASK = vocabulary.Vocabulary(MODEL, 0.5, 0.9, 0.03, 0.1, hidden_share=0.0)
CONTEXT = dataclasses.replace(TASK, model=dataclasses.replace(MODEL, reach=3))

pytestmark = pytest.mark.usefixtures("one_device")


def random_batch(windows=16, length=32, letters=5):
    bases = np.random.default_rng(0).integers(0, letters, (windows, length)).astype(np.uint8)
    return bases, jax.reshard(jnp.asarray(bases), partition.spec("batch", None))


def test_reverse_complement_on_device_is_the_genomes_and_an_involution():
    bases, on_device = random_batch()
    reverse = jax.jit(base.reverse_complement)(on_device)
    np.testing.assert_array_equal(reverse, alphabet.reverse_complement(bases))
    np.testing.assert_array_equal(jax.jit(base.reverse_complement)(reverse), bases)


def test_each_window_is_one_of_its_two_strands_and_both_occur():
    bases, on_device = random_batch(64)
    seen = np.asarray(jax.jit(base.random_strand)(on_device, jax.random.key(0)))
    forward = (seen == bases).all(axis=1)
    assert (forward | (seen == alphabet.reverse_complement(bases)).all(axis=1)).all()
    assert 16 < forward.sum() < 48


def test_hiding_touches_about_its_share_of_every_second_row():
    bases, on_device = random_batch(200, 200, letters=4)
    seen = np.asarray(jax.jit(vocabulary.hide, static_argnums=1)(on_device, 0.15, jax.random.key(1)))
    hidden = seen != bases
    assert (seen[hidden] == base.UNKNOWN).all()
    assert not hidden[::2].any() and hidden[1::2].mean() == pytest.approx(0.15, abs=0.01)


def test_reconstruction_loss_is_the_mean_over_known_bases():
    bases, on_device = random_batch()
    logits = np.random.default_rng(1).normal(size=(*bases.shape, 4)).astype(np.float32)
    log_p = logits - np.log(np.exp(logits.astype(np.float64)).sum(-1, keepdims=True))
    rows, columns = np.nonzero(bases < 4)
    picked = log_p[rows, columns, bases[rows, columns]]
    loss, metrics = vocabulary.reconstruction_loss(jax.reshard(jnp.asarray(logits), jax.P()), on_device)
    assert float(loss) == pytest.approx(-picked.mean(), rel=1e-5)
    hits = logits[rows, columns].argmax(-1) == bases[rows, columns]
    assert float(metrics["reconstruction_accuracy"]) == pytest.approx(hits.mean(), rel=1e-6)


@pytest.fixture(params=[TASK, CONTEXT], ids=["convolutions", "context"])
def task(request):
    return request.param


@pytest.fixture
def initial(task):
    return first(task)


@functools.cache
def first(task):
    """(a batch, the first parameters, the first codebooks)"""
    _, batch = random_batch(letters=4)
    batch = Windows(batch)
    params = jax.jit(task.init_params)((), batch, jax.random.key(0))
    codebooks = jax.jit(task.init_codebooks)(params, batch, jax.random.key(1))
    return batch, params, codebooks


@functools.partial(jax.jit, static_argnums=0)
def loss_of(task, params, codebooks, batch):
    return task.loss(params, codebooks, (), batch, jax.random.key(2))


def test_loss_is_reconstruction_plus_weighted_commitment_and_moves_every_codebook(task, initial):
    batch, params, codebooks = initial
    loss, (updated, metrics) = loss_of(task, params, codebooks, batch)
    assert float(loss) == pytest.approx(float(metrics["reconstruction_loss"] + 0.5 * metrics["commitment_loss"]))
    assert [codebook.counts_K.size for codebook in updated] == [8, 16]
    assert all(np.any(new.sums_KxD != old.sums_KxD) for new, old in zip(updated, codebooks))


def test_gradients_reach_every_parameter_and_no_codebook(task, initial):
    batch, params, codebooks = initial

    def loss(params, codebooks):
        return task.loss(params, codebooks, (), batch, jax.random.key(2))[0]

    by_params, by_codebooks = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, codebooks)
    for path, gradient in jax.tree_util.tree_leaves_with_path(by_params):
        assert np.any(gradient), f"no gradient at {jax.tree_util.keystr(path)}"
    assert not any(np.any(gradient) for gradient in jax.tree.leaves(by_codebooks))


def test_hidden_bases_are_scored_but_not_seen(task, initial):
    """With everything hidden in every second window the encoder sees nothing of these: the loss cannot depend on which
    bases they have, only on how the decoder's one guess fits them."""
    batch, params, codebooks = initial
    blind = dataclasses.replace(task, hidden_share=1.0)
    second_B = (np.arange(len(batch.bases_BxS)) % 2)[:, None]
    others = Windows(jnp.where(second_B, (batch.bases_BxS + 1) % 4, batch.bases_BxS))
    _, (updated, metrics) = loss_of(blind, params, codebooks, batch)
    _, (also, other) = loss_of(blind, params, codebooks, others)
    assert float(metrics["commitment_loss"]) == float(other["commitment_loss"])
    assert float(metrics["reconstruction_loss"]) != float(other["reconstruction_loss"])
    chex.assert_trees_all_equal(updated, also)


def test_codebooks_follow_the_windows_in_which_nothing_is_hidden(task, initial):
    batch, params, codebooks = initial
    _, (little, _) = loss_of(dataclasses.replace(task, hidden_share=0.1), params, codebooks, batch)
    _, (much, _) = loss_of(dataclasses.replace(task, hidden_share=0.9), params, codebooks, batch)
    _, (none, _) = loss_of(task, params, codebooks, batch)
    chex.assert_trees_all_equal(little, much)
    assert any(np.any(a != b) for a, b in zip(jax.tree.leaves(little), jax.tree.leaves(none)))


def test_predict_gives_codes_bases_and_the_mean_embedding(task, initial):
    batch, params, codebooks = initial
    outputs = jax.jit(task.predict)(params, codebooks, (), batch)
    codes = np.asarray(outputs["codes"])
    assert codes.shape == (16, 32, 2) and (codes < [8, 16]).all()
    vectors = [np.asarray(codebook.codes_KxD())[codes[..., n]] for n, codebook in enumerate(codebooks)]
    np.testing.assert_allclose(outputs["embedding"], np.mean(vectors, axis=0).mean(axis=1), atol=1e-5)
