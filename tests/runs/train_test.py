"""Whole runs on the bundled genomes: meshes agree, a stopped run goes on bitwise, damage and bad numbers are caught."""

import functools
import json

import jax
import numpy as np
import pytest
import safetensors.numpy
from small_run import STEPS, rows_of, run, small_config, stop_at

import vqdna_jax
from vqdna_jax import partition, train
from vqdna_jax.errors import EXIT_STOPPED, InputError, NumericsError
from vqdna_jax.genome.build.bundled import bundled_corpus
from vqdna_jax.genome.corpus import open_corpus
from vqdna_jax.genome.windows import Windows, evaluation_windows
from vqdna_jax.stages import read_settings, vocabulary
from vqdna_jax.stages.base import open_windows
from vqdna_jax.training.optimizer import make_optimizer
from vqdna_jax.training.step import init_state, train_step


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One undisturbed run."""
    workdir = tmp_path_factory.mktemp("undisturbed")
    assert run(small_config(), workdir) == 0
    return workdir


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


@pytest.mark.parametrize("step", [0, 4])
def test_a_stopped_run_goes_on_bitwise(finished, tmp_path, monkeypatch, step):
    with monkeypatch.context() as patch:
        stop_at(patch, step)
        assert run(small_config(), tmp_path) == EXIT_STOPPED
    assert [s for s, _ in rows_of(tmp_path)] == list(range(1, step + 2))
    assert run(small_config(), tmp_path) == 0
    assert rows_of(tmp_path) == rows_of(finished)
    assert rows_of(tmp_path, "eval_reconstruction_accuracy") == rows_of(finished, "eval_reconstruction_accuracy")
    got, expected = (safetensors.numpy.load_file(d / "export/model.safetensors") for d in (tmp_path, finished))
    assert got.keys() == expected.keys()
    assert all(np.array_equal(got[name], expected[name]) for name in got)


def test_a_killed_run_repeats_from_its_last_checkpoint(finished, tmp_path, monkeypatch):
    """Metrics written after the checkpoint are dropped and made again, the same."""

    class Killed(Exception):
        pass

    def dies(batches, first_step, original=train.train_iterator):
        for index, batch in enumerate(original(batches, first_step), start=first_step):
            if index == 5:
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


def losses_on(data, fsdp, tensor):
    settings = read_settings(small_config())
    task, tx = vocabulary.vocabulary_task(settings), make_optimizer(settings.optimizer, STEPS)
    batches = open_windows(settings)[1].batches
    mesh = partition.make_mesh(data, fsdp, tensor, devices=jax.devices()[: data * fsdp * tensor])
    key, losses = jax.random.key(0), []
    with jax.set_mesh(mesh):
        global_batches = [partition.batch_to_devices(batches[t], mesh, 8) for t in range(STEPS)]
        state = jax.jit(functools.partial(init_state, task, tx))(key, (), global_batches[0])
        step = jax.jit(functools.partial(train_step, task, tx), donate_argnums=0)
        for batch in global_batches:
            state, metrics = step(state, (), batch, key)
            losses.append(float(metrics["loss"]))
    return losses, state


def test_meshes_agree():
    alone, state = losses_on(1, 1, 1)
    assert len(set(alone)) == STEPS
    for shape in ((8, 1, 1), (4, 2, 1), (2, 2, 2)):
        losses, sharded = losses_on(*shape)
        np.testing.assert_allclose(losses, alone, rtol=1e-5)
        up = sharded.params["encoder"]["block_1"]["mlp"]["up"]
        assert up.sharding.spec == jax.P("fsdp", "tensor")
        adam = next(leaf for leaf in jax.tree.leaves(sharded.opt_state) if leaf.shape == up.shape)
        assert adam.sharding.spec == up.sharding.spec


def test_a_step_that_is_not_finite_changes_nothing_but_the_step():
    settings = read_settings(small_config())
    task, tx = vocabulary.vocabulary_task(settings), make_optimizer(settings.optimizer, STEPS)
    mesh = partition.make_mesh(devices=jax.devices()[:1])
    with jax.set_mesh(mesh):
        batch = partition.batch_to_devices(Windows(np.zeros((8, 64), np.uint8)), mesh, 8)
        state = jax.jit(functools.partial(init_state, task, tx))(jax.random.key(0), (), batch)
        poisoned = state.replace(params=jax.tree.map(lambda x: x.at[...].set(np.nan), state.params))
        after, metrics = jax.jit(functools.partial(train_step, task, tx))(poisoned, (), batch, jax.random.key(0))
    assert not np.isfinite(metrics["loss"]) and int(after.step) == 1
    for new, old in zip(jax.tree.leaves(after.codebooks), jax.tree.leaves(poisoned.codebooks)):
        np.testing.assert_array_equal(new, old)


def test_a_batch_of_n_alone_has_a_defined_loss():
    settings = read_settings(small_config())
    task, tx = vocabulary.vocabulary_task(settings), make_optimizer(settings.optimizer, STEPS)
    mesh = partition.make_mesh(devices=jax.devices()[:1])
    with jax.set_mesh(mesh):
        batch = partition.batch_to_devices(Windows(np.full((8, 64), 4, np.uint8)), mesh, 8)
        state = jax.jit(functools.partial(init_state, task, tx))(jax.random.key(0), (), batch)
        state, metrics = jax.jit(functools.partial(train_step, task, tx))(state, (), batch, jax.random.key(0))
    assert np.isfinite(metrics["loss"]) and metrics["reconstruction_loss"] == 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
