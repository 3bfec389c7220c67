"""Content sums of a directory's files, kept in it: what changes later, a bit anywhere, is found before it is used."""

import hashlib
import json
import os
import pathlib
from collections.abc import Collection

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
