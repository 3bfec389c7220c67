"""How processes find each other and agree: wrong command lines, differences, dead coordinators, other topologies."""

import os
import signal
import socket

import numpy as np
import pytest

from tools.processes import CONFIG, TIMEOUT_S, Processes, checkpoints, rows
from vqdna_jax.errors import InputError
from vqdna_jax.runtime.cluster import Cluster

STEPS = 30
SETTINGS = CONFIG | {"train.total_steps": STEPS, "train.checkpoint_every_steps": 10, "eval.every_steps": 25}


@pytest.mark.parametrize(
    "cluster, expected",
    [
        (Cluster("host:1"), "belong together"),
        (Cluster("host:1", 2), "belong together"),
        (Cluster("", 2, 0), "belong together"),
        (Cluster("host:1", 2, 2), "expected 0 to 1"),
        (Cluster("host", 2, 0), "expected HOST:PORT"),
        (Cluster("host:1", 2, 0, "tpu"), "finds the processes itself"),
    ],
)
def test_a_command_line_that_cannot_work_is_refused(cluster, expected):
    with pytest.raises(InputError, match=expected):
        cluster.check()


@pytest.mark.parametrize("cluster", [Cluster(), Cluster("host:1", 2, 1), Cluster(found_by="slurm")])
def test_the_others_are_not(cluster):
    cluster.check()


@pytest.mark.parametrize("slurm", [False, True], ids=["by hand", "under slurm"])
def test_processes_find_each_other_and_say_how_they_were_started_differently(slurm, tmp_path):
    started = Processes(tmp_path / "run", 2, SETTINGS, own={1: {"optimizer.learning_rate": 0.5}}, slurm=slurm)
    assert started.wait(6 * TIMEOUT_S) == [43, 43]
    line = "optimizer.learning_rate is 0.001 in process 0 and 0.5 in process 1; start all of them alike"
    assert started.text().count(line) == 2
    assert not (tmp_path / "run").exists()


def test_a_process_alone_waits_for_the_coordinator_only_so_long(tmp_path):
    """Nobody listens: the process with number 1 says so and ends with the code of a lost peer."""
    started = Processes(tmp_path / "run", 2, SETTINGS | {"train.timeout_s": 2.0})
    started.all[0].kill()
    assert started.wait(6 * TIMEOUT_S) == [-signal.SIGKILL, 46]
    assert "nobody answers after 2 s" in started.text()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_goes_on_with_other_processes_and_devices(tmp_path):
    """Two processes, then one with four devices, then two with two each that share sequences: same batches, losses
    that agree to 1e-5 with those of one process with one device.

    The first is stopped by SIGTERM to one of its processes, the second is killed.
    """
    alone = Processes(tmp_path / "alone", 1, SETTINGS)
    moved, ends = tmp_path / "moved", []
    for count, devices, context, number, step in (
        (2, 1, 1, signal.SIGTERM, 8),
        (1, 4, 1, signal.SIGKILL, 21),
        (2, 2, 2, None, 0),
    ):
        started = Processes(moved, count, SETTINGS | {"mesh.context": context}, {"JAX_NUM_CPU_DEVICES": str(devices)})
        if number:
            started.wait_for_step(moved, step, 12 * TIMEOUT_S)
            started.all[-1].send_signal(number)
        ends.append(started.wait(20 * TIMEOUT_S))
        if number == signal.SIGTERM:  # one place for all of them
            assert started.text().count("stopped by") == 1
    assert ends == [[42, 42], [-signal.SIGKILL], [0, 0]] and alone.wait(12 * TIMEOUT_S) == [0]
    got, expected = rows(moved), rows(tmp_path / "alone")
    assert sorted(got) == sorted(expected) == list(range(1, STEPS + 1))
    assert [got[step][0] for step in got] == [expected[step][0] for step in got]
    losses = np.array([[float.fromhex(r[step][1]) for step in sorted(r)] for r in (got, expected)])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts file systems")
def test_a_process_whose_share_is_stale_takes_what_all_can_read(tmp_path):
    """One of two sees nothing in the newest checkpoint: both go on from the one before, with the batches and losses
    that they had."""
    run, settings = tmp_path / "run", SETTINGS | {"train.total_steps": 600}
    started = Processes(run, 2, settings)
    started.wait_for_step(run, 24, 12 * TIMEOUT_S)
    started.all[0].send_signal(signal.SIGTERM)
    assert started.wait(4 * TIMEOUT_S) == [42, 42]
    before = rows(run)
    *_, older, newest = sorted(int(path.name) for path in checkpoints(run))
    hide = f'mount -t tmpfs tmpfs {run}/checkpoints/{newest} && exec "$@"'
    stale = Processes(run, 2, settings, under={1: ["unshare", "--mount", "sh", "-c", hide, "sh"]})
    stale.wait_for_step(run, newest + 5, 12 * TIMEOUT_S)
    stale.all[0].send_signal(signal.SIGTERM)
    assert stale.wait(4 * TIMEOUT_S) == [42, 42]
    assert f"checkpoint {newest} is damaged" in stale.text() and f"steps {older} to" in stale.text()
    assert {step: rows(run)[step] for step in before} == before


def test_a_taken_port_is_said(tmp_path, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr("tools.processes._free_port", lambda: taken.getsockname()[1])
        started = Processes(tmp_path / "run", 2, SETTINGS | {"train.timeout_s": 3.0})
        codes = started.wait(6 * TIMEOUT_S)
    assert codes[0] == 43 and "is the port taken, or" in started.text()
