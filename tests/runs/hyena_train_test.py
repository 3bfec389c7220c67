"""Stage 2 with Hyena in the transformer's place, whole: trained, resumed, exported, gone on from, fine-tuned."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from refusals import refusal
from small_finetune import small_config as finetune_config
from small_mcm import STEPS, small_config
from small_run import rows_of, run, steps_on, stop_at

from vqdna_jax.errors import EXIT_STOPPED
from vqdna_jax.inference import load
from vqdna_jax.inference.saved import pretrained
from vqdna_jax.models.hyena_encoder import HyenaEncoderConfig
from vqdna_jax.tokenizers.kmers import OneHot

SEQUENCES = ["ACGTTGCATTGACCA", "ACGTTGCATTGACCAGATTACAGATTACAGGC"]


def hyena_config(directory):
    config = small_config(directory)
    config.model.update(kind="hyena", cls=False)
    return config


def over_bases(directory):
    config = hyena_config(directory)
    OneHot().save(directory / "bases")
    config.tokenizer = str(directory / "bases")
    return config


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The workdir of a run over single bases."""
    place = tmp_path_factory.mktemp("hyena")
    assert run(over_bases(place), place / "run") == 0
    return place / "run"


def test_a_stopped_run_goes_on_bit_by_bit_to_the_same_export(trained, tmp_path, monkeypatch):
    config = over_bases(tmp_path)
    with monkeypatch.context() as patch:
        stop_at(patch, STEPS // 2)
        assert run(config, tmp_path / "stopped") == EXIT_STOPPED
    assert run(config, tmp_path / "stopped") == 0
    assert rows_of(trained) == rows_of(tmp_path / "stopped")
    whole, stopped = (load.load(workdir / "export") for workdir in (trained, tmp_path / "stopped"))
    assert whole.digest == stopped.digest
    assert whole.pretrained.transformer == HyenaEncoderConfig(2, 16, 32, slots=64)
    assert "2 Hyena layers of width 16 (a filter for each side)" in (trained / "export/README.md").read_text()
    np.testing.assert_array_equal(whole.embed(SEQUENCES), stopped.embed(SEQUENCES))


def test_its_export_embeds_as_the_task_reads_whatever_is_beside(trained):
    model, sequence = load.load(trained / "export"), SEQUENCES[0]
    with steps_on(over_bases(trained.parent)) as on:
        task, params = on.stage.task, model.pretrained.weights

        @jax.jit
        def read(tokens_1xL):
            of = task.vectors(params["table"], tokens_1xL), tokens_1xL < 0, tokens_1xL[:, 0] < 0
            return task.transformer.apply({"params": params["transformer"]}, *of)[0]

        h_1xLxD = read(jnp.asarray(model.encode(sequence).T, jnp.int32))
    alone, beside = model.embed(sequence, "none"), model.embed(SEQUENCES, "none")[0]
    np.testing.assert_allclose(alone, h_1xLxD[0], atol=1e-5)
    np.testing.assert_allclose(beside, alone, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["head", "lora", "full"])
def test_it_can_be_fine_tuned(trained, tmp_path, method):
    tuning = finetune_config(tmp_path)
    tuning.pretrained, tuning.data.long, tuning.tuning.method = str(trained / "export"), "window", method
    tuning.head.pool = "mean"
    assert run(tuning, tmp_path / "tuned") == 0
    model, base = load.load(tmp_path / "tuned/export"), load.load(trained / "export")
    assert model.pretrained.digest == base.digest
    before, after = (of.embedder().weights["transformer"] for of in (base, model))
    moved = {name for name in before if float(jnp.abs(before[name] - after[name]).max()) > 1e-6}
    assert moved == (before.keys() - {"mask"} if method == "full" else set()) or method == "lora"
    assert json.loads((tmp_path / "tuned/result.json").read_text())["test_accuracy"] > 0.8
    np.testing.assert_allclose(model.predict(SEQUENCES).values.sum(axis=1), 1, rtol=1e-6)


def test_over_learned_codes_it_is_saved_loaded_and_scores(tmp_path):
    """Untrained, with heads that are not zero."""
    rng = np.random.default_rng(0)
    with steps_on(hyena_config(tmp_path)) as on:
        state = on.init(on.put(on.stage.data.batches[0]))
        heads = {name: 0.4 * rng.standard_normal(of.shape, np.float32) for name, of in state.params["heads"].items()}
        parts = on.stage._parts({"transformer": state.params["transformer"], "heads": heads})
        digest = pretrained.save(tmp_path / "export", *parts, {})
    model = load.load(tmp_path / "export")
    assert model.digest == digest and model.pretrained.context == 64
    assert "Hyena layers" in (tmp_path / "export/README.md").read_text()
    llr = model.score(SEQUENCES[1], SEQUENCES[1][:9] + "A" + SEQUENCES[1][10:]).llr
    assert np.isfinite(llr).all() and abs(llr[0]) > 1e-3


def test_an_unknown_network_is_one_line(trained, tmp_path):
    directory = shutil.copytree(trained / "export", tmp_path / "export")
    described = json.loads((directory / "config.json").read_text())
    for name, says in (("mamba", "key network is 'mamba', expected one of transformer, hyena"), (["hyena"], "network")):
        (directory / "config.json").write_text(json.dumps(described | {"network": name}))
        assert says in refusal(load.load, directory)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model.kind": "transformer"}, "its model.kind is hyena, the config's transformer; set --config.model.kind="),
        ({"data.window_bp": 128}, "filters for windows of 64 bases, the config's are of 128; set --config.data.window"),
        ({"model.causal": True}, "its model.causal is False, the config's True; set --config.model.causal=False"),
    ],
)
def test_going_on_as_another_network_is_one_line(trained, tmp_path, changes, says):
    config = over_bases(tmp_path)
    config.init_from = str(trained / "export")
    config.update_from_flattened_dict(changes)
    assert says in refusal(run, config, tmp_path / "run")
