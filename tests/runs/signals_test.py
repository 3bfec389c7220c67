"""Signals to whole runs, whenever they come: exit code 42, one line that says so, and the same command goes on."""

import pathlib
import re
import signal
import sys
import time
from collections.abc import Callable

import pytest

from tools.processes import CONFIG, TIMEOUT_S, Processes, rows

STEPS = 60
SETTINGS = CONFIG | {"train.total_steps": STEPS, "eval.every_steps": 1000, "train.checkpoint_every_steps": 10}
LONG_S = 12 * TIMEOUT_S


def wait_until(reached: Callable[[], bool], started: Processes) -> float:
    """Seconds that it took."""
    begun = time.monotonic()
    while not reached():
        assert time.monotonic() - begun < LONG_S, started.text()
        assert any(process.poll() is None for process in started.all), started.text()
        time.sleep(0.02)
    return time.monotonic() - begun


def stopped_lines(started: Processes) -> list[str]:
    """What it said of its stop, and of anything that went wrong."""
    return [line for line in started.said[0] if re.search("stopped|Traceback|ignored|rror", line)]


def test_a_run_says_by_which_signal_it_stopped_and_where(tmp_path):
    """Before the first step, between steps and in the final evaluation of one run, which is started again each time."""
    workdir = tmp_path / "run"
    moments = [
        (signal.SIGTERM, lambda _: workdir.exists(), ""),
        (signal.SIGINT, lambda _: max(rows(workdir), default=0) >= 5, r" after \d+ steps"),
        (signal.SIGTERM, lambda started: "evaluating on held-out data ...\n" in started.said[0], ""),
    ]
    for number, reached, where in moments:
        started = Processes(workdir, 1, SETTINGS)
        wait_until(lambda: reached(started), started)  # noqa: B023
        started.all[0].send_signal(number)
        assert started.wait(LONG_S) == [42], started.text()
        (line,) = stopped_lines(started)
        whole = f"stopped by {number.name}{where}, all saved; run the same command to go on\n"
        assert re.fullmatch(whole, line), line
    assert sorted(rows(workdir)) == list(range(1, STEPS + 1))


def heeds_signals(process_id: int) -> bool:
    """Whether the process has a handler of its own for SIGTERM."""
    status = pathlib.Path(f"/proc/{process_id}/status").read_text()
    caught = int(re.search(r"^SigCgt:\s*(\w+)$", status, re.MULTILINE).group(1), 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells when a process heeds signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("count", [1, 2])
def test_a_signal_at_any_time_up_to_the_third_step(number, count, tmp_path):
    """Also while modules are loaded, programs are traced and compiled, processes look for each other."""
    undisturbed = Processes(tmp_path / "0/run", count, SETTINGS | {"train.total_steps": 3})
    seconds = wait_until(lambda: max(rows(tmp_path / "0/run"), default=0) >= 3, undisturbed)
    assert undisturbed.wait(LONG_S) == [0] * count
    for moment in range(8):
        started = Processes(tmp_path / f"{1 + moment}/run", count, SETTINGS)  # each compiles anew
        wait_until(lambda: all(heeds_signals(process.pid) for process in started.all), started)  # noqa: B023
        time.sleep(moment / 8 * seconds)
        started.all[-1].send_signal(number)
        assert started.wait(LONG_S) == [42] * count, started.text()
        (line,) = stopped_lines(started)
        assert line.startswith(f"stopped by {number.name if count == 1 else 'a signal to another process'}"), line
