"""The directory of a run: one run at a time, each with an id, and room for what will be written."""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import socket
import tempfile
import uuid
from collections.abc import Callable, Collection, Iterator

from vqdna_jax.errors import InputError, StorageError, cannot_write
from vqdna_jax.runtime.files import behind_links, check_directory, replacing
from vqdna_jax.runtime.processes import FOREVER_S, exchange, first_does
from vqdna_jax.runtime.remote import places
from vqdna_jax.runtime.remote.cache import cache_directory
from vqdna_jax.runtime.remote.store import Store
from vqdna_jax.training.lease import held
from vqdna_jax.training.mirror import mirrored

RUN = "run.json"
_WRITTEN = ("config.json", "metrics.jsonl", "goodput.jsonl", "result.json", "curves.png", "export")
_LEASE = ".lease"  # the id of the last one that this machine had


@dataclasses.dataclass(frozen=True)
class Workdir:
    """A directory of a run, in use.

    Attributes:
        name: as it was given, for messages.
        path: where it lies on this machine.
        copy_save: makes a copy, where there is to be one, of a sealed checkpoint, of a step, as one of so many.
    """

    name: str
    path: pathlib.Path
    run_id: str
    copy_save: Callable[[pathlib.Path, int, int], None] | None = None


@contextlib.contextmanager
def open_workdir(workdir: str | os.PathLike) -> Iterator[Workdir]:
    """Makes `workdir`, keeps other runs out of it while in use, and gives the run it holds.

    On a disk the lock is the kernel's (flock): it goes with the process that holds it, however that ends. One in an
    object store has a lease, and is worked on in a directory of this machine. Raises InputError for a place that cannot
    be written or that another run is using; StorageError for a disk or a store that fails. With several processes the
    first one does all this, and all of them raise.
    """
    path, mirrors = _local(workdir), []
    name = os.fspath(workdir if places.is_remote(workdir) else path)
    with contextlib.ExitStack() as stack:

        def open_it() -> str:
            check(name)
            _lock(path, name, stack)
            if places.is_remote(workdir):
                store = Store(name)
                lease = stack.enter_context(held(store, path / _LEASE))
                _refuse_others({part.partition("/")[0] for part in store.sizes()}, name)
                mirrors.append(stack.enter_context(mirrored(store, path, lease)))
            return _run_id(path / RUN)

        # A lease that may be dead is watched for a while, and checkpoints come a long way; the watchdog limits it.
        run_id = first_does("workdir", open_it, FOREVER_S if places.is_remote(workdir) else None)
        yield Workdir(name, path, run_id, mirrors[0].save if mirrors else None)


def check(workdir: str | os.PathLike) -> None:
    """Raises InputError or StorageError where no run can be kept, as far as is known without asking a store."""
    places.check_spelling(workdir, "orbax")
    if places.is_remote(workdir):
        check_directory(_local(workdir))
        Store(os.fspath(workdir))
        return
    check_directory(workdir)
    there = {name for name in (RUN, *_WRITTEN) if os.path.exists(places.join(workdir, name))}
    _refuse_others(there, os.fspath(workdir))


def check_shared(workdir: str | os.PathLike) -> None:
    """Raises InputError, on every process, unless all of them see where a run of an object store is worked on."""
    if not places.is_remote(workdir):
        return
    path = _local(workdir)
    sign = path / first_does("workdir's sign", lambda: _leave_sign(path))
    seen = exchange("workdir's sign seen", "yes" if sign.exists() else "")
    sign.unlink(missing_ok=True)
    if "" in seen:
        raise InputError(
            f"{path}: process {seen.index('')} has another directory there than process 0; name one that all machines"
            " share, by $VQDNA_CACHE, or mount the bucket and name its path as --workdir"
        )


def _leave_sign(path: pathlib.Path) -> str:
    """The name of a new file, which no machine can have cached the absence of."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".seen-", dir=path)
    except OSError as error:
        raise cannot_write(path, error) from error
    os.close(handle)
    return os.path.basename(name)


def _local(workdir: str | os.PathLike) -> pathlib.Path:
    """Where a run lies on this machine; orbax wants whole paths."""
    if not places.is_remote(workdir):
        return behind_links(workdir)
    name = hashlib.sha256(os.fspath(workdir).rstrip("/").encode()).hexdigest()[:16]
    return behind_links(cache_directory() / f"workdir-{name}")


def _refuse_others(names: Collection[str], workdir: str) -> None:
    """The export of a run, a model from elsewhere: what a run writes would take the place of what is there."""
    if RUN not in names and (taken := [name for name in _WRITTEN if name in names]):
        raise InputError(f"{workdir}: holds {taken[0]}, and that of no run, for {RUN} is missing; name a new directory")


def _lock(path: pathlib.Path, name: str, stack: contextlib.ExitStack) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = stack.enter_context(open(path / "lock", "a+"))
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        raise InputError(
            f"--workdir={name}: another run is using it ({lock.read().strip() or 'it has just started'}); wait for"
            " its end, stop it, or name another --workdir"
        ) from error
    except OSError as error:
        raise cannot_write(f"--workdir={name}", error) from error
    lock.truncate(0)
    lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    lock.flush()


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
