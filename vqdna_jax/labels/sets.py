"""Labelled sequences: the one strict reader of the tables that heads are trained on, evaluated on and predict for.

A set is a folder in the layout of GUE, train.csv, dev.csv and perhaps test.csv, or one CSV file that is split here.
The header names a column `sequence` and either `label` or, for several labels per row, columns `label_NAME` of 0 and 1;
other columns are passed over.

Shape letters: B rows, S bases, V classes. Bases are uint8 [S], A C G T N = 0 1 2 3 4, of any lengths.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vqdna_jax.errors import InputError
from vqdna_jax.genome.alphabet import reverse_complement
from vqdna_jax.labels.table import Kind, Table, read, values

NAMES = "labels.txt"  # of the classes, in the folder of a set
_SEED = b"0:"  # another one divides single files otherwise


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
    """The set in a folder, or in one CSV file: 80 % train, 10 % dev, 10 % test by a hash of the sequence.

    Equal sequences and reverse complements of each other share a split of one file. train.csv is read in any case: it
    says how many classes there are. A test split that is absent is left out.

    Args:
        kind: "auto" takes `label_NAME` columns for multilabel, integers for classification, other numbers for
            regression.
        label_names: of a classification, in order: a label may then be a name or its number. Of multilabel, the
            columns to read, in order. Of regression, one name.

    Raises:
        InputError: as `file:line:column: what; expected ...; what to do`, on anything that is not a labelled DNA
            sequence; on an empty split, a class that train lacks, or a multilabel column that is the same in each row.
    """
    path = pathlib.Path(directory)
    if path.is_dir():
        tables = _read_folder(path, kind, tuple(label_names), splits)
    else:
        tables = _divide(read(path, kind, tuple(label_names)), path, splits)
    train = tables["train"]
    labels, names = values(train, train.names), train.names
    if train.kind == "classification":
        names = names or tuple(map(str, range(labels.max() + 1)))
    _check_train(train, labels, names)
    found = {
        name: Split(table.places, table.bases, labels if name == "train" else values(table, names))
        for name, table in tables.items()
        if name in splits
    }
    return LabelledSet(train.kind, names, found, _digest(train.kind, names, found))


def label_names(directory: str | os.PathLike) -> tuple[str, ...]:
    """The names in the set's labels.txt, one per line; none where there is no such file."""
    path = pathlib.Path(directory) / NAMES
    try:
        return tuple(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else ()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); expected a name of a class on each line") from error


def read_table(path: str | os.PathLike, kind: str, label_names: Sequence[str]) -> Split:
    """One file, its labels meaning what the stated names say. Raises InputError as `read_set` does, on a row."""
    table = read(pathlib.Path(path), kind, tuple(label_names))
    return Split(table.places, table.bases, values(table, table.names))


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


def _read_folder(path: pathlib.Path, kind: str, names: tuple[str, ...], splits: Sequence[str]) -> dict[str, Table]:
    if "dev" in splits and not (path / "dev.csv").is_file():
        raise InputError(f"{path}: dev.csv is missing; expected train.csv and dev.csv; add it, or name one CSV file")
    train = read(path / "train.csv", kind, names)
    others = [name for name in splits if name != "train" and (name != "test" or (path / "test.csv").exists())]
    return {"train": train} | {name: read(path / f"{name}.csv", train.kind, train.names) for name in others}


def _divide(table: Table, path: pathlib.Path, splits: Sequence[str]) -> dict[str, Table]:
    rows = {"train": [], "dev": [], "test": []}
    for row, bases in enumerate(table.bases):
        rows[_split_of(bases)].append(row)
    for name in ("train", *splits):
        if not rows[name]:
            raise InputError(
                f"{path}: none of its {len(table.places)} rows falls into {name}; expected some in each split;"
                " add rows, or name a folder with train.csv and dev.csv"
            )
    return {name: _take(table, rows[name]) for name in rows}


def _take(table: Table, rows: Sequence[int]) -> Table:
    parts = {part: [getattr(table, part)[row] for row in rows] for part in ("places", "bases", "labels")}
    return table._replace(**parts)


def _split_of(bases: np.ndarray) -> str:
    strand = min(bases.tobytes(), reverse_complement(bases).tobytes())
    share = int.from_bytes(hashlib.sha256(_SEED + strand).digest()[:8], "big") / 2**64
    return "train" if share < 0.8 else "dev" if share < 0.9 else "test"


def _check_train(train: Table, labels: np.ndarray, names: tuple[str, ...]) -> None:
    if train.kind == "classification":
        counts_V = np.bincount(labels, minlength=len(names))
        if missing := [name for name, count in zip(names, counts_V) if not count]:
            raise InputError(
                f"{train.columns[0]}: no training row has the label {missing[0]!r}; expected rows of all {len(names)}"
                " classes; add some, number the labels from 0 without gaps, or state fewer label_names"
            )
        if len(names) < 2:
            raise InputError(f"{train.columns[0]}: {names[0]!r} is the only label; expected two or more; add rows")
    if train.kind == "multilabel":
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
