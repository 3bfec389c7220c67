"""A directory of an object store that is written as well as read, whatever fsspec has a plugin for.

A call that fails is made again a few times, one that stands still is given up. What is written is read back.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import fsspec

from vqdna_jax.errors import InputError, StorageError, VqdnaError
from vqdna_jax.runtime.remote import places

TRIES = 6
PAUSE_S = 2.0  # before the second try, twice as long before each that follows
STALL_S = 60.0  # that a call may take, and a second more for each SLOWEST bytes that it moves
SLOWEST = 1 << 20
Result = TypeVar("Result")


class Store:
    """The objects of `url`, by their names below it.

    Raises, here and from every call: InputError for a protocol without its plugin, and for a bucket that is not there
    or may not be used; StorageError for a store that does not answer, or not as it was told.
    """

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        with places.in_words(url):
            self._system, self._inside = fsspec.url_to_fs(self.url)

    def read(self, name: str) -> bytes | None:
        """None where there is no such object."""
        try:
            return self._tried(f"{name} cannot be read", lambda: self._system.cat_file(self._at(name)))
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        def write() -> None:
            self._pipe(name, content)
            if self._system.cat_file(self._at(name)) != content:
                raise OSError("what was written differs from what was sent")

        self._written(name, write, len(content))

    def create(self, name: str, content: bytes) -> bool:
        """False, and nothing is written, where there is such an object. Of several writers one creates it; in a store
        that knows no conditions, two that do so at the same moment believe it."""

        def create() -> bool:
            if self._system.exists(self._at(name)):
                return False
            try:
                self._pipe(name, content, mode="create")
            except FileExistsError:
                return False
            return True

        return self._written(name, create, len(content))

    def upload(self, name: str, file: Path) -> None:
        """`file` must not change meanwhile."""

        def upload() -> None:
            self._make_parent(name)
            self._system.put_file(os.fspath(file), self._at(name))
            with self._system.open(self._at(name), "rb") as stored:
                if places.sha256_of_file(stored) != places.sha256_of(file):
                    raise OSError("what was written differs from what was sent")

        self._written(name, upload, file.stat().st_size)

    def download(self, name: str, file: Path, file_bytes: int) -> None:
        """`file_bytes`: as `sizes` has them."""

        def download() -> None:
            self._system.get_file(self._at(name), os.fspath(file))
            if file.stat().st_size != file_bytes:
                raise OSError(f"{file.stat().st_size:,} of {file_bytes:,} bytes arrived")

        file.parent.mkdir(parents=True, exist_ok=True)
        self._tried(f"{name} cannot be read", download, file_bytes)

    def sizes(self) -> dict[str, int]:
        """Bytes of all objects by name, of those in directories below it, too; none of a name that no file can have."""

        def find() -> dict[str, dict[str, Any]]:
            with contextlib.suppress(FileNotFoundError):
                return self._system.find(self._inside, detail=True)
            return {}

        above = f"{self._inside.rstrip('/')}/"
        found = self._tried("cannot be listed", find)
        sizes = {path.removeprefix(above): info["size"] for path, info in found.items() if path.startswith(above)}
        return {name: size for name, size in sizes.items() if not {"", ".", ".."} & set(name.split("/"))}

    def remove(self, names: Iterable[str]) -> None:
        """One that is not there is no error."""
        for name in names:

            def remove(name: str = name) -> None:
                with contextlib.suppress(FileNotFoundError):
                    self._system.rm_file(self._at(name))

            self._tried(f"{name} cannot be removed", remove)

    def _at(self, name: str) -> str:
        return f"{self._inside.rstrip('/')}/{name}"

    def _pipe(self, name: str, content: bytes, **options: str) -> None:
        self._make_parent(name)
        self._system.pipe_file(self._at(name), content, **options)

    def _make_parent(self, name: str) -> None:
        if self.url.partition("://")[0] not in places.STORES:
            self._system.makedirs(self._system._parent(self._at(name)), exist_ok=True)

    def _written(self, name: str, call: Callable[[], Result], file_bytes: int) -> Result:
        try:
            return self._tried(f"{name} cannot be written", call, file_bytes)
        except FileNotFoundError as error:
            raise InputError(f"{self.url}: {name} cannot be written; is there such a bucket?") from error

    def _tried(self, problem: str, call: Callable[[], Result], file_bytes: int = 0) -> Result:
        """What `call` returns. Raises also FileNotFoundError, which no other try mends."""
        for attempt in range(TRIES):
            try:
                return _within(STALL_S + file_bytes / SLOWEST, lambda: self._call(call))
            except FileNotFoundError:
                raise
            except PermissionError as error:
                raise InputError(f"{self.url}: {problem} ({error.strerror}); check who may use the bucket") from error
            except OSError as error:
                if attempt + 1 == TRIES:
                    told = f"{self.url}: {problem}, {TRIES} times ({error.strerror or error})"
                    raise StorageError(f"{told}; run the same command again when the store is back") from error
            time.sleep(PAUSE_S * 2**attempt)
        raise AssertionError("the last try returns or raises")

    def _call(self, call: Callable[[], Result]) -> Result:
        with places.in_words(self.url):
            self._system.invalidate_cache()
            return call()


def _within(limit_s: float, call: Callable[[], Result]) -> Result:
    """What `call` returns; OSError where it takes longer. It is then left to itself: a thread cannot be ended."""
    ended: list[Any] = []

    def run() -> None:
        try:
            ended.extend([call(), None])
        except (OSError, VqdnaError) as error:
            ended.extend([None, error])

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit_s)
    if not ended:
        raise OSError(f"no answer within {limit_s:.0f} s")
    result, error = ended
    if error is not None:
        raise error
    return result
