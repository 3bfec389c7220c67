"""Maps as inline SVG: a dot for each point, in the colour of its variant, the same in light and dark."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vqdna_jax.report.page import escape

_SIDE, _EDGE = 340, 12  # of a map, in its own units: pixels on a telephone
# Told apart by colour-blind readers as far as nine can be, and seen on white as on black.
COLOURS = ("#0072b2", "#e69f00", "#d1495b", "#009e73", "#aa5fc0", "#56b4e9", "#9a7b1c", "#f28e8e", "#8a8f94")


def key(names: Sequence[str]) -> str:
    items = "".join(f"<li>{_dot(colour(i))}{escape(name)}</li>" for i, name in enumerate(names))
    return f'<ul class="key">{items}</ul>'


def colour(variant: int) -> str:
    return COLOURS[variant % len(COLOURS)]


def draw(found: Mapping[str, Any], names: Sequence[str], description: str, named: bool) -> str:
    """named: whether the variants' names stand at the middle of their points."""
    points_Bx2, labels_B = _scaled(np.array(found["points"], float)), np.array(found["labels"])
    dots, texts = [], []
    for variant, name in enumerate(names):
        own = points_Bx2[labels_B == variant]
        if not len(own):
            continue
        path = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in own)
        dots.append(f'<path d="{path}" stroke="{colour(variant)}"><title>{escape(name)}</title></path>')
        x, y = np.median(own, axis=0)
        texts.append(f'<text x="{x:.1f}" y="{y:.1f}" style="{_HALO}" text-anchor="middle">{escape(name)}</text>')
    return (
        f'<svg viewBox="0 0 {_SIDE} {_SIDE}" role="img" aria-label="{escape(description)}"><g fill="none"'
        f' stroke-width="3.6" stroke-linecap="round" stroke-opacity="0.75">{"".join(dots)}</g>'
        f"{''.join(texts) if named else ''}</svg>"
    )


_HALO = "paint-order:stroke;stroke:var(--card);stroke-width:3.5px;stroke-linejoin:round;font-weight:600"


def _scaled(points_Bx2: np.ndarray) -> np.ndarray:
    """Both axes by one number, in the middle of the square."""
    low, high = points_Bx2.min(axis=0), points_Bx2.max(axis=0)
    span = float((high - low).max()) or 1.0
    return _SIDE / 2 + (points_Bx2 - (low + high) / 2) / span * (_SIDE - 2 * _EDGE)


def _dot(colour: str) -> str:
    return f'<svg viewBox="0 0 16 16" aria-hidden="true"><circle cx="8" cy="8" r="5" fill="{colour}"/></svg>'
