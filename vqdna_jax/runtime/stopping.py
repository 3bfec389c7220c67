"""A polite end: SIGTERM, SIGINT and SIGHUP, to any process of a run, end all of them at one agreed place with
everything saved.

Before the first step and after the last one nothing can be lost, so a signal ends a single process at once. In between
it is noted, and `reached` says when to leave. With several processes the place is agreed on as in jax's preemption
service (which knows neither SIGINT nor evaluations): every process counts its calls of `reached`; when a signal arrives
anywhere, each tells its count, and all leave at the highest count plus one.
"""

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

from vqdna_jax.errors import PeerError
from vqdna_jax.runtime.leaving import drop_lost_terminal

# jax takes seconds to import, and signals are heeded before it is there: so `processes` is imported when it is needed.

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_AGAIN_S = 0.05  # from where `Stopped` cannot be raised to where it may
_COMPILER = "jax._src.compiler"  # no part of jax's interface: where jax renames it, compiles are torn apart again
_LOOK_S = 1.0  # how long one look for the notice of another process takes, and at most the end of a run with it
_NOTICE = "stop"


class Stopped(BaseException):
    """The run leaves now, everything is saved. No Exception, so that nobody takes it for a failure.

    The message may say where it left, " after 8 steps"; `StopRequest.name` says why.
    """


class StopRequest:
    """Notes the first signal; a second one finds Python's own handlers and ends the process the hard way.

    Attributes:
        name: of the signal, or "a signal to another process"; "" before there was one.
    """

    def __init__(self) -> None:
        self.name, self._requested, self._at_once = "", False, True
        self._turn, self._lock = 0, threading.Lock()
        self._last_turn: int | None = None
        self._watcher: threading.Thread | None = None
        self._again: threading.Timer | None = None

    def __enter__(self) -> "StopRequest":
        heeded = [number for number in SIGNALS if number != signal.SIGHUP or not _outlives_the_terminal()]
        self._previous = {number: signal.signal(number, self._note) for number in heeded}
        self._previous_hook, sys.unraisablehook = sys.unraisablehook, self._swallowed
        return self

    def __exit__(self, *_: object) -> None:
        if self._again:
            self._again.cancel()
        self._leave_signals()
        sys.unraisablehook = self._previous_hook

    def _leave_signals(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.name, self._requested = signal.Signals(number).name, True
        self._leave_signals()
        if number == signal.SIGHUP:
            drop_lost_terminal()
        if self._at_once and _holds_errors(frame):
            self._note_later()
        elif self._at_once:
            raise Stopped
        elif self._watcher:
            self._tell_the_others()

    def _tell_the_others(self) -> None:
        from vqdna_jax.runtime import processes

        processes.notice(_NOTICE)

    def _swallowed(self, unraisable: "sys.UnraisableHookArgs") -> None:
        """Python lets no error out of a callback of the garbage collector (jax has one) or a `__del__`."""
        if unraisable.exc_type is Stopped:
            self._note_later()
        else:
            self._previous_hook(unraisable)

    def _note_later(self) -> None:
        """The signal as if it came a moment later."""
        number = signal.Signals[self.name]
        signal.signal(number, self._note)
        self._again = threading.Timer(_AGAIN_S, self._send_again, (number,))
        self._again.start()

    def _send_again(self, number: int) -> None:
        main = threading.main_thread().ident
        assert main is not None  # it has begun
        while signal.getsignal(number) == self._note:  # the run may have left meanwhile
            if not _holds_errors(sys._current_frames().get(main)):
                signal.pthread_kill(main, number)
                return
            time.sleep(_AGAIN_S)

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Within, a signal is only noted: for all that must not be torn apart. May be nested."""
        before, self._at_once = self._at_once, False
        try:
            yield
        finally:
            self._at_once = before

    @contextlib.contextmanager
    def agreed(self, count: int) -> Iterator[None]:
        """Within, `reached` heeds the signals to all `count` processes of the run."""
        if count > 1:
            self._watcher = threading.Thread(target=self._watch, name="stop-watch", daemon=True)
            self._watcher.start()
            if self._requested:  # before the others were found
                self._tell_the_others()
        try:
            yield
        finally:
            watcher, self._watcher = self._watcher, None
            if watcher:
                watcher.join()

    @contextlib.contextmanager
    def nothing_to_lose(self) -> Iterator[None]:
        """Within `noted`: a single process may end at once again.

        C++ that calls Python may turn `Stopped` into an error of its own: any error after the signal is taken for it.
        """
        before, self._at_once = self._at_once, self._watcher is None
        try:
            if self._at_once:
                self.check()
            yield
        except Exception as error:
            if self._at_once and self._requested:
                raise Stopped from error
            raise
        finally:
            self._at_once = before

    def reached(self) -> bool:
        """Whether this is the place to leave at. Every process must make the same calls in the same order."""
        if not self._watcher:
            return self._requested
        with self._lock:  # held while the others' counts are awaited: no process runs past the place
            self._turn += 1
            return self._turn == self._last_turn

    def check(self) -> None:
        """Raises Stopped where `reached`."""
        if self.reached():
            raise Stopped

    def _watch(self) -> None:
        from vqdna_jax.runtime import processes

        while not processes.await_notice(_NOTICE, _LOOK_S):
            if self._watcher is None:
                return
        with self._lock, contextlib.suppress(PeerError):  # the training step will notice a lost process, too
            self.name = self.name or "a signal to another process"
            self._last_turn = 1 + max(map(int, processes.exchange(_NOTICE, str(self._turn))))


def _outlives_the_terminal() -> bool:
    return signal.getsignal(signal.SIGHUP) == signal.SIG_IGN  # nohup


def _holds_errors(frame: FrameType | None) -> bool:
    """Whether an error must not come out of this, or does not: a compile, for jax (0.10) lets handlers run while XLA
    compiles in a thread of its own, and where they raise, it frees what that thread reads; and what Python calls with
    errors that it lets not out, which a loaded machine has not left by the time that a signal comes again."""
    while frame:
        if frame.f_globals.get("__name__") == _COMPILER or frame.f_code is StopRequest._swallowed.__code__:
            return True
        frame = frame.f_back
    return False
