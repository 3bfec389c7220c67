"""`vqdna benchmark --check`: is each set of a folder what it should be, and does one split tell of another?

An error means that a set cannot be used as the set of that name; a warning is to be known before a score is believed.
"""

import dataclasses
import hashlib
import os
import pathlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from vqdna_jax.benchmark.sets import find
from vqdna_jax.benchmark.sets.cards import CARDS, SPLITS, Card
from vqdna_jax.errors import InputError
from vqdna_jax.genome.alphabet import N, reverse_complement
from vqdna_jax.labels.sets import LabelledSet, Split

PAIRS = (("train", "dev"), ("train", "test"), ("dev", "test"))
_COLUMNS = (
    "set",
    "train",
    "dev",
    "test",
    "bp",
    "largest class",
    "repeats",
    "dev in train",
    "test in train",
    "test in dev",
    "two labels",
    "result",
)
_LEGEND = (
    "repeats: rows of a split that an earlier row of it has; dev in train: rows of dev whose sequence train has; two "
    "labels: sequences with several labels. a+b: a on the same strand, b more as reverse complements."
)


@dataclasses.dataclass(frozen=True)
class Report:
    """What was found in one set. Counts are exact; the fields after `warnings` are empty where it cannot be read."""

    name: str
    path: str
    errors: list[str]
    warnings: list[str]
    digest: str = ""
    rows: dict[str, int] = dataclasses.field(default_factory=dict)  # by split, as are the next four
    lengths: dict[str, list[int]] = dataclasses.field(default_factory=dict)  # least, median and most bases
    rows_with_n: dict[str, int] = dataclasses.field(default_factory=dict)
    labels: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)  # rows by label, of a classification
    repeats: dict[str, int] = dataclasses.field(default_factory=dict)  # rows whose sequence an earlier row has
    reverse_repeats: dict[str, int] = dataclasses.field(default_factory=dict)  # pairs of reverse complements
    shared: dict[str, int] = dataclasses.field(default_factory=dict)  # "train-test": rows of test that train has
    reverse_shared: dict[str, int] = dataclasses.field(default_factory=dict)  # more that it has as reverse complement
    conflicts: int = 0  # sequences with more than one label, over all splits
    reverse_conflicts: int = 0  # more with both strands taken together

    @property
    def status(self) -> str:
        return "error" if self.errors else "warning" if self.warnings else "ok"


def check(directory: str | os.PathLike, names: Iterable[str] | None = None) -> list[Report]:
    """A report on each set in `directory`, in the order of `CARDS`; a set that is broken is an error in its report.

    Editing tables are checked as they would be prepared. Raises InputError as `find.find` does.
    """
    return [_report(CARDS[name], path) for name, path in find.find(directory, names).items()]


def describe(reports: Iterable[Report]) -> str:
    """A table with a line per set, what its marks mean, and a line for each error and warning."""
    reports = list(reports)
    table = aligned([_COLUMNS, *map(_line, reports)])
    notes = [
        f"{kind}: {report.name}: {message}"
        for report in reports
        for kind, messages in (("error", report.errors), ("warning", report.warnings))
        for message in messages
    ]
    return "\n".join([*table, "", _LEGEND, *notes])


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, its columns one below the other."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]


def _report(card: Card, path: pathlib.Path) -> Report:
    try:
        labelled = find.read(card, path)
    except InputError as error:
        return Report(card.name, str(path), [str(error)], [])
    counts = _count(labelled) | _compare(labelled)
    return Report(
        card.name, str(path), _errors(card, labelled), list(_warnings(card, counts)), labelled.digest, **counts
    )


def _errors(card: Card, labelled: LabelledSet) -> list[str]:
    errors = [
        f"{split}.csv is missing; expected it beside train.csv" for split in SPLITS if split not in labelled.splits
    ]
    if card.classes and card.sizes and labelled.classes != card.classes:
        errors.append(f"{labelled.classes} classes; expected {card.classes}")
    return errors


def _count(labelled: LabelledSet) -> dict:
    splits = labelled.splits
    lengths = {name: [len(bases) for bases in split.bases] for name, split in splits.items()}
    counts = {
        "rows": {name: len(split.bases) for name, split in splits.items()},
        "lengths": {name: [min(of), int(np.median(of)), max(of)] for name, of in lengths.items()},
        "rows_with_n": {name: sum(bool((bases == N).any()) for bases in split.bases) for name, split in splits.items()},
    }
    if labelled.kind == "classification":
        names = labelled.label_names
        counts["labels"] = {
            name: dict(zip(names, np.bincount(split.labels, minlength=len(names)).tolist()))
            for name, split in splits.items()
        }
    return counts


def _compare(labelled: LabelledSet) -> dict:
    """Repeats, sequences shared between splits, and sequences with several labels."""
    keys = {name: [_keys(bases) for bases in split.bases] for name, split in labelled.splits.items()}
    strands = {name: ({key for key, _ in of}, {either for _, either in of}) for name, of in keys.items()}
    shared, reverse_shared = {}, {}
    for first, second in PAIRS:
        if first in keys and second in keys:
            same = [key in strands[first][0] for key, _ in keys[second]]
            either = [key in strands[first][1] for _, key in keys[second]]
            shared[f"{first}-{second}"] = sum(same)
            reverse_shared[f"{first}-{second}"] = sum(either) - sum(same)
    conflicts, reverse_conflicts = _conflicts(labelled.splits, keys)
    return {
        "repeats": {name: len(of) - len(strands[name][0]) for name, of in keys.items()},
        "reverse_repeats": {name: len(same) - len(either) for name, (same, either) in strands.items()},
        "shared": shared,
        "reverse_shared": reverse_shared,
        "conflicts": conflicts,
        "reverse_conflicts": reverse_conflicts,
    }


def _keys(bases: np.ndarray) -> tuple[bytes, bytes]:
    """Of the sequence, and one that its reverse complement has too."""
    strands = bases.tobytes(), reverse_complement(bases).tobytes()
    own, other = (hashlib.blake2b(strand, digest_size=16).digest() for strand in strands)
    return own, min(own, other)


def _conflicts(splits: dict[str, Split], keys: dict[str, list[tuple[bytes, bytes]]]) -> tuple[int, int]:
    """Sequences with several labels, and how many more there are with both strands taken for one."""
    same, either, strand_of = defaultdict(set), defaultdict(set), {}
    for name, split in splits.items():
        for (key, strand), label in zip(keys[name], split.labels.tolist()):
            same[key].add(label)
            either[strand].add(label)
            strand_of[key] = strand
    several = [key for key, labels in same.items() if len(labels) > 1]
    known = {strand_of[key] for key in several}
    return len(several), sum(len(labels) > 1 for labels in either.values()) - len(known)


def _warnings(card: Card, counts: dict) -> Iterator[str]:
    yield from _unlike_published(card, counts)
    for split, rows in counts["rows_with_n"].items():
        if rows:
            yield f"{rows:,} of {counts['rows'][split]:,} {split} rows hold an N or another letter for several bases"
    for pair, rows in counts["shared"].items():
        first, second = pair.split("-")
        both = rows + counts["reverse_shared"][pair]
        if both:
            of = counts["rows"][second]
            strands = f"{rows:,} on the same strand" if rows < both else "on the same strand"
            yield f"{both:,} of {of:,} {second} rows ({both / of:.2%}) are in {first} too, {strands}"
    if counts["conflicts"]:
        yield f"{counts['conflicts']:,} sequences have more than one label"
    if counts["reverse_conflicts"] and "labels" in counts:  # two guides at one place, on either strand, may well differ
        yield f"{counts['reverse_conflicts']:,} sequences have another label than their reverse complement"
    for split, labels in counts.get("labels", {}).items():
        if missing := [label for label, rows in labels.items() if not rows]:
            yield f"{split} has no row of label {', '.join(missing)}"


def _unlike_published(card: Card, counts: dict) -> Iterator[str]:
    for split, rows in counts["rows"].items():
        published = (card.sizes or {}).get(split, rows)
        others = card.other_train_sizes if split == "train" else ()
        if rows != published and rows not in others:
            yield f"{rows:,} {split} rows; {published:,} are published"
    least, most = (pick(of[i] for of in counts["lengths"].values()) for pick, i in ((min, 0), (max, 2)))
    if card.length_bp and not (least == most and least in (card.length_bp, *card.other_lengths_bp)):
        found = f"{least:,} to {most:,}" if least < most else f"{least:,}"
        yield f"sequences of {found} bases; {card.length_bp:,} are published"


def _line(report: Report) -> tuple[str, ...]:
    if not report.rows:
        return report.name, *[""] * (len(_COLUMNS) - 2), report.status
    rows = [f"{report.rows.get(split, 0):,}" for split in SPLITS]
    least, most = min(of[0] for of in report.lengths.values()), max(of[2] for of in report.lengths.values())
    labels = report.labels.get("train", {})
    share = f"{max(labels.values()) / sum(labels.values()):.1%}" if labels else ""
    repeats = f"{sum(report.repeats.values())}+{sum(report.reverse_repeats.values())}"
    pairs = [f"{report.shared.get(pair, 0)}+{report.reverse_shared.get(pair, 0)}" for pair in map("-".join, PAIRS)]
    length = f"{least:,}" if least == most else f"{least:,}-{most:,}"
    conflicts = f"{report.conflicts}+{report.reverse_conflicts}"
    return report.name, *rows, length, share, repeats, *pairs, conflicts, report.status
