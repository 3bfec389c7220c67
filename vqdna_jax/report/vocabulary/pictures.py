"""Pictures as inline SVG, in the colours of the page: curves, points, and logos of sequences.

What is plain text here is escaped where it enters the markup.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from matplotlib.ticker import MaxNLocator

from vqdna_jax.report.page import escape

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 340, 200, 44, 36, 8, 8
_COLUMN, _LOGO = 18, 64  # of a logo: width of a place, height of two bits
_MOST_BITS, _LEAST_LETTER = 2.0, 0.02  # bits at the top of a logo, and of the smallest letter that is drawn
_LETTERS = "ACGT"


class Series(NamedTuple):
    """Points (x, y) of one vocabulary, or control."""

    name: str
    role: str  # a class of the style
    points: Sequence[Sequence[float]]
    joined: bool = True


class Axis(NamedTuple):
    title: str
    log: bool = False
    ends: tuple[float, float] | None = None


def chart(series: Sequence[Series], x: Axis, y: Axis, described: str) -> str:
    """Curves, or points where they are not joined; `described` stands for it where it is not seen."""
    xs, ys = ([point[side] for one in series for point in one.points] for side in (0, 1))
    x_ticks, y_ticks = _ticks(x, xs), _ticks(y, ys)
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def place(point: Sequence[float]) -> tuple[float, float]:
        across, up = _share(x, x_ticks, point[0]), _share(y, y_ticks, point[1])
        return _LEFT + across * (right - _LEFT), bottom - up * (bottom - _TOP)

    marks = []
    for tick in y_ticks:
        at = place((x_ticks[0], tick))[1]
        marks.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        marks.append(f'<text class="quiet" x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in x_ticks:
        at = place((tick, y_ticks[0]))[0]
        marks.append(f'<text class="quiet" x="{at:.1f}" y="{bottom + 15}" text-anchor="middle">{tick:g}</text>')
    marks.append(
        f'<text class="quiet" x="{(_LEFT + right) / 2}" y="{_HEIGHT - 5}" text-anchor="middle">{escape(x.title)}</text>'
    )
    marks += [_series(one, [place(point) for point in one.points]) for one in series if one.points]
    label = escape(f"{described}; across: {x.title}, up: {y.title}")
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(marks)}</svg>'


def _series(one: Series, places: Sequence[tuple[float, float]]) -> str:
    told = f"<title>{escape(one.name)}</title>"
    if one.joined:
        corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        return f'<g class="{one.role}"><polyline class="curve" points="{corners}">{told}</polyline></g>'
    dots = "".join(f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="5">{told}</circle>' for x, y in places)
    return f'<g class="{one.role}">{dots}</g>'


def _ticks(axis: Axis, values: Sequence[float]) -> list[float]:
    low, high = axis.ends or (min(values, default=0.0), max(values, default=1.0))
    if axis.log:
        first, last = math.floor(math.log10(max(low, 1e-9))), math.ceil(math.log10(max(high, 1e-9)))
        return [10.0**power for power in range(first, max(last, first + 1) + 1)]
    return [float(tick) for tick in MaxNLocator(nbins=5).tick_values(low, max(high, low + 1e-9))]


def _share(axis: Axis, ticks: Sequence[float], value: float) -> float:
    first, last, value = (math.log10(max(v, 1e-9)) if axis.log else v for v in (ticks[0], ticks[-1], value))
    return (value - first) / (last - first)


def key(series: Sequence[Series]) -> str:
    items = []
    for one in series:
        sign = (
            '<line class="curve" x1="1" x2="15" y1="8" y2="8"/>'
            if one.joined
            else '<circle class="mark" cx="8" cy="8" r="5"/>'
        )
        svg = f'<svg viewBox="0 0 16 16" aria-hidden="true"><g class="{one.role}">{sign}</g></svg>'
        items.append(f"<li>{svg}{escape(one.name)}</li>")
    return f'<ul class="key">{"".join(items)}</ul>'


def figure(title: str, about: str, picture: str, below: str = "") -> str:
    caption = f"<figcaption>{escape(title)}<small>{escape(about)}</small></figcaption>"
    return f"<figure>{caption}{picture}{below}</figure>"


@functools.cache
def letters() -> str:
    """The outlines of the four letters, once in a page: `logo` stacks them."""
    font = FontProperties(family="DejaVu Sans", weight="bold")
    return f'<svg class="letters" aria-hidden="true"><defs>{"".join(_outline(x, font) for x in _LETTERS)}</defs></svg>'


def _outline(letter: str, font: FontProperties) -> str:
    """Of one letter, as wide and as high as 1, its foot at 0."""
    path = TextPath((0, 0), letter, size=100, prop=font)
    box, parts = path.get_extents(), []
    for corners, code in path.iter_segments(curves=True, simplify=False):
        points = [
            f"{(x - box.x0) / box.width:.3f} {(box.y0 - y) / box.height:.3f}"
            for x, y in zip(corners[::2], corners[1::2])
        ]
        parts.append("MLQC"[int(code) - 1] + " ".join(points) if code < 5 else "Z")
    return f'<path id="letter-{letter}" d="{"".join(parts)}"/>'


def logo(shares_Wx4: Sequence[Sequence[float]], bits_W: Sequence[float], own: range, described: str) -> str:
    """Letters at each place, as high together as what the place says, up to two bits; a line below the word's own."""
    width, marks = _COLUMN * len(shares_Wx4), []
    for column, (shares, bits) in enumerate(zip(shares_Wx4, bits_W)):
        foot = 0.0
        for share, letter in sorted(zip(shares, _LETTERS)):
            if (height := share * min(bits, _MOST_BITS)) >= _LEAST_LETTER:
                y = _LOGO - foot / _MOST_BITS * _LOGO
                scale = f"scale({_COLUMN - 2} {height / _MOST_BITS * _LOGO:.2f})"
                at = f"translate({column * _COLUMN + 1} {y:.2f}) {scale}"
                marks.append(f'<use href="#letter-{letter}" class="base-{letter}" transform="{at}"/>')
                foot += height
    line = f'<line class="own" x1="{own.start * _COLUMN}" x2="{own.stop * _COLUMN}" y1="{_LOGO + 3}" y2="{_LOGO + 3}"/>'
    box = f'viewBox="0 0 {width} {_LOGO + 6}" role="img" aria-label="{escape(described)}"'
    return f'<svg class="logo" {box}>{"".join(marks)}{line}</svg>'
