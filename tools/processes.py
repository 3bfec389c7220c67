"""Small training runs of several local processes, one CPU device each, and what they wrote; for chaos.py and tests.

Stores are waited for less, as steps are: leases are of seconds.
"""

import contextlib
import ctypes
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import threading
import time

import fsspec
from fsspec.implementations.local import LocalFileSystem

from vqdna_jax.runtime.leaving import leave_with

ROOT = pathlib.Path(__file__).resolve().parents[1]
TIMEOUT_S = int(os.environ.get("CHAOS_TIMEOUT_S", 10))  # config.train.timeout_s of the runs; a busy machine needs more
CONFIG = {
    "data.window_bp": 64,
    "data.global_batch": 8,
    "model.code_size": 8,
    "model.width": 16,
    "model.blocks": 2,
    "model.stem_channels": 8,
    "optimizer.warmup_steps": 2,
    "train.log_every_steps": 1,
    "train.timeout_s": float(TIMEOUT_S),
    "eval.windows": 16,
    "eval.batch": 8,
}


class Processes:
    """The processes of one start of a run; what they print is kept.

    `workdir` may be an address, also one of a `Flaky` store. `settings` are keys of the config, "config" its file;
    `environment` is for all of them; `own` has settings of single processes, `under` the commands that start them. With
    `slurm` they find each other as under srun.
    """

    def __init__(
        self,
        workdir: pathlib.Path | str,
        count: int,
        settings: dict,
        environment: dict | None = None,
        own=(),
        slurm=False,
        under=(),
    ):
        port, own, under = _free_port(), dict(own), dict(under)
        find_each_other = _as_under_srun if slurm else _by_hand
        self.all = [
            self._start(
                under.get(index, []),
                workdir,
                settings | own.get(index, {}),
                environment or {},
                *find_each_other(count, index, port),
            )
            for index in range(count)
        ]
        self.said = [[] for _ in self.all]
        self._readers = [threading.Thread(target=self._read, args=(i,), daemon=True) for i in range(count)]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _start(under, workdir, settings, environment, flags, variables) -> subprocess.Popen:
        config = settings.get("config", "configs/hrq.py:tiny")
        command = [*under, sys.executable, __file__, f"--config={config}", f"--workdir={workdir}", *flags]
        command += [f"--config.{key}={value}" for key, value in settings.items() if key != "config"]
        here = {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), "JAX_PLATFORMS": "cpu"}
        # One core for them all is enough; without optimisation a start takes half the time.
        here |= {"JAX_NUM_CPU_DEVICES": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
        here |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", f"{pathlib.Path(workdir).parent}/compiled")
        here |= {"JAX_COMPILATION_CACHE_DIR": cache}
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=inherited | here | environment | variables,
            start_new_session=True,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def _read(self, index: int) -> None:
        self.said[index].extend(self.all[index].stdout)

    def wait(self, within_s: float) -> list[int]:
        """Exit codes. Raises TimeoutError naming who is still there, after killing them."""
        deadline = time.monotonic() + within_s
        late = []
        for index, process in enumerate(self.all):
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                late.append(index)
                process.kill()
        for reader in self._readers:
            reader.join(10)
        if late:
            raise TimeoutError(f"processes {late} did not end within {within_s:.0f} s\n{self.text()}")
        return [process.returncode for process in self.all]

    def wait_for_step(self, workdir: pathlib.Path, step: int, within_s: float) -> None:
        """Until so many steps are logged. Raises TimeoutError: they are not in time, or a process has ended."""
        deadline = time.monotonic() + within_s
        while max(rows(workdir), default=0) < step:
            if time.monotonic() > deadline or any(process.poll() is not None for process in self.all):
                raise TimeoutError(f"step {step} was not seen within {within_s:.0f} s\n{self.text()}")
            time.sleep(0.05)

    def text(self, lines: int | None = None) -> str:
        """All that they said, or the last lines of each."""
        last = slice(-lines if lines else None, None)
        return "".join(f"[{index}] {line}" for index, said in enumerate(self.said) for line in said[last])


def rows(workdir: pathlib.Path) -> dict[int, tuple]:
    """{step: (batch digest, loss in hex)}, without a line that a kill cut short."""
    found = {}
    with contextlib.suppress(FileNotFoundError):
        for line in (workdir / "metrics.jsonl").read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                row = json.loads(line)
                if "batch_digest" in row:
                    found[row["step"]] = (int(row["batch_digest"]), float(row["loss"]).hex())
    return found


def checkpoints(workdir: pathlib.Path) -> list[pathlib.Path]:
    """Those that have their final names, and in a store their seal."""
    found = [path for path in (workdir / "checkpoints").glob("*") if path.name.isdigit()]
    return [path for path in found if (path / "files.json").exists()]


def leaf_digests(checkpoint: pathlib.Path) -> dict[str, int]:
    return json.loads((checkpoint / "meta/metadata").read_text())["digests"]


def model(workdir: pathlib.Path) -> bytes:
    return (workdir / "export/model.safetensors").read_bytes()


def _by_hand(count: int, index: int, port: int) -> tuple[list[str], dict[str, str]]:
    if count == 1:
        return [], {}
    return [f"--coordinator=127.0.0.1:{port}", f"--processes={count}", f"--process={index}"], {}


def _as_under_srun(count: int, index: int, port: int) -> tuple[list[str], dict[str, str]]:
    variables = {
        "SLURM_JOB_ID": str(port),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_NTASKS": str(count),
        "SLURM_PROCID": str(index),
        "SLURM_LOCALID": str(index),
    }
    return ["--multihost=slurm"], variables


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Flaky(LocalFileSystem):
    """flaky://PATH: a directory as an object store, where what is written is there at once or not at all. One write in
    fifty fails, and one of a checkpoint's in fifty is cut short."""

    protocol = "flaky"

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(os.fspath(path).removeprefix("flaky://"))

    def put_file(self, local, remote, **options):
        self.pipe_file(remote, pathlib.Path(local).read_bytes())

    def pipe_file(self, path, value, mode="overwrite", **options):
        chance, path = random.random(), self._strip_protocol(path)
        if chance < 0.02:
            raise OSError("503 Slow Down")
        if chance > 0.98 and "/checkpoints/" in path:
            value = value[: len(value) // 2]
        temporary = pathlib.Path(f"{path}.{os.getpid()}.{threading.get_ident()}")
        temporary.write_bytes(value)
        try:
            if mode == "create":
                os.link(temporary, path)
            else:
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def child(arguments: list[str]) -> int:
    """`python -m vqdna_jax.main`, with a way to be struck: SIGUSR1 holds the GIL for good."""
    signal.signal(signal.SIGUSR1, lambda *_: ctypes.PyDLL(None).sleep(10**6))
    fsspec.register_implementation("flaky", Flaky)
    from vqdna_jax import main
    from vqdna_jax.runtime.remote import store
    from vqdna_jax.training import lease

    store.PAUSE_S, lease.LEASE_S = 0.01, TIMEOUT_S / 2

    return main.main(["main.py", *arguments])


if __name__ == "__main__":
    leave_with(lambda: child(sys.argv[1:]))
