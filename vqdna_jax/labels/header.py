"""Which columns of a table hold the sequences and their labels, as its header says.

Names count in any case, with or without blanks around them. Two columns that could both be meant are refused.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from vqdna_jax.errors import InputError
from vqdna_jax.labels.csv_rows import Row, delimiter_of

Kind = Literal["classification", "multilabel", "regression"]
Stated = Kind | Literal["auto"]
SEQUENCE = ("sequence", "seq", "text", "dna")  # the first is the name, the others are read as it
LABEL = ("label", "labels", "target", "y")
BLANKS = " \t"  # dropped around a field; line breaks are not, they are damage
BLANKS_DROPPED = "blanks around fields are dropped"
_PREFIX = "label_"
_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}


class Columns(NamedTuple):
    """Where a table has what."""

    kind: Stated  # "auto" where the header does not tell
    names: tuple[str, ...]  # of the labels; empty where they follow from the rows
    sequence: int
    labels: list[int]
    titles: list[str]  # which those of the labels should have


def find_columns(header: Row, kind: Stated, names: tuple[str, ...]) -> Columns:
    """The columns, where kind and names are those stated. Raises InputError, naming the place in the header."""
    sequence = find(header, SEQUENCE)
    several = [column for column, field in enumerate(header.fields) if _plain(field).startswith(_PREFIX)]
    single = has(header, LABEL[:1]) or not several and has(header, LABEL)  # `label_NAME` goes before `y`
    found = tuple(header.fields[column].strip(BLANKS)[len(_PREFIX) :] for column in several)
    if kind == "regression" and len(several) == 1 and not single:
        names = names or found
        return Columns(kind, names, sequence, *_named(header, names))
    if kind != "multilabel" and (single or not several or kind != "auto"):
        return Columns(kind, names, sequence, [find(header, LABEL)], [LABEL[0]])
    for column, name in zip(several, found):
        if not name or (names and name.lower() not in map(str.lower, names)):
            expected = ", ".join(names) if name else "label_NAME"
            raise InputError(
                f"{header.place(column)}: the label column {name!r}; expected {expected}; remove it or rename it"
            )
    names = names or found or ("NAME",)
    return Columns("multilabel", names, sequence, *_named(header, names))


def has(header: Row, names: Sequence[str]) -> bool:
    """Whether a column has one of the names."""
    return any(_plain(field) in names for field in header.fields)


def find(header: Row, names: Sequence[str]) -> int:
    """The one column that has one of the names. Raises InputError where there is none, or several."""
    wanted = [name.lower() for name in names]
    found = [column for column, field in enumerate(header.fields) if _plain(field) in wanted]
    if len(found) == 1:
        return found[0]
    if found:
        first, second = (header.fields[column].strip(BLANKS) for column in found[:2])
        what = f"{second!r}" if first == second else f"for the {names[0]}, {second!r} beside {first!r}"
        raise InputError(f"{header.place(found[1])}: a second column {what}; expected one; rename or remove it")
    _check_separator(header)
    seen = ", ".join(map(repr, header.fields))[:80]
    others = f" ({', '.join(names[1:])} will do)" if names[1:] else ""
    raise InputError(
        f"{header.place(0)}: the columns {seen}; expected {names[0]!r} among them; rename or add it{others}"
    )


def notes(header: Row, titles: Mapping[int, str]) -> Iterator[str]:
    """What to say of a header that is accepted although the columns read have not exactly these titles."""
    if delimiter_of(header.path) == "\t":
        yield "columns are separated by tabs"
    for column, title in titles.items():
        if (field := header.fields[column].strip(BLANKS)) != title:
            yield f"the column {field!r} is read as {title!r}"
    if any(header.fields[column] != header.fields[column].strip(BLANKS) for column in titles):
        yield BLANKS_DROPPED


def _named(header: Row, names: Sequence[str]) -> tuple[list[int], list[str]]:
    titles = [_PREFIX + name for name in names]
    return [find(header, [title]) for title in titles], titles


def _check_separator(header: Row) -> None:
    own = delimiter_of(header.path)
    for separator, what in _SEPARATORS.items():
        parts = [_plain(part) for part in header.text.replace('"', "").split(separator)]
        if separator != own and len(parts) > 1 and set(parts) & set(SEQUENCE):
            call = {",": ", or call it .csv", "\t": ", or call it .tsv"}.get(separator, "")
            raise InputError(
                f"{header.place(0)}: {what} between the columns; expected {_SEPARATORS[own]};"
                f" save it with {_SEPARATORS[own]}{call}"
            )


def _plain(field: str) -> str:
    return field.strip(BLANKS).lower()
