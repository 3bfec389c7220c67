"""Readouts: what a sequence's codes and their context vectors say, as one vector of the sequence.

A pooling is a line of POOLS: `embed` and its help, probes, fine-tuning and the checks of configs all read it there. It
sees the windows of a long sequence one by one, each code in one of them; what it makes of each is joined.

jax is imported where it is used, so that `vqdna embed --help` names the poolings without waiting for it.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from jax import Array

PAIRS, PAIR_GAP = 8191, 2  # at one base a code two apart were better on dev than neighbours (docs/results.md)
UNPOOLED = "none"  # to `embed`: the vector of every code


class View(NamedTuple):
    """Windows of sequences, as a pooling sees them.

    Attributes:
        h_BxLxD, cls_BxD: context vectors; no `cls_BxD` of a network without CLS.
        codes_BxLxN, sizes: the codes, and how many there are of each level.
        kept_BxL: the codes that count here. at_BxL: the place of each in its sequence; total_B: codes of the sequence.
    """

    h_BxLxD: "Array"
    cls_BxD: "Array | None"
    codes_BxLxN: "Array"
    sizes: tuple[int, ...]
    kept_BxL: "Array"
    at_BxL: "Array"
    total_B: "Array"


@dataclasses.dataclass(frozen=True)
class Pool:
    """Pure functions; numbers of codes and windows may be arrays that broadcast.

    Attributes:
        window: a view -> f32 [B, P] of the kept codes of each window, 0 where none is kept; for jax.
        join: how windows of a sequence become one vector.
        finish: (of all windows, how many codes were kept, how many windows) -> the pooled vector.
        width: (of the context vectors, sizes of the codebooks) -> P.
        needs_cls: of a network without CLS it has nothing to read.
    """

    window: Callable[[View], "Array"]
    join: Literal["add", "maximum"]  # of numpy
    finish: Callable[[Any, Any, Any], Any]
    width: Callable[[int, Sequence[int]], int] = lambda width, sizes: width
    needs_cls: bool = False

    @property
    def start(self) -> float:
        """What the first window is joined to."""
        return 0.0 if self.join == "add" else -math.inf


def _total(view: View) -> "Array":
    import jax.numpy as jnp

    return jnp.sum(jnp.where(view.kept_BxL[..., None], view.h_BxLxD.astype(jnp.float32), 0), axis=1)


def _highest(view: View) -> "Array":
    import jax.numpy as jnp

    kept_BxLx1 = view.kept_BxL[..., None]
    highest_BxD = jnp.max(jnp.where(kept_BxLx1, view.h_BxLxD.astype(jnp.float32), -jnp.inf), axis=1)
    return jnp.where(jnp.any(kept_BxLx1, axis=1), highest_BxD, 0)


def _cls(view: View) -> "Array":
    assert view.cls_BxD is not None, "needs_cls is checked where a pooling is chosen"
    return view.cls_BxD.astype("float32")


def _segment_totals(view: View, segments: int) -> "Array":
    import jax
    import jax.numpy as jnp

    segment_BxL = view.at_BxL // _segment_length(view.total_B, segments)[:, None]
    of_BxLxG = jax.nn.one_hot(segment_BxL, segments) * view.kept_BxL[..., None]
    totals_BxGxD = jnp.einsum("blg,bld->bgd", of_BxLxG, view.h_BxLxD.astype(jnp.float32))
    return totals_BxGxD.reshape(len(totals_BxGxD), -1)


def _segment_means(totals: Any, codes: Any, windows: Any, segments: int) -> Any:
    """`totals` are [..., segments D]; `codes` is one number, or [..., 1]."""
    xp = _namespace(totals)
    length = _segment_length(codes, segments)
    numbers = xp.arange(segments).reshape((1,) * (xp.ndim(codes) - 1) + (segments,))
    counts = xp.clip(codes - numbers * length, 1, length)
    parts = totals.reshape(*totals.shape[:-1], segments, -1)
    return (parts / counts[..., None]).reshape(totals.shape)


def _segment_length(codes: Any, segments: int) -> Any:
    """Codes of all segments but the last ones, which get what is left."""
    xp = _namespace(codes)
    return xp.maximum(1, -(-codes // segments))


def _word_counts(view: View) -> "Array":
    import jax.numpy as jnp

    from vqdna_jax.partition import counts

    levels = enumerate(view.sizes)
    return jnp.concatenate([counts(view.codes_BxLxN[..., n], view.kept_BxL, size) for n, size in levels], axis=-1)


def _pair_counts(view: View) -> "Array":
    """Of those codes whose partner is in the same window."""
    import jax.numpy as jnp

    from vqdna_jax.partition import counts

    first_BxL, size = view.codes_BxLxN[..., -1].astype(jnp.uint32), view.sizes[-1]
    second_BxL = jnp.pad(first_BxL[:, PAIR_GAP:], ((0, 0), (0, PAIR_GAP)))
    inside_BxL = jnp.broadcast_to(jnp.arange(first_BxL.shape[1])[None] < first_BxL.shape[1] - PAIR_GAP, first_BxL.shape)
    there_BxL = view.kept_BxL & inside_BxL & (view.at_BxL + PAIR_GAP < view.total_B[:, None])
    pair_BxL = (first_BxL * jnp.uint32(size) + second_BxL) % jnp.uint32(PAIRS)
    return counts(pair_BxL.astype(jnp.int32), there_BxL, PAIRS)


def _log_counts(total: Any, codes: Any, windows: Any) -> Any:
    return _namespace(total).log1p(total)


def _namespace(x: Any) -> Any:
    import jax
    import numpy as np

    return jax.numpy if isinstance(x, jax.Array) else np


def _segments(count: int) -> Pool:
    return Pool(
        functools.partial(_segment_totals, segments=count),
        "add",
        functools.partial(_segment_means, segments=count),
        lambda width, sizes: count * width,
    )


POOLS = {
    "mean": Pool(_total, "add", lambda total, codes, windows: total / codes),
    "max": Pool(_highest, "maximum", lambda highest, codes, windows: highest),
    "cls": Pool(_cls, "add", lambda total, codes, windows: total / windows, needs_cls=True),
    **{f"segments:{count}": _segments(count) for count in (2, 4, 8, 16)},  # means of so many parts of the sequence
    # log(1 + how often each code occurs), of every level: a sequence as a bag of learned words
    "words": Pool(_word_counts, "add", _log_counts, lambda width, sizes: sum(sizes)),
    # The same of two codes of the last level, PAIR_GAP apart, by their number modulo a prime.
    "pairs": Pool(_pair_counts, "add", _log_counts, lambda width, sizes: PAIRS),
}
OF_CODES = ("words", "pairs")  # which no training of the transformer changes


def pool(name: str, view: View, windows: int = 1) -> "Array":
    """f32 [B, P] of sequences in so many windows each, one after the other in the view; 0 where there are no codes."""
    import chex
    import jax.numpy as jnp

    from vqdna_jax.partition import spec

    chex.assert_rank([view.h_BxLxD, view.kept_BxL, view.total_B], [3, 2, 1])
    how, rows = POOLS[name], len(view.total_B) // windows

    def by_sequence(x: "Array") -> "Array":
        return jnp.reshape(x, (rows, windows, -1), out_sharding=spec("batch", None, None))

    parts_BxWxP, there_BxWx1 = by_sequence(how.window(view)), by_sequence(jnp.any(view.kept_BxL, axis=1))
    if how.join == "add":
        joined_BxP = jnp.sum(jnp.where(there_BxWx1, parts_BxWxP, 0), axis=1)
    else:
        highest_BxP = jnp.max(jnp.where(there_BxWx1, parts_BxWxP, -jnp.inf), axis=1)
        joined_BxP = jnp.where(jnp.any(there_BxWx1, axis=1), highest_BxP, 0)
    total_Bx1 = jnp.maximum(by_sequence(view.total_B)[:, 0], 1)
    return how.finish(joined_BxP, total_Bx1, jnp.maximum(jnp.sum(there_BxWx1, axis=1), 1))


class Part(NamedTuple):
    """One of several poolings, and where its numbers lie among those of all."""

    how: Pool
    at: slice


def parts(names: str, width: int, sizes: Sequence[int]) -> list[Part]:
    """Of poolings joined by "+"."""
    found = [POOLS[name] for name in names.split("+")]
    ends = list(itertools.accumulate(how.width(width, sizes) for how in found))
    return [Part(how, slice(start, end)) for how, start, end in zip(found, [0, *ends], ends)]


def without_cls(names: str) -> str:
    """The first of poolings joined by "+" that a network without CLS does not have; empty if it has them all."""
    return next((name for name in names.split("+") if name in POOLS and POOLS[name].needs_cls), "")
