"""Models by name: a directory, here or in an object store, or the name of one that comes with the package, in
vqdna_jax/shipped/."""

import errno
import os
import pathlib
import stat

from vqdna_jax.errors import InputError, shown
from vqdna_jax.runtime.remote import exported, places

SHIPPED = pathlib.Path(__file__).parents[1] / "shipped"


def names() -> list[str]:
    """Of the models that come with the package."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/config.json"))


def find(model: str | os.PathLike) -> pathlib.Path:
    """The directory of a model: the one that is there under that name, else the one that ships under it; of one in an
    object store, a copy.

    Raises InputError, which lists what ships: there is neither. Of a store also StorageError.
    """
    if places.is_remote(model):
        return exported.copied(os.fspath(model))
    problem = _problem(model)
    if not problem:
        return pathlib.Path(model)
    if os.fspath(model) in names():
        return SHIPPED / model
    listed = ", ".join(names()) or "none"
    raise InputError(
        f"{shown(model)}: {problem}; expected the export directory of a run, or the name of a model that comes with"
        f" vqdna_jax ({listed})"
    )


def name_of(directory: str | os.PathLike) -> str | None:
    """The name under which `find` has a directory on every machine; None for those that do not ship."""
    place = pathlib.Path(os.path.realpath(directory))
    return place.name if place.parent == pathlib.Path(os.path.realpath(SHIPPED)) and place.name in names() else None


def _problem(model: str | os.PathLike) -> str:
    """Why there is no such directory; empty if there is."""
    try:
        return "" if stat.S_ISDIR(os.stat(model).st_mode) else "is no directory"
    except OSError as error:
        return "no such file or directory" if error.errno == errno.ENOENT else error.strerror or str(error)
