"""Imported networks are fine-tuned by the same LoRA, readouts and runs as the transformer, and benchmarked so."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_finetune import gc_rich, genome_rows, refused, small_config, write_set
from small_run import run

from vqdna_jax import partition
from vqdna_jax.benchmark.untrained import save_untrained
from vqdna_jax.genome.alphabet import to_text
from vqdna_jax.inference import load
from vqdna_jax.models import lora
from vqdna_jax.models.hyena import KEPT
from vqdna_jax.models.layers import apply
from vqdna_jax.models.lora import LoraConfig
from vqdna_jax.models.transformer import Compute
from vqdna_jax.rivals.importing import import_model
from vqdna_jax.training.optimizer import DECAY_RULES, by_rule

GOLDEN = pathlib.Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """The directory of one's export."""

    @functools.cache
    def make(name: str) -> pathlib.Path:
        out = tmp_path_factory.mktemp("imported") / name
        import_model(name.partition("_")[0], GOLDEN / name, out)
        return out

    return make


@pytest.mark.parametrize("name", ["dnabert", "nt_v2", "hyenadna"])
def test_an_adapter_on_every_target_is_what_it_is_merged(imported, name):
    base = load.load(imported(name)).pretrained
    config, weights = LoraConfig(2, targets=".*"), dict(base.weights["transformer"])
    with jax.set_mesh(base.mesh):
        factors = lora.init(config, weights, jax.random.key(0))
        rng = np.random.default_rng(0)
        factors = jax.tree.map(lambda x: jnp.asarray(0.1 * rng.standard_normal(x.shape, np.float32)), factors)
        batch = rng.standard_normal((2, 9, 1, 12), np.float32), np.zeros((2, 9), bool), np.array([9, 5], np.int32)
        vectors, plain, lengths_B = partition.batch_to_devices(batch, base.mesh, 2)

        @jax.jit
        def forward(weights, factors):
            adapter = factors and lora.adapter(config, factors)
            of = weights, vectors, plain, plain[:, 0], lengths_B, None, adapter
            return apply(base.transformer.module(Compute()), *of)[0]

        merged = lora.merge(config, jax.device_get(weights), jax.device_get(factors))
        adapted, plainly = forward(weights, factors), forward(weights, None)
        np.testing.assert_allclose(adapted, forward(merged, None), atol=1e-4)
        assert np.abs(adapted - plainly).max() > 0.1
        for target, of in jax.grad(lambda f: jnp.sum(forward(weights, f) ** 2))(factors).items():
            assert float(jnp.abs(of["a"]).max()) > 1e-3, target


@pytest.mark.parametrize("name", ["dnabert2", "hyenadna", "nt"])
def test_matrices_decay_and_nothing_else_does(imported, name):
    weights = dict(load.load(imported(name)).pretrained.weights["transformer"])
    decays = by_rule({"transformer": weights}, DECAY_RULES)["transformer"]
    assert {key for key in weights if decays[key]} == {"qkv", "out", "up", "down", "short"} & set(weights)


def test_a_run_in_full_learns_and_its_model_predicts_and_embeds(imported, tmp_path):
    """Over Hyena, which has no CLS; what is fixed of its filters stays."""
    config = small_config(tmp_path)
    config.pretrained, config.tuning.method, config.head.pool = str(imported("hyenadna")), "full", "mean"
    config.optimizer.learning_rate = 2e-3  # at which the first steps lower the loss of the probe
    assert run(config, tmp_path / "run") == 0
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["test_accuracy"] > 0.8
    model, rows = load.load(tmp_path / "run/export"), genome_rows(32)
    hits = [int(label) == gc_rich(bases) for label, bases in zip(model.predict(rows).labels, rows)]
    assert np.mean(hits) > 0.8
    assert model.embed(to_text(rows[0])).shape == (12,)
    before, after = (of.weights["transformer"] for of in (model.pretrained, model.embedder()))
    moved = {key for key in before if float(np.abs(before[key] - after[key]).max()) > 1e-5}  # a mean of steps rounds
    assert moved == before.keys() - {*KEPT, "mask"}


@pytest.mark.parametrize("name", ["dnabert2", "hyenadna"])
def test_the_untrained_twin_is_another_network_with_the_same_filters(imported, name, tmp_path):
    base = load.load(imported(name)).pretrained
    twin = load.load(save_untrained(imported(name), tmp_path / "twin")).pretrained
    assert (twin.transformer, twin.length) == (base.transformer, base.length)
    ours, theirs = (model.weights["transformer"] for model in (twin, base))
    assert float(np.abs(ours["qkv"] - theirs["qkv"]).max()) > 0.1
    for fixed in set(KEPT) & set(ours):
        np.testing.assert_allclose(ours[fixed], theirs[fixed], atol=1e-5)


@pytest.mark.parametrize("name", ["dnabert", "dnabert2"])
def test_sequences_beyond_the_window_are_refused_before_anything_is_computed(imported, name, tmp_path):
    config = small_config(tmp_path)
    config.pretrained, config.data.labelled = (
        str(imported(name)),
        str(write_set(tmp_path / "long", lengths=(90,), base_bases=90)),
    )
    assert "codes, but the model's context has 38" in refused(config, tmp_path / "run")
