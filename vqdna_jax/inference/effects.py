"""What a pretrained model makes of a change in a sequence: how much likelier it finds the one than the other, how far
apart their embeddings are, how many codes differ.

Both sequences have the same bases on both sides of the change. All is computed in windows around it, on both strands,
and in every phase of the codes where a code stands for several bases.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from vqdna_jax.errors import InputError
from vqdna_jax.genome.alphabet import N
from vqdna_jax.inference import code_effects, likelihood, token_effects, token_likelihood
from vqdna_jax.inference.changes import FLANK, Change, View
from vqdna_jax.inference.likelihood import STRANDS
from vqdna_jax.inference.pretrained import CALLS_A_GROUP, Pretrained
from vqdna_jax.models.pooling import UNPOOLED
from vqdna_jax.tokenizers.learned import LearnedTokenizer
from vqdna_jax.tokenizers.stitch import neighbours


class Scores(NamedTuple):
    """Of n changes in their order, f32 [n] but for `embeddings`.

    Attributes:
        llr: ln of how much likelier the alternative is. Over learned codes, of one base for another: of the one over
            the other, where the base is hidden. Of all else: the sum of ln(4 p) of every base of the stretch and FLANK
            bases on its both sides, each hidden in its own sequence, less that of the reference; a longer sequence is
            not less likely for its length alone. Over tokens see `token_effects`.
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


def score(model: Pretrained, changes: Iterable[Change]) -> Iterator[Scores]:
    """The scores of groups of neighbours, n of each, in order; nothing depends on neighbours. `model` has passed
    `check_model`, and each change's `longest` is at most `longest`."""
    for group in neighbours(changes, lambda change: cost(model, change), CALLS_A_GROUP * model.slots_per_call):
        yield _score(model, group)


def score_all(model: Pretrained, changes: Iterable[Change]) -> Scores:
    """`score` of all of them, in memory at once."""
    nothing, none = np.zeros(0, np.float32), np.zeros((0, 2 * model.transformer.width), np.float32)
    groups = [Scores(nothing, nothing, nothing, nothing, nothing, none), *score(model, changes)]
    return Scores._make(map(np.concatenate, zip(*groups)))


def longest(model: Pretrained) -> int:
    """Bases that a change and what is scored beside it can have at most."""
    return likelihood.longest(model) if _over_codes(model) else token_effects.longest(model)


def reach(model: Pretrained) -> int:
    """Bases on both sides of a change that its scores depend on, at most."""
    return likelihood.reach(model) if _over_codes(model) else model.window_bp


def check_model(model: Pretrained, name: str) -> None:
    """Raises InputError where it has no head that scores; `name`: of the model."""
    if not _over_codes(model):
        token_likelihood.check(model, name)


def check(model: Pretrained, index: int, change: Change | None) -> Change:
    """The same change. Raises InputError, with its index, where it cannot be scored."""
    if change is None:
        raise InputError(f"sequence {index}: both are the same; expected a change, between bases that both have")
    if change.is_one_for_one and N in (change.reference[change.start], change.alternative[change.start]):
        raise InputError(f"sequence {index}, position {change.start}: changes from or to N; expected A, C, G or T")
    if change.longest > (most := longest(model)):
        found = f"the change and {FLANK} bases on both sides are {change.longest:,} bases"
        raise InputError(f"sequence {index}: {found}; expected {most:,} at most, half a window of this model")
    return change


def cost(model: Pretrained, change: Change) -> int:
    """Slots of its windows, about."""
    passes = code_effects.passes(model, change) if _over_codes(model) else token_effects.PASSES
    return STRANDS * likelihood.phases(model) * (2 + passes) * model.context


def _over_codes(model: Pretrained) -> bool:
    return isinstance(model.tokenizer, LearnedTokenizer)


def _score(model: Pretrained, group: list[Change]) -> Scores:
    if _over_codes(model):
        llr_RxP, views = code_effects.log_ratios(model, group), code_effects.views(model, group)
    else:
        llr_RxP, views = token_effects.log_ratios_and_views(model, group)
    means_2xPxD, distances_Px2, changed_P = _embedded(model, views, len(group))
    reference_PxD, alternative_PxD = means_2xPxD
    embeddings = np.concatenate([reference_PxD, alternative_PxD - reference_PxD], axis=1)
    llr_P, spread_P, (distance_P, distance_at_P) = llr_RxP.mean(axis=0), llr_RxP.std(axis=0), distances_Px2.T
    return Scores(llr_P, spread_P, distance_P, distance_at_P, changed_P, embeddings)


def _embedded(model: Pretrained, views: Sequence[View], changes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(mean context vectors of both sequences' windows [2, P, D], distances of means and of what changed [P, 2], codes
    changed [P]) of P `changes`, averaged over strands and phases."""
    codes = [codes_LxN for view in views for codes_LxN in view.codes]
    places = [place for view in views for place in view.changed]
    means = np.empty((len(codes), 2, model.transformer.width), np.float32)
    for window, vectors_LxD in model.context_vectors(codes, UNPOOLED, -1):
        means[window.sequence] = vectors_LxD.mean(axis=0), vectors_LxD[places[window.sequence]].mean(axis=0)
    means_PxVx2x2xD = means.reshape(changes, -1, 2, *means.shape[1:])  # V: of a change's strands and phases
    distances = np.linalg.norm(means_PxVx2x2xD[:, :, 1] - means_PxVx2x2xD[:, :, 0], axis=-1).mean(axis=1)
    changed_P = np.reshape([view.differing for view in views], (changes, -1)).mean(axis=1, dtype=np.float32)
    return means_PxVx2x2xD[:, :, :, 0].mean(axis=1).swapaxes(0, 1), distances, changed_P
