"""Masked tokens: what is hidden stays hidden, padding counts for nothing, and every kind learns, on any mesh alike."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_mesh import mesh_of

from vqdna_jax import partition
from vqdna_jax.errors import InputError
from vqdna_jax.evaluation import masked_tokens as evaluation_masked_tokens
from vqdna_jax.genome.alphabet import reverse_complement
from vqdna_jax.genome.build.bundled import bundled_corpus
from vqdna_jax.genome.corpus import open_corpus
from vqdna_jax.genome.windows import WindowBatches, evaluation_windows
from vqdna_jax.models.transformer import Compute, TransformerConfig
from vqdna_jax.partition import batch_to_devices, take
from vqdna_jax.tasks.masked_tokens import MaskedTokens, masking_of
from vqdna_jax.tasks.masking import Masked
from vqdna_jax.tokenizers import batches as tokenizers_batches
from vqdna_jax.tokenizers.batches import Layout, TokenBatches, Tokens, tokens_batch
from vqdna_jax.tokenizers.kmers import Kmers, OneHot, OverlappingKmers
from vqdna_jax.tokenizers.train_bpe import train_bpe
from vqdna_jax.training.step import init_state, train_step

B, S, STEPS = 8, 64, 30
KINDS = ("one_hot", "overlapping", "kmer", "bpe")
MODEL = TransformerConfig(layers=1, width=16, heads=2, hidden=24, dtype="float32")

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module")
def corpus():
    return open_corpus(bundled_corpus())


@pytest.fixture(scope="module")
def tokenizers(corpus):
    small = OneHot(), OverlappingKmers(), Kmers(2)
    return dict(zip(KINDS, (*small, train_bpe(corpus, 24, bases=100_000))))


@pytest.fixture(scope="module")
def make(tokenizers, corpus):
    """(task, its batches) of a kind."""

    def made(kind):
        tokenizer = tokenizers[kind]
        layout = tokenizers_batches.layout(tokenizer, S, MODEL.cls, corpus)
        task = MaskedTokens(MODEL, Compute(), tokenizer.vocabulary, 8, masking_of(tokenizer), layout)
        windows = WindowBatches(corpus, "train", S, B, 0)
        return task, TokenBatches(windows, tokenizer, layout.length, B, 0)

    return made


@pytest.fixture(scope="module")
def masked(make):
    """(task, a batch with masks, parameters away from their first values: a head that is zero hides everything)."""

    @functools.cache
    def made(kind):
        task, batches = make(kind)
        batch = prepared(task, batches[0])
        shapes = jax.eval_shape(task.init_params, (), batch.rows, jax.random.key(0))
        rng = np.random.default_rng(0)
        return task, batch, jax.tree.map(lambda p: jnp.asarray(0.4 * rng.standard_normal(p.shape, np.float32)), shapes)

    return made


def on_device(batch):
    return batch_to_devices(batch, jax.sharding.get_mesh(), len(jax.tree.leaves(batch)[0]))


def prepared(task, batch):
    return jax.jit(task.prepare)(on_device(batch), jax.random.key(1))


def scores_of(task, params, batch):
    return jax.tree.map(np.asarray, jax.jit(task.predict)(params, (), (), batch))


def test_windows_are_cut_or_padded_to_one_length(tokenizers, corpus):
    windows = evaluation_windows(corpus, "validation", S, 50).bases_BxS
    for tokenizer in tokenizers.values():
        rows = [tokens_L[:25] for tokens_L in tokenizer.tokens(windows)]
        batch = tokens_batch(tokenizer, windows, 25)
        np.testing.assert_array_equal(batch.lengths_B, [len(row) for row in rows])
        for tokens_L, row in zip(batch.tokens_BxL, rows):
            np.testing.assert_array_equal(tokens_L[: len(row)], row)
            assert (tokens_L[len(row) :] == tokenizer.unknown).all()


@pytest.mark.parametrize("cls", [False, True])
def test_layouts_lose_few_tokens_and_pad_little(tokenizers, corpus, cls):
    lengths = {kind: tokenizers_batches.layout(tokenizers[kind], 512, cls, corpus) for kind in KINDS}
    six = tokenizers_batches.layout(Kmers(6), 512, cls)
    assert (lengths["one_hot"].length, lengths["overlapping"].length) == (512 - cls, 504 - cls)
    assert (lengths["kmer"].length, six.length) == (256, 85 + 2)  # with the single bases at the end
    assert six.bases_per_token == pytest.approx(512 / 87) and lengths["one_hot"].bases_per_token == 1
    assert [layout.padded for layout in lengths.values()] == [False, False, False, True]
    windows = evaluation_windows(corpus, "train", 512, 400).bases_BxS
    counts, bpe = [len(row) for row in tokenizers["bpe"].tokens(windows)], lengths["bpe"]
    assert (bpe.length + cls) % 8 == 0
    assert np.mean(np.array(counts) > bpe.length) < 0.03 and np.mean(counts) > 0.85 * bpe.length
    assert bpe.bases_per_token == pytest.approx(512 / np.mean(counts), rel=0.02)
    with pytest.raises(InputError, match="data.window_bp: 12 gives 3 tokens of kind kmer"):
        tokenizers_batches.layout(Kmers(4), 12, cls)


def test_batches_hold_either_strand_and_processes_share_them(tokenizers, corpus):
    tokenizer = tokenizers["one_hot"]

    def batches(**process):
        windows = WindowBatches(corpus, "train", S, 64, 0, **process)
        return TokenBatches(windows, tokenizer, S, 64, 0, **process), windows

    (whole, windows), parts = batches(), [batches(process_index=i, process_count=4)[0] for i in range(4)]
    tokens_BxL, bases_BxS = whole[3].tokens_BxL, windows[3].bases_BxS
    np.testing.assert_array_equal(np.concatenate([part[3].tokens_BxL for part in parts]), tokens_BxL)
    forward_B, reverse_B = ((tokens_BxL == x).all(axis=1) for x in (bases_BxS, reverse_complement(bases_BxS)))
    assert (forward_B ^ reverse_B).all() and 16 < forward_B.sum() < 48
    np.testing.assert_array_equal(whole[3].tokens_BxL, tokens_BxL)


def test_a_masked_or_padding_token_reaches_no_output_by_gradient(masked):
    task, batch, params = masked("bpe")
    masks, there_BxL = batch.masks, np.arange(task.layout.length) < np.asarray(batch.rows.lengths_B)[:, None]

    def total(vectors, transformer, batch):
        args = vectors, batch.masks.masked_BxL, batch.masks.replaced_B, batch.rows.lengths_B + 1
        h_BxLxD, _ = task.transformer.apply({"params": transformer}, *args)
        return jnp.sum(jnp.square(h_BxLxD) * there_BxL[..., None])

    vectors = task.vectors(params["table"], batch.rows.tokens_BxL)
    reach = jax.jit(jax.grad(total))(vectors, params["transformer"], batch)
    seen_BxL = there_BxL & ~np.asarray(masks.masked_BxL)
    np.testing.assert_array_equal(np.abs(reach).sum(axis=(2, 3)) > 0, seen_BxL)
    assert not there_BxL.all()


@pytest.mark.parametrize("kind", ["overlapping", "bpe"])
def test_other_masked_and_padding_tokens_change_no_probability(masked, kind):
    """The logits at masked places, with what is hidden and what is beyond the end exchanged."""
    task, batch, params = masked(kind)
    masks = jax.tree.map(np.asarray, batch.masks)
    tokens_BxL, lengths_B = np.asarray(batch.rows.tokens_BxL), np.asarray(batch.rows.lengths_B)
    hidden_BxL = masks.masked_BxL | (np.arange(task.layout.length) >= lengths_B[:, None])
    changed = np.where(hidden_BxL, (tokens_BxL + 1) % (task.vocabulary - 1), tokens_BxL)
    logits = jax.jit(functools.partial(logits_of, task))
    rows = (batch.rows.replace(tokens_BxL=jnp.asarray(tokens)) for tokens in (tokens_BxL, changed))
    one, other = (logits(params, batch.replace(rows=each)) for each in rows)
    there = masks.positions_BxM < lengths_B[:, None]
    np.testing.assert_array_equal(np.asarray(one)[there], np.asarray(other)[there])
    assert np.ptp(np.asarray(one)[there], axis=0).min() > 0


def logits_of(task, params, batch):
    """At the masked places, [B, M, K]."""
    rows, masks = batch.rows, batch.masks
    args = task.vectors(params["table"], rows.tokens_BxL), masks.masked_BxL, masks.replaced_B
    lengths = rows.lengths_B + task.model.cls if task.layout.padded else None
    h_BxLxD, _ = task.transformer.apply({"params": params["transformer"]}, *args, lengths)
    h_BxMxD = take(h_BxLxD, masks.positions_BxM)
    return task.head.apply({"params": params["heads"]}, h_BxMxD, params["table"])


def test_padding_never_changes_the_loss_of_a_window(masked):
    """The same windows in longer rows: the same losses of the same masked tokens."""
    task, batch, params = masked("bpe")
    short, batch = scores_of(task, params, batch), jax.tree.map(np.asarray, batch)
    longer = np.pad(batch.rows.tokens_BxL, ((0, 0), (0, 9)), constant_values=3)
    masked_BxL = np.pad(batch.masks.masked_BxL, ((0, 0), (0, 9)), constant_values=True)
    padded = Masked(batch.rows.replace(tokens_BxL=longer), batch.masks.replace(masked_BxL=masked_BxL))
    long = scores_of(task, params, on_device(padded))
    np.testing.assert_array_equal(short["scored_BxM"], long["scored_BxM"])
    scored = short["scored_BxM"]
    np.testing.assert_allclose(short["loss_BxM"][scored], long["loss_BxM"][scored], rtol=1e-5)


@pytest.mark.parametrize("kind", ["overlapping", "bpe"])
def test_a_quarter_is_masked_and_what_has_no_base_is_not_scored(masked, kind):
    task, batch, params = masked(kind)
    batch = jax.tree.map(np.array, batch)
    tokens_BxL, masks = batch.rows.tokens_BxL, batch.masks
    tokens_BxL[:, ::5] = task.vocabulary - 1
    lengths_B = np.minimum(batch.rows.lengths_B, np.arange(4, 4 + B)).astype(np.int32)
    scored = scores_of(task, params, on_device(Masked(Tokens(lengths_B, tokens_BxL), masks)))["scored_BxM"]
    targets = np.take_along_axis(tokens_BxL, masks.positions_BxM, axis=1)
    counts = (masks.positions_BxM < lengths_B[:, None]) & (targets != task.vocabulary - 1)
    np.testing.assert_array_equal(scored, counts)
    assert masks.replaced_B.all() and abs(masks.masked_BxL.mean() - 0.25) < 0.03
    if kind == "overlapping":
        edges = np.diff(masks.masked_BxL.astype(int), prepend=0, append=0, axis=1)
        runs = np.flatnonzero(edges == -1) - np.flatnonzero(edges == 1)
        assert (runs % 3 == 0).all()


def test_the_loss_and_the_evaluation_are_means_of_what_counts(masked):
    task, batch, params = masked("bpe")
    _, (_, metrics) = jax.jit(task.loss)(params, (), (), batch, jax.random.key(2))
    scores = scores_of(task, params, batch)
    scored = scores["scored_BxM"]
    assert float(metrics["loss"]) == pytest.approx(scores["loss_BxM"][scored].mean(), rel=1e-5)
    assert float(metrics["token_accuracy"]) == pytest.approx(scores["hit_BxM"][scored].mean(), rel=1e-5)
    bits = float(metrics["loss"]) / np.log(2) / task.layout.bases_per_token
    assert float(metrics["bits_per_base"]) == pytest.approx(bits, rel=1e-5)
    assert float(metrics["token_perplexity"]) == pytest.approx(np.exp(float(metrics["loss"])), rel=1e-5)
    values = evaluation_masked_tokens.evaluate(task, lambda _: scores, batch.rows)
    for name, value in values.items():
        assert value == pytest.approx(float(metrics[name]), rel=1e-5)


def test_gradients_reach_every_parameter(masked):
    task, batch, params = masked("bpe")
    gradient, _ = jax.jit(jax.grad(task.loss, has_aux=True))(params, (), (), batch, jax.random.key(2))
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.any(leaf), f"no gradient at {jax.tree_util.keystr(path)}"


def losses_of(task, batches, steps, mesh):
    tx, losses = optax.sgd(0.5), []
    with jax.set_mesh(mesh):
        key = jax.random.key(0)
        state = jax.jit(functools.partial(init_state, task, tx))(key, (), on_device(batches[0]))
        step = jax.jit(functools.partial(train_step, task, tx))
        for i in range(steps):
            state, metrics = step(state, (), on_device(batches[i]), key)
            losses.append(float(metrics["loss"]))
    return losses


def test_training_lowers_the_loss_from_even_odds_and_meshes_and_microbatches_agree(make):
    """Microbatches where windows are full: elsewhere their means weigh tokens otherwise."""
    task, batches = make("one_hot")
    losses = losses_of(task, batches, STEPS, mesh_of())
    assert losses[0] == pytest.approx(np.log(task.vocabulary), rel=1e-5)
    assert np.mean(losses[-8:]) < losses[0] - 0.1
    parts = dataclasses.replace(task, microbatches=2, layout=task.layout._replace(padded=True))
    spread = losses_of(parts, batches, 3, partition.make_mesh(data=2, fsdp=2, tensor=2))
    np.testing.assert_allclose(spread, losses[:3], rtol=1e-4)


def test_flops_count_layers_table_and_masked_tokens(make):
    task, _ = make("kmer")
    deeper = dataclasses.replace(task, model=dataclasses.replace(MODEL, layers=2))
    slots = task.layout.length + 1
    more = 3 * slots * (4 * 16**2 + 2 * 16 * 24 + 2 * slots * 16) * 2 / S
    assert deeper.flops_per_base(S) - task.flops_per_base(S) == pytest.approx(more)
    longer = dataclasses.replace(task, layout=Layout(S, 2 * task.layout.length, 1.0, False))
    assert longer.flops_per_base(S) > 2 * task.flops_per_base(S)
