"""Masked-code runs on the bundled genomes: bitwise resume, meshes and microbatches agree, bad input is one line."""

import json
import shutil

import chex
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import safetensors.numpy
from small_mcm import STEPS, small_config
from small_run import losses_on, rows_of, run, stop_at
from tiny_tokenizer import save_tiny

import vqdna_jax
from vqdna_jax.errors import EXIT_STOPPED, InputError
from vqdna_jax.training.step import TrainState


@pytest.fixture(scope="module")
def finished(tmp_path_factory, place):
    """One undisturbed run, with averaged parameters."""
    workdir = tmp_path_factory.mktemp("undisturbed")
    assert run(averaged(place), workdir) == 0
    return workdir


def averaged(place):
    config = small_config(place)
    config.train.params_ema_decay = 0.5
    return config


def test_a_finished_run_leaves_honest_results_beside_baselines(finished):
    result = json.loads((finished / "result.json").read_text())
    assert result["steps"] == STEPS and result["codes_seen"] == STEPS * 8 * 64
    for level in (1, 2):
        assert 0 <= result[f"code_{level}_accuracy"] <= 1 and result[f"code_{level}_perplexity"] > 1
    for model in ("masked_base", "order0", "markov11", "context55"):
        assert 0 < result[f"{model}_bits"] < 2.5 and 0 < result[f"{model}_accuracy"] < 1
        assert 0 < result[f"{model}_bits_e_coli_K12_MG1655"] < 2.5
    assert result["context55_bits"] < result["markov11_bits"] < result["order0_bits"] < 2
    assert all(np.isfinite(value) for value in result.values())
    assert (finished / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert [step for step, _ in rows_of(finished)] == list(range(1, STEPS + 1))
    assert [step for step, _ in rows_of(finished, "eval_masked_base_bits")] == [5]


def test_the_export_is_a_model_with_its_tokenizer(finished, place):
    model = vqdna_jax.load(finished / "export")
    tokenizer = vqdna_jax.load(place / "tokenizer_1")
    assert model.tokenizer_digest == tokenizer.digest and model.embed("ACGTTGCA").shape == (16,)
    np.testing.assert_array_equal(model.encode("ACGTTGCAACC"), tokenizer.encode("ACGTTGCAACC"))
    assert "masked_base_bits" in (finished / "export/README.md").read_text()


def test_a_run_that_is_stopped_twice_goes_on_bitwise(finished, place, tmp_path, monkeypatch):
    """In its first step, and later."""
    for step in (0, 4):
        with monkeypatch.context() as patch:
            stop_at(patch, step)
            assert run(averaged(place), tmp_path) == EXIT_STOPPED
    assert run(averaged(place), tmp_path) == 0
    assert rows_of(tmp_path) == rows_of(finished)
    got, expected = (safetensors.numpy.load_file(d / "export/model.safetensors") for d in (tmp_path, finished))
    chex.assert_trees_all_equal(got, expected)


def test_another_tokenizer_is_refused_and_a_moved_one_is_not(finished, place, tmp_path):
    config = averaged(place)
    config.tokenizer = str(tmp_path / "other")
    save_tiny(tmp_path / "other", seed=1)
    with pytest.raises(InputError, match="tokenizer_digest was"):
        run(config, finished)
    shutil.copytree(place / "tokenizer_1", tmp_path / "moved")
    config.tokenizer = str(tmp_path / "moved")
    assert run(config, finished) == 0


def losses_of(place, *sizes: int, **settings):
    """(losses, last state) on a mesh of the small config with other values, keys written a__b."""
    config = small_config(place)
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in settings.items()})
    return losses_on(config, *sizes)


@pytest.fixture(scope="module")
def alone(place) -> tuple[list[float], TrainState]:
    """Losses on one device, and the last state."""
    return losses_of(place)


def test_meshes_agree_and_weights_are_split(place, alone):
    assert len(set(alone[0])) == STEPS - 1  # the first step is at rate 0, as warm-up begins
    for shape in ((2, 2, 2), (1, 2, 2, 2)):
        losses, state = losses_of(place, *shape)
        np.testing.assert_allclose(losses, alone[0], rtol=1e-5)
        weights = state.params["transformer"]
        assert weights["qkv"].sharding.spec == jax.P(None, "fsdp", None, "tensor", None)
        assert weights["down"].sharding.spec == jax.P(None, "tensor", "fsdp")
        adam = next(leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.shape == weights["qkv"].shape)
        assert adam.sharding.spec == weights["qkv"].sharding.spec


@pytest.mark.slow
def test_a_run_of_devices_that_share_sequences_goes_on_bitwise(place, tmp_path, monkeypatch):
    config = small_config(place)
    config.mesh.context = 2
    assert run(config, tmp_path / "undisturbed", devices=4) == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        assert run(config, tmp_path / "stopped", devices=4) == EXIT_STOPPED
    assert run(config, tmp_path / "stopped", devices=4) == 0
    assert rows_of(tmp_path / "stopped") == rows_of(tmp_path / "undisturbed")


def test_microbatches_are_the_whole_batch_in_parts(place, alone):
    """Of two devices, each of which has a row of each part."""
    (whole, state), (parts, accumulated) = alone, losses_of(place, 2, train__microbatches=4)
    np.testing.assert_allclose(parts, whole, rtol=1e-5)
    chex.assert_trees_all_close(accumulated.params, state.params, rtol=1e-3, atol=1e-5)


def test_how_layers_are_run_changes_no_loss(place, alone):
    scanned, _ = losses_of(place, compute__layers="scanned", compute__remat="full")
    np.testing.assert_allclose(scanned, alone[0], rtol=1e-5)


def test_other_maskings_train_at_four_bases_a_code(tmp_path):
    config = small_config(tmp_path, 4)
    config.masking.update(kind="codes+base_spans", span=8)
    config.train.total_steps = 2
    assert run(config, tmp_path / "run") == 0
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert 0 < result["masked_base_bits"] < 2.5 and 0 < result["base_bits_as_trained"] < 2.5


def test_averaged_parameters_are_evaluated_and_exported(finished):
    """The export holds the average, which after few steps is not the last parameters."""
    exported = safetensors.numpy.load_file(finished / "export/model.safetensors")
    assert "transformer/qkv" in exported
    state = ocp.StandardCheckpointer().restore(finished / f"checkpoints/{STEPS}/state")
    np.testing.assert_array_equal(exported["transformer/qkv"], state["ema_params"]["transformer"]["qkv"])
    assert np.abs(state["params"]["transformer"]["qkv"] - exported["transformer/qkv"]).max() > 0


BAD = {
    "tokenizer": ("", "config key tokenizer: is empty"),
    "data.window_bp": (65, "data.window_bp: found 65, expected a multiple of the tokenizer's 4"),
    "masking.rate": (1.0, "masking.rate: found 1.0"),
    "masking.kind": ("codes+words", "masking.kind: found 'codes+words'"),
    "masking.span": (99, "masking.span=99"),
    "model.heads": (3, "model.width: found 16, expected a multiple of 2 x model.heads=3"),
    "train.microbatches": (3, "data.global_batch: found 8, expected a multiple of train.microbatches=3"),
    "compute.remat": ("some", "compute.remat: found 'some'"),
    "optimizer.skip_above": (-1.0, "optimizer.skip_above: found -1.0"),
    "mesh.tensor": (2, "mesh: data=1 x fsdp=1 x tensor=2"),
}


@pytest.mark.parametrize("key", BAD)
def test_bad_config_is_one_line_before_anything_is_built(place, tmp_path, key):
    config = small_config(place, 4)
    value, message = BAD[key]
    if key == "masking.span":
        config.masking.kind = "base_spans"
    config.update_from_flattened_dict({key: value})
    with pytest.raises(InputError) as caught:
        run(config, tmp_path / "run")
    assert message in str(caught.value) and "\n" not in str(caught.value) and caught.value.exit_code == 43
    assert not (tmp_path / "run").exists()


def test_heads_and_batch_that_the_mesh_does_not_divide(place, tmp_path):
    for settings, message in (
        ({"mesh.tensor": 4}, "model.heads: found 2, expected a multiple of mesh.tensor=4"),
        ({"data.global_batch": 12}, "data.global_batch: found 12, expected a multiple of the 8 shards"),
    ):
        config = small_config(place)
        config.update_from_flattened_dict(settings)
        with pytest.raises(InputError, match=message):
            run(config, tmp_path / "run", devices=8)


@pytest.mark.parametrize("damage", ["missing", "version", "digest"])
def test_a_tokenizer_that_is_missing_or_damaged_is_refused(tmp_path, damage):
    config = small_config(tmp_path)
    export = tmp_path / "tokenizer_1"
    if damage == "missing":
        shutil.rmtree(export)
    else:
        described = json.loads((export / "config.json").read_text())
        described |= {"schema": "vqdna-tokenizer/9"} if damage == "version" else {"tokenizer_digest": "0" * 64}
        (export / "config.json").write_text(json.dumps(described))
    with pytest.raises(InputError, match=str(export)) as caught:
        run(config, tmp_path / "run")
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()
