"""Count-based language models of DNA: what a masked model's bits per base are to be compared with.

A table predicts a base from the bases at fixed offsets from it, ordered from the nearest to the farthest. It is fitted
on both strands of a split and smoothed by recursive interpolation: with c_k(x) the count of base x in the context of
the k nearest offsets and n_k the sum over x,
    p_k(x) = (c_k(x) + strength_k * p_{k-1}(x)) / (n_k + strength_k),  p_{-1} = 1/4.
Each strength is the one of `STRENGTHS` that predicts training positions best when they are left out of every count.

A context of k bases is a number in base 4, nearest base least significant, so that its k nearest bases are
context % 4^k; K counts the contexts, 4^k, and M the positions looked at. Bases are uint8, A C G T = 0 1 2 3, N 4.
"""

import dataclasses
import sys
from collections.abc import Iterator, Sequence

import numpy as np
import tqdm

from vqdna_jax.errors import InputError
from vqdna_jax.evaluation import context_counts
from vqdna_jax.genome.alphabet import N, reverse_complement
from vqdna_jax.genome.chunks import chunk_bases, parse_chunk
from vqdna_jax.genome.corpus import Corpus, read_records

Array = np.ndarray
Offsets = tuple[int, ...]
NUM_BASES = 4
ORDER0: Offsets = ()
MARKOV11: Offsets = tuple(range(-1, -12, -1))
CONTEXT55: Offsets = tuple(offset for distance in range(1, 6) for offset in (-distance, distance))
BASELINES = {"order0": ORDER0, "markov11": MARKOV11, "context55": CONTEXT55}
STRENGTHS = (0.5, 2.0, 8.0, 32.0, 128.0, 512.0, 2048.0)
_SAMPLE = 500_000  # positions that choose the strengths
_GROUP_BASES = 1 << 22  # counted at once: a pass over 4^12 counters must be rare, the keys must stay small


@dataclasses.dataclass(frozen=True)
class ContextTable:
    """A fitted table; make it with `fit` or `fit_tables`."""

    offsets: Offsets
    counts: tuple[Array, ...]  # int64 [4^k, 4] for k = 0 ... len(offsets)
    strengths: tuple[float, ...]  # one each, in counts

    def log2_probabilities(self, bases_BxS: Array, rows_M: Array, positions_M: Array) -> Array:
        """log2 probability of A C G T, float64 [M, 4], at base positions_M of window rows_M given its neighbours.

        The base itself is not looked at. An offset that leads to an N or out of the window ends the context: the
        nearer ones before it are used.
        """
        rows_M, positions_M = np.asarray(rows_M), np.asarray(positions_M, np.int64)
        context_M, known_M = np.zeros(len(rows_M), np.int64), np.ones(len(rows_M), bool)
        p_Mx4 = np.full((len(rows_M), NUM_BASES), 1 / NUM_BASES)
        for k, strength in enumerate(self.strengths):
            if k > 0:
                letters_M = _neighbours(bases_BxS, rows_M, positions_M + self.offsets[k - 1])
                known_M = known_M & (letters_M < N)
                context_M += np.where(known_M, letters_M, 0).astype(np.int64) * NUM_BASES ** (k - 1)
            counts_Mx4 = self.counts[k][context_M]
            longer_Mx4 = _interpolate(counts_Mx4, counts_Mx4.sum(axis=1, keepdims=True), p_Mx4, strength)
            p_Mx4 = np.where(known_M[:, None], longer_Mx4, p_Mx4)
        return np.log2(p_Mx4)


def fit(corpus: Corpus, split: str, offsets: Offsets) -> ContextTable:
    """One table of a split. Raises InputError when no position of the split has all of its context."""
    (counts_Kx4,) = _count_split(corpus, split, [offsets])
    return _smoothed(counts_Kx4, offsets)


def fit_tables(corpus: Corpus, split: str = "train") -> dict[str, ContextTable]:
    """The tables of `BASELINES` by name, from one reading of the split; errors as for `fit`.

    The counts of a large corpus are kept beside it, see `context_counts.kept`.
    """
    families = list(BASELINES.values())
    if (counts := context_counts.kept(corpus, split, families)) is None:
        counts = _count_split(corpus, split, families)
        context_counts.keep(corpus, split, families, counts)
    return {name: _smoothed(counts_Kx4, BASELINES[name]) for name, counts_Kx4 in zip(BASELINES, counts)}


def bits_and_accuracy(log2_Mx4: Array, bases_M: Array) -> tuple[float, float]:
    """(mean -log2 probability of the true bases, share of them that is the likeliest base); N are left out."""
    log2_Mx4, bases_M = log2_Mx4[bases_M < N], bases_M[bases_M < N]
    bits = -log2_Mx4[np.arange(len(bases_M)), bases_M].mean()
    return float(bits), float((log2_Mx4.argmax(axis=1) == bases_M).mean())


def _interpolate(counts: Array, totals: Array, lower: Array, strength: float) -> Array:
    return (counts + strength * lower) / (totals + strength)


def _neighbours(bases_BxS: Array, rows_M: Array, positions_M: Array) -> Array:
    """The base at each position [M], N beyond the window."""
    inside_M = (positions_M >= 0) & (positions_M < bases_BxS.shape[1])
    return np.where(inside_M, bases_BxS[rows_M, np.where(inside_M, positions_M, 0)], N)


def _smoothed(counts_Kx4: Array, offsets: Offsets) -> ContextTable:
    """The table of the counts of the longest context, which hold those of all the shorter ones."""
    counts = [counts_Kx4]
    for _ in offsets:
        counts.append(counts[-1].reshape(NUM_BASES, -1, NUM_BASES).sum(axis=0))  # over the farthest base
    counts.reverse()
    return ContextTable(offsets, tuple(counts), _choose_strengths(counts))


def _choose_strengths(counts: Sequence[Array]) -> tuple[float, ...]:
    """The strength of each order, one after the other, by the likelihood of sampled positions left out one by one."""
    context_M, base_M = np.divmod(_sample_keys(counts[-1]), NUM_BASES)
    p_M, strengths = np.full(len(base_M), 1 / NUM_BASES), []
    for counts_Kx4 in counts:
        near_M = context_M % len(counts_Kx4)
        own_M, totals_M = counts_Kx4[near_M, base_M] - 1, counts_Kx4[near_M].sum(axis=1) - 1
        tried = {strength: _interpolate(own_M, totals_M, p_M, strength) for strength in STRENGTHS}
        best = max(tried, key=lambda strength: np.log2(tried[strength]).sum())
        p_M = tried[best]
        strengths.append(best)
    return tuple(strengths)


def _sample_keys(counts_Kx4: Array) -> Array:
    """context * 4 + base of about `_SAMPLE` training positions, evenly spaced when all are sorted by that key."""
    ends = np.cumsum(counts_Kx4)
    size = min(_SAMPLE, ends[-1])
    return np.searchsorted(ends, np.arange(size) * ends[-1] // size, side="right")


def _count_split(corpus: Corpus, split: str, families: Sequence[Offsets]) -> list[Array]:
    """How often each base occurs in each context on both strands: int64 [4^n, 4] for each tuple of n offsets."""
    counts = [np.zeros((NUM_BASES ** len(offsets), NUM_BASES), np.int64) for offsets in families]
    reach = max((abs(offset) for offsets in families for offset in offsets), default=0)
    for bases_S in _groups(corpus, split, reach):
        strands = bases_S, reverse_complement(bases_S)
        for counts_Kx4, offsets in zip(counts, families):
            keys_M = np.concatenate([_keys(strand_S, offsets) for strand_S in strands], dtype=np.int64)
            counts_Kx4 += np.bincount(keys_M, minlength=counts_Kx4.size).reshape(-1, NUM_BASES)
    for counts_Kx4, offsets in zip(counts, families):
        if not counts_Kx4.any():
            raise InputError(f"{corpus.path}: no base of the {split} split has known bases at all of {offsets} from it")
    return counts


def _groups(corpus: Corpus, split: str, reach: int) -> Iterator[Array]:
    """The bases of many chunks in a row, with N between them so that no context reaches from one into another."""
    last_base = np.cumsum(corpus.chunks(split).length, dtype=np.int64) - 1
    if not last_base.size:  # and no file either
        return
    records, gap = corpus.records(split), np.full(reach, N, np.uint8)
    groups = np.split(np.arange(last_base.size), np.flatnonzero(np.diff(last_base // _GROUP_BASES)) + 1)
    for group in tqdm.tqdm(groups, desc="counting contexts", unit="block", disable=not sys.stderr.isatty()):
        chunks = [chunk_bases(parse_chunk(record)) for record in read_records(corpus, records, group)]
        yield np.concatenate([piece for chunk_S in chunks for piece in (chunk_S, gap)])


def _keys(bases_S: Array, offsets: Offsets) -> Array:
    """context * 4 + base, int32 [M], wherever the base and all of its context are known."""
    places = (*reversed(offsets), 0)
    before, after = -min(places), max(places)
    size = max(0, bases_S.size - before - after)
    keys_L, known_L = np.zeros(size, np.int32), np.ones(size, bool)
    for place in places:
        letters_L = bases_S[before + place :][:size]
        keys_L *= NUM_BASES
        keys_L += letters_L
        known_L &= letters_L < N
    return keys_L[known_L]
