"""What a model over learned codes makes of a change: likelihoods of bases that are hidden from its tokenizer, and the
windows that it embeds."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import numpy as np

from vqdna_jax.genome.alphabet import N
from vqdna_jax.inference import likelihood
from vqdna_jax.inference.changes import FLANK, Change, View, differing
from vqdna_jax.inference.likelihood import Stretch
from vqdna_jax.inference.pretrained import Pretrained
from vqdna_jax.tokenizers.learned import LearnedTokenizer


def passes(model: Pretrained, change: Change) -> int:
    """Windows that are read for the likelihoods, of each strand and phase, about."""
    return 1 if change.is_one_for_one else 2 * likelihood.spacing(likelihood.phases(model))


def log_ratios(model: Pretrained, changes: Sequence[Change]) -> np.ndarray:
    """`Scores.llr` phase by phase, f32 [R, P] of P changes."""
    stretches = [stretch for change in changes for stretch in _stretches(change)]
    logs = likelihood.phase_log_probabilities(model, stretches)
    return np.stack([_log_ratio(change, logs) for change in changes], axis=1)


def _stretches(change: Change) -> list[Stretch]:
    """What is scored: of one base for another it is hidden once, and of all else in both sequences."""
    if change.is_one_for_one:
        return [Stretch(change.reference, change.start, change.reference_stop)]
    start = max(0, change.start - FLANK)
    return [Stretch(bases, start, min(len(bases), stop + FLANK)) for bases, stop in change.sides]


def _log_ratio(change: Change, logs: Iterator[np.ndarray]) -> np.ndarray:
    """f32 [R], of the likelihoods of its stretches, which come next."""
    if change.is_one_for_one:
        log_RxM = next(logs)[:, 0]
        return log_RxM[:, change.alternative[change.start]] - log_RxM[:, change.reference[change.start]]
    reference_R, alternative_R = (_log_odds(stretch, next(logs)) for stretch in _stretches(change))
    return alternative_R - reference_R


def _log_odds(stretch: Stretch, log_RxMx4: np.ndarray) -> np.ndarray:
    """Sum of ln(4 p) over the known bases of a stretch, f32 [R]."""
    bases_M = stretch.bases[stretch.start : stretch.stop]
    known_M = np.flatnonzero(bases_M != N)
    return (log_RxMx4[:, known_M, bases_M[known_M]] + np.float32(math.log(4))).sum(axis=1)


class _Cut(NamedTuple):
    """The bases of a view, which of its codes hold what changed, and whether what follows lies elsewhere in the
    other."""

    bases: tuple[np.ndarray, np.ndarray]
    changed: tuple[slice, slice]
    shifts: bool


def views(model: Pretrained, changes: Sequence[Change]) -> list[View]:
    """Of every change those of both strands, in all phases."""
    cuts = [cut for change in changes for cut in _cuts(model, change)]
    codes = model.tokenizer.encode([bases for cut in cuts for bases in cut.bases])
    halo = cast(LearnedTokenizer, model.tokenizer).config.receptive_codes
    pairs = zip(codes[::2], codes[1::2])
    return [View(pair, cut.changed, _differing(*pair, cut, halo)) for pair, cut in zip(pairs, cuts)]


def _cuts(model: Pretrained, change: Change) -> Iterator[_Cut]:
    size, r = likelihood.window_bases(model), likelihood.phases(model)
    for c in (change, change.from_other_strand()):
        for start in likelihood.starts(model, len(c.reference), c.start, c.reference_stop):
            reference, alternative = (likelihood.cut(bases, start, size) for bases, _ in c.sides)
            here, there = (slice((first - start) // r, (stop - start - 1) // r + 1) for first, stop in c.touched)
            yield _Cut((reference, alternative), (here, there), c.reference_stop != c.alternative_stop)


def _differing(reference_LxN: np.ndarray, alternative_LxN: np.ndarray, cut: _Cut, halo: int) -> int:
    """Codes of the longer sequence that the other has not in the same order, around what changed; `halo`: how far."""
    if not cut.shifts:
        return int((reference_LxN != alternative_LxN).any(axis=1).sum())
    sides = zip((reference_LxN, alternative_LxN), cut.changed)
    return differing(*(codes_LxN[: place.stop + halo] for codes_LxN, place in sides))
