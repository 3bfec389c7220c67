"""The directory of a run: one run at a time, each with an id, and room for what will be written."""

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import socket
import uuid
from collections.abc import Iterator

from vqdna_jax.errors import InputError, StorageError, cannot_write
from vqdna_jax.genome.remote import places
from vqdna_jax.runtime.files import behind_links, check_directory, replacing
from vqdna_jax.runtime.processes import first_does

RUN = "run.json"
_WRITTEN = ("config.json", "metrics.jsonl", "goodput.jsonl", "result.json", "curves.png", "export")


@contextlib.contextmanager
def open_workdir(workdir: pathlib.Path) -> Iterator[str]:
    """Makes `workdir`, keeps other runs out of it while in use, and gives the id of the run it holds.

    The lock is the kernel's (flock): it goes with the process that holds it, however that ends. Raises InputError for a
    place that cannot be written or that another run is using; StorageError for a disk that fails. With several
    processes the first one does all this, and all of them raise.
    """
    with contextlib.ExitStack() as stack:
        yield first_does("workdir", lambda: _open(workdir, stack))


def check(workdir: pathlib.Path) -> None:
    """Raises InputError or StorageError where no run can be kept."""
    places.check_spelling(workdir, "orbax")
    check_directory(workdir)
    # The export of a run, a model from elsewhere: what a run writes would take the place of what is there.
    if not (workdir / RUN).exists() and (taken := [name for name in _WRITTEN if (workdir / name).exists()]):
        raise InputError(f"{workdir}: holds {taken[0]}, and that of no run, for {RUN} is missing; name a new directory")


def _open(workdir: pathlib.Path, stack: contextlib.ExitStack) -> str:
    check(workdir)
    try:
        behind_links(workdir).mkdir(parents=True, exist_ok=True)
        lock = stack.enter_context(open(workdir / "lock", "a+"))
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        raise InputError(
            f"--workdir={workdir}: another run is using it ({lock.read().strip() or 'it has just started'}); wait for"
            " its end, stop it, or name another --workdir"
        ) from error
    except OSError as error:
        raise cannot_write(f"--workdir={workdir}", error) from error
    lock.truncate(0)
    lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    lock.flush()
    return _run_id(workdir / RUN)


def _run_id(path: pathlib.Path) -> str:
    try:
        return json.loads(path.read_text())["run_id"]
    except FileNotFoundError:
        pass
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: is not what a run writes ({error}); restore it, or name a new --workdir") from error
    run_id = uuid.uuid4().hex
    with replacing(path) as new:
        new.write_text(json.dumps({"run_id": run_id}) + "\n")
    return run_id


def make_room(workdir: pathlib.Path, checkpoint_bytes: int) -> None:
    """Raises StorageError unless two more checkpoints fit: the one being written, and the one it replaces after it."""

    def check() -> None:
        free = shutil.disk_usage(workdir).free
        if free < 2 * checkpoint_bytes:
            raise StorageError(
                f"--workdir={workdir}: {free / 1e6:,.1f} MB are free, two checkpoints of"
                f" {checkpoint_bytes / 1e6:,.1f} MB must fit; make room or name another place"
            )

    first_does("room", check)
