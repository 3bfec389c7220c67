"""Saves that fail for a while, as on a share that is away: said, never taken for saved, and the next ones are made."""

import contextlib
import shutil

import pytest
from full_disk import largest_file
from refusals import refusal
from small_checkpoints import restored_step, scaled, settled, steps_in

from vqdna_jax.errors import StorageError
from vqdna_jax.training.checkpoint import FAILURES, Checkpoints

# Fails at orbax's metadata, at the arrays, at the seal, which is written last.
LIMITS = [0, 100, 300, 1000]


@pytest.mark.parametrize("limit", LIMITS)
def test_a_save_that_fails_is_told_and_the_next_ones_are_made(tmp_path, capsys, limit):
    """It is not taken for saved, by this process nor the next; the next is made; the older ones are pruned as ever."""
    run = tmp_path / "run"
    checkpoints = Checkpoints(run, keep=2, run_id="this")
    settled(checkpoints, 1)
    with largest_file(limit):
        settled(checkpoints, 2)
    (told,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert f"{run}: checkpoint 2 could not be written" in told and f"(1 of {FAILURES} failures" in told
    assert restored_step(shutil.copytree(run, tmp_path / "killed")) == 1
    for step in (2, 3, 4):
        settled(checkpoints, step)
    checkpoints.close()
    assert "warning" not in capsys.readouterr().err
    assert steps_in(run) == ["3", "4"] and restored_step(run) == 4


@pytest.mark.parametrize("limit", LIMITS)
def test_so_many_saves_in_a_row_that_fail_end_the_run(tmp_path, capsys, limit):
    checkpoints = Checkpoints(tmp_path, keep=2, run_id="this")
    settled(checkpoints, 1)
    for step in range(2, 2 + FAILURES):  # a save that goes well starts the count anew
        with largest_file(limit):
            settled(checkpoints, 10 * step)
        settled(checkpoints, step)
    with largest_file(limit):
        for step in range(10, 9 + FAILURES):
            settled(checkpoints, step)
        message = refusal(settled, checkpoints, 20, error=StorageError)
    assert "checkpoint 20 could not be written" in message and "run the same command again" in message
    assert restored_step(tmp_path) == 1 + FAILURES


@pytest.mark.parametrize("limit", LIMITS)
def test_the_last_save_of_a_run_is_whole_or_an_error(tmp_path, capsys, limit):
    """Also where it is of the same step as one that has failed unseen."""
    checkpoints = Checkpoints(tmp_path, keep=2, run_id="this")
    with largest_file(limit):
        refusal(checkpoints.save_whole, 1, scaled(1), {"config": {}}, error=StorageError)
        checkpoints = Checkpoints(tmp_path, keep=2, run_id="this")
        checkpoints.save(1, scaled(1), {"config": {}})
        with contextlib.suppress(OSError, ValueError):
            checkpoints._manager.wait_until_finished()
    checkpoints.save_whole(1, scaled(1), {"config": {}})
    checkpoints.close()
    assert restored_step(tmp_path) == 1


def test_a_save_that_is_left_out_is_said(tmp_path, capsys):
    checkpoints = Checkpoints(tmp_path, keep=2, run_id="this")
    settled(checkpoints, 1)
    assert capsys.readouterr().err == ""
    checkpoints.save_whole(1, scaled(3), {"config": {}})
    checkpoints.close()
    assert capsys.readouterr().err == "checkpoint 1 is there already: not saved again\n"
    assert restored_step(tmp_path) == 1
