"""launch/slurm.sbatch: what reaches every task, when it is queued again, and what is missing."""

import shutil
import signal

import pytest
from small_cloud import HARD, RUN, one_error


@pytest.mark.parametrize(
    "codes, restarted, scancel, code, requeued",
    [
        ([0, 0, 0], 0, False, 0, False),
        ([42, 42, 42], 0, False, 42, True),
        ([46, -signal.SIGABRT, -signal.SIGKILL], 49, False, 46, True),
        ([46, 42, 42], 50, False, 46, False),
        ([43, -signal.SIGTERM, 46], 0, False, 43, False),
        ([44, 44, 134], 0, False, 44, False),
        ([-signal.SIGKILL, 45, 46], 0, False, 45, False),
        ([42, 42, 42], 0, True, 42, False),
    ],
)
def test_slurm_requeues_after_42_and_46_with_a_limit_and_never_a_cancelled_job(
    cloud, codes, restarted, scancel, code, requeued
):
    cloud.plan(codes=[codes], scancel=scancel)
    (cloud.folder / "venv/bin").mkdir(parents=True)
    shutil.copy(cloud.folder / "bin/trainer", cloud.folder / "venv/bin/python")
    ended, out, err = cloud.launch(
        "slurm.sbatch",
        *RUN,
        *HARD,
        SLURM_SUBMIT_DIR=str(cloud.clone),
        SLURM_JOB_ID="7",
        SLURM_NTASKS="3",
        SLURM_RESTART_COUNT=str(restarted),
        VENV=str(cloud.folder / "venv"),
    )
    assert ended == code, out + err
    assert cloud.calls("scontrol") == ([["requeue", "7"]] if requeued else [])
    assert cloud.trained_with(2) == ["-m", "vqdna_jax.main", *RUN[1:], *HARD, "--multihost=slurm"]
    assert "start 0 of host 1" in out


def test_slurm_says_where_to_submit_and_what_is_missing(cloud):
    code, _, err = cloud.launch("slurm.sbatch", *RUN, SLURM_SUBMIT_DIR=str(cloud.folder))
    assert code == 43 and "is not the folder of the clone" in one_error(err)
    code, _, err = cloud.launch("slurm.sbatch", *RUN, VENV=str(cloud.folder))
    assert code == 43 and "there is no bin/python" in one_error(err)
