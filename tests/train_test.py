"""Whole runs on the bundled genomes: meshes agree, a stopped run goes on bitwise, damage and bad numbers are caught."""

import functools
import json
import os
import signal

import jax
import numpy as np
import pytest
import safetensors.numpy

import vqdna_jax
from configs import hrq
from vqdna_jax import partition, train
from vqdna_jax.errors import EXIT_STOPPED, InputError, NumericsError, StorageError
from vqdna_jax.genome.corpus import bundled_corpus, open_corpus
from vqdna_jax.optimizer import make_optimizer
from vqdna_jax.step import init_state, train_step

STEPS = 8


def small_config():
    c = hrq.get_config("tiny")
    c.data.update(window_bp=64, global_batch=8)
    c.model.update(code_size=8, width=16, blocks=2, stem_channels=8)
    c.optimizer.warmup_steps = 2
    c.train.update(total_steps=STEPS, log_every_steps=1, checkpoint_every_steps=3)
    c.eval.update(every_steps=5, windows=64, batch=32)
    return c


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    monkeypatch.setattr(train, "make_mesh", functools.partial(partition.make_mesh, devices=jax.devices()[:1]))


def rows_of(workdir, name="loss"):
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [(row["step"], row[name]) for row in rows if name in row]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One undisturbed run."""
    workdir = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "make_mesh", functools.partial(partition.make_mesh, devices=jax.devices()[:1]))
        assert train.train(small_config(), workdir) == 0
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
    held_out = train.evaluation_windows(open_corpus(bundled_corpus()), "validation", 64, 64)["bases"]
    rebuilt = model.decode(model.encode(list(held_out)))
    accuracy = np.mean(
        ["ACGT"[base] == letter for row, text in zip(held_out, rebuilt) for base, letter in zip(row, text)]
    )
    result = json.loads((finished / "result.json").read_text())
    assert accuracy == pytest.approx(result["reconstruction_accuracy"], abs=1e-3)


def test_running_a_finished_run_again_changes_nothing(finished):
    before = (finished / "result.json").stat().st_mtime_ns
    assert train.train(small_config(), finished) == 0
    assert (finished / "result.json").stat().st_mtime_ns == before


def stop_at(monkeypatch, step):
    """SIGTERM to this process while the batch of `step` is read."""
    original = train.train_iterator

    def interrupted(batches, first_step):
        for index, batch in enumerate(original(batches, first_step), start=first_step):
            if index == step:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    monkeypatch.setattr(train, "train_iterator", interrupted)


@pytest.mark.parametrize("step", [0, 4])
def test_a_stopped_run_goes_on_bitwise(finished, tmp_path, monkeypatch, step):
    with monkeypatch.context() as patch:
        stop_at(patch, step)
        assert train.train(small_config(), tmp_path) == EXIT_STOPPED
    assert [s for s, _ in rows_of(tmp_path)] == list(range(1, step + 2))
    assert train.train(small_config(), tmp_path) == 0
    assert rows_of(tmp_path) == rows_of(finished)
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
        train.train(small_config(), tmp_path)
    assert train.train(small_config(), tmp_path) == 0
    assert rows_of(tmp_path) == rows_of(finished)


@pytest.mark.parametrize("key, value", [("seed", 1), ("model.width", 32), ("optimizer.learning_rate", 0.1)])
def test_another_config_is_refused_in_a_used_workdir(finished, key, value):
    config = small_config()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(InputError, match=key):
        train.train(config, finished)


def newest_array_file(workdir):
    files = [f for f in (workdir / f"checkpoints/{STEPS}/state").rglob("*") if f.is_file() and "/d/" in str(f)]
    return max(files, key=lambda f: f.stat().st_size)


def test_a_damaged_checkpoint_is_noticed_and_the_one_before_is_used(finished, tmp_path):
    """A flipped bit in the newest state: the run goes on from the one before and ends the same."""
    import shutil

    workdir = tmp_path / "damaged"
    shutil.copytree(finished, workdir)
    (workdir / "result.json").unlink()
    file = newest_array_file(workdir)
    data = bytearray(file.read_bytes())
    for position in range(len(data) // 2, len(data) // 2 + 64):
        data[position] ^= 0x10
    file.write_bytes(bytes(data))
    assert train.train(small_config(), workdir) == 0
    assert rows_of(workdir) == rows_of(finished)


def test_no_whole_checkpoint_stops_the_run_and_never_starts_afresh(finished, tmp_path):
    import shutil

    workdir = tmp_path / "all_damaged"
    shutil.copytree(finished, workdir)
    for file in (workdir / "checkpoints").rglob("*"):
        if file.is_file() and "/state/d/" in str(file):
            file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(StorageError, match="none of the checkpoints"):
        train.train(small_config(), workdir)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    config = small_config()
    config.optimizer.update(learning_rate=1e38, warmup_steps=0, clip_norm=1e30)
    with pytest.raises(NumericsError, match="step [0-9]+: loss") as caught:
        train.train(config, tmp_path)
    assert caught.value.exit_code == 44 and "\n" not in str(caught.value)


def losses_on(data, fsdp, tensor):
    config = small_config()
    task, tx = train.make_task(config), make_optimizer(config.optimizer, STEPS)
    batches = train.open_batches(config, open_corpus(bundled_corpus()))
    mesh = partition.make_mesh(data, fsdp, tensor, devices=jax.devices()[: data * fsdp * tensor])
    key, losses = jax.random.key(0), []
    with jax.set_mesh(mesh):
        global_batches = [partition.batch_to_devices({"bases": batches[t]["bases"]}, mesh, 8) for t in range(STEPS)]
        state = jax.jit(functools.partial(init_state, task, tx))(key, global_batches[0])
        step = jax.jit(functools.partial(train_step, task, tx), donate_argnums=0)
        for batch in global_batches:
            state, metrics = step(state, batch, key)
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
    config = small_config()
    task, tx = train.make_task(config), make_optimizer(config.optimizer, STEPS)
    mesh = partition.make_mesh(devices=jax.devices()[:1])
    with jax.set_mesh(mesh):
        batch = partition.batch_to_devices({"bases": np.zeros((8, 64), np.uint8)}, mesh, 8)
        state = jax.jit(functools.partial(init_state, task, tx))(jax.random.key(0), batch)
        poisoned = state.replace(params=jax.tree.map(lambda x: x.at[...].set(np.nan), state.params))
        after, metrics = jax.jit(functools.partial(train_step, task, tx))(poisoned, batch, jax.random.key(0))
    assert not np.isfinite(metrics["loss"]) and int(after.step) == 1
    for new, old in zip(jax.tree.leaves(after.codebooks), jax.tree.leaves(poisoned.codebooks)):
        np.testing.assert_array_equal(new, old)


def test_a_batch_of_n_alone_has_a_defined_loss():
    config = small_config()
    task, tx = train.make_task(config), make_optimizer(config.optimizer, STEPS)
    mesh = partition.make_mesh(devices=jax.devices()[:1])
    with jax.set_mesh(mesh):
        batch = partition.batch_to_devices({"bases": np.full((8, 64), 4, np.uint8)}, mesh, 8)
        state = jax.jit(functools.partial(init_state, task, tx))(jax.random.key(0), batch)
        state, metrics = jax.jit(functools.partial(train_step, task, tx))(state, batch, jax.random.key(0))
    assert np.isfinite(metrics["loss"]) and metrics["reconstruction_loss"] == 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
