"""BED files of three to twelve columns, narrowPeak and broadPeak: intervals, counted from 0 without the end.

Columns lie between tabs, or blanks where a line has no tab; any newline; plain or gzip. Comments and empty lines are
passed over, `track` and `browser` lines too, which are counted.
"""

import os
import re
from typing import NamedTuple

from vqdna_jax.errors import InputError
from vqdna_jax.genome.stream_check import lines_check
from vqdna_jax.genome.streams import read_chunks
from vqdna_jax.runtime.remote import places

_NUMBER = re.compile("[0-9]{1,15}")
_NO_INTERVAL = re.compile(r"\s*(#.*|(track|browser)(\s.*)?)?")
_NARROW_PEAK = 10  # columns, of which the last is the summit


class Interval(NamedTuple):
    """Bases [start, stop) of a contig."""

    contig: str
    start: int
    stop: int
    others: tuple[str, ...]  # columns after these three
    place: str  # file:line

    @property
    def name(self) -> str:
        """The fourth column, without what may not stand in a header; "" where there is none."""
        words = "".join(filter(str.isprintable, self.others[0])) if self.others else ""
        return "" if words == "." else words

    @property
    def strand(self) -> str:
        """The sixth column, "." where there is none."""
        return self.others[2] if len(self.others) > 2 else "."

    @property
    def summit(self) -> str | None:
        """Of a narrowPeak, its last column, counted from the start; -1 where none was called."""
        return self.others[-1] if len(self.others) == _NARROW_PEAK - 3 else None


class Bed(NamedTuple):
    """What a file holds."""

    path: str  # as messages name it
    intervals: list[Interval]  # one or more
    settings: int  # lines for a browser
    sha256: str  # of the file


def read(path: str | os.PathLike) -> Bed:
    """A file, or standard input ("-"). Raises InputError, as `file:line: what; what to do`."""
    with places.readable(path, lines_check()) as copy:
        try:
            lines, digest = b"".join(read_chunks(copy)).split(b"\n"), places.sha256_of(copy)
        except OSError as error:
            raise places.cannot_read(path, error) from error
    texts = [line.decode("utf-8", "backslashreplace") for line in lines]
    passed = [_NO_INTERVAL.fullmatch(text) for text in texts]
    found = [_interval(f"{copy}:{number}", texts[number - 1]) for number, no in enumerate(passed, start=1) if not no]
    if not found:
        raise InputError(f"{copy}: no regions; expected NAME, START and END on each line, with tabs between them")
    return Bed(str(copy), found, sum(bool(no and no[2]) for no in passed), digest)


def _interval(place: str, text: str) -> Interval:
    name, start, stop, *others = [*text.split("\t" if "\t" in text else None), "", ""]
    if not (name and _NUMBER.fullmatch(start) and _NUMBER.fullmatch(stop) and int(start) < int(stop)):
        expected = "expected NAME, START and END, counted from 0 without the end, with tabs between them"
        raise InputError(f"{place}: {text[:80]!r}; {expected}")
    return Interval(name, int(start), int(stop), tuple(others[:-2]), place)
