"""A polite end: SIGTERM and SIGINT, to any process of a run, end all of them at one agreed place with everything saved.

Before the first step and after the last one nothing can be lost, so a signal ends a single process at once. In between
it is noted, and `reached` says when to leave. With several processes the place is agreed on as in jax's preemption
service (which knows neither SIGINT nor evaluations): every process counts its calls of `reached`; when a signal arrives
anywhere, each tells its count, and all leave at the highest count plus one.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator

SIGNALS = (signal.SIGTERM, signal.SIGINT)
_LOOK_S = 1.0  # how long one look for the notice of another process takes, and at most the end of a run with it
_NOTICE = "stop"


class Stopped(BaseException):
    """The run leaves now, everything is saved. No Exception, so that nobody takes it for a failure."""


class StopRequest:
    """Notes the first signal; a second one finds Python's own handlers and ends the process the hard way."""

    def __init__(self):
        self.name, self._requested, self._at_once = "", False, True
        self._turn, self._last_turn, self._lock = 0, None, threading.Lock()
        self._watcher: threading.Thread | None = None

    def __enter__(self):
        self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame) -> None:
        self.name, self._requested = signal.Signals(number).name, True
        self.__exit__()
        if self._at_once:
            raise Stopped(self.name)
        if self._watcher:
            from vqdna_jax.runtime import processes as distributed

            distributed.notice(_NOTICE)

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Within, a signal is only noted: for all that must not be torn apart. May be nested."""
        before, self._at_once = self._at_once, False
        try:
            yield
        finally:
            self._at_once = before

    @contextlib.contextmanager
    def agreed(self, processes: int) -> Iterator[None]:
        """Within, `reached` heeds the signals to all processes of the run."""
        if processes > 1:
            self._watcher = threading.Thread(target=self._watch, name="stop-watch", daemon=True)
            self._watcher.start()
        try:
            yield
        finally:
            watcher, self._watcher = self._watcher, None
            if watcher:
                watcher.join()

    @contextlib.contextmanager
    def nothing_to_lose(self) -> Iterator[None]:
        """Within `noted`: a single process may end at once again."""
        self._at_once = self._watcher is None
        if self._at_once:
            self.check()
        yield
        self._at_once = False

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
            raise Stopped(self.name)

    def _watch(self) -> None:
        from vqdna_jax.errors import PeerError
        from vqdna_jax.runtime import (
            processes as distributed,  # jax takes seconds, and signals are heeded before it is here
        )

        while not distributed.await_notice(_NOTICE, _LOOK_S):
            if self._watcher is None:
                return
        with self._lock, contextlib.suppress(PeerError):  # the training step will notice a lost process, too
            self.name = self.name or "a signal to another process"
            self._last_turn = 1 + max(map(int, distributed.exchange(_NOTICE, str(self._turn))))
