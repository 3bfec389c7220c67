"""Phases: time goes to the innermost one and back, steps are paused in time, and each has a limit of its own."""

import os
import signal
import types

import pytest
from small_run import Recorder

from vqdna_jax.runtime.stopping import Stopped, StopRequest
from vqdna_jax.runtime.watchdog import COMPILE_LIMITS
from vqdna_jax.training import goodput
from vqdna_jax.training.goodput import Goodput
from vqdna_jax.training.phases import BUCKETS, Phases

LIMIT_S = 100.0
LONG = COMPILE_LIMITS * LIMIT_S


class Beats(Recorder):
    """Remembers all that it allowed: (seconds, steps done)."""

    def __init__(self):
        super().__init__(LIMIT_S)
        self.all = []

    def allow(self, seconds: float, step: int) -> None:
        self.all.append((seconds, step))


@pytest.fixture
def wait(monkeypatch):
    """Lets seconds pass on the clock of the run."""
    now = [0]
    monkeypatch.setattr(goodput, "time", types.SimpleNamespace(monotonic_ns=lambda: now[0]))

    def pass_seconds(seconds: int) -> None:
        now[0] += seconds * 10**9

    return pass_seconds


@pytest.fixture
def run(wait):
    with StopRequest() as stop, stop.noted():
        yield Phases(Beats(), Goodput(), stop)


def spent(run) -> dict[str, float]:
    run.clock.close()
    return {bucket: seconds for bucket, seconds in run.clock.seconds().items() if seconds}


def test_a_phase_within_another_gives_time_back_to_it(run, wait):
    wait(1)
    with run.phase("devices"):
        wait(2)
    with run.phase("prepare"):
        wait(4)
        with run.phase("restore"):
            wait(8)
        wait(16)
    wait(32)  # between two phases
    with run.phase("step"), run.phase("evaluate"):
        wait(64)
    with run.phase("step"):
        with run.phase("read"):
            wait(128)
        wait(256)
    assert spent(run) == {
        "tpu_initialization": 1 + 2,
        "training_prep": 4 + 16 + 32,
        "unproductive_checkpoint_restore_time": 8,
        "custom_badput_events": 64,
        "data_loading_sync": 128,
        "step": 256,
    }


def test_a_phase_that_fails_gives_time_back_too(run, wait):
    with run.phase("step"):
        with pytest.raises(OSError), run.phase("save"):
            wait(1)
            raise OSError
        wait(2)
    assert spent(run) == {"unproductive_checkpoint_save_time": 1, "step": 2} and run.name == "prepare"


@pytest.mark.parametrize("name", BUCKETS)
def test_steps_are_paused_before_an_evaluation_or_a_save_begins(run, name):
    paused = []
    run.pause = lambda: paused.append((run.name, len(run.watchdog.all)))
    with run.phase("step"), run.phase(name):
        assert run.name == name
    assert paused == ([("step", 1)] if name in ("evaluate", "save") else [])


@pytest.mark.parametrize("name", BUCKETS)
def test_what_may_compile_has_longer_than_a_step(run, name):
    with run.phase(name, 5), run.phase(name, settled=False):
        pass
    assert run.watchdog.all == [(LIMIT_S if name in ("read", "step") else LONG, 5), (LONG, 5)]


def test_each_batch_of_an_evaluation_is_a_sign_of_life_and_those_of_the_last_one_are_not(run):
    """There a thread beats, with the limit of a step."""
    with run.phase("evaluate", 7):
        run.between_batches()
    assert run.watchdog.all == [(LONG, 7)] * 2
    with run.phase("finish", 9):
        run.between_batches()
    assert run.watchdog.all[2:] == [(LONG, 9)]


@pytest.mark.parametrize("name", ["evaluate", "finish"])
def test_an_evaluation_is_left_between_batches(run, name):
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Stopped), run.phase(name):
        run.between_batches()
