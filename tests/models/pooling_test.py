"""Poolings: over the codes that are there, window by window as at once, and the same for all that pool."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from refusals import refusal
from small_finetune import CONTEXT, ROWS, genome_rows, write_set
from tiny_pretrained import save_tiny_pretrained

import vqdna_jax
from vqdna_jax import partition
from vqdna_jax.evaluation import probes
from vqdna_jax.labels.batches import Shape, fill
from vqdna_jax.models.lora import LoraConfig
from vqdna_jax.models.pooling import POOLS, pool, without_cls
from vqdna_jax.models.transformer import Compute
from vqdna_jax.tasks.finetune import Finetune, FrozenBase

B, L, D = 8, 6, 16
LENGTHS = np.array([6, 0, 6, 0, 2, 4, 1, 6], np.int32)
H = np.random.default_rng(4).standard_normal((B, L, D), np.float32)
CLS = np.random.default_rng(5).standard_normal((B, D), np.float32)


@pytest.mark.parametrize("name", POOLS)
def test_is_over_the_codes_that_are_there(name):
    found = pool(name, jnp.asarray(H), jnp.asarray(CLS), jnp.asarray(LENGTHS))
    for row, length in enumerate(LENGTHS):
        there = H[row, :length]
        of = {"mean": there.mean, "max": there.max}.get(name, lambda axis, row=row: CLS[row])
        expected = of(axis=0) if length or name == "cls" else np.zeros(D)
        np.testing.assert_allclose(found[row], expected, rtol=1e-6, atol=1e-6)


def test_a_window_without_codes_gives_gradients_of_zero_not_nan():
    def total(h):
        return sum(jnp.sum(pool(name, h, CLS, jnp.zeros(B, jnp.int32))) for name in ("mean", "max"))

    assert not np.any(jax.jit(jax.grad(total))(jnp.asarray(H)))


@pytest.mark.parametrize("name", POOLS)
def test_windows_joined_one_by_one_are_the_sequence_at_once(name):
    """Of one sequence of B L codes in B windows, each of them kept once; CLS is the mean over windows."""
    how, kept = POOLS[name], jnp.ones((B, L), bool)
    joined = np.full(D, how.start)
    for window_D in np.asarray(how.window(jnp.asarray(H), jnp.asarray(CLS), kept)):
        joined = how.join(joined, window_D)
    at_once = pool(name, jnp.asarray(H.reshape(1, B * L, D)), jnp.asarray(CLS.mean(0)[None]), jnp.array([B * L]))
    assert joined.dtype == np.float64
    np.testing.assert_allclose(how.finish(joined, B * L, B), at_once[0], rtol=1e-5, atol=1e-6)


def test_what_needs_cls_is_told():
    assert [name for name, how in POOLS.items() if how.needs_cls] == ["cls"]
    assert (without_cls("mean+cls+max"), without_cls("mean+max"), without_cls("none")) == ("cls", "", "")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "base"
    save_tiny_pretrained(directory, context=CONTEXT)
    return vqdna_jax.load(directory)


@pytest.fixture(scope="module")
def features(base):
    """Bases [S] of many sequences -> fine-tuning's features [B, P] before its first step, in all pools at once."""
    model = base.pretrained
    pools = "+".join(POOLS)
    task = Finetune(model.transformer, Compute(), "classification", 2, "lora", LoraConfig(targets=".*"), pools)
    frozen = FrozenBase(model.vectors_KxE(), model.weights["transformer"])

    @jax.jit
    def of_batch(frozen, batch):
        return task.features(task.init_params(frozen, batch, jax.random.key(0)), frozen, batch)

    def of_bases(bases):
        with jax.set_mesh(model.mesh):
            batch = fill(model.tokenizer.encode(bases), Shape(2, model.length), model.length)
            return np.asarray(of_batch(frozen, partition.batch_to_devices(batch, model.mesh, len(bases))))

    return of_bases


def test_fine_tuning_begins_with_what_embed_gives(base, features):
    """By another program: of the sequences alone or among windows that are not there."""
    bases = [row[:length] for row, length in zip(genome_rows(sum(ROWS.values())), (31, 30, 17, 16, 8, 2, 1))]
    expected = np.concatenate([base.embed(bases, name) for name in POOLS], axis=1)
    np.testing.assert_allclose(features(bases), expected, rtol=1e-5, atol=1e-5)


def test_a_probe_reads_what_fine_tuning_reads(base, features, tmp_path):
    seen = []

    def embed(bases):
        seen.append(np.concatenate([base.embed(bases, name) for name in POOLS], axis=1))
        np.testing.assert_allclose(seen[-1], features(bases), rtol=1e-5, atol=1e-5)
        return seen[-1]

    write_set(tmp_path / "gc")
    found = probes.probe(embed, embed, tmp_path / "gc", 40)
    assert found["probe_gc_mcc"] == found["probe_gc_untrained_mcc"] and [len(x) for x in seen] == [80, 80]


def test_an_unknown_pooling_names_all_there_are(base):
    assert f"expected one of {', '.join(POOLS)}, none" in refusal(base.embed, "ACGT", "median")
