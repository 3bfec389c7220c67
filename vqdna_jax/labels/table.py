"""One table of labelled sequences: its columns, its rows as bases and the texts of their labels, and their values.

Shape letters: B rows, S bases, V classes.
"""

import math
import pathlib
import re
from collections.abc import Sequence
from typing import Literal, NamedTuple, NoReturn, get_args

import numpy as np

from vqdna_jax.errors import InputError
from vqdna_jax.genome.alphabet import AMBIGUOUS_LETTERS, to_bases
from vqdna_jax.labels.csv_rows import Row, read_rows

Cells = Sequence[tuple[str, str]]
MAX_CLASSES = 1000
_INTEGER = re.compile(r"-?[0-9]+")
_CLASS = re.compile(r"[0-9]{1,9}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(nan|inf|infinity)", re.IGNORECASE)


def decide(cells: Cells) -> Literal["classification", "regression"]:
    """Integers are classes, other numbers are targets; whole numbers with a decimal point could be either."""
    texts = {text for _, text in cells}
    if all(map(_INTEGER.fullmatch, texts)):
        return "classification"
    for place, text in cells:
        if not _NUMBER.fullmatch(text):
            advice = "correct it, or state label_names where the labels are names" if text else "fill it in"
            raise InputError(f"{place}: the label {_shown(text)} is not a number; expected one in each row; {advice}")
    if all(float(text).is_integer() for text in texts):
        place, text = next(cell for cell in cells if not _INTEGER.fullmatch(cell[1]))
        raise InputError(
            f"{place}: the label {_shown(text)} is whole but no integer; expected integers for classes;"
            " write 1.0 as 1, or state kind=regression"
        )
    return "regression"


def classes(cells: Cells, names: Sequence[str] = ()) -> np.ndarray:
    """int64 [B]: the number of a class from its name or, in digits, from itself; without names, at most MAX_CLASSES."""
    known = {name: number for number, name in enumerate(names)}
    for place, text in cells:
        if text not in known:
            known[text] = _class(place, text, names)
    return np.array([known[text] for _, text in cells], np.int64)


def targets(cells: Cells) -> np.ndarray:
    """float64 [B], finite."""
    for place, text in cells:
        if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
            what = "is empty" if not text else f"{_shown(text)} is not a finite number"
            raise InputError(f"{place}: the label {what}; expected a number such as 0.5; correct it or remove the row")
    return np.array([float(text) for _, text in cells], np.float64)


def check_names(names: Sequence[str]) -> None:
    """Raises InputError where a name is empty, there twice, or the number of another class."""
    for number, name in enumerate(names):
        if not name or name in names[:number] or (_INTEGER.fullmatch(name) and name != str(number)):
            what = "is there twice" if name in names[:number] else "is another class's number" if name else "is empty"
            raise InputError(f"label_names: {_shown(name)} {what}; expected distinct names in order; rename it")


def _class(place: str, text: str, names: Sequence[str]) -> int:
    if _CLASS.fullmatch(text) and int(text) < (len(names) or MAX_CLASSES):
        return int(text)
    if names:
        listed = ", ".join(names[:8]) + (f", ... {names[-1]}" if len(names) > 8 else "")
        _fail(place, text, "is not known", f"one of {listed} as in train or label_names", "correct it")
    if text.startswith("-") and _INTEGER.fullmatch(text):
        _fail(place, text, "is negative", "integers from 0", "number the classes from 0, or state kind=regression")
    if _INTEGER.fullmatch(text):
        most = f"at most {MAX_CLASSES} classes, 0 to {MAX_CLASSES - 1}"
        _fail(place, text, "is too large", most, "number the classes from 0, or state kind=regression")
    if _NUMBER.fullmatch(text):
        _fail(place, text, "is not an integer", "integers from 0", "correct it, or state kind=regression")
    _fail(place, text, "is not an integer", "integers from 0", "correct it, or state label_names where they are names")


def _fail(place: str, text: str, what: str, expected: str, advice: str) -> NoReturn:
    raise InputError(f"{place}: the label {_shown(text)} {what}; expected {expected}; {advice}")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "...")


Kind = Literal["classification", "multilabel", "regression"]
_KINDS = ("auto", *get_args(Kind))
_PREFIX = "label_"
_NOT_DNA = re.compile(f"[^ACGTN{AMBIGUOUS_LETTERS}]", re.IGNORECASE | re.ASCII)
_EXPLAIN_LETTER = [
    ("Uu", "is RNA", "replace U by T"),
    ("-.*", "is an alignment gap", "remove the gaps"),
    ("\r\n", "breaks the line within a sequence", "write each sequence on one line"),
    ("0123456789 \t", "is a digit or blank", "remove it"),
]
_OTHER_LETTER = "is not a DNA letter", "correct it"
_SEPARATORS = {"\t": "tabs", ";": "semicolons", "|": "bars"}


class Table(NamedTuple):
    """A file, its labels not yet numbers: what they may be is told by another file, or by all of them."""

    kind: Kind
    names: tuple[str, ...]  # empty where they follow from the labels
    columns: list[str]  # file:line:column of each label column in the header
    places: list[str]
    bases: list[np.ndarray]
    labels: list  # of each row: (file:line:column, text), or bool [V] of multilabel


def read(path: pathlib.Path, kind: str, names: tuple[str, ...]) -> Table:
    """Kind and names are those stated, or follow from the header and, at last, from all labels of the file.

    Raises InputError, as `file:line:column: what; expected ...; what to do`, on what is not a table of DNA sequences.
    """
    _check_options(kind, names)
    rows = read_rows(path)
    header = next(rows)
    column = find_column(header, "sequence")
    kind, names, columns = _columns(header, kind, names)
    places, bases, labels = [], [], []
    for row in rows:
        places.append(f"{path}:{row.line}")
        bases.append(_bases(row, column))
        if kind == "multilabel":
            labels.append(_flags(row, columns))
        else:
            labels.append((row.place(columns[0]), row.fields[columns[0]]))
    if not places:
        raise InputError(f"{path}:1:1: no rows after the header; expected a sequence and its label on each; add rows")
    if kind == "auto":
        kind = "classification" if names else decide(labels)
    names = names or (("value",) if kind == "regression" else ())
    return Table(kind, names, list(map(header.place, columns)), places, bases, labels)


def _check_options(kind: str, names: tuple[str, ...]) -> None:
    if kind not in _KINDS:
        raise InputError(f"kind: {kind!r}; expected one of {', '.join(_KINDS)}; correct it")
    check_names(names)
    if kind == "regression" and len(names) > 1:
        raise InputError(f"label_names: {len(names)} names; expected at most one for a regression; remove the others")


def _columns(header: Row, kind: str, names: tuple[str, ...]) -> tuple[str, tuple[str, ...], list[int]]:
    """The kind as far as the header tells, the names, and the columns of the labels."""
    several = [column for column, field in enumerate(header.fields) if field.startswith(_PREFIX)]
    single = "label" in header.fields
    if kind == "regression" and len(several) == 1 and not single:
        names = names or (header.fields[several[0]].removeprefix(_PREFIX),)
        return kind, names, [find_column(header, _PREFIX + names[0])]
    if kind != "multilabel" and (single or not several or kind != "auto"):
        return kind, names, [find_column(header, "label")]
    found = tuple(header.fields[column].removeprefix(_PREFIX) for column in several)
    for column, name in zip(several, found):
        if not name or (names and name not in names):
            expected = ", ".join(names) if name else "label_NAME"
            raise InputError(
                f"{header.place(column)}: the label column {name!r}; expected {expected}; remove it or rename it"
            )
    wanted = names or found or ("NAME",)
    return "multilabel", wanted, [find_column(header, _PREFIX + name) for name in wanted]


def find_column(header: Row, name: str) -> int:
    """The one column of that name."""
    if header.fields.count(name) == 1:
        return header.fields.index(name)
    if name in header.fields:
        second = header.fields.index(name, header.fields.index(name) + 1)
        raise InputError(f"{header.place(second)}: a second column {name!r}; expected one; rename or remove it")
    for separator, what in _SEPARATORS.items():
        if "sequence" in header.text.replace('"', "").split(separator) and separator in header.text:
            raise InputError(f"{header.place(0)}: {what} between the columns; expected commas; save it as CSV")
    seen = ", ".join(map(repr, header.fields))[:80]
    raise InputError(f"{header.place(0)}: the columns {seen}; expected {name!r} among them; rename or add it")


def _bases(row: Row, column: int) -> np.ndarray:
    text = row.fields[column]
    if not text:
        raise InputError(f"{row.place(column)}: the sequence is empty; expected a base or more; remove the row")
    try:
        return to_bases(text)
    except InputError:
        position = _NOT_DNA.search(text).start()
    what, advice = next((rest for letters, *rest in _EXPLAIN_LETTER if text[position] in letters), _OTHER_LETTER)
    raise InputError(
        f"{row.place(column, position)}: {text[position]!r} {what}; expected A C G T N or other IUPAC letters; {advice}"
    )


def _flags(row: Row, columns: Sequence[int]) -> np.ndarray:
    """bool [V]."""
    for column in columns:
        if (text := row.fields[column]) not in ("0", "1"):
            alone = " or state kind=regression" if len(columns) == 1 else ""
            raise InputError(f"{row.place(column)}: the label {text[:40]!r}; expected 0 or 1; correct it{alone}")
    return np.array([row.fields[column] == "1" for column in columns])


def values(table: Table, names: tuple[str, ...]) -> np.ndarray:
    """Labels as `Split` has them; without names, the classes of a classification are whatever numbers there are."""
    if table.kind == "multilabel":
        return np.stack(table.labels)
    if table.kind == "regression":
        return targets(table.labels)
    return classes(table.labels, names)
