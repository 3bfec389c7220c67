"""Sequences of any length through windows of a few fixed shapes, as if each had been passed whole.

A window is a core and, wherever the sequence goes on, a halo as wide as the network sees, whose results are thrown
away. What lies beyond the ends of a sequence is `fill` with valid = 0, or beyond the window: the network reads either
as its own zero padding. So a result does not depend on where the cuts fell. In floating point that holds as far as the
compiled code treats all rows of a batch alike and other shapes alike: f32 codes were the same for every window tried,
in bf16 other shapes flipped up to 2 near ties in 1,000. That is why there is one shape for each window size, and a
sequence's length alone chooses it.

Here a call's windows have B rows of W codes, halos included; X and Y are what a code is made of, in and out.
"""

import collections
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from jax import Array

Item = TypeVar("Item")
WINDOWS = (128, 256, 512, 2048)  # codes; short ones so that a read does not pay for a chromosome's window
CALLS_IN_FLIGHT = 2


class Span(NamedTuple):
    """Core codes [start, stop) of one sequence, in a window whose first code is `left`."""

    sequence: int
    start: int
    stop: int
    left: int


def window_sizes(halo: int) -> tuple[int, ...]:
    """Codes per window, for short and long sequences: but for the shortest, at least half of a window is core."""
    scale = 1 << max(0, (4 * halo - 1) // 256).bit_length()
    return tuple(size * scale for size in WINDOWS)


def stitch(
    apply: Callable[[np.ndarray, np.ndarray], Array],
    inputs: Sequence[np.ndarray],
    outputs: Sequence[np.ndarray],
    *,
    halo: int,
    fill: int,
    windows: Sequence[int],
    codes_per_call: int,
    advance: Callable[[int], None] = lambda codes: None,
) -> None:
    """Fills outputs[i] [L, Y] from inputs[i] [L, X].

    Args:
        apply: (inputs [B, W, X], valid uint8 [B, W]) -> [B, W, Y], a jitted function that may return before it is done.
        halo: codes at each side that a code sees.
        windows: the values of W to choose from, each over 2 halo.
        codes_per_call: B W, about; it bounds the memory of a call.
        advance: hears how many more codes are done.
    """
    sizes = [min(windows, key=functools.partial(_cost, len(x), halo)) for x in inputs]
    for window in sorted(set(sizes)):
        chosen = [i for i, size in enumerate(sizes) if size == window]
        spans = itertools.chain.from_iterable(_spans(i, len(inputs[i]), window, halo) for i in chosen)
        rows = max(1, codes_per_call // window)
        calls = ((batch, apply(*_cut(inputs, batch, rows, window, fill))) for batch in batched(spans, rows))
        for batch, y_BxWxY in in_flight(calls):
            _put_back(outputs, batch, np.asarray(y_BxWxY), advance)


def _cost(length: int, halo: int, window: int) -> tuple[float, int]:
    """(codes computed for a sequence of `length` codes, rows): the halos at its two ends are not needed."""
    if length <= window:
        return window, 1
    rows = -(-(length - 2 * halo) // (window - 2 * halo)) if window > 2 * halo else 0
    return rows * window or math.inf, rows


def _spans(sequence: int, length: int, window: int, halo: int) -> Iterator[Span]:
    start = stop = 0
    while stop < length:
        left = max(0, start - halo)
        stop = length if left + window >= length else left + window - halo
        yield Span(sequence, start, stop, left)
        start = stop


def _cut(
    inputs: Sequence[np.ndarray], batch: list[Span], rows: int, window: int, fill: int
) -> tuple[np.ndarray, np.ndarray]:
    """(inputs [B, W, X], valid [B, W]) of a batch, with empty rows at its end."""
    first = inputs[batch[0].sequence]
    x_BxWxX = np.full((rows, window, first.shape[1]), fill, first.dtype)
    valid_BxW = np.zeros((rows, window), np.uint8)
    for row, span in enumerate(batch):
        source_WxX = inputs[span.sequence][span.left : span.left + window]
        x_BxWxX[row, : len(source_WxX)] = source_WxX
        valid_BxW[row, : len(source_WxX)] = 1
    return x_BxWxX, valid_BxW


def _put_back(
    outputs: Sequence[np.ndarray], batch: list[Span], y_BxWxY: np.ndarray, advance: Callable[[int], None]
) -> None:
    for row, span in enumerate(batch):
        outputs[span.sequence][span.start : span.stop] = y_BxWxY[row, span.start - span.left : span.stop - span.left]
    advance(sum(span.stop - span.start for span in batch))


def in_flight(calls: Iterable[Item]) -> Iterator[Item]:
    """The same calls, each once later ones have begun too: the host prepares them while the device works."""
    begun: collections.deque[Item] = collections.deque()
    for call in calls:
        begun.append(call)
        if len(begun) == CALLS_IN_FLIGHT:
            yield begun.popleft()
    yield from begun


def batched(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items, the last of what is left."""
    return iter(lambda: list(itertools.islice(items, size)), [])


def neighbours(items: Iterable[Item], cost: Callable[[Item], int], limit: int) -> Iterator[list[Item]]:
    """Groups of neighbours that cost `limit` at most; an item that costs more is alone."""
    group: list[Item] = []
    total = 0
    for item in items:
        needs = cost(item)
        if group and total + needs > limit:
            yield group
            group, total = [], 0
        group.append(item)
        total += needs
    if group:
        yield group
