"""Editing sets: a table of guides and their efficiency to a folder in GUE's layout, split so that no gene is on two
sides.

The tables are those of crisporPaper: tab-separated, efficiency in `modFreq`, the 100 bases around the site in
`longSeq` or `longSeq100Bp`, and, where they have it, `db` and `pos` or `position` (chr1:100-200:+) and `guide`
(GENE-1, GENE_chr1_100). A CSV with the columns sequence and label will do too.
"""

import csv
import dataclasses
import math
import os
import pathlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from vqdna_jax.benchmark.sets.cards import SPLITS
from vqdna_jax.errors import InputError
from vqdna_jax.genome.alphabet import reverse_complement, to_bases, to_text
from vqdna_jax.labels import layout

NEIGHBOURHOOD_BP = 100_000  # nearer sites share a group: most human genes are shorter
_SEQUENCE, _VALUE, _POSITION = ("longSeq", "longSeq100Bp", "sequence"), ("modFreq", "label"), ("pos", "position")
_PLACE = re.compile(r"(\S+?):([0-9]+)-([0-9]+)(?::[+-])?")
_GENE = re.compile(r"(.+?)(?:-[0-9]+|_chr[^_]+_[0-9]+)")


class Site(NamedTuple):
    """A row of a table."""

    sequence: str  # upper case
    value: float
    locus: tuple[str, int, int] | None  # assembly and chromosome, start and stop
    gene: str | None


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What `prepare` wrote; `str` of it is one line."""

    rows: dict[str, int]  # by split
    groups: dict[str, int]  # by split
    left_out: dict[str, int]  # by reason

    def __str__(self) -> str:
        parts = [f"{self.rows[split]:,} {split} rows of {self.groups[split]:,} groups" for split in SPLITS]
        left = "; ".join(f"{count:,} {reason}" for reason, count in self.left_out.items())
        return f"{', '.join(parts)}; left out: {left or 'none'}"


def prepare(table: str | os.PathLike, out_dir: str | os.PathLike, seed: int = 0) -> Prepared:
    """Writes train.csv, dev.csv, test.csv (`sequence,label`, 8:1:1, in the order of the table) and prepared.json.

    Rows that would tell of each other share a group, and a group is in one split: sites on either strand nearer than
    NEIGHBOURHOOD_BP on a chromosome, guides of one gene, and equal or reverse-complement sequences. Rows without
    a sequence or a finite efficiency are left out and counted.

    Raises:
        InputError: not such a table, a sequence that is not DNA, too few groups for three splits, or an `out_dir` that
            is taken. StorageError: the disk is full.
    """
    table = pathlib.Path(table)
    left_out: Counter[str] = Counter()
    sites = list(_read(table, left_out))
    groups = group(sites)
    splits = layout.deal(Counter(groups), seed)
    if set(splits.values()) != set(SPLITS):
        raise InputError(f"{table}: {len(sites)} rows in {len(splits)} groups; expected enough for three splits")
    with layout.writing(out_dir) as (staging, files):
        for site, name in zip(sites, groups):
            files[splits[name]].write(f"{site.sequence},{site.value!r}\n")
        rows, of_groups = Counter(splits[name] for name in groups), Counter(splits.values())
        prepared = Prepared(
            {split: rows[split] for split in SPLITS}, {split: of_groups[split] for split in SPLITS}, dict(left_out)
        )
        summary = {"table": table.name, "seed": seed, "neighbourhood_bp": NEIGHBOURHOOD_BP}
        layout.write_summary(staging, summary | dataclasses.asdict(prepared))
    return prepared


def group(sites: Iterable[Site]) -> list[str]:
    """The group of each site, named by what is least in it, so that the order of the rows does not matter."""
    sites = list(sites)
    parents: dict[str, str] = {}

    def find(name: str) -> str:
        while parents.setdefault(name, name) != name:
            parents[name] = name = parents[parents[name]]
        return name

    def join(a: str, b: str) -> None:
        low, high = sorted((find(a), find(b)))
        parents[high] = low

    names = [_canonical(site.sequence) for site in sites]
    for site, name in zip(sites, names):
        if site.gene:
            join(name, f"gene {site.gene}")
    placed = sorted((site.locus, name) for site, name in zip(sites, names) if site.locus)
    for (before, name), (after, other) in zip(placed, placed[1:]):
        if before[0] == after[0] and after[1] - before[2] < NEIGHBOURHOOD_BP:
            join(name, other)
    return [find(name) for name in names]


def _canonical(sequence: str) -> str:
    """The same for both strands."""
    return min(sequence, to_text(reverse_complement(to_bases(sequence))))


def _read(table: pathlib.Path, left_out: Counter[str]) -> Iterator[Site]:
    try:
        with open(table, encoding="utf-8-sig", errors="replace", newline="") as file:
            reader = csv.DictReader(file, delimiter="," if table.suffix == ".csv" else "\t", strict=True)
            columns = _columns(table, reader.fieldnames or ())
            for row in reader:
                place = f"{table}:{reader.line_num}"
                if site := _site(place, row, columns, left_out):
                    yield site
    except OSError as error:
        raise InputError(f"{table}: cannot be read ({error.strerror}); expected a table of guides") from error
    except csv.Error as error:
        raise InputError(f"{table}: {error}; expected tab- or comma-separated columns") from error


class _Columns(NamedTuple):
    """The names of the columns."""

    sequence: str
    value: str
    position: str | None


def _columns(table: pathlib.Path, header: Sequence[str]) -> _Columns:
    found = [next((name for name in names if name in header), None) for names in (_SEQUENCE, _VALUE, _POSITION)]
    sequence, value, position = found
    if sequence is None or value is None:
        names = _SEQUENCE if sequence is None else _VALUE
        raise InputError(f"{table}:1: the columns {','.join(header)[:80]!r}; expected {' or '.join(names)}")
    return _Columns(sequence, value, position)


def _site(place: str, row: Mapping[str, str], columns: _Columns, left_out: Counter[str]) -> Site | None:
    if None in row or None in row.values():
        raise InputError(f"{place}: another number of fields than the header; expected as many")
    sequence, value = row[columns.sequence].strip().upper(), row[columns.value].strip()
    if not sequence:
        left_out["without a context"] += 1
        return None
    try:
        sequence = to_text(to_bases(sequence))
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
    number = _number(place, columns.value, value)
    if number is None:
        left_out["without an efficiency"] += 1
        return None
    return Site(sequence, number, _locus(place, row, columns.position), _gene(row.get("guide", "")))


def _number(place: str, column: str, text: str) -> float | None:
    try:
        number = float(text or "nan")
    except ValueError:
        if text.upper() in ("NA", "N/A", "NONE"):
            return None
        raise InputError(f"{place}: the {column} {text[:40]!r}; expected a number or NaN") from None
    return number if math.isfinite(number) else None


def _locus(place: str, row: Mapping[str, str], column: str | None) -> tuple[str, int, int] | None:
    text = row[column].strip() if column else ""
    if not text or text in ("NA", "."):
        return None
    match = _PLACE.fullmatch(text)
    if not match:
        raise InputError(f"{place}: the {column} {text[:40]!r}; expected one such as chr1:1000-1100:+")
    return f"{row.get('db', '')} {match[1]}", int(match[2]), int(match[3])


def _gene(guide: str) -> str | None:
    match = _GENE.fullmatch(guide.strip())
    return match[1] if match else None
