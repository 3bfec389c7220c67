"""What words tell, in bits: of the variant that a genome is of, and of single mutations.

A site is a base that enough genomes have substituted; the word at it is the one that stands for it, of k-mers the one
that begins there. Each figure has its control, the same with the genomes shuffled: what is found where there is
nothing. G counts genomes, N levels, V variants, K words.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.metrics import mutual_info_score

from vqdna_jax.report.covid.genotypes import Genomes
from vqdna_jax.report.covid.nearest import substitutions
from vqdna_jax.report.covid.spelling import Spelling

RARE = 0.01  # share of the genomes: a mutation that fewer have, or lack, is left out
SHUFFLES = 5
RESAMPLES = 2000


class Mutation(NamedTuple):
    place: int
    base: int
    has_G: np.ndarray  # bool


class Told(NamedTuple):
    """Of one level: bits of the variant by site, the share of its entropy by mutation; shuffled, their means."""

    variant_bits: np.ndarray
    variant_shuffled: float
    mutation_shares: np.ndarray
    mutation_shuffled: float


class Interval(NamedTuple):
    """A mean, and between which bounds 95 % of its resamples lie."""

    mean: float
    low: float
    high: float


def common_mutations(genomes: Genomes) -> list[Mutation]:
    """Those that at least RARE of the genomes have, and of them lack, in the order of their places."""
    found, total = substitutions(genomes), len(genomes.genotypes)
    counts_M = found.has_GxM.sum(axis=0)
    common = np.flatnonzero((counts_M >= RARE * total) & (total - counts_M >= RARE * total))
    has_GxC = found.has_GxM[:, common].toarray() > 0
    return [Mutation(int(found.places_M[m]), int(found.bases_M[m]), has_G) for m, has_G in zip(common, has_GxC.T)]


def information(words_G: np.ndarray, labels_G: np.ndarray) -> float:
    """Plug-in mutual information in bits; scikit-learn's takes ten times as long on so few."""
    word_G, label_G = (np.unique(keys, return_inverse=True)[1] for keys in (words_G, labels_G))
    joint = np.bincount(word_G * (label_G.max() + 1) + label_G)
    return max(0.0, _bits(np.bincount(word_G)) + _bits(np.bincount(label_G)) - _bits(joint))


def _bits(counts: np.ndarray) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def told_at_sites(spelling: Spelling, genomes: Genomes, mutations: Sequence[Mutation]) -> list[Told]:
    """What the word at a site tells, level by level."""
    order_G = np.random.default_rng(0).permutation(len(genomes.labels_G))
    places = sorted({mutation.place for mutation in mutations})
    words = {place: spelling.at(spelling.of(place)) for place in places}
    return [_told(words, level, genomes.labels_G, mutations, order_G) for level in range(spelling.levels)]


def _told(
    words: dict[int, np.ndarray], level: int, labels_G: np.ndarray, mutations: Sequence[Mutation], order_G: np.ndarray
) -> Told:
    of_variant = [[information(at[:, level], labels_G[o]) for at in words.values()] for o in (slice(None), order_G)]
    shares = [[_share(words[m.place][:, level], m.has_G[o]) for m in mutations] for o in (slice(None), order_G)]
    return Told(np.array(of_variant[0]), float(np.mean(of_variant[1])), np.array(shares[0]), float(np.mean(shares[1])))


def _share(words_G: np.ndarray, has_G: np.ndarray) -> float:
    return information(words_G, has_G) / information(has_G, has_G)


def told_anywhere(spelling: Spelling, level: int, genomes: Genomes) -> dict[str, float]:
    """Bits of the variant that a word tells whose place is not known, and the same of shuffled genomes."""
    reference_L = spelling.reference_LxN[:, level]
    size = 1 + max(int(words[:, level].max()) for words in [spelling.reference_LxN, *spelling.words])
    more_GxK = spelling.changes(0, len(reference_L), level, size)
    of_reference_K = np.bincount(reference_L, minlength=size)

    def bits(labels_G: np.ndarray) -> float:
        is_VxG = np.equal.outer(np.arange(len(genomes.variants)), labels_G).astype(float)
        counts_VxK = is_VxG @ more_GxK + is_VxG.sum(axis=1, keepdims=True) * of_reference_K
        return float(mutual_info_score(None, None, contingency=counts_VxK) / np.log(2))

    rng = np.random.default_rng(0)
    shuffled = [bits(rng.permutation(genomes.labels_G)) for _ in range(SHUFFLES)]
    return {"bits": bits(genomes.labels_G), "shuffled": float(np.mean(shuffled))}


def interval(values: np.ndarray) -> Interval:
    """Of a mean over sites or mutations, by a bootstrap of these."""
    drawn = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high))
