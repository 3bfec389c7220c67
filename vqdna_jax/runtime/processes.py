"""Several processes as one run: how they agree, and notice that one of them is gone.

Everything here ends: each wait has a time-out, after which `PeerError` names who did not come. The coordination service
that jax starts in process 0 carries the few strings that processes exchange; no device is involved.
"""

import contextlib
import dataclasses
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TextIO, TypeVar

import jax

# jax.distributed can start and end the service, and tell whether it runs. The client of its strings has no public name
# (in jax 0.10 to 0.12, where orbax takes it from here, too); `_Service.client` is the one place that needs it.
from jax._src import distributed as jax_distributed

from vqdna_jax import errors
from vqdna_jax.errors import InputError, PeerError, StorageError, VqdnaError, first_line

FAREWELL_S = 5.0  # that the other processes have to say what it found
FOREVER_S = 30 * 86400.0
Json = TypeVar("Json")


class _Client(Protocol):
    def key_value_set(self, key: str, value: str, allow_overwrite: bool = False) -> None: ...

    def blocking_key_value_get(self, key: str, timeout_in_ms: int) -> str: ...


@dataclasses.dataclass
class _Service:
    """The strings of the coordination service, as this process sees them."""

    timeout_s: float = 600.0
    calls: Counter[str] = dataclasses.field(default_factory=Counter)

    @property
    def client(self) -> _Client:
        client = jax_distributed.global_state.client
        assert client is not None  # of one process it is not asked for
        return client

    def key(self, name: str) -> str:
        """Of this call, the same on every process: each makes the calls of one name in the same order."""
        self.calls[name] += 1
        return f"vqdna/{name}/{self.calls[name]}"

    def set(self, key: str, value: str) -> None:
        self.client.key_value_set(key, value)

    def get(self, key: str, index: int, timeout_s: float | None = None) -> str:
        """What process `index` sets. Raises PeerError where it does not in time."""
        wait = self.timeout_s if timeout_s is None else timeout_s
        try:
            return self.client.blocking_key_value_get(key, max(1, int(1000 * wait)))
        except jax.errors.JaxRuntimeError as error:
            raise PeerError(f"process {index} did not answer within {wait:.0f} s ({first_line(error)})") from error


_service = _Service()  # one per process, as the service of jax


def set_timeout(seconds: float) -> None:
    """How long every later wait may take at most."""
    _service.timeout_s = seconds


def stop() -> None:
    """All of several processes leave together; for the end of a run that went well."""
    jax.distributed.shutdown()


def farewell() -> None:
    """Before an end on an error that all may have found, or of which another process knows the reason: process 0,
    without which the others abort, leaves last."""
    key, deadline = _service.key("farewell"), time.monotonic() + FAREWELL_S
    first = jax.process_index() == 0
    with contextlib.suppress(PeerError, jax.errors.JaxRuntimeError):
        _service.set(f"{key}/{jax.process_index()}", "")
        for index in range(jax.process_count() if first else 0):
            _service.get(f"{key}/{index}", index, max(0.0, deadline - time.monotonic()))
    if first:
        time.sleep(0.5)  # between saying so and being gone


def exchange(name: str, value: str, timeout_s: float | None = None) -> list[str]:
    """`value` of every process, in their order. Raises PeerError naming the first one that did not come in time."""
    count = jax.process_count()
    if count == 1:
        return [value]
    key = _service.key(name)
    _service.set(f"{key}/{jax.process_index()}", value)
    return [_service.get(f"{key}/{index}", index, timeout_s) for index in range(count)]


def first_does(name: str, action: Callable[[], Json], timeout_s: float | None = None) -> Json:
    """What `action()`, run by process 0 only, returns (as JSON), on every process.

    Raises on every process the VqdnaError that it raises, or PeerError if process 0 does not answer in time.
    """
    if jax.process_count() == 1:
        return action()
    key = _service.key(name)
    if jax.process_index() == 0:
        try:
            value = action()
        except (VqdnaError, OSError) as problem:
            error = problem if isinstance(problem, VqdnaError) else StorageError(str(problem))
            _service.set(key, json.dumps({"error": str(error), "exit_code": error.exit_code}))
            raise error from problem
        _service.set(key, json.dumps({"value": value}))
        return value
    said = json.loads(_service.get(key, 0, timeout_s))
    if "error" in said:
        raise errors.by_exit_code(said["exit_code"])(f"process 0: {said['error']}")
    return said["value"]


def refuse_differences(facts: Mapping[str, Any]) -> None:
    """Raises InputError, on every process, that lists which facts differ between which processes."""
    mine = json.dumps(facts, sort_keys=True, default=str)
    everyone = [json.loads(text) for text in exchange("facts", mine)]
    differences = []
    for key in sorted(set().union(*everyone)):
        values = [facts.get(key) for facts in everyone]
        for index, value in enumerate(values):
            if value != values[0]:
                differences.append(f"{key} is {values[0]!r} in process 0 and {value!r} in process {index}")
                break
    if differences:
        raise InputError(f"the processes of this run differ: {'; '.join(differences)}; start all of them alike")


def say(*lines: str, file: TextIO | None = None) -> None:
    """Lines of the run, once: the first of its processes prints them."""
    if jax.process_index() == 0:
        for line in lines:
            print(line, file=file or sys.stdout, flush=True)


def notice(name: str) -> None:
    """Sets a mark that every process can wait for with `await_notice`; setting it twice is no error."""
    _service.client.key_value_set(f"vqdna/notice/{name}", "", allow_overwrite=True)


def await_notice(name: str, timeout_s: float) -> bool:
    """Whether the mark was set within `timeout_s`."""
    try:
        _service.client.blocking_key_value_get(f"vqdna/notice/{name}", max(1, int(1000 * timeout_s)))
    except jax.errors.JaxRuntimeError as error:
        if "DEADLINE_EXCEEDED" in str(error):
            return False
        raise
    return True


# What the runtime says when another process, or the way to it, is gone.
_GONE = (
    "Gloo",
    "NCCL",
    "DEADLINE_EXCEEDED",
    "UNAVAILABLE",
    "heartbeat",
    "Connection reset",
    "Connection closed",
    "preempted",
    "Coordination service",
    "CoordinationService",
)
# The same where the result of a collective that failed is read, which may raise a ValueError.
_COLLECTIVE = re.compile(r"[A-Z_]+: (Gloo|NCCL)\b")


def peer_error(error: BaseException) -> PeerError | None:
    """The error as one of a peer, None if it has another cause."""
    of_jax = isinstance(error, jax.errors.JaxRuntimeError) and any(sign in str(error) for sign in _GONE)
    if not of_jax and not _COLLECTIVE.match(str(error)):
        return None
    return PeerError(f"process {jax.process_index()}: another process or the network is gone ({first_line(error)})")
