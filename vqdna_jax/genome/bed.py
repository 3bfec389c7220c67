"""BED files of three to twelve columns, narrowPeak and broadPeak: intervals, counted from 0 without the end.

Columns lie between tabs, or blanks where a line has no tab; any newline; plain or gzip. Comments and empty lines are
passed over, `track` and `browser` lines too, which are counted.
"""

import os
import re
from typing import NamedTuple

from vqdna_jax.errors import InputError
from vqdna_jax.genome.text_file import Text, read_text

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
    return parse(read_text(path))


def parse(text: Text) -> Bed:
    """What the lines of a file hold. Raises as `read`."""
    passed = [_NO_INTERVAL.fullmatch(line) for line in text.lines]
    rows = (number for number, no in enumerate(passed, start=1) if not no)
    found = [_interval(f"{text.path}:{number}", text.lines[number - 1]) for number in rows]
    if not found:
        raise InputError(f"{text.path}: no regions; expected NAME, START and END on each line, with tabs between them")
    return Bed(text.path, found, sum(bool(no and no[2]) for no in passed), text.sha256)


def _interval(place: str, text: str) -> Interval:
    name, start, stop, *others = [*text.split("\t" if "\t" in text else None), "", ""]
    if not (name and _NUMBER.fullmatch(start) and _NUMBER.fullmatch(stop) and int(start) < int(stop)):
        expected = "expected NAME, START and END, counted from 0 without the end, with tabs between them"
        raise InputError(f"{place}: {text[:80]!r}; {expected}")
    return Interval(name, int(start), int(stop), tuple(others[:-2]), place)
