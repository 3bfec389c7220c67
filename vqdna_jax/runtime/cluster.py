"""How the processes of a run find each other, before jax starts its devices."""

import dataclasses
import os
import socket
import time
from typing import TypedDict

import jax

from vqdna_jax.errors import InputError, PeerError, first_line
from vqdna_jax.runtime import processes
from vqdna_jax.runtime.watchdog import COMPILE_LIMITS

LONGEST_HEARTBEAT_S = 100  # jax's own default: a process that is silent for so long is taken for dead
_CLUSTERS = {"tpu": ("gcetpu", "gketpu"), "slurm": ("slurm",), "auto": (None,)}


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

    @property
    def one_process(self) -> bool:
        return not self.coordinator and not self.found_by

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
    processes.set_timeout(timeout_s)
    if cluster.one_process:
        return
    jax.config.update("jax_enable_preemption_service", False)  # it knows SIGTERM only, and orbax counts in it too
    wait = max(1, int(timeout_s))
    # One process may find a program in the cache that another compiles; the watchdog is the one that bounds a step.
    flag = f"--xla_cpu_collective_timeout_seconds={COMPILE_LIMITS * wait}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"
    bounds = _Bounds(
        initialization_timeout=wait,
        heartbeat_timeout_seconds=max(1, min(LONGEST_HEARTBEAT_S, wait)),
        shutdown_timeout_seconds=wait,
    )
    if cluster.found_by:
        _start_in_cluster(cluster.found_by, bounds)
    else:
        _start_by_hand(cluster, bounds)


class _Bounds(TypedDict):
    """In whole seconds, by their names in jax."""

    initialization_timeout: int
    heartbeat_timeout_seconds: int
    shutdown_timeout_seconds: int


def _start_by_hand(cluster: Cluster, bounds: _Bounds) -> None:
    here = None
    try:
        if cluster.process:
            _await_coordinator(cluster.coordinator, bounds["initialization_timeout"])
        else:
            here = _own_address(cluster.coordinator)
        jax.distributed.initialize(
            cluster.coordinator,
            cluster.processes,
            cluster.process,
            cluster_detection_method="deactivate",
            coordinator_bind_address=here,
            **bounds,
        )
    except (jax.errors.JaxRuntimeError, OSError) as error:
        raise InputError(
            f"--coordinator={cluster.coordinator}: process {cluster.process} cannot start or join the run there"
            f" ({first_line(error)}); is the port taken, or the address another host's?"
        ) from error


def _own_address(coordinator: str) -> str:
    """Where the service is to listen: there alone, for it asks for no password. Raises OSError where it cannot.

    jax may crash where the port is taken, so it is tried before.
    """
    host, _, port = coordinator.rpartition(":")
    address = socket.gethostbyname(host)
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        trial.bind((address, int(port)))
    return f"{address}:{port}"


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


def _start_in_cluster(found_by: str, bounds: _Bounds) -> None:
    problem: Exception | None = None
    for method in _CLUSTERS[found_by]:
        try:
            jax.distributed.initialize(cluster_detection_method=method, **bounds)
            return
        except (ValueError, RuntimeError) as error:
            problem = error
    raise InputError(
        f"--multihost={found_by}: no such cluster here ({first_line(problem)}); on other machines give --coordinator,"
        " --processes and --process"
    ) from problem
