"""What goes wrong in real runs: damaged checkpoints, small corpora, an export that fails, another mesh, a full disk."""

import contextlib
import errno
import json
import shutil
import threading
import time

import numpy as np
import pytest
from full_disk import largest_file
from ml_collections import ConfigDict
from small_run import STEPS, rows_of, run, small_config, stop_at

from vqdna_jax import partition, train
from vqdna_jax.errors import EXIT_STOPPED, InputError, StorageError, cannot_write, report_and_exit
from vqdna_jax.genome.build.build import build_corpus
from vqdna_jax.stages import vocabulary


def array_files(step_directory):
    """The files that hold array data; orbax keeps some of it twice, so damage must reach them all."""
    return [file for file in step_directory.rglob("*") if file.is_file() and file.parent.name == "d"]


def test_a_damaged_checkpoint_is_noticed_and_the_one_before_is_used(finished, tmp_path):
    """Flipped bits in the newest state: the run goes on from the one before and ends the same."""
    workdir = tmp_path / "damaged"
    shutil.copytree(finished, workdir)
    (workdir / "result.json").unlink()
    for file in array_files(workdir / f"checkpoints/{STEPS}/state"):
        data = np.frombuffer(file.read_bytes(), np.uint8).copy()
        data[::101] ^= 0x10
        file.write_bytes(data.tobytes())
    assert run(small_config(), workdir) == 0
    assert rows_of(workdir) == rows_of(finished)
    assert list((workdir / "checkpoints").glob(f"damaged-{STEPS}-*"))  # set aside, and this step saved again
    assert (workdir / f"checkpoints/{STEPS}/commit_success.txt").exists()


def test_unreadable_checkpoints_stop_the_run(tmp_path):
    """Directories that look like steps and hold nothing: not a fresh workdir."""
    workdir = tmp_path / "hollow"
    (workdir / "checkpoints/5").mkdir(parents=True)
    with pytest.raises(StorageError, match="none of the checkpoints"):
        run(small_config(), workdir)


def test_no_whole_checkpoint_stops_the_run_and_never_starts_afresh(finished, tmp_path):
    workdir = tmp_path / "all_damaged"
    shutil.copytree(finished, workdir)
    for file in array_files(workdir / "checkpoints"):
        file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(StorageError, match="none of the checkpoints"):
        run(small_config(), workdir)


def test_a_run_stopped_on_one_mesh_goes_on_on_another(finished, tmp_path, monkeypatch):
    """Data 2 x fsdp 2 x tensor 2, then data 4 x context 2: evaluation, checkpoint and export included."""
    config = small_config()
    config.mesh.update(fsdp=2, tensor=2)
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        assert run(config, tmp_path, devices=8) == EXIT_STOPPED
    config.mesh.update(fsdp=1, tensor=1, context=2)
    assert run(config, tmp_path, devices=8) == 0
    losses, expected = np.array(rows_of(tmp_path)), np.array(rows_of(finished))
    np.testing.assert_array_equal(losses[:, 0], expected[:, 0])
    np.testing.assert_allclose(losses[:, 1], expected[:, 1], rtol=1e-5)
    accuracies = [
        json.loads((workdir / "result.json").read_text())["reconstruction_accuracy"] for workdir in (tmp_path, finished)
    ]
    assert accuracies[0] == pytest.approx(accuracies[1], abs=2e-3)


def test_another_version_is_warned_of_on_resume(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        stop_at(patch, 1)
        patch.setattr(train, "versions", lambda: {"jax": "0.0.1"})
        assert run(small_config(), tmp_path) == EXIT_STOPPED
    assert "versions changed" not in capsys.readouterr().err
    assert run(small_config(), tmp_path) == 0
    assert "versions changed since the checkpoint, results may too: " in (err := capsys.readouterr().err)
    assert "jax 0.0.1 -> " in err


def test_a_corpus_of_one_species_and_a_single_held_out_window(bundled, tmp_path):
    """No species to tell apart and no second window to score strands on: those keys are left out, the rest is there."""
    build_corpus([bundled / "phiX174.fa.gz"], tmp_path / "corpus", validation_share=0.02, progress=False)
    config = small_config()
    config.data.corpus = str(tmp_path / "corpus")
    config.train.total_steps = 2
    assert run(config, tmp_path / "run") == 0
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["held_out_windows"] == 1 and "reconstruction_accuracy" in result
    assert not any("probe" in name or "strand" in name for name in result)


def test_an_export_that_fails_is_made_by_the_next_run(tmp_path, monkeypatch):
    def full_disk(*_):
        raise StorageError("export: cannot be written (No space left on device)")

    with monkeypatch.context() as patch, pytest.raises(StorageError):
        patch.setattr(vocabulary.tokenizer, "save", full_disk)
        run(small_config(), tmp_path)
    assert not (tmp_path / "result.json").exists()
    assert run(small_config(), tmp_path) == 0
    assert (tmp_path / "result.json").exists() and (tmp_path / "export/model.safetensors").exists()


def no_save_goes_on() -> None:
    """Waits for the thread of orbax that ends a save."""
    while any(thread.name == "save_finalize" for thread in threading.enumerate()):
        time.sleep(0.01)


@contextlib.contextmanager
def failing_saves(monkeypatch, steps: range):
    """From before the first to before the last of them no file may be as large as those of a checkpoint; the log is
    smaller."""
    original = train.train_iterator

    def limited(batches, first_step):
        for index, batch in enumerate(original(batches, first_step), start=first_step):
            if index in (steps.start, steps.stop):
                no_save_goes_on()
            if index == steps.start:
                limit.enter_context(largest_file(20_000))
            if index == steps.stop:
                limit.close()
            yield batch

    with contextlib.ExitStack() as limit, monkeypatch.context() as patch:
        patch.setattr(train, "train_iterator", limited)
        yield


def often() -> ConfigDict:
    config = small_config()
    config.train.checkpoint_every_steps = 2
    return config


def test_a_save_that_fails_costs_nothing_but_that_checkpoint(finished, tmp_path, monkeypatch, capsys):
    """Those of steps 2 and 4 cannot be written, that of 6 can: the run is the undisturbed one."""
    with failing_saves(monkeypatch, range(1, 5)):
        assert run(often(), tmp_path) == 0
    first, second = (line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: "))
    assert "checkpoint 2 could not" in first and "checkpoint 4 could not" in second and "(2 of 3 failures" in second
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"6", str(STEPS)}
    assert rows_of(tmp_path) == rows_of(finished)


def test_a_disk_that_stays_full_ends_the_run_and_the_next_goes_on(finished, tmp_path, monkeypatch, capsys):
    with failing_saves(monkeypatch, range(3, 99)), pytest.raises(SystemExit) as ended, report_and_exit():
        run(often(), tmp_path)
    assert ended.value.code == 45
    said = [line for line in capsys.readouterr().err.splitlines() if "could not be written" in line]
    assert [line.split(":")[0] for line in said] == ["warning", "warning", "error"]
    assert {path.name for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()} == {"2"}
    assert run(often(), tmp_path) == 0 and rows_of(tmp_path) == rows_of(finished)


def test_a_collapsed_codebook_is_warned_of(tmp_path, capsys):
    from vqdna_jax.training.metrics import StepLog, Throughput

    log = StepLog(tmp_path, 0, 10, 1, lambda step: 0.1, Throughput(1, 1.0, 1))
    log.evaluation(5, {"codebook_1_utilisation": 0.12, "codebook_2_utilisation": 1.0})
    log.close()
    warned = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(warned) == 1 and "codebook 1: only 12%" in warned[0]


def test_a_place_that_cannot_be_written_is_input_and_a_full_disk_is_storage(capsys):
    for code in (errno.EACCES, errno.EROFS, errno.EEXIST, errno.ENOTDIR):
        assert isinstance(cannot_write("out", OSError(code, "no")), InputError)
    assert isinstance(cannot_write("out", OSError(errno.ENOSPC, "full")), StorageError)
    with pytest.raises(SystemExit) as ended, report_and_exit():
        raise OSError(errno.ENOSPC, "No space left on device", "metrics.jsonl")
    assert ended.value.code == 45 and capsys.readouterr().err.startswith("error: metrics.jsonl: No space left")


@pytest.mark.parametrize("axes", [{"fsdp": 0}, {"tensor": 0}, {"data": -2}])
def test_a_mesh_axis_below_one_is_refused(axes):
    with pytest.raises(InputError, match="expected 1 or more"):
        partition.make_mesh(**axes)
