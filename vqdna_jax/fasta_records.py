"""Whole records of FASTA files, and groups of short ones."""

import collections
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

import numpy as np

from vqdna_jax.errors import InputError
from vqdna_jax.genome.fasta import Block, Record, read_fasta

Item = TypeVar("Item")
GROUP_BASES = 4_000_000


class FastaRecord(NamedTuple):
    """A record of a FASTA file; one without sequence has 0 bases."""

    id: str
    description: str
    bases: np.ndarray  # uint8 [S]
    soft_mask: np.ndarray  # bool [S]
    ambiguous: dict[str, int]


def records(paths: Iterable[pathlib.Path], advance: Callable[[int], None]) -> Iterator[FastaRecord]:
    """Whole records of all files, empty ones too; ids are unique over the files."""
    seen: set[str] = set()
    for path in paths:
        head: Record | None = None
        blocks: list[Block] = []
        for event in read_fasta(path, advance=advance):
            if isinstance(event, Block):
                blocks.append(event)
                continue
            if event.id in seen:
                raise InputError(f"{path}:{event.line}: a record of another file is {event.id[:80]!r} too; rename one")
            if head:
                yield _join(head, blocks)
            seen.add(event.id)
            head, blocks = event, []
        yield _join(head, blocks)


def _join(head: Record, blocks: list[Block]) -> FastaRecord:
    """Empties `blocks`, so that no sequence is in memory twice."""
    bases = np.concatenate([np.zeros(0, np.uint8), *(block.bases for block in blocks)])
    soft_mask = np.concatenate([np.zeros(0, bool), *(block.soft_mask for block in blocks)])
    ambiguous = sum((collections.Counter(block.ambiguous) for block in blocks), collections.Counter())
    blocks.clear()
    return FastaRecord(head.id, head.description, bases, soft_mask, dict(ambiguous))


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
