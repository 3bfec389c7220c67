"""Which files a corpus is built from, and what each species is called."""

import contextlib
import os
import re
from collections.abc import Iterable
from typing import NamedTuple

from vqdna_jax.errors import InputError
from vqdna_jax.runtime.remote import places

FASTA_SUFFIXES = (".fa", ".fna", ".fasta", ".fas", ".ffn", ".fsa", ".2bit")
SPECIES_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_PACKED = (".gz", ".bgz")
_PIPE_DIRECTORIES = ("/dev", "/dev/fd", "/proc/self/fd")


class Source(NamedTuple):
    """The FASTA file of one species."""

    species: str
    path: str  # where it is read, here or remote
    name: str  # of the file, as the manifest has it
    url: str = ""  # where it was downloaded from, if it was


def find_sources(inputs: Iterable[str | os.PathLike | Source]) -> list[Source]:
    """The species of files, globs, directories and pipes; a `Source` is taken as it is.

    A species has the name of its file, or as NAME=FILE a name of its own; standard input, "-", is "stdin". Raises
    InputError: nothing is there, or two files have the same species.
    """
    given = dict.fromkeys(source for item in inputs for source in _sources(item))
    found: dict[str, Source] = {}
    for source in given:
        if source.species in found:
            other = found[source.species].path
            raise InputError(
                f"{source.path}: {other} is also named {source.species!r}; one file is one species, rename one or "
                "give it a name, NAME=FILE"
            )
        found[source.species] = source
    if not found:
        raise InputError("no FASTA file was given; expected files, globs or directories, or a list with --species")
    return list(found.values())


def _sources(item: str | os.PathLike | Source) -> Iterable[Source]:
    if isinstance(item, Source):
        return [item]
    text = os.fspath(item)
    name, _, path = text.partition("=")
    if not path or not SPECIES_NAME.fullmatch(name) or _exists(text):
        return [_source(path) for path in _expand(text)]
    paths = _expand(path)
    if len(paths) > 1:
        raise InputError(f"{text}: are {len(paths):,} files; one file is one species, give each its own name")
    return [_source(paths[0])._replace(species=name)]


def _source(path: str) -> Source:
    if places.is_stream(path) and (path == places.STANDARD_INPUT or os.path.dirname(path) in _PIPE_DIRECTORIES):
        return Source("stdin", path, "stdin")
    name = os.fsencode(os.path.basename(path)).decode("utf-8", "backslashreplace")
    species = name
    for suffix in (*_PACKED, *FASTA_SUFFIXES):
        if species.lower().endswith(suffix):
            species = species[: -len(suffix)]
    return Source(species or name, path, name)


def _exists(name: str) -> bool:
    try:
        return places.is_stream(name) or places.is_directory(name) or bool(places.matching(name))
    except OSError:
        return False


def _expand(name: str) -> list[str]:
    if name.startswith(("http://", "https://")):
        raise InputError(f"{name}: a web address needs a checksum; list it in a file and name that with --species")
    try:
        if places.is_stream(name):
            return [name]
        if places.is_directory(name):
            return _in_directory(name)
        if found := places.matching(name):
            return found
        _refuse_special(name)
    except OSError as error:
        raise places.cannot_read(name, error) from error
    raise InputError(f"{name}: no such file, and as a pattern it matches none; check the path")


def _in_directory(name: str) -> list[str]:
    endings = tuple(suffix + packed for suffix in FASTA_SUFFIXES for packed in ("", *_PACKED))
    found = [path for path in places.files_in(name) if path.lower().endswith(endings)]
    if not found:
        raise InputError(f"{name}: no FASTA file in the directory; expected {' '.join(FASTA_SUFFIXES)} or .gz")
    return found


def _refuse_special(name: str) -> None:
    """Raises InputError for a device, OSError for a path that cannot be looked up."""
    with contextlib.suppress(FileNotFoundError):
        if not places.is_remote(name) and os.stat(name):
            raise InputError(f"{name}: is neither a file, a directory nor a pipe; name a FASTA file")


def source_entry(source: Source, size: int, sha256: str) -> dict[str, str | int]:
    """What the manifest says of a file."""
    entry: dict[str, str | int] = {"name": source.name, "bytes": size, "sha256": sha256}
    return entry | {"url": source.url} if source.url else entry
