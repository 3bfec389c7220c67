"""Programs that hang in every way, and some that do not, in plain interpreters under a watchdog."""

import dataclasses
import pathlib
import subprocess
import sys
import textwrap
import time

from vqdna_jax.runtime import watchdog

LIMIT_S = 1.0
PRELUDE = """
import ctypes, os, signal, subprocess, sys, threading, time
from vqdna_jax.runtime import watchdog
from vqdna_jax.runtime.watchdog import Watchdog

def say(*words):
    print(*words, flush=True)

def without_pidfd():
    descriptor = os.memfd_create("child")
    os.write(descriptor, b"import os; del os.pidfd_open;" + open(watchdog.__file__, "rb").read())
    watchdog.__file__ = f"/proc/{os.getpid()}/fd/{descriptor}"
"""


HANGS = {
    "sleep": """
        def waits_for_ever():
            say(time.monotonic())
            time.sleep(60)
        with Watchdog(1) as dog:
            dog.beat(7)
            waits_for_ever()
        """,
    "held_gil": """
        def holds_the_gil():
            say(time.monotonic())
            ctypes.PyDLL(None).sleep(60)
        with Watchdog(1) as dog:
            dog.beat(7)
            holds_the_gil()
        """,
    "held_gil_in_a_thread": """
        def holds_the_gil():
            time.sleep(0.2)
            say(time.monotonic())
            ctypes.PyDLL(None).pause()
        def goes_on_in_main():
            while True:
                dog.beat(7)
                time.sleep(0.02)
        with Watchdog(1) as dog:
            threading.Thread(target=holds_the_gil).start()
            goes_on_in_main()
        """,
    "stopped": """
        def is_stopped():
            say(time.monotonic())
            os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(60)  # woken to print its stacks, it is still here
        with Watchdog(1) as dog:
            dog.beat(7)
            is_stopped()
        """,
    "stopped_before_any_beat": """
        def is_stopped():
            say(time.monotonic())
            os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(60)  # woken to print its stacks, it is still here
        Watchdog.beat = lambda *_: is_stopped()
        Watchdog(1).__enter__()
        """,
    "stopped_while_a_thread_beats": """
        def is_stopped():
            time.sleep(1.5)
            say(time.monotonic())
            os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(60)  # woken to print its stacks, it is still here
        with Watchdog(1) as dog:
            dog.beat(7)
            with dog.by_thread():
                is_stopped()
        """,
    "deadlock": """
        first, second, both = threading.Lock(), threading.Lock(), threading.Barrier(2)
        def takes_first_then_second():
            with first:
                both.wait()
                second.acquire()
        def takes_second_then_first():
            with second:
                both.wait()
                first.acquire()
        with Watchdog(1) as dog:
            dog.beat(7)
            say(time.monotonic())
            threading.Thread(target=takes_first_then_second).start()
            takes_second_then_first()
        """,
    "never_steps": """
        def compiles_for_ever():
            say(time.monotonic())
            time.sleep(60)
        with Watchdog(1):
            compiles_for_ever()
        """,
    "abort": """
        watchdog.NUMBER = signal.SIGABRT  # what is left where there is no signal 46
        def waits_for_ever():
            say(time.monotonic())
            time.sleep(60)
        with Watchdog(1) as dog:
            dog.beat(7)
            waits_for_ever()
        """,
    "masked": """
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        def waits_for_ever():
            say(time.monotonic())
            time.sleep(60)
        with Watchdog(1) as dog:
            dog.beat(7)
            waits_for_ever()
        """,
    "after_its_child_was_killed": """
        def waits_for_ever():
            say(time.monotonic())
            time.sleep(60)
        with Watchdog(1) as dog:
            dog._child.kill()
            dog._child.wait()
            dog.beat(7)
            waits_for_ever()
        """,
    "child_was_told_to_end": """
        def waits_for_ever():
            say(time.monotonic())
            time.sleep(60)
        with Watchdog(1) as dog:
            time.sleep(0.4)  # past its start
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
                dog._child.send_signal(number)
            dog.beat(7)
            waits_for_ever()
        """,
    "without_pidfd": """
        without_pidfd()
        def waits_for_ever():
            say(time.monotonic())
            time.sleep(60)
        with Watchdog(1) as dog:
            dog.beat(7)
            waits_for_ever()
        """,
    "signal_without_effect": """
        def cannot_print():
            say(time.monotonic())
            time.sleep(60)
        with Watchdog(1) as dog:
            signal.pthread_sigmask(signal.SIG_BLOCK, {46})
            dog.beat(7)
            cannot_print()
        """,
}
NO_HANGS = {
    "beats_at_half_the_limit": """
        with Watchdog(1) as dog:
            for step in range(6):
                dog.beat(step)
                time.sleep(0.5)
        """,
    "by_thread": """
        with Watchdog(0.4) as dog:
            dog.beat(1)
            with dog.by_thread():
                time.sleep(1.2)
            dog.beat(2)
        """,
    "allow": """
        with Watchdog(0.4) as dog:
            dog.allow(30, 1)
            time.sleep(1.2)
            dog.beat(2)
        """,
    "off": """
        with Watchdog(0) as dog:
            assert dog._child is None
            dog.beat(1)
            dog.allow(0.1, 2)
            time.sleep(0.5)
        """,
    "left": """
        with Watchdog(0.4) as dog:
            child = dog._child.pid
        time.sleep(1)
        assert not os.path.exists(f"/proc/{child}")
        """,
    "left_with_forked_workers": """
        with Watchdog(0.4) as dog:
            child, worker = dog._child.pid, os.fork()
            if not worker:
                time.sleep(2)  # holds the pipe
                os._exit(0)
        time.sleep(1)
        assert not os.path.exists(f"/proc/{child}")
        os.kill(worker, 9)
        """,
    "stopped_together": """
        def stop_both_and_let_the_child_go_on_first():
            time.sleep(0.4)  # the child has read the beat
            for pid, number, seconds in ((child, 19, 0), (me, 19, 2), (child, 18, 0.3), (me, 18, 0)):
                os.kill(pid, number)
                time.sleep(seconds)
        with Watchdog(1.5) as dog:
            dog.beat(1)
            child, me, worker = dog._child.pid, os.getpid(), os.fork()
            if not worker:
                stop_both_and_let_the_child_go_on_first()
                os._exit(0)
            time.sleep(0.8)
            dog.beat(2)
        """,
}


@dataclasses.dataclass
class Ended:
    code: int
    out: str
    err: str
    at: float  # time.monotonic()

    @property
    def seconds(self) -> float:
        """From the last beat, whose time it printed, to the end of its stderr."""
        return self.at - float(self.out.split()[0])


def start(script: str, **more) -> subprocess.Popen:
    command = [sys.executable, "-c", PRELUDE + textwrap.dedent(script)]
    root = pathlib.Path(watchdog.__file__).parents[2]  # where these scripts find the package
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root, **more)


def finish(process: subprocess.Popen) -> Ended:
    try:
        out, err = process.communicate(timeout=40)  # waits for the end of stdout and stderr, whoever holds them
    finally:
        process.kill()
    return Ended(process.returncode, out, err, time.monotonic())
