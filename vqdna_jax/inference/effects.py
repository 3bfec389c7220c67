"""What a pretrained model makes of a change in a sequence: how much likelier it finds the one than the other, how far
apart their embeddings are, how many codes differ.

Both sequences have the same bases on both sides of the change. All is computed in windows around it, on both strands,
and in every phase of the codes where a code stands for several bases.
"""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple, cast

import numpy as np

from vqdna_jax.errors import InputError
from vqdna_jax.genome.alphabet import N, reverse_complement
from vqdna_jax.inference import likelihood
from vqdna_jax.inference.likelihood import STRANDS, Stretch
from vqdna_jax.inference.pretrained import CALLS_A_GROUP, Pretrained
from vqdna_jax.models.pooling import UNPOOLED
from vqdna_jax.tokenizers.learned import LearnedTokenizer
from vqdna_jax.tokenizers.stitch import neighbours

FLANK = 8  # bases on both sides of a stretch of another kind than one for one, which are scored with it


class Change(NamedTuple):
    """uint8 bases [S] of both sequences, and what differs: bases [start, stop) of each, maybe none of one.

    Of an insertion or deletion among repeats that is everywhere it could be: however it was written, it is the same.
    """

    reference: np.ndarray
    alternative: np.ndarray
    start: int
    reference_stop: int
    alternative_stop: int

    @property
    def is_one_for_one(self) -> bool:
        return self.reference_stop - self.start == self.alternative_stop - self.start == 1

    @property
    def sides(self) -> tuple[tuple[np.ndarray, int], tuple[np.ndarray, int]]:
        """Each sequence, and where it differs no more."""
        return (self.reference, self.reference_stop), (self.alternative, self.alternative_stop)

    @property
    def longest(self) -> int:
        """Bases that are scored, of the longer sequence."""
        return max(self.reference_stop, self.alternative_stop) - self.start + 2 * FLANK * (not self.is_one_for_one)


class Scores(NamedTuple):
    """Of n changes in their order, f32 [n] but for `embeddings`.

    Attributes:
        llr: ln of how much likelier the alternative is. Of one base for another: of the one over the other, where the
            base is hidden. Of all else: the sum of ln(4 p) of every base of the stretch and FLANK bases on its both
            sides, each hidden in its own sequence, less that of the reference; a longer sequence is not less likely for
            its length alone.
        llr_spread: standard deviation of `llr` over the phases of the codes; 0 where a code stands for one base.
        distance: between the means of the context vectors of both windows.
        distance_at: the same of the codes of the changed bases alone, and of one base on both sides of them, unless it
            is one base for another.
        codes_changed: codes that differ.
        embeddings: f32 [n, 2 D]: mean context vector of the reference's window, and the alternative's less that.
    """

    llr: np.ndarray
    llr_spread: np.ndarray
    distance: np.ndarray
    distance_at: np.ndarray
    codes_changed: np.ndarray
    embeddings: np.ndarray


def change_of(reference: np.ndarray, alternative: np.ndarray) -> Change | None:
    """Where two sequences differ; None where they do not."""
    shorter = min(len(reference), len(alternative))
    before = _alike(reference[:shorter], alternative[:shorter])
    behind = _alike(reference[::-1][:shorter], alternative[::-1][:shorter])
    if before == len(reference) == len(alternative):
        return None
    start, after = min(before, shorter - behind), min(behind, shorter - before)
    return Change(reference, alternative, start, len(reference) - after, len(alternative) - after)


def _alike(first_S: np.ndarray, second_S: np.ndarray) -> int:
    """How many bases, or codes, are the same from the beginning on."""
    differ = first_S != second_S
    differ = differ.any(axis=1) if differ.ndim > 1 else differ
    return int(differ.argmax()) if differ.any() else len(differ)


def score(model: Pretrained, changes: Iterable[Change]) -> Iterator[Scores]:
    """The scores of groups of neighbours, n of each, in order; nothing depends on neighbours. `model` has passed
    `likelihood.check`, and each change's `longest` is at most `likelihood.longest`."""
    for group in neighbours(changes, lambda change: cost(model, change), CALLS_A_GROUP * model.slots_per_call):
        yield _score(model, group)


def score_all(model: Pretrained, changes: Iterable[Change]) -> Scores:
    """`score` of all of them, in memory at once."""
    nothing, none = np.zeros(0, np.float32), np.zeros((0, 2 * model.transformer.width), np.float32)
    groups = [Scores(nothing, nothing, nothing, nothing, nothing, none), *score(model, changes)]
    return Scores._make(map(np.concatenate, zip(*groups)))


def check(model: Pretrained, index: int, change: Change | None) -> Change:
    """The same change. Raises InputError, with its index, where it cannot be scored."""
    if change is None:
        raise InputError(f"sequence {index}: both are the same; expected a change, between bases that both have")
    if change.is_one_for_one and N in (change.reference[change.start], change.alternative[change.start]):
        raise InputError(f"sequence {index}, position {change.start}: changes from or to N; expected A, C, G or T")
    if change.longest > (most := likelihood.longest(model)):
        found = f"the change and {FLANK} bases on both sides are {change.longest:,} bases"
        raise InputError(f"sequence {index}: {found}; expected {most:,} at most, half a window of this model")
    return change


def cost(model: Pretrained, change: Change) -> int:
    """Slots of its windows, about."""
    hidden = 1 if change.is_one_for_one else 2 * likelihood.spacing(likelihood.phases(model))
    return STRANDS * likelihood.phases(model) * (2 + hidden) * model.context


def _score(model: Pretrained, group: list[Change]) -> Scores:
    llr_RxP = _log_ratios(model, group)
    means_2xPxD, distances_Px2, changed_P = _embedded(model, group)
    reference_PxD, alternative_PxD = means_2xPxD
    embeddings = np.concatenate([reference_PxD, alternative_PxD - reference_PxD], axis=1)
    llr_P, spread_P, (distance_P, distance_at_P) = llr_RxP.mean(axis=0), llr_RxP.std(axis=0), distances_Px2.T
    return Scores(llr_P, spread_P, distance_P, distance_at_P, changed_P, embeddings)


def _log_ratios(model: Pretrained, group: list[Change]) -> np.ndarray:
    """f32 [R, P] of P changes."""
    stretches = [stretch for change in group for stretch in _stretches(change)]
    logs = likelihood.phase_log_probabilities(model, stretches)
    return np.stack([_log_ratio(change, logs) for change in group], axis=1)


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


class _View(NamedTuple):
    """A window of both sequences, of one strand and phase, which of its codes hold what changed, and whether what
    follows lies elsewhere in the other."""

    bases: tuple[np.ndarray, np.ndarray]
    changed: tuple[slice, slice]
    shifts: bool


def _views(model: Pretrained, change: Change) -> Iterator[_View]:
    size, r, beside = likelihood.window_bases(model), likelihood.phases(model), 0 if change.is_one_for_one else 1
    for c in (change, _other_strand(change)):
        for start in likelihood.starts(model, len(c.reference), c.start, c.reference_stop):
            first = (max(0, c.start - beside) - start) // r
            stops = [(min(len(bases), stop + beside) - start - 1) // r + 1 for bases, stop in c.sides]
            reference, alternative = (likelihood.cut(bases, start, size) for bases, _ in c.sides)
            changed = slice(first, stops[0]), slice(first, stops[1])
            yield _View((reference, alternative), changed, c.reference_stop != c.alternative_stop)


def _other_strand(change: Change) -> Change:
    reference, alternative, start, reference_stop, alternative_stop = change
    stops = len(reference) - start, len(alternative) - start
    return Change(
        reverse_complement(reference), reverse_complement(alternative), len(reference) - reference_stop, *stops
    )


def _embedded(model: Pretrained, group: list[Change]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(mean context vectors of both sequences' windows [2, P, D], distances of means and of what changed [P, 2], codes
    changed [P]) of P changes, averaged over strands and phases."""
    views = [view for change in group for view in _views(model, change)]
    codes = model.tokenizer.encode([bases for view in views for bases in view.bases])
    places = [place for view in views for place in view.changed]
    means = np.empty((len(codes), 2, model.transformer.width), np.float32)
    for window, vectors_LxD in model.context_vectors(codes, UNPOOLED, -1):
        means[window.sequence] = vectors_LxD.mean(axis=0), vectors_LxD[places[window.sequence]].mean(axis=0)
    means_PxVx2x2xD = means.reshape(len(group), -1, 2, *means.shape[1:])  # V: of a change's strands and phases
    distances = np.linalg.norm(means_PxVx2x2xD[:, :, 1] - means_PxVx2x2xD[:, :, 0], axis=-1).mean(axis=1)
    halo = cast(LearnedTokenizer, model.tokenizer).config.receptive_codes
    changed_V = [_differing(a, b, view, halo) for a, b, view in zip(codes[::2], codes[1::2], views)]
    changed_P = np.reshape(changed_V, (len(group), -1)).mean(axis=1, dtype=np.float32)
    return means_PxVx2x2xD[:, :, :, 0].mean(axis=1).swapaxes(0, 1), distances, changed_P


def _differing(reference_LxN: np.ndarray, alternative_LxN: np.ndarray, view: _View, halo: int) -> int:
    """Codes of the longer sequence that the other has not in the same order, around what changed; `halo`: how far."""
    if not view.shifts:
        return int((reference_LxN != alternative_LxN).any(axis=1).sum())
    sides = zip((reference_LxN, alternative_LxN), view.changed)
    reference_LxN, alternative_LxN = (codes_LxN[: place.stop + halo] for codes_LxN, place in sides)
    shorter = min(len(reference_LxN), len(alternative_LxN))
    before = _alike(reference_LxN[:shorter], alternative_LxN[:shorter])
    behind = _alike(reference_LxN[::-1][: shorter - before], alternative_LxN[::-1][: shorter - before])
    return max(len(reference_LxN), len(alternative_LxN)) - before - behind
