"""Labelled sequences: the one strict reader of the tables that heads are trained on, evaluated on and predict for.

A set is a folder in the layout of GUE, train.csv, dev.csv and perhaps test.csv, or one file that is split here. The
header names a column `sequence` and either `label` or, for several labels per row, columns `label_NAME` of 0 and 1;
other columns are passed over. Tabs will do in .tsv, either may be .gz, and `header` has the other names of columns.

Bases are uint8 [S], A C G T N = 0 1 2 3 4, of any lengths.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vqdna_jax.errors import InputError
from vqdna_jax.labels import divide
from vqdna_jax.labels.header import Kind, Stated
from vqdna_jax.labels.table import Meaning, Table, check_names, check_options, meaning_of, notes_of, read, take, values

NAMES = "labels.txt"  # of the classes, in the folder of a set or beside its file
_TOO_FEW = "expected 3 or more, one for each split; add rows, or name a folder with train.csv and dev.csv"
_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")


@dataclass(frozen=True)
class Split:
    """Rows in the order of the file."""

    places: list[str]  # file:line of each row
    bases: list[np.ndarray]  # B uint8 arrays [S]
    labels: np.ndarray  # classification int64 [B]; multilabel bool [B, V]; regression float64 [B]


@dataclass(frozen=True)
class LabelledSet:
    """Splits "train", "dev" and, where there is one, "test"; labels mean the same in all of them."""

    kind: Kind
    label_names: tuple[str, ...]  # V; of an unnamed classification "0", "1", ...; of an unnamed regression "value"
    splits: dict[str, Split]
    digest: str  # sha256 over kind, label names and the splits' names, bases and labels
    notes: tuple[str, ...] = ()  # what was accepted although it is not to the letter, a line per point, to be said once

    @property
    def classes(self) -> int:
        """V."""
        return len(self.label_names)


def read_set(
    directory: str | os.PathLike,
    kind: str = "auto",
    label_names: Sequence[str] = (),
    splits: Sequence[str] = ("train", "dev", "test"),
) -> LabelledSet:
    """The set in a folder, or in one file: of each class 80 % train, 10 % dev, 10 % test, by a hash of the sequence.

    Equal sequences and reverse complements of each other share a split of one file. train.csv is read in any case: it
    says which classes there are. A test split that is absent is left out.

    Args:
        kind: "auto" takes `label_NAME` columns for multilabel, integers and names for classification, other numbers
            for regression.
        label_names: of a classification, in order: a label may then be a name or its number. Of multilabel, the
            columns to read, in order. Of regression, one name.

    Raises:
        InputError: as `file:line:column: what; expected ...; what to do`, on anything that is not a labelled DNA
            sequence; on an empty split, a class that train lacks or that has too few sequences for three splits, or a
            multilabel column that is the same in each row.
    """
    path = pathlib.Path(directory)
    reader = _read_folder if path.is_dir() else _read_file
    names = tuple(label_names)
    tables, meaning = reader(path, check_options(kind, names), names, splits)
    labels = {"train": values(tables["train"], meaning)}
    _check_train(tables["train"], labels["train"], meaning)
    labels |= {name: values(table, meaning) for name, table in tables.items() if name != "train"}
    found = {name: Split(tables[name].places, tables[name].bases, labels[name]) for name in tables if name in splits}
    digest, notes = _digest(meaning.kind, meaning.names, found), _notes(tables.values(), labels.values(), meaning)
    return LabelledSet(meaning.kind, meaning.names, found, digest, notes)


def label_names(path: str | os.PathLike) -> tuple[str, ...]:
    """The names in the set's labels.txt, one per line; none where there is no such file in its folder."""
    path = pathlib.Path(path)
    path = (path if path.is_dir() else path.parent) / NAMES
    if not path.is_file():
        return ()
    try:
        names = tuple(map(str.strip, path.read_text(encoding="utf-8-sig").strip().splitlines()))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); expected a name of a class on each line") from error
    check_names(names, str(path))
    return names


def subset(whole: LabelledSet, rows: Mapping[str, int], seed: int = 0) -> LabelledSet:
    """At most so many rows of each split (0: all), as `draw` chooses them."""
    splits = {}
    for name, split in whole.splits.items():
        drawn = draw(split.labels, rows[name] or len(split.labels), seed)
        places, bases = ([parts[row] for row in drawn] for parts in (split.places, split.bases))
        splits[name] = Split(places, bases, split.labels[drawn])
    return replace(whole, splits=splits)


def draw(labels: np.ndarray, rows: int, seed: int = 0) -> np.ndarray:
    """Indices, ascending, of at most `rows` rows, the same at every call.

    Of each class its share, and at least one row if `rows` allows; of regression and multilabel any rows.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    if labels.ndim > 1 or labels.dtype.kind == "f":
        return np.sort(order[:rows])
    quantile_B = np.empty(len(labels))
    for label in np.unique(labels):
        of_label = order[labels[order] == label]
        quantile_B[of_label] = np.arange(len(of_label)) / len(of_label)
    return np.sort(order[np.argsort(quantile_B[order], kind="stable")][:rows])


def _read_folder(
    path: pathlib.Path, kind: Stated, names: tuple[str, ...], splits: Sequence[str]
) -> tuple[dict[str, Table], Meaning]:
    """Train first."""
    files = {name: _file(path, name) for name in dict.fromkeys(["train", *splits])}
    if "dev" in files and not files["dev"].is_file():
        raise InputError(f"{path}: dev.csv is missing; expected train.csv and dev.csv; add it, or name one CSV file")
    tables = {"train": read(files["train"], kind, names)}
    meaning = meaning_of(tables["train"])
    names = tables["train"].names if meaning.kind == "classification" else meaning.names
    for name, file in files.items():
        if name == "dev" or (name == "test" and file.exists()):
            tables[name] = read(file, meaning.kind, names)
    return tables, meaning


def _file(path: pathlib.Path, name: str) -> pathlib.Path:
    """The first there is of a split's files, train.csv if there is none."""
    files = [path / f"{name}{suffix}" for suffix in _SUFFIXES]
    return next((file for file in files if file.exists()), files[0])


def _read_file(
    path: pathlib.Path, kind: Stated, names: tuple[str, ...], splits: Sequence[str]
) -> tuple[dict[str, Table], Meaning]:
    """All three splits, whichever are wanted."""
    whole = read(path, kind, names)
    meaning, groups_B = meaning_of(whole), divide.group(whole.hashes)
    if meaning.kind == "classification":
        labels_B = values(whole, meaning)
        _check_train(whole, labels_B, meaning)
        _check_groups(path, groups_B, labels_B, meaning)
        split_B = divide.divide_classes(groups_B, labels_B)
        _check_splits(path, split_B, labels_B, meaning)
    elif (groups := groups_B.max() + 1) < divide.LEAST_GROUPS:
        raise InputError(f"{path}: too few distinct sequences, {groups}; {_TOO_FEW}")
    else:
        split_B = divide.divide(groups_B)
    rows = {name: np.flatnonzero(split_B == number).tolist() for number, name in enumerate(divide.SPLITS)}
    return {name: take(whole, of) for name, of in rows.items()}, meaning


def _check_groups(path: pathlib.Path, groups_B: np.ndarray, labels_B: np.ndarray, meaning: Meaning) -> None:
    counts_V = divide.count_classes(groups_B, labels_B, len(meaning.names))
    least = int(counts_V.argmin())
    if counts_V[least] < divide.LEAST_GROUPS:
        counted = "" if _named(meaning) else ", or, if labels are counts or measured, state kind=regression"
        found = f"the class {meaning.names[least]!r} has too few distinct sequences, {counts_V[least]}"
        raise InputError(f"{path}: {found}; {_TOO_FEW}{counted}")


def _check_splits(path: pathlib.Path, split_B: np.ndarray, labels_B: np.ndarray, meaning: Meaning) -> None:
    for split, name in enumerate(divide.SPLITS):
        if (lacking := np.setdiff1d(labels_B, labels_B[split_B == split])).size:
            found = (
                f"no sequence of the class {meaning.names[lacking[0]]!r} can go to {name}, for many have other labels"
            )
            advice = "remove those with several labels, or name a folder with train.csv and dev.csv"
            raise InputError(f"{path}: {found} too; expected each class in each split; {advice}")


def _named(meaning: Meaning) -> bool:
    """Whether the classes have other names than their numbers."""
    return meaning.names != tuple(map(str, range(len(meaning.names))))


def _notes(tables: Collection[Table], labels: Collection[np.ndarray], meaning: Meaning) -> tuple[str, ...]:
    notes = [note for table in tables for note in notes_of(table, meaning)] + [*meaning.notes]
    hashes = [hashed for table in tables for hashed in table.hashes]
    distinct = len(set(hashes))
    if distinct < len(hashes) and (several := divide.count_of_several(divide.group(hashes), np.concatenate([*labels]))):
        of = f"{several:,} of {distinct:,} sequences"
        notes.append(f"{of} have more than one label, a sequence and its reverse complement being one")
    return tuple(dict.fromkeys(notes))


def _check_train(train: Table, labels: np.ndarray, meaning: Meaning) -> None:
    names = meaning.names
    if meaning.kind == "classification":
        counts_V = np.bincount(labels, minlength=len(names))
        if missing := [name for name, count in zip(names, counts_V) if not count]:
            advice = "number the labels from 0 without gaps, or state kind=regression where they are counts or measured"
            advice = "or state fewer label_names" if _named(meaning) else advice
            raise InputError(
                f"{train.columns[0]}: no training row has the label {missing[0]!r}; expected rows of all {len(names)}"
                f" classes; add some, {advice}"
            )
        if len(names) == 1:
            raise InputError(f"{train.columns[0]}: {names[0]!r} is the only label; expected two or more; add rows")
    if meaning.kind == "multilabel":
        for place, name, flags_B in zip(train.columns, names, labels.T):
            if flags_B.all() or not flags_B.any():
                raise InputError(
                    f"{place}: {name!r} is {int(flags_B[0])} in every training row; expected both 0 and 1; remove it"
                )


def _digest(kind: str, names: tuple[str, ...], splits: dict[str, Split]) -> str:
    splits = dict(sorted(splits.items()))
    sizes = [[name, [len(bases) for bases in split.bases]] for name, split in splits.items()]
    digest = hashlib.sha256(json.dumps([kind, names, sizes]).encode())
    for split in splits.values():
        digest.update(np.concatenate(split.bases).tobytes())
        digest.update(split.labels.astype(split.labels.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()
