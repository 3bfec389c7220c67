"""A bigWig as the target of a regression: the mean of a window."""

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Self

from vqdna_jax.errors import InputError, shown
from vqdna_jax.genome import contigs
from vqdna_jax.labels.peaks.windows import Window
from vqdna_jax.runtime.remote import places

_READER = os.path.join(os.path.dirname(__file__), "bigwig_reader.py")  # its imports are for its own process
_PATIENCE_S = 60.0  # for a window, or for the file's beginning, that takes milliseconds
_MAGIC = (0x888FFC26).to_bytes(4, "little"), (0x888FFC26).to_bytes(4, "big")


class Signal(contextlib.AbstractContextManager):
    """Means of windows. Entering raises InputError: it is no bigWig.

    libBigWig believes the offsets in a file, and one that is cut short or damaged may end its process or keep it busy
    for ever: another process reads it.

    Attributes:
        bases, without: of all windows asked for, and how many had no value, which count as 0.
    """

    def __init__(self, path: str | os.PathLike):
        self._path, self.bases, self.without = path, 0, 0

    def __enter__(self) -> Self:
        if not _begins_as_one(self._path):
            raise InputError(f"{shown(self._path)}: is no bigWig; expected a bigWig file on this machine")
        command = [sys.executable, "-P", _READER, os.fspath(self._path)]
        self._reader = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        try:
            self._lengths = self._answer()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        self._reader.kill()
        self._reader.communicate()

    def names_of(self, used: Iterable[str], lengths: Mapping[str, int]) -> dict[str, str]:
        """What it calls the contigs that it has. Raises InputError: one has another length here, or none is here."""
        known = self._lengths
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
        total, found = self._answer([contig, window.start, window.stop])
        size = window.stop - window.start
        self.bases, self.without = self.bases + size, self.without + size - found
        return total / size

    def _answer(self, question: object = None) -> Any:
        asks, says = self._reader.stdin, self._reader.stdout
        assert asks and says, "both are pipes"
        try:
            if question is not None:
                asks.write(f"{json.dumps(question)}\n".encode())
                asks.flush()
            ready, _, _ = select.select([says], [], [], _PATIENCE_S)
            return json.loads(says.readline() if ready else b"")
        except (OSError, ValueError) as error:
            raise self._damaged() from error

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
