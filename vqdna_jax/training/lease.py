"""Who may write a directory of an object store, where no kernel keeps a lock: an object that is renewed all the time.

A run whose lease was not renewed for `LEASE_S` is taken for dead. That is seen by watching the object, not by clocks,
which differ between machines.
"""

import contextlib
import json
import os
import pathlib
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator

from vqdna_jax.errors import InputError, VqdnaError
from vqdna_jax.runtime.remote.store import Store

NAME = "lock"  # as on a disk
LEASE_S = 60.0
_BEATS = 4  # in a lease
_LOOKS = 30  # in a lease, at one that may be dead
_SETTLE_S = 2.0  # after a dead one was replaced: until another that did the same has written, too


class Lease:
    """This run's hold of a `store`, once `held` gives it."""

    def __init__(self, store: Store):
        self.id, self._store, self._beat = uuid.uuid4().hex, store, 0

    def check(self) -> None:
        """Raises InputError where another run has taken over; a run that cannot know raises StorageError."""
        found = self._store.read(NAME)
        if _id(found) != self.id:
            raise InputError(
                f"--workdir={self._store.url}: another run took it over ({_holder(found)}), for this one was silent for"
                f" more than {LEASE_S:.0f} s; nothing of that one was changed. Wait for its end, or stop it"
            )

    def renew(self) -> None:
        self.check()
        self._beat += 1
        self._store.write(NAME, self._content())

    def take(self, dead: str) -> None:
        """Waits until the lease is this run's. Raises InputError where another one is alive; the one with the id `dead`
        is known not to be."""
        seen, since = None, 0.0
        while not self._store.create(NAME, self._content()):
            found = self._store.read(NAME)
            if _id(found) == self.id:  # a try of `create` that seemed to fail
                return
            if found is not None and (_id(found) == dead or (found == seen and time.monotonic() - since > LEASE_S)):
                return self._replace(found)
            if found is not None and found != seen:
                self._refuse_alive(seen, found)
                seen, since = found, time.monotonic()
            time.sleep(LEASE_S / _LOOKS)

    def _refuse_alive(self, seen: bytes | None, found: bytes) -> None:
        if seen is not None:
            raise InputError(
                f"--workdir={self._store.url}: another run is using it ({_holder(found)}); wait for its end, stop it,"
                " or name another --workdir"
            )
        said = f"{self._store.url}: {_holder(found)} did not give it back; {LEASE_S:.0f} s will show whether it lives"
        print(said, file=sys.stderr, flush=True)

    def _replace(self, found: bytes) -> None:
        if self._store.read(NAME) == found:
            self._store.write(NAME, self._content())
            time.sleep(_SETTLE_S)
        self.check()

    def release(self) -> None:
        with contextlib.suppress(VqdnaError):
            self.check()
            self._store.remove([NAME])

    def _content(self) -> bytes:
        by = f"process {os.getpid()} on {socket.gethostname()}"
        return json.dumps({"id": self.id, "beat": self._beat, "by": by}).encode()


@contextlib.contextmanager
def held(store: Store, last: pathlib.Path) -> Iterator[Lease]:
    """The lease, renewed for as long as the context lasts.

    `last` is a file that keeps the id of the lease that this machine had last; whoever had it is known to be dead.
    """
    lease = Lease(store)
    lease.take(last.read_text() if last.exists() else "")
    last.write_text(lease.id)
    try:
        with every(LEASE_S / _BEATS, lease.renew):
            yield lease
    finally:
        lease.release()


@contextlib.contextmanager
def every(seconds: float, action: Callable[[], None]) -> Iterator[None]:
    """Calls `action` in a thread, again and again; what fails is said, once until it goes well again."""
    done = threading.Event()

    def run() -> None:
        warned = False
        while not done.wait(seconds):
            try:
                action()
                warned = False
            except (OSError, VqdnaError) as error:
                if not warned:
                    print(f"warning: {error}", file=sys.stderr, flush=True)
                warned = True

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _id(content: bytes | None) -> str:
    return _field(content, "id")


def _holder(content: bytes | None) -> str:
    return _field(content, "by") or "and has ended"


def _field(content: bytes | None, name: str) -> str:
    try:
        return str(json.loads(content or b"{}").get(name, ""))
    except (ValueError, AttributeError):  # none that a run wrote: it will not be renewed either
        return ""
