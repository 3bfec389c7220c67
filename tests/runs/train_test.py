"""Whole runs on the bundled genomes: meshes agree, a stopped run goes on bitwise, damage and bad numbers are caught."""

import json
import time

import chex
import jax
import numpy as np
import pytest
import safetensors.numpy
from small_run import STEPS, losses_on, rows_of, run, small_config, steps_on, stop_at

import vqdna_jax
from vqdna_jax import train
from vqdna_jax.errors import EXIT_STOPPED, InputError, NumericsError
from vqdna_jax.genome.build.bundled import bundled_corpus
from vqdna_jax.genome.corpus import open_corpus
from vqdna_jax.genome.windows import Windows, evaluation_windows


def test_a_finished_run_leaves_results_pictures_and_a_model(finished):
    result = json.loads((finished / "result.json").read_text())
    assert result["steps"] == STEPS and result["bases_seen"] == STEPS * 8 * 64
    assert 0 < result["reconstruction_accuracy"] <= 1
    assert 0 < result["codebook_1_utilisation"] <= 1 and result["codebook_2_size"] == 32
    assert all(isinstance(value, (int, float)) and np.isfinite(value) for value in result.values())
    for picture in ("curves.png", "codebooks.png"):
        assert (finished / picture).read_bytes().startswith(b"\x89PNG")
    assert list((finished / "tensorboard").iterdir())
    assert [step for step, _ in rows_of(finished)] == list(range(1, STEPS + 1))
    assert [step for step, _ in rows_of(finished, "eval_reconstruction_accuracy")] == [5]


def test_the_export_encodes_as_the_result_says(finished, bundled):
    """The model read back gives the codes that were evaluated: same share of bases rebuilt on the same windows."""
    model = vqdna_jax.load(finished / "export")
    held_out = evaluation_windows(open_corpus(bundled_corpus()), "validation", 64, 64).bases_BxS
    rebuilt = model.decode(model.encode(list(held_out)))
    accuracy = np.mean(
        ["ACGT"[base] == letter for row, text in zip(held_out, rebuilt) for base, letter in zip(row, text)]
    )
    result = json.loads((finished / "result.json").read_text())
    assert accuracy == pytest.approx(result["reconstruction_accuracy"], abs=1e-3)


def test_running_a_finished_run_again_changes_nothing(finished):
    before = (finished / "result.json").stat().st_mtime_ns
    assert run(small_config(), finished) == 0
    assert (finished / "result.json").stat().st_mtime_ns == before


def test_a_run_that_is_stopped_twice_goes_on_bitwise(finished, tmp_path, monkeypatch):
    """In its first step, and later."""
    for step in (0, 4):
        with monkeypatch.context() as patch:
            stop_at(patch, step)
            assert run(small_config(), tmp_path) == EXIT_STOPPED
        assert [s for s, _ in rows_of(tmp_path)] == list(range(1, step + 2))
    assert run(small_config(), tmp_path) == 0
    assert rows_of(tmp_path) == rows_of(finished)
    assert rows_of(tmp_path, "eval_reconstruction_accuracy") == rows_of(finished, "eval_reconstruction_accuracy")
    got, expected = (safetensors.numpy.load_file(d / "export/model.safetensors") for d in (tmp_path, finished))
    chex.assert_trees_all_equal(got, expected)


def test_a_killed_run_repeats_from_its_last_checkpoint(finished, tmp_path, monkeypatch):
    """Metrics written after the checkpoint are dropped and made again, the same."""

    class Killed(Exception):
        pass

    def dies(batches, first_step, original=train.train_iterator):
        for index, batch in enumerate(original(batches, first_step), start=first_step):
            if index == 5:
                while list(tmp_path.glob("checkpoints/*tmp*")):  # a thread of this process, which lives on, saves
                    time.sleep(0.01)
                raise Killed
            yield batch

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(train, "train_iterator", dies)
        run(small_config(), tmp_path)
    assert run(small_config(), tmp_path) == 0
    assert rows_of(tmp_path) == rows_of(finished)


@pytest.mark.parametrize("key, value", [("seed", 1), ("model.width", 32), ("optimizer.learning_rate", 0.1)])
def test_another_config_is_refused_in_a_used_workdir(finished, key, value):
    config = small_config()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(InputError, match=key):
        run(config, finished)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    config = small_config()
    config.optimizer.update(learning_rate=1e38, warmup_steps=0, clip_norm=1e30)
    with pytest.raises(NumericsError, match="step [0-9]+: loss") as caught:
        run(config, tmp_path)
    assert caught.value.exit_code == 44 and "\n" not in str(caught.value)
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"gradient_norm" in events.read_bytes()  # written and closed, up to the step that failed


@pytest.mark.parametrize("reach, shapes", [(0, [(2, 2, 2), (1, 2, 2, 2)]), (3, [(2, 2, 2)])])
def test_meshes_agree(reach, shapes):
    config = small_config()
    config.model.reach = reach
    alone, _ = losses_on(config)
    assert len(set(alone)) == STEPS
    for shape in shapes:
        losses, sharded = losses_on(config, *shape)
        np.testing.assert_allclose(losses, alone, rtol=1e-5)
        up = sharded.params["encoder"]["block_1"]["mlp"]["up"]
        assert up.sharding.spec == jax.P("fsdp", "tensor")
        adam = next(leaf for leaf in jax.tree.leaves(sharded.opt_state) if leaf.shape == up.shape)
        assert adam.sharding.spec == up.sharding.spec


def test_a_step_that_is_not_finite_changes_nothing_but_the_step():
    with steps_on(small_config()) as on:
        batch = on.put(Windows(np.zeros((8, 64), np.uint8)))
        state = on.init(batch)
        before = jax.device_get(state.codebooks)
        poisoned = state.replace(params=jax.tree.map(lambda x: x.at[...].set(np.nan), state.params))
        after, metrics = on.step(poisoned, batch)
    assert not np.isfinite(metrics["loss"]) and int(after.step) == 1
    chex.assert_trees_all_equal(after.codebooks, before)


def test_a_batch_of_n_alone_has_a_defined_loss():
    with steps_on(small_config()) as on:
        batch = on.put(Windows(np.full((8, 64), 4, np.uint8)))
        state, metrics = on.step(on.init(batch), batch)
    assert np.isfinite(metrics["loss"]) and metrics["reconstruction_loss"] == 0
    chex.assert_tree_all_finite(state)
