"""A process that is stuck dumps the Python stacks of its threads on stderr and ends with exit code 46.

A small child process counts the time since the last sign of life, so that it works also while C code holds the GIL and
while the process is stopped. When time is up it sends signal 46, whose handlers run without the GIL: faulthandler's
prints the stacks, and the one behind it is the C library's `_exit`, which takes the number of the signal, as every
handler does, for its exit code. Where there is no signal 46 (macOS) it sends SIGABRT: the same stacks, exit code 134.
A process that does not end so (it waits in the kernel, or for a full pipe on stderr) is killed: exit code 137.

The child ends with the process that it watches, however that ends. It ignores the signals that a supervisor sends to
every process of a job, and time in which it was stopped or starved itself does not count.

Standard library only: this file is also the program of the child.
"""

import contextlib
import ctypes
import faulthandler
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO

EXIT_STUCK = 46
NUMBER = EXIT_STUCK if EXIT_STUCK in signal.valid_signals() else signal.SIGABRT
GRACE_S = 5.0  # from the signal to SIGKILL
LONGEST_TICK_S = 1.0  # how often the child looks
CHILDREN = 3  # started at most, should they be killed
COMPILE_LIMITS = 6  # a start, compile, save or batch of an evaluation may take so many times as long as a step

_STDERR = 2  # also where sys.stderr is replaced
_MESSAGE = struct.Struct("<dq")  # seconds until the next one, steps done
_NO_STEP, _GOODBYE = -1, -1.0
_FOR_THE_JOB = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGTSTP", "SIGUSR1", "SIGUSR2", "SIGXCPU")


class Watchdog:
    """Ends this process when `limit_s` seconds pass between two beats; 0 is no limit, and no child.

    Use it as a context, one at a time: it watches from the start of the block to its end. No method blocks or raises;
    if children are killed, a warning says so and a new one is started, CHILDREN in all.
    """

    def __init__(self, limit_s: float):
        self._limit, self._step, self._children = limit_s, _NO_STEP, 0
        self._child: subprocess.Popen | None = None
        self._forget: Callable[[], None] = lambda: None

    def __enter__(self) -> "Watchdog":
        if self._limit:
            self._forget = _end_on_signal(NUMBER)
            self._start()
            self.beat(_NO_STEP)
        return self

    def __exit__(self, *_) -> None:
        if self._child:
            with contextlib.suppress(OSError):
                os.write(_pipe(self._child).fileno(), _MESSAGE.pack(_GOODBYE, self._step))
            _end(self._child)
            self._child = None
        self._forget()

    def beat(self, step: int, times: int = 1) -> None:
        """A sign of life after `step` steps; the next is due in `times` x `limit_s` seconds."""
        self.allow(times * self._limit, step)

    def allow(self, seconds: float, step: int) -> None:
        """A beat before something that may take longer, or must be shorter, than the limit: until the next beat."""
        self._step = step
        if self._child:
            self._send(self._child, seconds)

    @contextlib.contextmanager
    def by_thread(self) -> Iterator[None]:
        """For phases whose length nobody knows: a thread beats. What stops all threads still ends the process: SIGSTOP,
        or C code that holds the GIL for longer than the limit; a deadlock of the main thread does not."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(self._limit / 8):
                self.beat(self._step)

        thread = threading.Thread(target=beat, name="watchdog-beats", daemon=True)
        self.beat(self._step)
        if self._limit:
            thread.start()
        try:
            yield
        finally:
            over.set()
            if self._limit:
                thread.join()

    def _send(self, child: subprocess.Popen, seconds: float) -> None:
        try:
            os.write(_pipe(child).fileno(), _MESSAGE.pack(seconds, self._step))
        except BlockingIOError:
            pass  # the pipe is full of beats that are not read yet: one more tells nothing new
        except OSError:
            _end(child)
            self._child = None
            again = self._children < CHILDREN
            _say(f"warning: the watchdog's process has gone; {'a new one is started' if again else 'none is left'}")
            if again:
                self._start()
                self.allow(seconds, self._step)

    def _start(self) -> None:
        self._children += 1
        # Isolated, without site: it starts in 20 ms and reads nothing but this file.
        command = [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(int(NUMBER)), str(self._limit)]
        try:
            # A session of its own: Ctrl-C and Ctrl-Z at a terminal do not reach it.
            self._child = subprocess.Popen(
                command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
            )
            os.set_blocking(_pipe(self._child).fileno(), False)
        except OSError as error:
            _say(f"warning: no watchdog ({error}): a run that hangs is not ended")


def _pipe(child: subprocess.Popen) -> IO[bytes]:
    """To its standard input."""
    assert child.stdin is not None
    return child.stdin


def _end(child: subprocess.Popen) -> None:
    _pipe(child).close()
    try:
        child.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _end_on_signal(number: int) -> Callable[[], None]:
    """From now on signal `number` prints the stacks and ends the process. Returns what undoes that."""
    if number == signal.SIGABRT:
        was_enabled = faulthandler.is_enabled()
        faulthandler.enable(_STDERR, all_threads=True)  # ends by the signal's own default
        return (lambda: None) if was_enabled else faulthandler.disable
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    before = libc.signal(number, ctypes.cast(libc._exit, ctypes.c_void_p))
    faulthandler.register(number, _STDERR, all_threads=True, chain=True)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})

    def forget() -> None:
        faulthandler.unregister(number)
        libc.signal(number, before)

    return forget


def _say(line: str) -> None:
    """A line on stderr, or none: a full pipe that nobody reads must not stop who writes."""
    with contextlib.suppress(OSError):
        if select.select([], [_STDERR], [], 1.0)[1]:
            os.write(_STDERR, f"{line}\n".encode())


class _Parent:
    """The process that is watched, as its child sees it; never a later one with its number."""

    def __init__(self, number: int):
        self._number, self._descriptor, self._poll = number, None, select.poll()
        self._poll.register(0, 0)  # the end of the pipe alone; beats wait for the next look
        with contextlib.suppress(AttributeError, OSError):  # not on macOS, not in every sandbox
            self._descriptor = os.pidfd_open(number)
            self._poll.register(self._descriptor, select.POLLIN)

    def gone(self, within_s: float) -> bool:
        """Waits for its end. The pipe alone does not tell: processes that it forked hold it too."""
        return bool(self._poll.poll(1000 * within_s)) or os.getppid() != self._number

    def send(self, number: int) -> None:
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if self._descriptor is not None:
                signal.pidfd_send_signal(self._descriptor, number)
            elif os.getppid() == self._number:
                os.kill(self._number, number)


def watch(parent: _Parent, number: int, limit: float) -> None:
    """The child: returns when the parent has ended, of itself or by this. `limit` holds until the first message."""
    step, left, tick = _NO_STEP, limit, 0.05
    before = time.monotonic()
    while not parent.gone(within_s=tick):
        now = time.monotonic()
        left -= min(now - before, 2 * tick)  # beyond that, this process did not run either
        before = now
        if message := _newest_message():
            limit, step = message
            left, tick = limit, min(LONGEST_TICK_S, limit / 8)
        if limit == _GOODBYE:
            return
        if left <= 0:
            _finish_off(parent, number, limit, step)
            return


def _newest_message() -> tuple[float, int] | None:
    newest = b""
    with contextlib.suppress(BlockingIOError):
        newest = os.read(0, 4096 * _MESSAGE.size)[-_MESSAGE.size :]
    return _MESSAGE.unpack(newest) if newest else None


def after(steps: int) -> str:
    """ "after 1 step", "after 8 steps"."""
    return f"after {steps} step{'' if steps == 1 else 's'}"


def _finish_off(parent: _Parent, number: int, limit: float, step: int) -> None:
    where = "before the first step" if step == _NO_STEP else after(step)
    code = 128 + number if number == signal.SIGABRT else number
    _say(f"error: no sign of life for {limit:g} s {where}: exit code {code}, the stacks of all threads follow")
    parent.send(number)
    parent.send(signal.SIGCONT)
    if not parent.gone(within_s=GRACE_S):
        _say(f"error: it did not end within {GRACE_S:g} s: killed, exit code {128 + signal.SIGKILL}")
        parent.send(signal.SIGKILL)


if __name__ == "__main__":
    for name in _FOR_THE_JOB:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    os.set_blocking(0, False)
    watch(_Parent(int(sys.argv[1])), int(sys.argv[2]), float(sys.argv[3]))
