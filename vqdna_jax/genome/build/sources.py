"""Which files a corpus is built from, and what each species is called."""

import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from vqdna_jax.errors import InputError
from vqdna_jax.genome.remote import places

FASTA_SUFFIXES = (".fa", ".fna", ".fasta", ".fas")
_PACKED = (".gz", ".bgz")


class Source(NamedTuple):
    """The FASTA file of one species."""

    species: str
    path: str  # where it is read, here or remote
    name: str  # of the file, as the manifest has it
    url: str = ""  # where it was downloaded from, if it was


def find_sources(inputs: Iterable[str | os.PathLike | Source]) -> list[Source]:
    """The species of files, globs and directories, named after the files; a `Source` is taken as it is.

    Raises InputError: nothing is there, or two files have the same species.
    """
    given = dict.fromkeys(source for item in inputs for source in _sources(item))
    found: dict[str, Source] = {}
    for source in given:
        if source.species in found:
            other = found[source.species].path
            raise InputError(
                f"{source.path}: {other} is also named {source.species!r}; one file is one species, rename one"
            )
        found[source.species] = source
    if not found:
        raise InputError("no FASTA file was given; expected files, globs or directories, or a list with --species")
    return list(found.values())


def _sources(item: str | os.PathLike | Source) -> Iterable[Source]:
    if isinstance(item, Source):
        return [item]
    try:
        paths = _expand(os.fspath(item))
    except OSError as error:
        raise places.cannot_read(os.fspath(item), error) from error
    return [Source(_species_of(path), path, os.path.basename(path)) for path in paths]


def _species_of(path: str) -> str:
    name = os.path.basename(path)
    for suffix in (*_PACKED, *FASTA_SUFFIXES):
        name = name.removesuffix(suffix)
    return name


def _expand(name: str) -> list[str]:
    if name.startswith(("http://", "https://")):
        raise InputError(f"{name}: a web address needs a checksum; list it in a file and name that with --species")
    if places.is_directory(name):
        endings = tuple(suffix + packed for suffix in FASTA_SUFFIXES for packed in ("", *_PACKED))
        found = [path for path in places.files_in(name) if path.endswith(endings)]
        if not found:
            raise InputError(f"{name}: no FASTA file in the directory; expected {' '.join(FASTA_SUFFIXES)} or .gz")
        return found
    found = places.matching(name)
    if not found:
        raise InputError(f"{name}: no such file, and as a pattern it matches none; check the path")
    return found


def source_entry(source: Source, size: int, sha256: str) -> Mapping[str, str | int]:
    """What the manifest says of a file."""
    entry = {"name": source.name, "bytes": size, "sha256": sha256}
    return entry | {"url": source.url} if source.url else entry
