"""The texts of a label column as numbers: which kind they are, class numbers, or finite targets.

A cell is (file:line:column, text). Everything here raises InputError, as `file:line:column: what; expected ...; what to
do`, at the first cell that is not what it should be. Shape letters: B rows, V classes.
"""

import math
import re
from collections.abc import Sequence
from typing import Literal, NoReturn

import numpy as np

from vqdna_jax.errors import InputError

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
