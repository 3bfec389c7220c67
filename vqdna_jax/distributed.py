"""Several processes as one run: how they find each other, agree, and notice that one of them is gone.

Everything here ends: each wait has a time-out, after which `PeerError` names who did not come. The coordination service
that jax starts in process 0 carries the few strings that processes exchange; no device is involved.
"""

import contextlib
import dataclasses
import json
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax._src import distributed as jax_distributed  # the client has no public name

from vqdna_jax import errors
from vqdna_jax.errors import InputError, PeerError, StorageError, VqdnaError

COMPILE_LIMITS = 6  # compiling, restoring and the last save may take so many times as long as a step
LONGEST_HEARTBEAT_S = 100  # jax's own default: a process that is silent for so long is taken for dead
FAREWELL_S = 5.0  # that the other processes have to say what it found
FOREVER_S = 30 * 86400.0
_CLUSTERS = {"tpu": ("gcetpu", "gketpu"), "slurm": ("slurm",), "auto": (None,)}
_timeout_s = 600.0
_calls: Counter[str] = Counter()  # every process makes the calls of one name in the same order


@dataclasses.dataclass(frozen=True)
class Cluster:
    """How this process finds the others: three values given by hand, or the name of what knows them.

    Attributes:
        coordinator: HOST:PORT of process 0, or "".
        processes, process: how many there are and which this is.
        found_by: "", "tpu" (metadata), "slurm" or "auto".
    """

    coordinator: str = ""
    processes: int = 0
    process: int = -1
    found_by: str = ""

    def check(self) -> None:
        """Raises InputError for a command line that cannot work."""
        given = [bool(self.coordinator), self.processes > 0, self.process >= 0]
        if self.found_by and any(given):
            raise InputError("command line: --multihost finds the processes itself; leave --coordinator etc. out")
        if any(given) and not all(given):
            raise InputError(
                "command line: --coordinator, --processes and --process belong together, for example"
                " --coordinator=10.0.0.1:8476 --processes=4 --process=0"
            )
        if all(given) and not self.process < self.processes:
            raise InputError(
                f"command line: --process={self.process} of --processes={self.processes}: expected 0 to"
                f" {self.processes - 1}"
            )
        if self.coordinator and not self.coordinator.rpartition(":")[2].isdigit():
            raise InputError(f"command line: --coordinator={self.coordinator}: expected HOST:PORT")


def start(cluster: Cluster, timeout_s: float) -> None:
    """Joins this process to the others before jax starts its devices; nothing for a single process.

    `timeout_s` bounds this and every later wait.

    Raises:
        InputError: no cluster is found, or the port is taken.
        PeerError: the coordinator does not answer.
    """
    global _timeout_s
    _timeout_s = timeout_s
    if not cluster.coordinator and not cluster.found_by:
        return
    jax.config.update("jax_enable_preemption_service", False)  # it knows SIGTERM only, and orbax counts in it too
    wait = max(1, int(timeout_s))
    # One process may find a program in the cache that another compiles; the watchdog is the one that bounds a step.
    flag = f"--xla_cpu_collective_timeout_seconds={COMPILE_LIMITS * wait}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"
    bounds = {
        "initialization_timeout": wait,
        "heartbeat_timeout_seconds": max(1, min(LONGEST_HEARTBEAT_S, wait)),
        "shutdown_timeout_seconds": wait,
    }
    if cluster.found_by:
        _start_in_cluster(cluster.found_by, bounds)
    else:
        _start_by_hand(cluster, bounds)


def _start_by_hand(cluster: Cluster, bounds: Mapping[str, int]) -> None:
    host = cluster.coordinator.rpartition(":")[0]
    if cluster.process:
        _await_coordinator(cluster.coordinator, bounds["initialization_timeout"])
    # Without this the service, which asks for no password, listens on every interface.
    bind = {} if cluster.process else {"coordinator_bind_address": f"{socket.gethostbyname(host)}:{_port(cluster)}"}
    try:
        jax.distributed.initialize(
            cluster.coordinator, cluster.processes, cluster.process, cluster_detection_method="deactivate",
            **bounds, **bind,
        )  # fmt: skip
    except (jax.errors.JaxRuntimeError, OSError) as error:
        raise InputError(
            f"--coordinator={cluster.coordinator}: process {cluster.process} cannot start or join the run there"
            f" ({_first_line(error)}); is the port taken, or the address another host's?"
        ) from error


def _port(cluster: Cluster) -> str:
    return cluster.coordinator.rpartition(":")[2]


def _await_coordinator(address: str, timeout_s: float) -> None:
    """jax aborts the process, without a word that helps, when there is nobody: so ask first."""
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise PeerError(
                    f"--coordinator={address}: nobody answers after {timeout_s:.0f} s ({error}); start process 0, or"
                    " check the address and the firewall"
                ) from error
            time.sleep(0.2)


def _start_in_cluster(found_by: str, bounds: Mapping[str, int]) -> None:
    problem: Exception | None = None
    for method in _CLUSTERS[found_by]:
        try:
            jax.distributed.initialize(cluster_detection_method=method, **bounds)
            return
        except (ValueError, RuntimeError) as error:
            problem = error
    raise InputError(
        f"--multihost={found_by}: no such cluster here ({_first_line(problem)}); on other machines give --coordinator,"
        " --processes and --process"
    ) from problem


def stop() -> None:
    """All processes leave together; for the end of a run that went well."""
    if jax.process_count() > 1:
        jax.distributed.shutdown()


def farewell() -> None:
    """Before an end on an error that all may have found: process 0, without which the others abort, leaves last."""
    key, deadline = _key("farewell"), time.monotonic() + FAREWELL_S
    with contextlib.suppress(PeerError, jax.errors.JaxRuntimeError):
        _client().key_value_set(f"{key}/{jax.process_index()}", "")
        for index in range(jax.process_count()) if jax.process_index() == 0 else ():
            _get(f"{key}/{index}", index, max(0.0, deadline - time.monotonic()))
    if jax.process_index() == 0:
        time.sleep(0.5)  # between saying so and being gone


def exchange(name: str, value: str, timeout_s: float | None = None) -> list[str]:
    """`value` of every process, in their order. Raises PeerError naming the first one that did not come in time."""
    count = jax.process_count()
    if count == 1:
        return [value]
    key = _key(name)
    _client().key_value_set(f"{key}/{jax.process_index()}", value)
    return [_get(f"{key}/{index}", index, timeout_s) for index in range(count)]


def first_does(name: str, action: Callable[[], Any], timeout_s: float | None = None) -> Any:
    """What `action()`, run by process 0 only, returns (as JSON), on every process.

    Raises on every process the VqdnaError that it raises, or PeerError if process 0 does not answer in time.
    """
    if jax.process_count() == 1:
        return action()
    key = _key(name)
    if jax.process_index() == 0:
        try:
            value = action()
        except (VqdnaError, OSError) as problem:
            error = problem if isinstance(problem, VqdnaError) else StorageError(str(problem))
            _client().key_value_set(key, json.dumps({"error": str(error), "exit_code": error.exit_code}))
            raise error from problem
        _client().key_value_set(key, json.dumps({"value": value}))
        return value
    said = json.loads(_get(key, 0, timeout_s))
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


def notice(name: str) -> None:
    """Sets a mark that every process can wait for with `await_notice`; setting it twice is no error."""
    _client().key_value_set(f"vqdna/notice/{name}", "", allow_overwrite=True)


def await_notice(name: str, timeout_s: float) -> bool:
    """Whether the mark was set within `timeout_s`."""
    try:
        _client().blocking_key_value_get(f"vqdna/notice/{name}", max(1, int(1000 * timeout_s)))
    except jax.errors.JaxRuntimeError as error:
        if "DEADLINE_EXCEEDED" in str(error):
            return False
        raise
    return True


# What the runtime says when another process, or the way to it, is gone.
_GONE = ("Gloo", "DEADLINE_EXCEEDED", "UNAVAILABLE", "heartbeat", "Connection reset", "Connection closed", "NCCL",
         "preempted", "Coordination service")  # fmt: skip


def peer_error(error: Exception) -> PeerError | None:
    """The error as one of a peer, None if it has another cause."""
    if not isinstance(error, jax.errors.JaxRuntimeError) or not any(sign in str(error) for sign in _GONE):
        return None
    return PeerError(f"process {jax.process_index()}: another process or the network is gone ({_first_line(error)})")


def _client():
    return jax_distributed.global_state.client


def _key(name: str) -> str:
    _calls[name] += 1
    return f"vqdna/{name}/{_calls[name]}"


def _get(key: str, index: int, timeout_s: float | None) -> str:
    wait = _timeout_s if timeout_s is None else timeout_s
    try:
        return _client().blocking_key_value_get(key, max(1, int(1000 * wait)))
    except jax.errors.JaxRuntimeError as error:
        raise PeerError(f"process {index} did not answer within {wait:.0f} s ({_first_line(error)})") from error


def _first_line(error: Exception | None) -> str:
    return (str(error).strip().splitlines() or [""])[0]
