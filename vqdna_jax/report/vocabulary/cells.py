"""What the parts of an audit's page share: cells of numbers, the colours of vocabularies."""

from collections.abc import Mapping
from typing import Any

from vqdna_jax.report.page import TableCell
from vqdna_jax.report.vocabulary.pictures import Series, key

ROLES = 5  # classes of the style, series-0 is the model
Row = Mapping[str, Any]


def role(place: int, level: int = 1) -> str:
    return f"series-{min(place, ROLES - 1)}{' second' if level > 1 else ''}"


def number(value: float, digits: int = 2) -> TableCell:
    return TableCell(f"{value:,.{digits}f}", value)


def percent(value: float, digits: int = 1) -> TableCell:
    return TableCell(f"{100 * value:.{digits}f} %", value)


def one_key(audit: Row, joined: bool = True) -> str:
    return key([Series(one["name"], role(place), [], joined) for place, one in enumerate(audit["vocabularies"])])


def pictures(*figures: str) -> str:
    return f'<div class="plots loose">{"".join(figures)}</div>'
