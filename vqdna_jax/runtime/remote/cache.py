"""The cache directory, and the copy in it of a corpus that is elsewhere: ArrayRecord reads local files only."""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vqdna_jax.errors import InputError, PeerError, StorageError, cannot_write
from vqdna_jax.runtime.progress import progress_bar
from vqdna_jax.runtime.remote import places

TRIES = 4
PAUSE_S = 2.0  # before the second try, twice as long before each that follows
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def cache_directory() -> Path:
    """$VQDNA_CACHE, or vqdna_jax in $XDG_CACHE_HOME or ~/.cache; it need not exist."""
    shared = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("VQDNA_CACHE") or Path(shared) / "vqdna_jax")


@contextlib.contextmanager
def one_at_a_time(path: Path) -> Iterator[bool]:
    """Processes that hold the same path wait for each other; False where the file system cannot lock.

    A dead process holds nothing. Raises OSError when the lock file, `path` with .lock, cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{path}.lock", "ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            yield False
        else:
            yield True


def cached_corpus(url: str, manifest: bytes, files: dict[str, dict[str, Any]]) -> Path:
    """A local copy of a remote corpus, every file compared with its manifest; made once, continued if broken off.

    The directory is named after the sha256 of the manifest, which holds the digest of the corpus. Raises InputError
    for a corpus that is damaged or incomplete, PeerError when it cannot be reached, StorageError for a full cache.
    """
    copy = cache_directory() / f"corpus-{hashlib.sha256(manifest).hexdigest()[:16]}"
    seal = copy / "manifest.json"
    try:
        was_there = seal.exists()
        if was_there and all(is_intact(copy / name, expected) for name, expected in files.items()):
            return copy
        with one_at_a_time(copy) as alone:
            if was_there or not seal.exists():  # else another process has just made and compared it
                for rest in copy.glob(".*") if alone else ():  # of a process that was killed
                    rest.unlink()
                _complete(url, copy, files)
                with places.writing(seal) as path:
                    path.write_bytes(manifest)
    except OSError as error:
        told = cannot_write(copy, error)
        raise type(told)(f"{told}; $VQDNA_CACHE names the directory for copies") from error
    return copy


def is_intact(file: Path, expected: Mapping[str, Any]) -> bool:
    """Whether a file has the size and sha256 of the manifest; False also when it is absent."""
    try:
        return file.stat().st_size == expected["bytes"] and places.sha256_of(file) == expected["sha256"]
    except FileNotFoundError:
        return False


def _complete(url: str, copy: Path, files: dict[str, dict[str, Any]]) -> None:
    copy.mkdir(exist_ok=True)
    files = {name: expected for name, expected in files.items() if not is_intact(copy / name, expected)}
    total, free = sum(expected["bytes"] for expected in files.values()), shutil.disk_usage(copy).free
    if total > free:
        raise StorageError(
            f"{copy}: {total:,} bytes of {url} do not fit, {free:,} are free; $VQDNA_CACHE names another directory"
        )
    with progress_bar(f"copy of {url}", total, "B", bool(files)) as bar:
        for name, expected in files.items():
            _copy_one(places.join(url, name), copy / name, expected, bar.update)


def _copy_one(url: str, file: Path, expected: Mapping[str, Any], advance: Callable[[int], object]) -> None:
    for attempt in range(TRIES):
        arrived: list[int] = []

        def count(file_bytes: int, arrived: list[int] = arrived) -> None:
            arrived.append(file_bytes)
            advance(file_bytes)

        try:
            with places.writing(file) as path:
                if places.download(url, path, count) != expected["sha256"]:
                    raise InputError(f"{url}: differs from the manifest, the file is damaged; build the corpus again")
            return
        except FileNotFoundError as error:
            raise InputError(f"{url}: is missing, but the manifest lists it; build the corpus again") from error
        except OSError as error:
            if error.errno in _FULL:
                raise
            if attempt + 1 == TRIES:
                raise PeerError(
                    f"{url}: cannot be copied ({error.strerror or error}); run it again, whole files are kept"
                ) from error
        advance(-sum(arrived))
        time.sleep(PAUSE_S * 2**attempt)
