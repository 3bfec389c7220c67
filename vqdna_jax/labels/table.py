"""One table of labelled sequences: its rows as bases and the texts of their labels, and what those texts mean.

A label may be the name or the number of a class, and which classes there are the training rows say. So a table is read
first, and its labels become numbers once their `Meaning` is known.
"""

import contextlib
import math
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, cast, get_args

import numpy as np

from vqdna_jax.errors import InputError
from vqdna_jax.genome.alphabet import AMBIGUOUS_LETTERS, to_bases
from vqdna_jax.labels import header as headers
from vqdna_jax.labels.csv_rows import Row, read_rows
from vqdna_jax.labels.divide import strand_hash
from vqdna_jax.labels.header import BLANKS, BLANKS_DROPPED, Kind, Stated

Places = Mapping[str, str]  # file:line:column where a label of a text is first, in the order of the file
MAX_CLASSES = 1000
POINTS_DROPPED = "whole numbers with a decimal point are read without it, 1.0 as 1"
_WHOLE = re.compile(r"(-?[0-9]+)(?:\.0*)?")  # pandas writes 1.0 where any value of the column is missing
_CLASS = re.compile(r"([0-9]{1,9})(?:\.0*)?")
_LARGEST = 1e30  # of a regression's values
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(nan|inf|infinity)", re.IGNORECASE)
_MISSING = ("na", "n/a", "#n/a", "null")
_FLAGS = {"0": False, "1": True}
_NOT_DNA = re.compile(f"[^ACGTN{AMBIGUOUS_LETTERS}]", re.IGNORECASE | re.ASCII)
_LIKE_DNA = re.compile("[ACGTN]{8,}", re.IGNORECASE | re.ASCII)
_EXPLAIN_LETTER = [
    ("Uu", "is RNA", "replace U by T"),
    ("-.*", "is an alignment gap", "remove the gaps"),
    ("\r\n", "breaks the line within a sequence", "write each sequence on one line"),
    ("0123456789 \t", "is a digit or blank", "remove it"),
]
_OTHER_LETTER = "is not a DNA letter", "correct it"


class Table(NamedTuple):
    """The rows of a file, in their order."""

    kind: Stated  # "auto" where the labels tell
    names: tuple[str, ...]  # of the labels, stated or of the columns; empty where they follow from the labels
    columns: list[str]  # file:line:column of each label column in the header
    places: list[str]  # file:line
    bases: list[np.ndarray]  # uint8 [S]
    hashes: list[bytes]  # of the bases, the same on either strand
    texts: list[str]  # of the labels; of multilabel none
    firsts: Places
    flags: list[np.ndarray]  # bool [V], of multilabel
    notes: list[str]  # what is accepted although it is not to the letter


class Meaning(NamedTuple):
    """What labels are, in all splits."""

    kind: Kind
    names: tuple[str, ...]  # V
    numbers: Mapping[str, int]  # of the classes, by what may stand for them
    notes: tuple[str, ...] = ()


def read(path: pathlib.Path, kind: Stated, names: tuple[str, ...]) -> Table:
    """The table in a file; kind and names are those stated, "auto" and () if none are.

    Raises InputError, as `file:line:column: what; expected ...; what to do`, on what is not a table of DNA sequences.
    """
    with contextlib.closing(read_rows(path)) as rows:  # whatever is wrong in it
        return _read(path, rows, kind, names)


def _read(path: pathlib.Path, rows: Iterator[Row], kind: Stated, names: tuple[str, ...]) -> Table:
    header = next(rows)
    columns = headers.find_columns(header, kind, names)
    titles = {columns.sequence: headers.SEQUENCE[0]} | dict(zip(columns.labels, columns.titles))
    notes = list(headers.notes(header, titles))
    places, bases, hashes, texts, flags, firsts = [], [], [], [], [], {}
    for row in rows:
        places.append(f"{row.path}:{row.line}")
        bases.append(bases_of(row, columns.sequence, columns.labels, notes))
        hashes.append(strand_hash(bases[-1]))
        if columns.kind == "multilabel":
            flags.append(_flags(row, columns.labels, notes))
        else:
            texts.append(text := _trimmed(row, columns.labels[0], notes))
            if text not in firsts:
                firsts[text] = row.place(columns.labels[0])
    if not places:
        raise InputError(f"{path}:1:1: no rows after the header; expected a sequence and its label on each; add rows")
    at = list(map(header.place, columns.labels))
    notes = list(dict.fromkeys(notes))
    return Table(columns.kind, columns.names, at, places, bases, hashes, texts, firsts, flags, notes)


def take(table: Table, rows: Sequence[int]) -> Table:
    """Some of its rows."""
    parts = {part: getattr(table, part) for part in ("places", "bases", "hashes", "texts", "flags")}
    some: dict[str, Any] = {part: [of[row] for row in rows] for part, of in parts.items() if of}
    return table._replace(**some)


def meaning_of(table: Table) -> Meaning:
    """What labels mean, where `table` has the training rows. Raises InputError on labels that could mean two things."""
    kind, firsts = table.kind, table.firsts
    if kind == "auto":
        kind = "classification" if table.names else _kind_of(firsts)
    if kind == "multilabel":
        return Meaning(kind, table.names, {})
    if kind == "regression":
        return Meaning(kind, table.names or ("value",), {})
    if not table.names and all(map(_is_name, firsts)):
        names = _names_of(firsts)
        listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        note = f"labels are names, numbered from 0 in sorted order: {listed}"
        return Meaning(kind, names, {name: number for number, name in enumerate(names)}, (note,))
    names = table.names or tuple(map(str, range(max(_integer(place, text) for text, place in firsts.items()) + 1)))
    numbers = {str(number): number for number in range(len(names))}
    return Meaning(kind, names, numbers | {name: number for number, name in enumerate(names)})


def values(table: Table, meaning: Meaning) -> np.ndarray:
    """Labels as `sets.Split` has them. Raises InputError on a label without a meaning."""
    if meaning.kind == "multilabel":
        return np.stack(table.flags)
    if meaning.kind == "regression":
        targets = {text: _target(place, text) for text, place in table.firsts.items()}
        return np.array([targets[text] for text in table.texts], np.float64)
    classes = {text: _class(place, text, meaning) for text, place in table.firsts.items()}
    return np.array([classes[text] for text in table.texts], np.int64)


def notes_of(table: Table, meaning: Meaning) -> list[str]:
    """What is accepted in `table` although it is not to the letter."""
    points = any("." in text and text not in meaning.numbers for text in table.firsts)
    return table.notes + [POINTS_DROPPED] * (points and meaning.kind == "classification")


def check_names(names: Sequence[str], where: str = "label_names") -> None:
    """Raises InputError where a name is empty, there twice, or the number of another class."""
    for number, name in enumerate(names):
        other = (match := _WHOLE.fullmatch(name)) and match[1] != str(number)
        if not name or name in names[:number] or other:
            what = "is there twice" if name in names[:number] else "is another class's number" if name else "is empty"
            raise InputError(f"{where}: {_shown(name)} {what}; expected distinct names in order; rename it")


def like_dna(text: str) -> bool:
    """Whether a field holds what is hardly anything but a sequence."""
    return bool(_LIKE_DNA.fullmatch(text.strip(BLANKS)))


def check_options(kind: str, names: tuple[str, ...]) -> Stated:
    """The kind. Raises InputError on one that does not exist, and on names that it cannot have."""
    known = ("auto", *get_args(Kind))
    if kind not in known:
        raise InputError(f"kind: {kind!r}; expected one of {', '.join(known)}; correct it")
    check_names(names)
    if kind == "regression" and len(names) > 1:
        raise InputError(f"label_names: {len(names)} names; expected at most one for a regression; remove the others")
    return cast(Stated, kind)


def _trimmed(row: Row, column: int, notes: list[str]) -> str:
    field = row.fields[column]
    text = field.strip(BLANKS)
    if len(text) < len(field):
        notes.append(BLANKS_DROPPED)
    return text


def bases_of(row: Row, column: int, labels: Sequence[int], notes: list[str]) -> np.ndarray:
    """The sequence in a column, uint8 [S]; `labels` are columns that may have been mistaken for it.

    Raises InputError, as `file:line:column: what; expected ...; what to do`.
    """
    text = _trimmed(row, column, notes)
    if not text:
        raise InputError(f"{row.place(column)}: the sequence is empty; expected a base or more; remove the row")
    try:
        return to_bases(text)
    except InputError:
        match = _NOT_DNA.search(text)
        assert match is not None  # or they were bases
    field, letter = row.fields[column], match[0]
    what, advice = next((rest for letters, *rest in _EXPLAIN_LETTER if letter in letters), _OTHER_LETTER)
    if any(like_dna(row.fields[label]) for label in labels):
        advice = "the label looks like DNA: are the two columns swapped?"
    place = row.place(column, len(field) - len(field.lstrip(BLANKS)) + match.start())
    raise InputError(f"{place}: {letter!r} {what}; expected A C G T N or other IUPAC letters; {advice}")


def _flags(row: Row, columns: Sequence[int], notes: list[str]) -> np.ndarray:
    try:
        return np.array([_FLAGS[row.fields[column]] for column in columns])
    except KeyError:
        return np.array([_flag(row, column, len(columns) == 1, notes) for column in columns])


def _flag(row: Row, column: int, alone: bool, notes: list[str]) -> bool:
    text = _trimmed(row, column, notes)
    if not (match := _CLASS.fullmatch(text)) or match[1] not in _FLAGS:
        advice = "correct it or state kind=regression" if alone else "correct it"
        raise InputError(f"{row.place(column)}: the label {text[:40]!r}; expected 0 or 1; {advice}")
    if match[1] != text:
        notes.append(POINTS_DROPPED)
    return _FLAGS[match[1]]


def _kind_of(firsts: Places) -> Kind:
    """Integers and names are classes, other numbers are targets."""
    if all(map(_WHOLE.fullmatch, firsts)) or all(map(_is_name, firsts)):
        return "classification"
    _check_mixture(firsts)
    if all(float(text).is_integer() for text in firsts):
        text = next(text for text in firsts if not _WHOLE.fullmatch(text))
        advice = "write it in digits alone, or state kind=regression"
        _fail(firsts[text], text, "is whole but no integer", "integers for classes", advice)
    return "regression"


def _check_mixture(firsts: Places) -> None:
    """Raises InputError at the first label that is no number, or where the first of all is a name, no name."""
    first = next(iter(firsts))
    if _is_name(first):
        text = next(text for text in firsts if not _is_name(text))
        what = "is empty" if not text else "is a number" if _NUMBER.fullmatch(text) else "is hardly a name"
        advice = "correct it, or state label_names" if text else "fill it in"
        _fail(firsts[text], text, what, f"names alone, as {_shown(first)}", advice)
    for text, place in firsts.items():
        if not _NUMBER.fullmatch(text):
            advice = "correct it, or state label_names where the labels are names" if text else "fill it in"
            _fail(place, text, "is not a number", "one in each row", advice)


def _is_name(text: str) -> bool:
    """Texts without a letter are some writing of numbers, or nothing."""
    return any(map(str.isalpha, text)) and not _NUMBER.fullmatch(text) and text.lower() not in _MISSING


def _names_of(firsts: Places) -> tuple[str, ...]:
    """Sorted. Raises InputError on two that differ by case alone, and on too many."""
    spelled: dict[str, str] = {}
    for text, place in firsts.items():
        if (other := spelled.setdefault(text.casefold(), text)) != text:
            what = f"differs from {_shown(other)} by case alone"
            _fail(place, text, what, "one spelling of a name", "correct it, or state label_names")
        if len(spelled) > MAX_CLASSES:
            advice = "check that the column holds labels"
            _fail(place, text, "is one name too many", f"at most {MAX_CLASSES} classes", advice)
    return tuple(sorted(firsts))


def _class(place: str, text: str, meaning: Meaning) -> int:
    match = _CLASS.fullmatch(text)
    number = meaning.numbers.get(text, meaning.numbers.get(str(int(match[1]))) if match else None)
    if number is not None:
        return number
    names = meaning.names
    listed = ", ".join(names[:8]) + (f", ... {names[-1]}" if len(names) > 8 else "")
    _fail(place, text, "is not known", f"one of {listed} as in train, label_names or labels.txt", "correct it")


def _integer(place: str, text: str) -> int:
    """The number of a class from itself."""
    if (match := _CLASS.fullmatch(text)) and int(match[1]) < MAX_CLASSES:
        return int(match[1])
    advice = "number the classes from 0, or state kind=regression"
    if _WHOLE.fullmatch(text) and text.startswith("-"):
        _fail(place, text, "is negative", "integers from 0", advice)
    if _WHOLE.fullmatch(text):
        _fail(place, text, "is too large", f"at most {MAX_CLASSES} classes, 0 to {MAX_CLASSES - 1}", advice)
    advice = "state kind=regression" if _NUMBER.fullmatch(text) else "state label_names where they are names"
    _fail(place, text, "is not an integer", "integers from 0", f"correct it, or {advice}")


def _target(place: str, text: str) -> float:
    """A number that float32 holds with room to spare, for models compute with it."""
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        what = "is empty" if not text else f"{_shown(text)} is not a finite number"
        raise InputError(f"{place}: the label {what}; expected a number such as 0.5; correct it or remove the row")
    if abs(float(text)) > _LARGEST:
        _fail(place, text, "is too large", f"a size of at most {_LARGEST:g}", "measure all in a larger unit")
    return float(text)


def _fail(place: str, text: str, what: str, expected: str, advice: str) -> NoReturn:
    raise InputError(f"{place}: the label {_shown(text)} {what}; expected {expected}; {advice}")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "...")
