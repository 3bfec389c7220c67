"""Which variant is a window of a held-out genome of? By its nearest ones, and by naive Bayes on the substitutions.

The windows of all genomes lie at the same places, side by side, so that nothing but substitutions tells them apart. G
counts genomes, V variants, M distinct substitutions, P features.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse
from sklearn.neighbors import NearestNeighbors

from vqdna_jax.evaluation.linear import Features
from vqdna_jax.report.covid.genotypes import Genomes
from vqdna_jax.report.covid.spelling import Spelling

Embed = Callable[[int, int], Features]  # bases [start, stop) of every genome -> [G, P], less those of the reference
Windows = Sequence[tuple[int, int]]  # bases [start, stop)
DRAWN = 1000  # windows at random places


class Accuracies(NamedTuple):
    """Shares of the windows of held-out genomes whose variant is named."""

    by_mean: float  # of the variant whose mean is nearest
    by_neighbour: float  # of most genomes that have the nearest window


def side_by_side(bases: int, width: int) -> Windows:
    """A width of 0, or more than there is: the whole."""
    if not 0 < width < bases:
        return [(0, bases)]
    return [(start, start + width) for start in range(0, bases - width + 1, width)]


def at_random(bases: int, width: int) -> Windows:
    if not 0 < width < bases:
        return [(0, bases)]
    starts = np.random.default_rng(0).integers(bases - width + 1, size=DRAWN)
    return [(start, start + width) for start in starts.tolist()]


@dataclasses.dataclass(frozen=True, eq=False)
class WordVectors:
    """Mean vectors of words; of several levels their mean, which is what decoder and transformer read.

    Attributes:
        vectors: f64 [K, E] of each level of the spelling.
    """

    spelling: Spelling
    vectors: Sequence[np.ndarray]
    levels: Sequence[int]
    bases: int

    def __call__(self, start: int, stop: int) -> np.ndarray:
        first, last = self.spelling.inside(start, stop, self.bases)
        changes = (self.spelling.changes(first, last, n, len(self.vectors[n])) for n in self.levels)
        of_each = [changes_GxK @ self.vectors[n] for n, changes_GxK in zip(self.levels, changes)]
        return np.mean(of_each, axis=0) / max(last - first, 1)

    def of_reference(self, start: int, stop: int) -> np.ndarray:
        """[E]"""
        words = slice(*self.spelling.inside(start, stop, self.bases))
        means = [self.vectors[n][self.spelling.reference_LxN[words, n]].mean(axis=0) for n in self.levels]
        return np.mean(means, axis=0)


def embed_counts(spelling: Spelling, size: int, bases: int) -> Embed:
    """How often each word occurs."""

    def embed(start: int, stop: int) -> sparse.csr_array:
        return spelling.changes(*spelling.inside(start, stop, bases), 0, size)

    return embed


class Substitutions(NamedTuple):
    """Which genome has which, in the order of their places."""

    places_M: np.ndarray
    bases_M: np.ndarray
    has_GxM: sparse.csc_array

    def embed(self, start: int, stop: int) -> sparse.csr_array:
        """Squared distances are numbers of substitutions that differ."""
        inside_M = (self.places_M >= start) & (self.places_M < stop)
        found_GxM = sparse.csr_array(self.has_GxM.multiply(inside_M))
        found_GxM.eliminate_zeros()
        return found_GxM


def substitutions(genomes: Genomes) -> Substitutions:
    keys = [np.stack([g.places_M, g.bases_M.astype(np.int64)], axis=1) for g in genomes.genotypes]
    found, column = np.unique(np.concatenate(keys), axis=0, return_inverse=True)
    ends = np.cumsum([0, *map(len, keys)])
    has_GxM = sparse.csr_array((np.ones(len(column)), column.ravel(), ends), (len(keys), len(found)))
    return Substitutions(found[:, 0], found[:, 1], has_GxM.tocsc())


def nearest(embed: Embed, windows: Windows, genomes: Genomes) -> Accuracies:
    found = [_nearest(embed(*window), genomes) for window in windows]
    return Accuracies(*np.mean(found, axis=0).tolist())


def _nearest(x_GxP: Features, genomes: Genomes) -> tuple[float, float]:
    """Of the windows at one place."""
    seen_G, labels_G = ~genomes.held_out_G, genomes.labels_G
    first, kind_G = _kinds(x_GxP)
    x_TxP, counts_TxV = x_GxP[first], np.zeros((len(first), len(genomes.variants)))
    np.add.at(counts_TxV, (kind_G[seen_G], labels_G[seen_G]), 1)
    seen = np.flatnonzero(counts_TxV.sum(axis=1))
    index = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(x_TxP[seen])
    near_T = seen[index.kneighbors(x_TxP, return_distance=False)[:, 0]]
    answers = _nearest_mean(x_TxP, counts_TxV), counts_TxV[near_T].argmax(axis=1)
    by_mean, by_neighbour = (float(np.mean(of_T[kind_G] == labels_G, where=~seen_G)) for of_T in answers)
    return by_mean, by_neighbour


def _kinds(x_GxP: Features) -> tuple[np.ndarray, np.ndarray]:
    """The first window of each kind, of T that differ, and which kind each is of: most are like others."""
    sums_G = x_GxP @ np.random.default_rng(0).standard_normal(x_GxP.shape[1])
    rounded_G = np.round(sums_G / (np.abs(sums_G).max(initial=0) or 1), 10)
    return np.unique(rounded_G, return_index=True, return_inverse=True)[1:]


def _nearest_mean(x_TxP: Features, counts_TxV: np.ndarray) -> np.ndarray:
    means_VxP = (x_TxP.T @ counts_TxV).T / counts_TxV.sum(axis=0)[:, None]
    return np.argmin(np.square(means_VxP).sum(axis=1) - 2 * (x_TxP @ means_VxP.T), axis=1)


def naive_bayes(found: Substitutions, windows: Windows, genomes: Genomes, placed: bool) -> float:
    """The accuracy of naive Bayes on the substitutions of a window, each there or not (Bernoulli, one of each added).

    placed: whether it knows where the window lies, and so which substitutions it could have; else it is fitted on such
    windows of the genomes that are not held out.
    """
    held_out, labels_G = np.flatnonzero(genomes.held_out_G), genomes.labels_G
    is_VxG = (np.equal.outer(np.arange(len(genomes.variants)), labels_G) & ~genomes.held_out_G).astype(float)
    starts_W, stops_W = np.array(windows).T
    covering_M = np.searchsorted(np.sort(starts_W), found.places_M, "right") - np.searchsorted(
        np.sort(stops_W), found.places_M, "right"
    )
    rows_V, times_M = is_VxG.sum(axis=1), np.ones_like(covering_M) if placed else covering_M
    share_VxM = ((is_VxG @ found.has_GxM) * times_M + 1) / (rows_V[:, None] * (1 if placed else len(windows)) + 2)
    absent_VxM = np.log1p(-share_VxM)
    odds_VxM, none_V, has_GxM = np.log(share_VxM) - absent_VxM, absent_VxM.sum(axis=1), found.has_GxM[held_out]
    right = []
    for start, stop in windows:
        here = np.flatnonzero((found.places_M >= start) & (found.places_M < stop))
        base_V = absent_VxM[:, here].sum(axis=1) if placed else none_V
        scores_GxV = base_V + has_GxM[:, here] @ odds_VxM[:, here].T
        right.append(np.mean(scores_GxV.argmax(axis=1) == labels_G[held_out]))
    return float(np.mean(right))
