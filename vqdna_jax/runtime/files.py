"""Outputs that appear whole or not at all: written beside their place, then renamed into it."""

import contextlib
import hashlib
import json
import math
import os
import pathlib
import shutil
from collections.abc import Collection, Iterator, Mapping
from typing import Any, BinaryIO, TextIO

from vqdna_jax.errors import InputError, cannot_write


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary file beside `path` that takes its place if all goes well, and goes away if not.

    Raises for any OSError inside: InputError for a place that cannot be written, else StorageError.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def replace_directory(directory: pathlib.Path, files: Mapping[str, bytes]) -> None:
    """Puts a directory of these files in the place of `directory`; what else was in it stays in it.

    Raises as `replacing` does, with the old directory as it was.
    """
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


def read_json(path: pathlib.Path, what: str) -> dict[str, Any]:
    """The object that a JSON file holds. Raises InputError, "PATH: problem; expected WHAT", where it holds none."""
    try:
        found = json.loads(path.read_bytes())
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
