"""What a long job has done so far, beside its output: OUT.partial, from which the same command goes on.

It holds rows of numbers, so many bytes for each record of the input, and done.json.
"""

import contextlib
import fcntl
import functools
import json
import os
import pathlib
import shutil
import time
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from vqdna_jax.errors import InputError, StorageError, cannot_write
from vqdna_jax.runtime.files import read_json, replacing, sync

SECONDS_A_COMMIT = 5.0  # what a killed job loses, beside the group it was at
PARTIAL = ".partial"  # after the name of the output


class Partial(contextlib.AbstractContextManager):
    """OUT.partial, begun or taken up again; what is in it must be what was put there.

    Attributes: records, and bytes of their vectors (`size`), that are done. `sizes`: bytes of the vectors of so many
    records, int64 [records + 1]. `written`: bytes of the output, by default as many.
    """

    def __init__(self, out: pathlib.Path, job: dict[str, Any], sizes: np.ndarray, written: int | None = None):
        self.directory = out.with_name(f"{out.name}{PARTIAL}")
        self._done, self._job, self._committed = self.directory / "done.json", job, time.monotonic()
        self._sizes = sizes
        try:
            self.directory.mkdir(exist_ok=True)
            self._vectors = open(self.directory / "vectors.bin", "a+b")
        except OSError as error:
            raise cannot_write(self.directory, error) from error
        try:
            self._lock()
            self._take_up(sizes)
            self._check_room(out, int(sizes[-1]), int(sizes[-1]) if written is None else written)
        except BaseException:
            self._vectors.close()
            raise

    def _lock(self) -> None:
        try:
            fcntl.flock(self._vectors, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{self.directory}: another process is at work in it; let it end") from error
        except OSError:  # a file system without locks
            pass

    def _take_up(self, sizes: np.ndarray) -> None:
        done = self._job | {"records": 0, "bytes": 0, "crc32": 0}
        if self._done.exists():
            done = read_json(self._done, f"how far the job came; remove {self.directory} to begin again")
        for name, value in self._job.items():
            if done.get(name) != value:
                was, now = (str(v)[:20] for v in (done.get(name), value))
                raise InputError(f"{self.directory}: begun with {name} {was}, not {now}; remove it to begin again")
        counts: list[Any] = [done.get(name) for name in ("records", "bytes", "crc32")]
        self.records, self.size, self._crc = counts
        fits = all(type(count) is int for count in counts) and 0 <= self.records < len(sizes)
        if not fits or self.size != sizes[self.records]:
            found = f"{str(self.records)[:20]} records in {str(self.size)[:20]} bytes"
            raise InputError(f"{self._done}: {found} is not of this input; remove {self.directory} to begin again")
        if os.fstat(self._vectors.fileno()).st_size < self.size:
            raise InputError(f"{self._vectors.name}: is cut short; remove {self.directory} to begin again")
        self._vectors.truncate(self.size)
        if functools.reduce(lambda crc, piece: zlib.crc32(piece, crc), self.pieces(1 << 24), 0) != self._crc:
            raise InputError(f"{self._vectors.name}: is damaged; remove {self.directory} to begin again")

    def _check_room(self, out: pathlib.Path, size: int, written: int) -> None:
        """Raises StorageError where there is no room for the vectors here, and for what will be in `out`."""
        needed, free = size - self.size + written, shutil.disk_usage(self.directory).free
        if needed > free:
            if not self.records:
                self.remove()
            told = f"No space left on device: needs {_in_units(needed)}, {_in_units(free)} are free"
            raise StorageError(f"{out}: {told}; make room first")

    def write(self, count: int, vectors: Iterable[np.ndarray]) -> None:
        """Adds the vectors of `count` records, which come in pieces."""
        for piece in vectors:
            data = np.ascontiguousarray(piece, "<f4").data
            self.size += self._vectors.write(data)
            self._crc = zlib.crc32(data, self._crc)
        self.records += count
        if time.monotonic() - self._committed > SECONDS_A_COMMIT:
            self.commit()

    def commit(self) -> None:
        """Puts on disk what was written, vectors first: done.json never promises what is not there."""
        sync(self._vectors)
        with replacing(self._done) as new, open(new, "wb") as file:
            file.write(
                json.dumps(self._job | {"records": self.records, "bytes": self.size, "crc32": self._crc}).encode()
            )
            sync(file)
        self._committed = time.monotonic()

    def pieces(self, size: int) -> Iterator[bytes]:
        """All vectors, `size` bytes at a time."""
        self._vectors.seek(0)
        return iter(lambda: self._vectors.read(size), b"")

    def each(self) -> Iterator[np.ndarray]:
        """The numbers of each record, f32, one record after another."""
        self._vectors.seek(0)
        for size in np.diff(self._sizes).tolist():
            yield np.frombuffer(self._vectors.read(size), "<f4")

    def remove(self) -> None:
        for path in [*self.directory.glob("*done.json*"), pathlib.Path(self._vectors.name)]:
            path.unlink()
        with contextlib.suppress(OSError):  # what else is there is not ours, and the file of embeddings is whole
            self.directory.rmdir()

    def __exit__(self, *_) -> None:
        self._vectors.close()


def _in_units(size: int) -> str:
    """1234567 is "1.2 MB"."""
    exponent = min(max(len(str(size)) - 1, 0) // 3, 4)
    return f"{size:,} bytes" if not exponent else f"{size / 1000**exponent:,.1f} {' kMGT'[exponent]}B"
