"""Outputs that appear whole or not at all: written beside their place, then renamed into it."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import BinaryIO, TextIO

from vqdna_jax.errors import cannot_write


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
