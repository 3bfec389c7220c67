"""Whole records of FASTA files, and groups of short ones."""

import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from vqdna_jax.errors import InputError
from vqdna_jax.genome.fasta import Sequence, load_fasta

Item = TypeVar("Item")
GROUP_BASES = 4_000_000


def records(paths: Iterable[pathlib.Path], advance: Callable[[int], None]) -> Iterator[Sequence]:
    """Whole records of all files, empty ones too; ids are unique over the files."""
    seen: set[str] = set()
    for path in paths:
        for record in load_fasta(path, advance=advance, keep_empty=True):
            if record.id in seen:
                raise InputError(f"{path}:{record.line}: {record.id[:80]!r} is in another file too; rename one")
            seen.add(record.id)
            yield record


def grouped(items: Iterable[Item], bases: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Neighbours, as few as have GROUP_BASES together: many short records fill the network's windows, long ones do."""
    group, total = [], 0
    for item in items:
        group.append(item)
        total += bases(item)
        if total >= GROUP_BASES:
            yield group
            group, total = [], 0
    if group:
        yield group
