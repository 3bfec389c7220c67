"""Dot plots as inline SVG: a lane per row, all points on one axis. Colours and shapes come from the page's style.

Everything is plain text or a number here and is escaped where it enters the markup.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from vqdna_jax.report.page import escape

_WIDTH, _LANE, _TOP, _AXIS = 340, 22, 4, 24  # of the drawing, in its own units: pixels on a telephone
_LETTER, _LONGEST = 6.3, 20  # width of a letter of a label, and the letters that are shown
_FIGURE = 42  # room for the figure at the right
_STEPS = (1, 2, 2.5, 5, 10)


class Point(NamedTuple):
    value: float
    title: str  # shown when pointed at
    shape: str = "dot"  # or diamond, cross
    points: int = 1  # that lie here; the area grows with them


class Lane(NamedTuple):
    label: str
    role: str  # a class of the style
    points: list[Point]
    mean: float | None
    figure: str  # at the right


def draw(lanes: Sequence[Lane], description: str, whole: bool = False) -> str:
    """The plot; `description` stands for it where it is not seen. whole: ticks at whole numbers only, for ranks."""
    values = [point.value for lane in lanes for point in lane.points] or [0.0]
    ticks = axis(min(values), max(values), whole)
    left = min(_LONGEST, max(len(lane.label) for lane in lanes)) * _LETTER + 10
    right = _WIDTH - _FIGURE - 8

    def x(value: float) -> float:
        return left + (value - ticks[0]) / (ticks[-1] - ticks[0]) * (right - left)

    bottom = _TOP + _LANE * len(lanes)
    marks = [_tick(x(tick), f"{tick:g}", bottom) for tick in ticks]
    marks += [_lane(lane, x, _TOP + _LANE * (place + 0.5), (left, right), whole) for place, lane in enumerate(lanes)]
    return (
        f'<svg viewBox="0 0 {_WIDTH} {bottom + _AXIS}" role="img" aria-label="{escape(description)}">'
        f"{''.join(marks)}</svg>"
    )


def axis(lowest: float, highest: float, whole: bool = False) -> list[float]:
    """Three to six round ticks, evenly apart, that enclose both values; for ranks (whole), from 1 on."""
    if whole:
        apart = max(1, math.ceil((highest - 1) / 5))
        return [float(1 + place * apart) for place in range(max(2, math.ceil((highest - 1) / apart)) + 1)]
    span = max(highest - lowest, 1.0)
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(power * step for step in _STEPS if span / (power * step) <= 4)
    first, last = math.floor(lowest / step + 1e-9), math.ceil(highest / step - 1e-9)
    return [round(place * step, 9) for place in range(first, max(last, first + 2) + 1)]


def _tick(x: float, text: str, bottom: float) -> str:
    line = f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom + 3}"/>'
    return f'{line}<text class="quiet" x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{text}</text>'


def _lane(lane: Lane, x: Callable[[float], float], y: float, ends: tuple[float, float], whole: bool) -> str:
    left, right = ends
    shifts = [0.0] * len(lane.points) if whole else _shifts(lane.points)
    label = lane.label if len(lane.label) <= _LONGEST else lane.label[: _LONGEST - 1] + "…"
    parts = [
        _text(left - 10, y, label, f"<title>{escape(lane.label)}</title>"),
        f'<line class="lane" x1="{left:.1f}" x2="{right:.1f}" y1="{y}" y2="{y}"/>',
        *(mark(point, x(point.value), y + shift) for point, shift in zip(lane.points, shifts)),
    ]
    if lane.mean is not None:
        at = f'{x(lane.mean):.1f}"'
        parts.append(f'<line class="mean" x1="{at} x2="{at} y1="{y - 7}" y2="{y + 7}"/>')
    parts.append(_text(_WIDTH, y, lane.figure))
    return f'<g class="{escape(lane.role)}">{"".join(parts)}</g>'


def _text(x: float, y: float, text: str, title: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y + 4}" text-anchor="end">{escape(text)}{title}</text>'


def _shifts(points: Sequence[Point]) -> list[float]:
    """Runs of one score stay apart; published scores are on the line."""
    if any(point.shape == "diamond" for point in points) or len(points) < 2:
        return [0.0] * len(points)
    step = min(3.0, 10.0 / (len(points) - 1))
    return [(place - (len(points) - 1) / 2) * step for place in range(len(points))]


def mark(point: Point, x: float, y: float) -> str:
    """One point at a place of the drawing."""
    size = min(3.4 * math.sqrt(point.points), 9.0)
    title = f"<title>{escape(point.title)}</title>"
    if point.shape == "dot":
        return f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}">{title}</circle>'
    corners = f"M{x - 4:.1f} {y:.1f}l4 -4l4 4l-4 4z"
    cross = f"M{x - 3.6:.1f} {y - 3.6:.1f}l7.2 7.2m0 -7.2l-7.2 7.2"
    return f'<path class="mark" d="{corners if point.shape == "diamond" else cross}">{title}</path>'
