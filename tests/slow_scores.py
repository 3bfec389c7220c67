"""Scores of a change computed one base, strand and phase at a time, as their definition says."""

import numpy as np
from numpy_transformer import context, log_probabilities

from vqdna_jax.inference.pretrained import Pretrained

FLANK = 8


def other(bases: np.ndarray) -> np.ndarray:
    return np.where(bases == 4, 4, 3 - bases.astype(int))[::-1].astype(np.uint8)


def window_start(size: int, total: int, first: int, stop: int, phase: int) -> int:
    middle = (first + stop) // 2 - size // 2
    if middle > max(0, total - size):
        return max(0, total - size) + phase
    return max(0, middle) - phase


def window(bases: np.ndarray, start: int, size: int) -> np.ndarray:
    return np.array([bases[i] if i >= 0 else 4 for i in range(start, min(len(bases), start + size))], np.uint8)


def likelihoods(model: Pretrained, bases: np.ndarray, first: int, stop: int) -> np.ndarray:
    """ln p [R, stop - first, 4] of this strand."""
    r, apart = model.tokenizer.bases_per_code, max(16, 4 * model.tokenizer.bases_per_code)
    found = np.zeros((r, stop - first, 4))
    passes = [(phase, offset) for phase in range(r) for offset in range(min(apart, stop - first))]
    starts = [window_start(model.length * r, len(bases), first, stop, phase) for phase, _ in passes]
    windows = [window(bases, start, model.context * r) for start in starts]
    hidden = [[at - start for at in range(first + offset, stop, apart)] for (_, offset), start in zip(passes, starts)]
    for (phase, offset), log_Mx4 in zip(passes, log_probabilities(model, windows, hidden)):
        found[phase, offset::apart] = log_Mx4
    return found


def both_strands(model: Pretrained, bases: np.ndarray, first: int, stop: int) -> np.ndarray:
    minus = likelihoods(model, other(bases), len(bases) - stop, len(bases) - first)
    return (likelihoods(model, bases, first, stop) + minus[:, ::-1, ::-1]) / 2


def log_ratio(model: Pretrained, reference, alternative, start: int, stop: int, alternative_stop: int) -> np.ndarray:
    """[R]. Bases [start, stop) of the reference are [start, alternative_stop) of the alternative."""
    if stop - start == alternative_stop - start == 1:
        log_Rx4 = both_strands(model, reference, start, stop)[:, 0]
        return log_Rx4[:, alternative[start]] - log_Rx4[:, reference[start]]
    sums = []
    for bases, end in ((reference, stop), (alternative, alternative_stop)):
        first, last = max(0, start - FLANK), min(len(bases), end + FLANK)
        log_RxMx4 = both_strands(model, bases, first, last)
        known = [(i, base) for i, base in enumerate(bases[first:last]) if base < 4]
        sums.append(sum(log_RxMx4[:, i, base] + np.log(4) for i, base in known))
    return sums[1] - sums[0]


def distances(model: Pretrained, reference, alternative, start: int, stop: int, alternative_stop: int):
    """(distance of means, distance of what changed, [mean of the reference, difference])"""
    r, beside = model.tokenizer.bases_per_code, 0 if stop - start == alternative_stop - start == 1 else 1
    size, windows, places = model.length * r, [], []
    for strand in range(2):
        pair, at, ends = (reference, alternative), start, (stop, alternative_stop)
        if strand:
            pair, at = (other(reference), other(alternative)), len(reference) - stop
            ends = len(reference) - start, len(alternative) - start
        for phase in range(r):
            first = window_start(size, len(reference), at, ends[0], phase)
            for bases, end in zip(pair, ends):
                windows.append(window(bases, first, size))
                changed = range(max(0, at - beside), min(len(bases), end + beside))
                places.append(sorted({(place - first) // r for place in changed}))
    means = []
    for codes_LxN, changed in zip(model.tokenizer.encode(windows), places):
        h_LxD = context(model, codes_LxN, np.zeros(len(codes_LxN), bool))
        means.append((h_LxD.mean(axis=0), h_LxD[changed].mean(axis=0)))
    of_pairs = np.array(means).reshape(2 * r, 2, 2, -1)  # strand and phase, sequence, mean or what changed
    distances = np.linalg.norm(of_pairs[:, 1] - of_pairs[:, 0], axis=-1).mean(axis=0)
    of_reference, of_alternative = of_pairs[:, :, 0].mean(axis=0)
    return *distances, np.concatenate([of_reference, of_alternative - of_reference])
