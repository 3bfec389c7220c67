"""Where a corpus grows until it is complete."""

import contextlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from vqdna_jax.errors import InputError, cannot_write
from vqdna_jax.runtime.files import check_directory
from vqdna_jax.runtime.remote import places


class Staging(NamedTuple):
    """A place that becomes the corpus."""

    local: Path  # what is finished here
    shards: str  # where workers put shards: `local`, or the remote directory itself, which has no manifest yet
    work: str  # for what is needed only until then


def check(out: str) -> None:
    """Raises where no corpus can be put, as far as can be known before it is built; follows links."""
    places.check_spelling(out)
    if not out:
        raise InputError("the name of the output is empty; name a directory to write")
    try:
        vacant = places.is_vacant(out if places.is_remote(out) else os.path.realpath(out))
    except OSError as error:
        raise cannot_write(out, error) from error
    if not vacant:
        raise InputError(f"{out}: exists and is not an empty directory; choose another place or remove it")
    if not places.is_remote(out):
        check_directory(out)


@contextlib.contextmanager
def staging(out: str) -> Iterator[Staging]:
    """A place that becomes `out` on success and vanishes otherwise. Raises for what cannot be written there."""
    check(out)
    if not places.is_remote(out):
        out = os.path.realpath(out)
    beside = f"{out.rstrip('/')}.incomplete-{uuid.uuid4().hex[:8]}"
    work = f"{beside}.work"
    try:
        with (_uploaded if places.is_remote(out) else _renamed)(out, beside, work) as place:
            yield place
    except OSError as error:
        raise cannot_write(out, error) from error
    finally:
        places.remove_tree(work)


@contextlib.contextmanager
def _renamed(out: str, beside: str, work: str) -> Iterator[Staging]:
    try:
        os.makedirs(beside)
        yield Staging(Path(beside), beside, work)
        os.replace(beside, out)
    finally:
        places.remove_tree(beside)


@contextlib.contextmanager
def _uploaded(out: str, beside: str, work: str) -> Iterator[Staging]:
    """The manifest goes last: without it a directory is no corpus."""
    with tempfile.TemporaryDirectory() as directory:
        local = Path(directory)
        try:
            yield Staging(local, out, work)
            for file in sorted(local.iterdir(), key=lambda file: (file.name == "manifest.json", file.name)):
                places.upload(file, places.join(out, file.name))
        except BaseException:
            places.remove_tree(out)
            raise
