"""Outputs that appear whole or not at all: written beside their place, then renamed into it.

A symbolic link stays, and what it leads to is written. A pipe or a device is never replaced: what is written in order
from its first byte to its last goes through it (`writing`), anything else is refused.
"""

import contextlib
import errno
import fcntl
import gzip
import hashlib
import json
import math
import os
import pathlib
import shutil
import stat
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, BinaryIO, TextIO

from vqdna_jax.errors import InputError, cannot_write

STANDARD_OUTPUT = "-"
_MOST_OF_STREAM = 1 << 26  # bytes of JSON from a pipe or a device, which may have no end
_LINKS = 40  # that a path may lead through, as in Linux
_LONGEST = 200  # bytes of a name that are in the name of its temporary file, which has a few more


def check_output(path: str | os.PathLike, inputs: Iterable[str | os.PathLike] = (), *, streams: bool = False) -> None:
    """Raises where no file can be written, or it is one of the `inputs`, as far as can be known before the work.

    A temporary file is made beside it, and removed. With `streams`, standard output ("-"), a pipe or a device is good.
    """
    if not os.fspath(path):
        raise InputError("the name of the output is empty; name a file to write")
    if os.fspath(path) != STANDARD_OUTPUT and behind_links(path) in map(behind_links, inputs):
        raise InputError(f"{path}: is the input; name another file to write")
    if not is_stream(path):
        with _temporary(path):
            return
    _refuse_stream(path, streams)


def is_stream(path: str | os.PathLike) -> bool:
    """Standard output ("-"), an open file of this process (/dev/stdout, /dev/fd/3), a pipe, a device: nothing that a
    file may be put in the place of."""
    if os.fspath(path) == STANDARD_OUTPUT or _descriptor(path) is not None:
        return True
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _descriptor(path: str | os.PathLike) -> int | None:
    """The number of the open file of this process that a path names, directly or through links."""
    place = os.fspath(path)
    for _ in range(_LINKS):
        directory, name = os.path.split(place)
        if name.isdigit() and os.path.realpath(directory) in (f"/proc/{os.getpid()}/fd", "/dev/fd"):
            return int(name)
        if not os.path.islink(place):
            break
        place = os.path.join(directory, os.readlink(place))
    return None


def _takes(stream: str | os.PathLike) -> bool:
    """Whether it may be written, as far as can be known without opening it, which a reader of a pipe would notice."""
    if os.fspath(stream) == STANDARD_OUTPUT:
        return sys.stdout is not None
    if (number := _descriptor(stream)) is None:
        return os.access(stream, os.W_OK)
    try:
        return fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    except OSError:
        return False


def _refuse_stream(path: str | os.PathLike, good: bool = False) -> None:
    """Raises InputError where no stream is `good`, or this one cannot be written."""
    if not good:
        raise InputError(
            f"{path}: is a pipe, a device or standard output, and what is written is no stream; name a file"
        )
    if not _takes(path):
        raise InputError(f"{path}: is not open for writing, or may not be; name another place")


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A binary file whose content is at `path` if all goes well, and nowhere if not; a stream has it at once.

    Raises as `replacing` does, and BrokenPipeError where nobody reads the stream any more.
    """
    if not is_stream(path):
        with replacing(path) as new, open(new, "wb") as file:
            yield file
            sync(file)
        return
    _refuse_stream(path, good=True)
    try:
        with _opened(path) as stream:
            yield stream
            stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise cannot_write(path, error) from error


def _opened(path: str | os.PathLike) -> contextlib.AbstractContextManager[BinaryIO]:
    if os.fspath(path) == STANDARD_OUTPUT:
        sys.stdout.flush()
        return contextlib.nullcontext(sys.stdout.buffer)
    number = _descriptor(path)  # opened by its name it would be emptied, or written from its beginning
    return os.fdopen(os.open(path, os.O_WRONLY) if number is None else os.dup(number), "wb")


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """A temporary file that takes the place of `path` if all goes well, and goes away if not.

    Raises for any OSError inside: InputError for a place that cannot be written, else StorageError.
    """
    if is_stream(path):
        _refuse_stream(path)
    with _temporary(path) as (temporary, target, mode):
        yield temporary
        _set_mode(temporary, mode)
        temporary.replace(target)


@contextlib.contextmanager
def _temporary(path: str | os.PathLike) -> Iterator[tuple[pathlib.Path, pathlib.Path, int | None]]:
    """(an empty file, where it is to go, who may read what is there); the file goes away if it still is there then."""
    if os.fspath(path).endswith(os.sep):
        raise InputError(f"{path}: names a directory; name a file to write")
    target, temporary = behind_links(path), None
    try:
        mode = _mode_of(path)
        if target.is_dir():
            raise InputError(f"{path}: is a directory; name a file to write")
        name = os.fsdecode(os.fsencode(target.name)[:_LONGEST])
        temporary = target.with_name(f".{name}.{os.getpid()}")
        temporary.open("wb").close()
        _set_mode(temporary, mode and mode | stat.S_IRUSR | stat.S_IWUSR)
        yield temporary, target, mode
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if temporary:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _mode_of(path: str | os.PathLike) -> int | None:
    """Who may read the file that is there; None where there is none. Raises OSError where there can be none."""
    try:
        return stat.S_IMODE(os.stat(path).st_mode)
    except FileNotFoundError:
        return None


def _set_mode(file: pathlib.Path, mode: int | None) -> None:
    if mode is not None:
        with contextlib.suppress(OSError):  # a file system without modes
            file.chmod(mode)


def behind_links(path: str | os.PathLike) -> pathlib.Path:
    """What is written in place of `path`: what symbolic links lead to, whether it is there yet or not."""
    return pathlib.Path(os.path.realpath(path))


def check_directory(path: str | os.PathLike) -> None:
    """Raises where no directory can be made or written. What is missing above it may be made, too."""
    if is_stream(path):
        raise InputError(f"{path}: is a pipe, a device or standard output; name a directory to write")
    try:
        with tempfile.TemporaryDirectory(prefix=".vqdna-", dir=_nearest(behind_links(path))):
            return
    except OSError as error:
        raise cannot_write(path, error) from error


def _nearest(place: pathlib.Path) -> pathlib.Path:
    """The lowest part of a path that is there."""
    try:
        os.stat(place)
    except FileNotFoundError:
        return _nearest(place.parent)
    return place


@contextlib.contextmanager
def writing_by_name(out: str | os.PathLike) -> Iterator[BinaryIO | gzip.GzipFile]:
    """`writing`, through gzip where the name ends in .gz."""
    with writing(out) as file:
        if os.fspath(out).endswith(".gz"):
            with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as zipped:  # the same bytes at every run
                yield zipped
        else:
            yield file


def replace_directory(directory: pathlib.Path, files: Mapping[str, bytes]) -> None:
    """Puts a directory of these files in the place of `directory`; what else was in it stays in it.

    Raises as `replacing` does, with the old directory as it was.
    """
    directory = behind_links(directory)
    new, old = (directory.with_name(f".{directory.name}.{state}") for state in ("new", "old"))
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(new, ignore_errors=True)  # of a run that was killed here
        _write(new, files)
        if directory.exists():
            directory.rename(old)
        new.rename(directory)
        if old.exists():
            for extra in {path.name for path in old.iterdir()} - files.keys():
                (old / extra).rename(directory / extra)
            shutil.rmtree(old)
    except OSError as error:
        raise cannot_write(directory, error) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
        if old.exists() and not directory.exists():
            old.rename(directory)


def _write(directory: pathlib.Path, files: Mapping[str, bytes]) -> None:
    directory.mkdir()
    for name, content in files.items():
        with open(directory / name, "wb") as file:
            file.write(content)
            sync(file)


def sync(file: BinaryIO | TextIO) -> None:
    """What was written is on the disk, not only on its way."""
    file.flush()
    os.fsync(file.fileno())


SEAL = "files.json"


def seal(directory: pathlib.Path, leave_out: Collection[str] = ()) -> None:
    """Writes the size and sha256 of every file, by path, into `directory`/files.json, with all of them on the disk.

    `leave_out` names files of the top level that may still change. Raises OSError.
    """
    sums = {name: _sums(directory / name) for name in _names(directory) if name not in leave_out}
    text = json.dumps({"files": sums, "sha256": _digest(sums)}, indent=1)
    with open(directory / SEAL, "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())


def broken(directory: pathlib.Path) -> list[str]:
    """What is not as it was sealed, a line each; empty if all is, and for a directory that has no seal."""
    try:
        said = json.loads((directory / SEAL).read_text())
        sums = said["files"]
        if said["sha256"] != _digest(sums):
            return [f"{SEAL}: does not agree with itself"]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as error:
        return [f"{SEAL}: cannot be read ({error})"]
    problems = {name: _problem(directory / name, expected) for name, expected in sums.items()}
    return [f"{name}: {problem}" for name, problem in problems.items() if problem]


def _problem(path: pathlib.Path, expected: dict) -> str:
    try:
        found = _sums(path)
    except OSError as error:
        return error.strerror or str(error)
    if found["bytes"] != expected["bytes"]:
        return f"{found['bytes']:,} bytes, were {expected['bytes']:,}"
    return "" if found == expected else "its content changed"


def _names(directory: pathlib.Path) -> list[str]:
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())


def _sums(path: pathlib.Path) -> dict:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        return {"bytes": os.fstat(file.fileno()).st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _digest(sums: dict) -> str:
    return hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()


def read_whole(path: pathlib.Path) -> bytes:
    """A file that ends: no pipe and no device, which is what a link in a stranger's directory may lead to.

    Raises OSError.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "is no regular file", os.fspath(path))
    return path.read_bytes()


def read_json(path: str | os.PathLike, what: str) -> dict[str, Any]:
    """The object that a JSON file holds. Raises InputError, "PATH: problem; expected WHAT", where it holds none."""
    try:
        with open(path, "rb") as file:
            has_an_end = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            found = json.loads(file.read() if has_an_end else file.read(_MOST_OF_STREAM))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected {what}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); expected {what}") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: holds a {type(found).__name__}, not a JSON object; expected {what}")
    return found


def write_json(path: pathlib.Path, value: Mapping[str, Any]) -> None:
    """What JSON has no number for, NaN and infinities, is null. Raises as `replacing` does."""
    with replacing(path) as new:
        new.write_text(json.dumps(_with_nulls(value), indent=2, allow_nan=False) + "\n")


def _with_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_nulls(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_nulls(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
