"""What a model over tokens makes of a change, by the head that names tokens; docs/variants.md has the definition.

The windows of both sequences begin and end at the same places of the genome. A model of masked tokens has all tokens
that hold what changed hidden at once; of byte pairs those beside them too, as far as they are cut otherwise, so that it
sees the same tokens of both. A model that predicts the next token is asked for all that follow the first one that
differs, and hides none.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import numpy as np

from vqdna_jax.genome.alphabet import N
from vqdna_jax.inference import token_likelihood
from vqdna_jax.inference.changes import Change, View, alike, differing
from vqdna_jax.inference.pretrained import Pretrained
from vqdna_jax.inference.token_likelihood import Asked
from vqdna_jax.tokenizers.fixed import FixedTokenizer

PASSES = 2  # windows that are read for the likelihoods of a change, of each strand and phase, at most


class _Side(NamedTuple):
    """A window of one sequence: tokens int32 [L, 1], bases of each [L], 0 of one that holds an N, which tokens hold
    what changed, and which are scored."""

    tokens_Lx1: np.ndarray
    bases_L: np.ndarray
    changed: slice
    scored: slice


_Pair = tuple[_Side, _Side]


def log_ratios_and_views(model: Pretrained, changes: Sequence[Change]) -> tuple[np.ndarray, list[View]]:
    """`Scores.llr` phase by phase, f32 [R, P] of P changes, and the windows of both strands in all phases."""
    pairs = [pair for change in changes for pair in _pairs(model, change)]
    ratios_V = _log_ratios(model, pairs)
    ratios_Px2xR = ratios_V.reshape(len(changes), 2, -1)
    return ratios_Px2xR.mean(axis=1).T, [_view(*pair) for pair in pairs]


def _view(reference: _Side, alternative: _Side) -> View:
    codes = reference.tokens_Lx1, alternative.tokens_Lx1
    return View(codes, (reference.changed, alternative.changed), differing(*codes))


def longest(model: Pretrained) -> int:
    """Bases that a change can have at most: its tokens have a quarter of a window on both sides, whatever they are."""
    return min(model.window_bp, model.length * max(1, _tokenizer(model).k)) // 2


def _tokenizer(model: Pretrained) -> FixedTokenizer:
    return cast(FixedTokenizer, model.tokenizer)


def _pairs(model: Pretrained, change: Change) -> Iterator[_Pair]:
    """Both strands, in every phase of words that lie side by side: the window begins up to a word later."""
    for c in (change, change.from_other_strand()):
        longer = c.alternative_stop - c.reference_stop
        size, total, first = model.window_bp - max(0, longer), len(c.reference), c.touched[0][0]
        begin = min(max(0, (c.start + c.reference_stop) // 2 - size // 2), max(0, total - size))
        for start in np.minimum(begin + np.arange(_tokenizer(model).phases), first).tolist():
            windows = c.reference[start : start + size], c.alternative[start : start + size + longer]
            touched = [(first - start, stop - start) for first, stop in c.touched]
            yield _pair(model, windows, touched)


def _pair(model: Pretrained, windows: tuple[np.ndarray, np.ndarray], touched: Sequence[tuple[int, int]]) -> _Pair:
    tokenizer, whole = _tokenizer(model), [_side(_tokenizer(model), *of) for of in zip(windows, touched)]
    before, behind = alike(whole[0].tokens_Lx1, whole[1].tokens_Lx1)
    if token_likelihood.predicts_next(model):
        scored = [slice(max(1, before), len(side.bases_L)) for side in whole]  # of the first nothing is said
    elif tokenizer.k:
        scored = [side.changed for side in whole]
    else:
        scored = [
            slice(min(before, side.changed.start), max(len(side.bases_L) - behind, side.changed.stop)) for side in whole
        ]
    reference, alternative = (_fitted(model.length, side, of) for side, of in zip(whole, scored))
    return reference, alternative


def _side(tokenizer: FixedTokenizer, bases: np.ndarray, touched: tuple[int, int]) -> _Side:
    (tokens_Lx1,), spans_Lx2 = tokenizer.encode([bases]), tokenizer.spans(bases)
    (first, stop), unknown_S = touched, np.append(0, np.cumsum(bases == N))
    here = np.flatnonzero((spans_Lx2[:, 0] < stop) & (spans_Lx2[:, 1] > first))
    known_L = unknown_S[spans_Lx2[:, 1]] == unknown_S[spans_Lx2[:, 0]]
    changed = slice(int(here[0]), int(here[-1]) + 1)
    return _Side(tokens_Lx1, np.where(known_L, np.diff(spans_Lx2)[:, 0], 0), changed, changed)


def _fitted(length: int, side: _Side, scored: slice) -> _Side:
    """At most `length` tokens, those around what is scored: how many a window's bases have, only they say."""
    total = len(side.bases_L)
    start = min(max(0, (scored.start + scored.stop - length) // 2), max(0, total - length))
    stop = min(total, start + length)
    changed, scored = (slice(max(0, s.start - start), min(stop, s.stop) - start) for s in (side.changed, scored))
    return _Side(side.tokens_Lx1[start:stop], side.bases_L[start:stop], changed, scored)


def _log_ratios(model: Pretrained, pairs: Sequence[_Pair]) -> np.ndarray:
    """f32 [V] of V pairs of windows. Where both look the same, what is hidden left out, one is read for both."""
    joint = [not token_likelihood.predicts_next(model) and _look_alike(*pair) for pair in pairs]
    asked, sums_Vx2 = list[tuple[int, int, Asked]](), np.zeros((len(pairs), 2), np.float32)
    for i, (pair, both) in enumerate(zip(pairs, joint)):
        asked += [(i, 0, _asked(*pair))] if both else [(i, n, _asked(side, side)) for n, side in enumerate(pair)]
    together = _tokenizer(model).masked_together
    for number, log_Mx2 in token_likelihood.log_probabilities(model, [item for _, _, item in asked]):
        i, n, _ = asked[number]
        for side in (0, 1) if joint[i] else (n,):
            sums_Vx2[i, side] = _log_odds(log_Mx2[:, side], pairs[i][side], together)
    return sums_Vx2[:, 1] - sums_Vx2[:, 0]


def _look_alike(first: _Side, second: _Side) -> bool:
    ours, theirs = (np.delete(side.tokens_Lx1, np.r_[side.scored]) for side in (first, second))
    return first.scored == second.scored and np.array_equal(ours, theirs)


def _asked(first: _Side, second: _Side) -> Asked:
    at_M = np.arange(first.scored.start, first.scored.stop)
    targets_Mx2 = np.concatenate([first.tokens_Lx1[at_M], second.tokens_Lx1[at_M]], axis=1)
    return Asked(first.tokens_Lx1, at_M, targets_Mx2)


def _log_odds(log_M: np.ndarray, side: _Side, together: int) -> float:
    """Sum of ln p of the scored tokens without an N, over what it is if all words of their bases were as likely. k-mers
    that overlap have every base k times: it is divided by k, or by their number if they are fewer."""
    bases_M = side.bases_L[side.scored]
    known_M = bases_M > 0
    total = float((log_M[known_M] + math.log(4) * bases_M[known_M]).sum())
    return total / max(1, min(together, int(known_M.sum()))) if together else total
