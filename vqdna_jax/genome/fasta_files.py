"""FASTA and .2bit files as those who use a model see them: whole records of all files, one after another."""

import collections
import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Self, TypeVar

from vqdna_jax.genome import fasta
from vqdna_jax.genome.fasta import FastaReader, OnDuplicate, Reader, whole_records
from vqdna_jax.genome.regions import Region, Regions
from vqdna_jax.genome.stream_check import StreamCheck, fasta_check
from vqdna_jax.genome.two_bit import TwoBitReader, is_two_bit
from vqdna_jax.runtime.remote import places

GROUP_BASES = 4_000_000
Item = TypeVar("Item")


class FastaFiles(contextlib.AbstractContextManager):
    """Files, pipes or standard input ("-"), to be read as often as one likes; ids are unique over all of them.

        with FastaFiles(["x.fa"]) as files:
            for sequence in files.read(): ...

    Entering copies what can be read only once to a temporary file. Where `regions` are wanted, they are the records,
    and all is read once. Raises InputError: a file cannot be read, a region is not there.

    Attributes:
        size: bytes of all files.
        path: the file that is being read.
        skipped: what the last reading left out or changed, as `FastaReader` counts it.
    """

    _check: Callable[[], StreamCheck] = staticmethod(fasta_check)  # what a pipe may bring

    def __init__(
        self,
        paths: Iterable[str | os.PathLike],
        on_duplicate: OnDuplicate = "error",
        regions: Sequence[Region] = (),
    ):
        self._given, self._on_duplicate = list(paths), on_duplicate
        self._regions = Regions(regions, on_duplicate) if regions else None
        self._paths: list[str | os.PathLike] = []
        self._copies = contextlib.ExitStack()
        self.size, self.path, self.skipped = 0, "", Counter[str]()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as copies:
            for path in self._given:
                self._paths.append(copies.enter_context(places.readable(path, self._check())))
                self.size += os.path.getsize(self._paths[-1])
            if self._regions:
                collections.deque(self.read(), maxlen=0)
            self._copies = copies.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._copies.close()

    def read(self, advance: Callable[[int], object] = lambda file_bytes: None) -> Iterator[fasta.Sequence]:
        """All records that have a base, a batch in memory at a time; `advance` hears how many bytes were read."""
        names: dict[str, int] = {}
        self.skipped = Counter()
        for path in self._paths:
            self.path = str(path)  # of a copy, what it is of
            yield from self._read(path, advance, names)
        if self._regions:
            self._regions.check_found(names)

    def _read(
        self, path: str | os.PathLike, advance: Callable[[int], object], names: dict[str, int]
    ) -> Iterator[fasta.Sequence]:
        reader = open_reader(path, on_duplicate=self._on_duplicate, advance=advance, names=names)
        yield from self._regions.cut(reader) if self._regions else whole_records(reader)
        self.skipped.update(reader.skipped)


def open_reader(
    path: str | os.PathLike,
    *,
    on_duplicate: OnDuplicate = "error",
    advance: Callable[[int], object] = lambda file_bytes: None,
    names: dict[str, int] | None = None,
) -> Reader:
    """The reader of a file, FASTA or .2bit by its first bytes."""
    kind: type[Reader] = TwoBitReader if is_two_bit(path) else FastaReader
    return kind(path, on_duplicate=on_duplicate, advance=advance, names=names)


def describe_skipped(skipped: Mapping[str, int]) -> list[str]:
    """What was skipped, in words."""
    return [f"{what.replace('_', ' ')}: {count:,}" for what, count in skipped.items() if count]


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
