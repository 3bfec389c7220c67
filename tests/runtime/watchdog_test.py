"""Processes that hang in every way end with 46 and their stacks; those that do not are left alone. Plain interpreters.

All the processes that hang are started at once and waited for together: each test then looks at one of them.
"""

import concurrent.futures
import os
import pathlib
import signal
import sys
import time

import pytest
from hanging_programs import HANGS, LIMIT_S, NO_HANGS, finish, start

from vqdna_jax.runtime import watchdog


@pytest.fixture(scope="module")
def ended():
    with concurrent.futures.ThreadPoolExecutor(len(HANGS | NO_HANGS)) as pool:
        futures = {name: pool.submit(finish, start(script)) for name, script in (HANGS | NO_HANGS).items()}
        return {name: future.result() for name, future in futures.items()}


def gone(pid: int, within_s: float = 5.0) -> bool:
    """A zombie that its new parent has not waited for yet has gone too."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            if pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize(
    "name, functions",
    [
        ("sleep", ["waits_for_ever"]),
        ("held_gil", ["holds_the_gil"]),
        ("held_gil_in_a_thread", ["holds_the_gil", "goes_on_in_main"]),
        ("stopped", ["is_stopped"]),
        ("stopped_while_a_thread_beats", ["is_stopped"]),
        ("deadlock", ["takes_first_then_second", "takes_second_then_first"]),
        ("masked", ["waits_for_ever"]),
        ("after_its_child_was_killed", ["waits_for_ever"]),
        ("child_was_told_to_end", ["waits_for_ever"]),
        ("without_pidfd", ["waits_for_ever"]),
    ],
)
def test_a_process_that_hangs_prints_its_stacks_and_ends_with_46(ended, name, functions):
    end = ended[name]
    assert end.code == watchdog.EXIT_STUCK, end.err
    last_beat_s = LIMIT_S / 8  # before the hang, at most, where a thread beats
    assert LIMIT_S - last_beat_s - 0.01 <= end.seconds < 2 * LIMIT_S
    assert all(f"in {function}\n" in end.err for function in functions), end.err
    line = "error: no sign of life for 1 s after 7 steps: exit code 46, the stacks of all threads follow\n"
    assert end.err.count(line) == 1 and end.err.index(line) < end.err.index(f"in {functions[0]}\n")
    assert end.err.count("warning") == (name == "after_its_child_was_killed")


def test_before_the_first_step_the_limit_runs_from_the_start(ended):
    end = ended["never_steps"]
    assert end.code == 46 and "for 1 s before the first step" in end.err and "in compiles_for_ever\n" in end.err


def test_before_any_beat_the_limit_runs_from_the_start_of_the_child(ended):
    end = ended["stopped_before_any_beat"]
    assert end.code == 46 and "for 1 s before the first step" in end.err and "in is_stopped\n" in end.err


def test_where_there_is_no_signal_46_it_aborts(ended):
    end = ended["abort"]
    assert end.code == -signal.SIGABRT and "exit code 134" in end.err and "in waits_for_ever\n" in end.err


def test_what_the_signal_does_not_end_is_killed(ended):
    end = ended["signal_without_effect"]
    assert end.code == -signal.SIGKILL and end.err.splitlines()[-1].startswith("error: it did not end within 5 s")
    assert end.seconds < 2 * LIMIT_S + watchdog.GRACE_S


@pytest.mark.parametrize("name", NO_HANGS)
def test_no_false_alarm(ended, name):
    assert (ended[name].code, ended[name].err) == (0, "")


@pytest.mark.parametrize("first", ["", "without_pidfd()"])
@pytest.mark.parametrize("forked_workers", [False, True])
def test_the_child_ends_with_a_process_that_is_killed(forked_workers, first):
    """Also when a forked worker lives on and holds the other end of the child's pipe."""
    process = start(
        f"""
        {first}
        with Watchdog(60) as dog:
            worker = os.fork() if {forked_workers} else 0
            if {forked_workers} and not worker:
                os.close(1), os.close(2)
                time.sleep(60)
                os._exit(0)
            say(dog._child.pid, worker)
            time.sleep(60)
        """
    )
    child, worker = map(int, process.stdout.readline().split())
    assert not gone(child, within_s=0.2)
    process.kill()
    end = finish(process)  # to the end of stderr, which the child had inherited
    assert gone(child) and end.err == "" and end.code == -signal.SIGKILL
    if worker:
        assert not gone(worker, within_s=0)
        os.kill(worker, signal.SIGKILL)


def test_a_signal_to_the_whole_group_ends_the_process_and_so_the_child():
    process = start("with Watchdog(60) as dog: say(dog._child.pid), time.sleep(60)", start_new_session=True)
    child = int(process.stdout.readline())
    os.killpg(process.pid, signal.SIGTERM)
    assert finish(process).code == -signal.SIGTERM and gone(child)


def test_children_that_are_killed_are_replaced_until_none_is_left(capfd):
    with watchdog.Watchdog(60) as dog:
        for step in range(watchdog.CHILDREN + 2):
            if dog._child:
                dog._child.kill()
                dog._child.wait()
            dog.beat(step)
        assert dog._child is None
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == watchdog.CHILDREN and all("warning: the watchdog's process has gone" in line for line in lines)
    assert [line.endswith("none is left") for line in lines] == [False] * (watchdog.CHILDREN - 1) + [True]


def test_a_child_that_cannot_be_started_is_warned_of(monkeypatch, capfd):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with watchdog.Watchdog(60) as dog:
        dog.beat(1)
    assert capfd.readouterr().err.startswith("warning: no watchdog (")


def test_a_beat_is_cheap_and_never_waits_for_a_child_that_does_not_read(capfd):
    with watchdog.Watchdog(60) as dog:
        dog._child.send_signal(signal.SIGSTOP)
        try:
            start_s = time.perf_counter()
            for step in range(20_000):  # four times what the pipe holds
                dog.beat(step)
            seconds = time.perf_counter() - start_s
        finally:
            dog._child.send_signal(signal.SIGCONT)
    assert seconds / 20_000 < 20e-6 and capfd.readouterr().err == ""


def test_signal_46_is_as_before_after_the_block():
    before = signal.getsignal(46)
    process = start(
        """
        with Watchdog(60):
            pass
        os.kill(os.getpid(), 46)
        """
    )
    assert finish(process).code == -46 and signal.getsignal(46) == before


@pytest.mark.parametrize("steps, words", [(0, "after 0 steps"), (1, "after 1 step"), (2, "after 2 steps")])
def test_one_step_is_no_steps(steps, words):
    assert watchdog.after(steps) == words
