"""A run whose work directory is in an object store: it lies on this machine, and what counts is copied there.

So checkpoints, logs and exports are written as on any disk, whatever the store can do. What is in the store is the run:
another machine goes on from it. At any moment it is whole: the log comes before the checkpoint that it belongs to, a
checkpoint counts from its seal on, which is written last and removed first, and result.json is the last of all.
"""

import contextlib
import pathlib
import shutil
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator

from vqdna_jax.errors import VqdnaError
from vqdna_jax.runtime.exports import CONFIG
from vqdna_jax.runtime.files import SEAL, broken
from vqdna_jax.runtime.remote.store import Store
from vqdna_jax.training import lease
from vqdna_jax.training.lease import Lease, every

RESULT = "result.json"
_CHECKPOINTS, _EXPORT = "checkpoints", "export"
_PUSH_S = 60.0  # from one copy of the logs to the next


class Mirror:
    """`directory` on this machine, and its copy in `store`, for as long as the lease is held.

    Every call raises as those of the store, and InputError where another run has taken over: nothing is written then.
    """

    def __init__(self, store: Store, directory: pathlib.Path, held: Lease):
        self._store, self._directory, self._lease = store, directory, held
        self._pushed: dict[str, tuple[int, int]] = {}
        self._pushing = threading.Lock()

    def fetch(self) -> None:
        """Makes `directory` what the store has; what another save left unfinished there is removed."""
        sizes = self._store.sizes()
        steps = _by_step(sizes)
        for step in steps.keys() - _sealed(steps):
            self._store.remove(steps.pop(step))
        for path in self._own_files():
            path.unlink()
        for name in sizes:
            if "/" not in name and name != lease.NAME and not name.startswith("."):
                self._store.download(name, self._directory / name, sizes[name])
        here = self._directory / _CHECKPOINTS
        for path in [*here.glob("[0-9]*"), *here.glob(".[0-9]*")]:  # the latter were not fetched to their end
            if path.name not in map(str, steps):
                shutil.rmtree(path)
        for step, names in steps.items():
            self._fetch_checkpoint(step, {name: sizes[name] for name in names})
        self._pushed = {path.name: _state(path) for path in self._own_files()}

    def _own_files(self) -> list[pathlib.Path]:
        """Those of the top level, but for what belongs to this machine."""
        found = [path for path in self._directory.iterdir() if path.is_file()]
        return [path for path in found if path.name != lease.NAME and not path.name.startswith(".")]

    def _fetch_checkpoint(self, step: int, sizes: dict[str, int]) -> None:
        place = self._directory / _CHECKPOINTS / str(step)
        sealed = place / SEAL
        same = sealed.exists() and sealed.read_bytes() == self._store.read(f"{_CHECKPOINTS}/{step}/{SEAL}")
        if same and not broken(place):
            return
        new = place.with_name(f".{step}")
        for directory in (place, new):
            shutil.rmtree(directory, ignore_errors=True)
        for name, size in sizes.items():
            self._store.download(name, new / name.removeprefix(f"{_CHECKPOINTS}/{step}/"), size)
        new.rename(place)

    def save(self, checkpoint: pathlib.Path, step: int, keep: int) -> None:
        """Copies the logs, then a sealed checkpoint; then all go but the newest `keep` up to it: later ones are
        damaged, for the run did not go on from them."""
        self.push()
        self._store.remove(_by_step(self._store.sizes()).get(step, ()))
        above = f"{_CHECKPOINTS}/{step}"
        for path in sorted(checkpoint.rglob("*")):
            if path.is_file() and path != checkpoint / SEAL:
                self._store.upload(f"{above}/{path.relative_to(checkpoint).as_posix()}", path)
        self._lease.check()
        self._store.upload(f"{above}/{SEAL}", checkpoint / SEAL)
        with contextlib.suppress(VqdnaError):  # the next save does it
            self._prune(step, keep)

    def _prune(self, newest: int, keep: int) -> None:
        steps = _by_step(self._store.sizes())
        kept = sorted(step for step in _sealed(steps) if step <= newest)[-keep:]
        for step in steps.keys() - kept:
            self._store.remove(steps[step])

    def push(self) -> None:
        """Copies what changed of the logs, and of all else that a run writes before its end."""
        changing = (path for path in self._directory.rglob("*") if path.is_file())
        names = [path.relative_to(self._directory).as_posix() for path in changing]
        self._push(name for name in names if name.split("/")[0] not in (_CHECKPOINTS, _EXPORT, RESULT, lease.NAME))

    def finish(self) -> None:
        """Copies the rest, at the end of a run; of an export config.json is the last, without which it is none."""
        self.push()
        exported = sorted((self._directory / _EXPORT).glob("*"), key=lambda path: path.name == CONFIG)
        self._push([*(f"{_EXPORT}/{path.name}" for path in exported), RESULT])

    def _push(self, names: Iterable[str]) -> None:
        with self._pushing:
            self._lease.check()
            for name in names:
                if not any(part.startswith(".") for part in name.split("/")):
                    self._push_one(name)

    def _push_one(self, name: str) -> None:
        path = self._directory / name
        try:
            state, content = _state(path), path.read_bytes()
        except FileNotFoundError:  # replaced just now, or not written by this run
            return
        if state != self._pushed.get(name):
            self._store.write(name, content)
            self._pushed[name] = state


@contextlib.contextmanager
def mirrored(store: Store, directory: pathlib.Path, held: Lease) -> Iterator[Mirror]:
    """Within, `directory` is the run; at the end what is new is in the store. Where the run did not fail or stop,
    `directory` is removed."""
    mirror = Mirror(store, directory, held)
    mirror.fetch()
    try:
        with every(_PUSH_S, mirror.push):
            yield mirror
    except BaseException:
        with contextlib.suppress(VqdnaError, OSError):
            mirror.push()
        raise
    mirror.finish()
    shutil.rmtree(directory, ignore_errors=True)


def _by_step(names: Iterable[str]) -> dict[int, list[str]]:
    """The objects of each checkpoint; its seal is the first to be removed."""
    steps = defaultdict(list)
    for name in sorted(names, key=lambda name: not name.endswith(f"/{SEAL}")):
        top, _, rest = name.partition("/")
        step, _, inside = rest.partition("/")
        if top == _CHECKPOINTS and step.isdecimal() and str(int(step)) == step and inside:
            steps[int(step)].append(name)
    return dict(steps)


def _sealed(steps: dict[int, list[str]]) -> set[int]:
    return {step for step, names in steps.items() if f"{_CHECKPOINTS}/{step}/{SEAL}" in names}


def _state(path: pathlib.Path) -> tuple[int, int]:
    """Changes with the content."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns
