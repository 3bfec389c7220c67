"""A bigWig as the target of a regression: the mean of a window."""

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Self

import numpy as np
import pyBigWig

from vqdna_jax.errors import InputError, shown
from vqdna_jax.genome import contigs
from vqdna_jax.genome.remote import places
from vqdna_jax.labels.peaks.windows import Window

_MAGIC = (0x888FFC26).to_bytes(4, "little"), (0x888FFC26).to_bytes(4, "big")


class Signal(contextlib.AbstractContextManager):
    """Means of windows. Entering raises InputError: it is no bigWig.

    Attributes:
        bases, without: of all windows asked for, and how many had no value, which count as 0.
    """

    def __init__(self, path: str | os.PathLike):
        self._path, self.bases, self.without = path, 0, 0

    def __enter__(self) -> Self:
        if not _begins_as_one(self._path):
            raise InputError(f"{shown(self._path)}: is no bigWig; expected a bigWig file on this machine")
        try:
            with _quiet():
                self._file = pyBigWig.open(os.fspath(self._path))
        except RuntimeError as error:
            raise self._damaged() from error
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def names_of(self, used: Iterable[str], lengths: Mapping[str, int]) -> dict[str, str]:
        """What it calls the contigs that it has. Raises InputError: one has another length here, or none is here."""
        known = self._file.chroms()
        names = contigs.resolve(used, known)
        if not names:
            found = f"it has {contigs.few(known)}, the FASTA file {contigs.few(lengths)}"
            raise InputError(f"{shown(self._path)}: has no contig with peaks: {found}; give one of this genome")
        for name, own in names.items():
            if known[own] != lengths[name]:
                sizes = f"{own} has {known[own]:,} bases, in the FASTA file {lengths[name]:,}"
                raise InputError(f"{shown(self._path)}: {sizes}; give a bigWig and a FASTA file of one genome")
        return names

    def mean(self, contig: str, window: Window) -> float:
        """Of a window on what it calls the contig."""
        try:
            with _quiet():
                values = self._file.values(contig, window.start, window.stop, numpy=True)
        except RuntimeError as error:
            raise self._damaged() from error
        found = np.isfinite(values)
        self.bases, self.without = self.bases + values.size, self.without + int((~found).sum())
        return float(values[found].sum(dtype=np.float64)) / values.size

    def _damaged(self) -> InputError:
        return InputError(f"{shown(self._path)}: the bigWig is damaged; fetch it again")


def _begins_as_one(path: str | os.PathLike) -> bool:
    """Raises InputError where no file can be read."""
    try:
        if not os.path.isfile(path) and os.path.exists(path):
            return False
        with open(path, "rb") as file:
            return file.read(4) in _MAGIC
    except OSError as error:
        raise places.cannot_read(path, error) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What the library would write to stderr is said by the errors."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
