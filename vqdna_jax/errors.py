"""The ways a run ends that are not bugs, each with the exit code a supervisor acts on.

    0 done   42 stopped by a signal, everything saved   43 bad input   44 numerics   45 storage
    46 a peer or the network is gone, or this process was stuck
    129, 130, 143: a verb of `vqdna` that cannot go on was stopped by SIGHUP, SIGINT, SIGTERM; 141: nobody reads it

Raise these with one line that names the file, line or key, what was expected and what to do; `report_and_exit`
prints that line and nothing else.
"""

import contextlib
import errno
import functools
import os
import sys
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
EXIT_STOPPED = 42


class VqdnaError(Exception):
    """Base of the errors a user can act on; subclasses fix the exit code."""

    exit_code = 1


class InputError(VqdnaError):
    """Bad input or configuration: restarting will not help."""

    exit_code = 43


class NumericsError(VqdnaError):
    """Losses or gradients that are not finite, or a codebook that collapsed."""

    exit_code = 44


class StorageError(VqdnaError):
    """An output that cannot be written, or a checkpoint that cannot be read back."""

    exit_code = 45


class PeerError(VqdnaError):
    """Another process of the run, or the way to it, is gone: starting all of them again helps."""

    exit_code = 46


def by_exit_code(code: int) -> type[VqdnaError]:
    """The class of errors with this exit code."""
    return next(kind for kind in VqdnaError.__subclasses__() if kind.exit_code == code)


# A path that can never be read or written as it stands is bad input; a disk that fills up or fails is not.
_WRONG_PATH = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENOTEMPTY,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.ENXIO,
    errno.ENODEV,
    errno.EBADF,
}
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
_LONGEST_NAME = 255
_OF_A_DEVICE = "RESOURCE_EXHAUSTED"  # how what jax says of a device's memory begins


def shown(path: str | bytes | os.PathLike) -> str:
    """A path as messages have it: of a part too long for a name, a sequence in its place, the beginning alone."""
    text = str(os.fsdecode(path) if isinstance(path, bytes) else path) or "an empty name"
    return os.sep.join(
        part if len(part) <= _LONGEST_NAME else f"{part[:80]}... ({len(part):,} letters)" for part in text.split(os.sep)
    )


def cannot_write(path: str | os.PathLike, error: OSError) -> VqdnaError:
    """InputError for a place that cannot be written, StorageError for a disk that is full or fails."""
    kind = InputError if error.errno in _WRONG_PATH else StorageError
    return kind(f"{shown(path)}: cannot be written ({error.strerror or error}); name another place or make room")


def first_line(error: BaseException | None) -> str:
    """What to show of an exception in one line."""
    return (str(error).strip().splitlines() or [""])[0]


def known(error: BaseException) -> VqdnaError | None:
    """The error as one that a user can act on, among them what the system says of a path or of memory; None for any
    other."""
    if isinstance(error, OSError) and error.errno in _DISK:
        return StorageError(f"{shown(error.filename or 'disk')}: {error.strerror}; make room and run it again")
    if isinstance(error, OSError) and error.errno in _WRONG_PATH and isinstance(error.filename, str | bytes):
        return InputError(f"{shown(error.filename)}: {error.strerror}; check the path and who may use it")
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and str(error).startswith(_OF_A_DEVICE)):
        found = first_line(error).removeprefix(f"{_OF_A_DEVICE}: ") or "no more can be had"
        advice = "compute less at once (--batch; of a run train.microbatches, data.global_batch, eval.batch)"
        return InputError(f"memory: {found}; {advice}")
    return error if isinstance(error, VqdnaError) else None


def plainly(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """What Python users call: its errors end their traceback right below the call, without what led to them."""

    @functools.wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return function(*args, **kwargs)
        except VqdnaError as error:
            raise error.with_traceback(None) from None

    return call


@contextlib.contextmanager
def report_and_exit() -> Iterator[None]:
    """Turns what is `known` into one line on stderr and its exit code. Any other exception keeps its traceback."""
    try:
        yield
    except (VqdnaError, OSError, MemoryError, RuntimeError) as error:
        if (told := known(error)) is None:
            raise
        print("error: " + str(told).replace("\n", r"\n"), file=sys.stderr)  # a name may have one
        sys.exit(told.exit_code)
