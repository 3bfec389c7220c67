"""Masked code modelling: what is hidden stays hidden, losses are what they say, the tokenizer stays frozen."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_sequences import random_bases
from tiny_tokenizer import tiny_config, tiny_weights

from vqdna_jax.evaluation.masked_bases import sparse_masks
from vqdna_jax.genome.windows import Windows
from vqdna_jax.models.transformer import Compute, TransformerConfig
from vqdna_jax.partition import spec
from vqdna_jax.tasks.base import cross_entropy
from vqdna_jax.tasks.masked_codes import FrozenTokenizer, MaskedCodes
from vqdna_jax.tasks.masking import KINDS, Masked, Masking

B, S = 8, 48

pytestmark = pytest.mark.usefixtures("one_device")


def make(kind="bases", bases_per_code=1, base_weight=1.0, **model) -> MaskedCodes:
    network = TransformerConfig(layers=2, width=16, heads=2, hidden=24, dtype="float32", **model)
    masking = Masking(kind, rate=0.3, span=7)
    return MaskedCodes(tiny_config("hrq", bases_per_code), network, Compute(), masking, base_weight)


@functools.cache
def tokenizer(bases_per_code=1) -> FrozenTokenizer:
    params, codebooks = tiny_weights("hrq", bases_per_code)
    return FrozenTokenizer(params["encoder"], tuple(c.sums_KxD / c.counts_K[:, None] for c in codebooks))


def batch_of(bases) -> Windows:
    return Windows(jax.reshard(jnp.asarray(bases), spec("batch", None)))


@functools.cache
def first(bases_per_code=1):
    """The first parameters, which neither the masking nor what losses weigh changes."""
    init = jax.jit(make(bases_per_code=bases_per_code).init_params)
    return init(tokenizer(bases_per_code), batch_of(random_bases(B, S)), jax.random.key(0))


@functools.cache
def trained_like(bases_per_code=1):
    """Parameters away from their first values: heads that are zero hide everything."""
    leaves, tree = jax.tree.flatten(first(bases_per_code))
    keys = jax.random.split(jax.random.key(5), len(leaves))
    return jax.tree.unflatten(tree, [x + 0.2 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys)])


@pytest.mark.parametrize("bases_per_code", [1, 4])
@pytest.mark.parametrize("kind", ["bases", "base_spans"])
def test_a_hidden_base_reaches_nothing_that_the_network_reads(kind, bases_per_code):
    """Other letters in the hidden places: the same input codes, so the same logits, and other targets."""
    task, bases, frozen = make(kind, bases_per_code), random_bases(B, S), tokenizer(bases_per_code)
    masks = jax.jit(task.masked)(batch_of(bases), jax.random.key(1)).masks
    hidden_BxS = np.asarray(masks.hidden_BxLxR).reshape(B, -1)
    changed = bases.copy()
    changed[:, : hidden_BxS.shape[1]] = np.where(
        hidden_BxS, 3 - bases[:, : hidden_BxS.shape[1]], bases[:, : hidden_BxS.shape[1]]
    )
    codes = jax.jit(lambda batch: task.codes(frozen, Masked(batch, masks)))
    (inputs, targets), (inputs_2, targets_2) = codes(batch_of(bases)), codes(batch_of(changed))
    np.testing.assert_array_equal(inputs, inputs_2)
    assert (np.asarray(targets) != np.asarray(targets_2)).any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_may_be_one_long_window(kind):
    task, batch = make(kind), batch_of(random_bases(1, S))
    params = jax.eval_shape(task.init_params, tokenizer(), batch, jax.random.key(0))

    def gradient(params):
        loss = jax.grad(task.loss, has_aux=True)
        return loss(params, (), tokenizer(), task.prepare(batch, jax.random.key(1)), jax.random.key(2))[0]

    found = jax.eval_shape(gradient, params)
    assert jax.tree.map(lambda x: x.shape, found) == jax.tree.map(lambda x: x.shape, params)


def test_a_masked_code_reaches_no_output_by_gradient():
    """The paper's masking: of a replaced code nothing is left, neither in its own place nor beside it."""
    task, batch = make("codes"), batch_of(random_bases(B, S))
    params, prepared = trained_like(), jax.jit(task.masked)(batch, jax.random.key(1))
    masks, (inputs, _) = prepared.masks, jax.jit(task.codes)(tokenizer(), prepared)

    def total(vectors):
        args = (vectors, masks.masked_BxL, masks.replaced_B)
        return jnp.sum(jnp.square(task.transformer.apply({"params": params["transformer"]}, *args)[0]))

    vectors = jax.jit(task.vectors)(tokenizer(), inputs)
    reach_BxL = np.abs(jax.jit(jax.grad(total))(vectors)).sum(axis=(2, 3)) > 0
    np.testing.assert_array_equal(reach_BxL, ~np.asarray(masks.masked_BxL))


def test_single_codes_leak_and_hidden_bases_do_not():
    """With the tokenizer's neighbours in sight, the codes beside a masked code change with its base."""
    bases, changed = random_bases(B, S), random_bases(B, S)
    changed[:, 20] = 3 - bases[:, 20]
    task = make("codes")
    encode = jax.jit(lambda batch: task.encode(tokenizer(), batch.bases_BxS))
    differs_L = (np.asarray(encode(batch_of(bases))) != np.asarray(encode(batch_of(changed)))).any(axis=(0, 2))
    beside = np.flatnonzero(differs_L)
    assert 20 in beside and (set(beside) & {18, 19, 21, 22})


MIXED = "codes+base_spans"


@pytest.mark.parametrize("kind, bases_per_code", [(MIXED, 1), *((kind, 4) for kind in (*KINDS, MIXED))])
def test_the_first_loss_is_that_of_even_odds(kind, bases_per_code):
    task, batch, frozen = make(kind, bases_per_code), batch_of(random_bases(B, S)), tokenizer(bases_per_code)
    params, key = first(bases_per_code), jax.random.key(2)
    loss, (_, metrics) = jax.jit(lambda b: task.loss(params, (), frozen, task.prepare(b, key), key))(batch)
    sizes = task.tokenizer.codebook_sizes
    assert float(loss) == pytest.approx(np.mean(np.log(sizes)) + np.log(4), rel=1e-5)
    assert float(metrics["base_bits"]) == pytest.approx(2.0, rel=1e-5)


def test_the_loss_is_the_mean_of_the_scores_that_count():
    task, bases, params = make("code_spans"), random_bases(B, S, letters=5), trained_like()
    prepared = jax.jit(task.masked)(batch_of(bases), jax.random.key(1))
    _, (_, metrics) = jax.jit(task.loss)(params, (), tokenizer(), prepared, jax.random.key(2))
    scores = jax.tree.map(np.asarray, jax.jit(task.scores)(params, tokenizer(), prepared))
    positions = np.asarray(prepared.masks.positions_BxM)
    counted = np.asarray(prepared.masks.scored_BxM) & (np.take_along_axis(bases, positions, axis=1) != 4)
    np.testing.assert_array_equal(scores["scored_BxM"], counted)
    for n in range(2):
        assert metrics[f"code_{n + 1}_loss"] == pytest.approx(scores["code_loss_BxMxN"][counted, n].mean(), rel=1e-5)
    assert metrics["base_bits"] == pytest.approx(scores["base_loss_BxMxR"][counted].mean() / np.log(2), rel=1e-5)


def test_only_hidden_bases_are_scored_of_a_code_of_many():
    task, batch = make("bases", 4), batch_of(random_bases(B, S))
    prepared, params = jax.jit(task.masked)(batch, jax.random.key(1)), trained_like(4)
    scored = np.asarray(jax.jit(task.scores)(params, tokenizer(4), prepared)["base_scored_BxMxR"])
    hidden, positions = (np.asarray(x) for x in (prepared.masks.hidden_BxLxR, prepared.masks.positions_BxM))
    np.testing.assert_array_equal(scored, np.take_along_axis(hidden, positions[..., None], axis=1))
    assert (scored.sum(axis=2) == 1).all()


def test_without_base_weight_the_base_head_reads_and_does_not_shape():
    """The paper's objective: the head that names bases learns, and no gradient of its loss goes further."""
    batch = batch_of(random_bases(B, S))
    task, params = make(base_weight=0.0), trained_like()
    prepared = jax.jit(task.masked)(batch, jax.random.key(1))

    def base_loss(params):
        return jnp.sum(task.scores(params, tokenizer(), prepared)["base_loss_BxMxR"])

    gradient = jax.jit(jax.grad(base_loss))(params)
    assert np.any(gradient["heads"]["base"])
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient["transformer"]))


def test_gradients_reach_every_parameter_and_not_the_tokenizer():
    task, batch, params = make("codes+bases"), batch_of(random_bases(B, S)), trained_like()

    def loss(params, frozen):
        return task.loss(params, (), frozen, task.masked(batch, jax.random.key(1)), jax.random.key(2))[0]

    by_params, by_tokenizer = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, tokenizer())
    for path, gradient in jax.tree_util.tree_leaves_with_path(by_params):
        assert np.any(gradient), f"no gradient at {jax.tree_util.keystr(path)}"
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(by_tokenizer.encoder))


def test_cross_entropy_is_log_of_the_softmax_in_f32():
    logits = np.random.default_rng(0).normal(size=(3, 5, 7)).astype(np.float32) * 3
    labels = np.random.default_rng(1).integers(0, 7, (3, 5))
    loss, hit = cross_entropy(jnp.asarray(logits), jnp.asarray(labels))
    p = np.exp(logits.astype(np.float64))
    expected = -np.log(np.take_along_axis(p / p.sum(-1, keepdims=True), labels[..., None], axis=-1)[..., 0])
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_array_equal(hit, logits.argmax(-1) == labels)
    slope = jax.grad(lambda logits: jnp.sum(cross_entropy(logits, jnp.asarray(labels))[0]))(jnp.asarray(logits))
    np.testing.assert_allclose(slope, p / p.sum(-1, keepdims=True) - np.eye(7)[labels], atol=1e-6)


@pytest.mark.parametrize("bases_per_code", [1, 8])
def test_the_honest_protocol_hides_single_bases_far_apart(bases_per_code):
    masks, positions_BxM = sparse_masks(5, 128, bases_per_code, cls=True)
    spacing = max(16, 4 * bases_per_code)
    assert (np.diff(positions_BxM, axis=1) == spacing).all() and len(set(positions_BxM[:, 0])) > 1
    hidden_BxS = masks.hidden_BxLxR.reshape(5, -1)
    assert hidden_BxS.shape[1] == 128 - bases_per_code  # the last code gives its place to CLS
    np.testing.assert_array_equal(np.nonzero(hidden_BxS)[1].reshape(5, -1), positions_BxM)
    np.testing.assert_array_equal(masks.positions_BxM, positions_BxM // bases_per_code)


def test_prediction_hides_bases_whatever_the_training_did():
    """A model trained on single codes is asked the honest question too: its input codes lack the hidden bases."""
    task, bases, params = make("codes"), random_bases(B, S), trained_like()
    masks, positions_BxM = sparse_masks(B, S, 1, cls=True)
    masks = jax.tree.map(lambda x: jax.reshard(jnp.asarray(x), spec("batch", *[None] * (x.ndim - 1))), masks)
    changed = bases.copy()
    np.put_along_axis(changed, positions_BxM, 3 - np.take_along_axis(bases, positions_BxM, axis=1), axis=1)
    predict = jax.jit(lambda batch: task.predict(params, (), tokenizer(), Masked(batch, masks)))
    one, other = predict(batch_of(bases)), predict(batch_of(changed))
    p_one, p_other = (np.exp(-np.asarray(x["base_loss_BxMxR"])) for x in (one, other))
    # The same logits, read at a base and at its complement: both are probabilities of one distribution.
    assert (p_one + p_other < 1 + 1e-5).all() and (p_one != p_other).any()


def test_flops_count_what_is_masked_and_both_encodings():
    narrow, wide = make("codes"), make("bases")
    difference = wide.flops_per_base(S) - narrow.flops_per_base(S)
    assert difference == pytest.approx(wide.tokenizer.encoder_flops_per_base())
    more = dataclasses.replace(narrow, masking=Masking("codes", rate=0.6))
    assert more.flops_per_base(S) > narrow.flops_per_base(S)
