"""Count-based language models of DNA: what a masked model's bits a base are to be compared with.

A table predicts a base from the bases at fixed offsets from it, ordered from the nearest to the farthest. It is fitted
on both strands of a split and smoothed by recursive interpolation: with c_k(x) the count of base x in the context of
the k nearest offsets and n_k the sum over x,
    p_k(x) = (c_k(x) + strength_k * p_{k-1}(x)) / (n_k + strength_k),  p_{-1} = 1/4.
Each strength is the one of `STRENGTHS` that predicts training positions best when they are left out of every count.

Shape letters: B windows, S bases, P positions, C contexts of k bases, 4^k of them. A context is a number in base 4,
nearest base least significant, so that its k nearest bases are context % 4^k. Bases are uint8, A C G T = 0 1 2 3, N 4.
"""

import dataclasses
import sys
from collections.abc import Iterator, Sequence

import numpy as np
import tqdm

from vqdna_jax.errors import InputError
from vqdna_jax.genome.alphabet import N, reverse_complement
from vqdna_jax.genome.chunks import chunk_bases, parse_chunk
from vqdna_jax.genome.corpus import Corpus

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

    def log2_probabilities(self, bases_BxS: Array, rows_P: Array, positions_P: Array) -> Array:
        """log2 probability of A C G T, float64 [P, 4], at base positions_P of window rows_P given its neighbours.

        The base itself is not looked at. An offset that leads to an N or out of the window ends the context: the
        nearer ones before it are used.
        """
        rows_P, positions_P = np.asarray(rows_P), np.asarray(positions_P, np.int64)
        context_P, known_P = np.zeros(len(rows_P), np.int64), np.ones(len(rows_P), bool)
        p_Px4 = np.full((len(rows_P), NUM_BASES), 1 / NUM_BASES)
        for k, strength in enumerate(self.strengths):
            if k > 0:
                letters_P = _neighbours(bases_BxS, rows_P, positions_P + self.offsets[k - 1])
                known_P = known_P & (letters_P < N)
                context_P += np.where(known_P, letters_P, 0).astype(np.int64) * NUM_BASES ** (k - 1)
            counts_Px4 = self.counts[k][context_P]
            longer_Px4 = _interpolate(counts_Px4, counts_Px4.sum(axis=1, keepdims=True), p_Px4, strength)
            p_Px4 = np.where(known_P[:, None], longer_Px4, p_Px4)
        return np.log2(p_Px4)


def fit(corpus: Corpus, split: str, offsets: Offsets) -> ContextTable:
    """One table of a split. Raises InputError when no position of the split has all of its context."""
    (counts_Cx4,) = _count_split(corpus, split, [offsets])
    return _smoothed(counts_Cx4, offsets)


def fit_tables(corpus: Corpus, split: str = "train") -> dict[str, ContextTable]:
    """The tables of `BASELINES` by name, from one reading of the split; errors as for `fit`."""
    counts = _count_split(corpus, split, list(BASELINES.values()))
    return {name: _smoothed(counts_Cx4, BASELINES[name]) for name, counts_Cx4 in zip(BASELINES, counts)}


def bits_and_accuracy(log2_Px4: Array, bases_P: Array) -> tuple[float, float]:
    """(mean -log2 probability of the true bases, share of them that is the likeliest base); N are left out."""
    log2_Px4, bases_P = log2_Px4[bases_P < N], bases_P[bases_P < N]
    bits = -log2_Px4[np.arange(len(bases_P)), bases_P].mean()
    return float(bits), float((log2_Px4.argmax(axis=1) == bases_P).mean())


def _interpolate(counts: Array, totals: Array, lower: Array, strength: float) -> Array:
    return (counts + strength * lower) / (totals + strength)


def _neighbours(bases_BxS: Array, rows_P: Array, positions_P: Array) -> Array:
    """The base at each position [P], N beyond the window."""
    inside_P = (positions_P >= 0) & (positions_P < bases_BxS.shape[1])
    return np.where(inside_P, bases_BxS[rows_P, np.where(inside_P, positions_P, 0)], N)


def _smoothed(counts_Cx4: Array, offsets: Offsets) -> ContextTable:
    """The table of the counts of the longest context, which hold those of all the shorter ones."""
    counts = [counts_Cx4]
    for _ in offsets:
        counts.append(counts[-1].reshape(NUM_BASES, -1, NUM_BASES).sum(axis=0))  # over the farthest base
    counts.reverse()
    return ContextTable(offsets, tuple(counts), _choose_strengths(counts))


def _choose_strengths(counts: Sequence[Array]) -> tuple[float, ...]:
    """The strength of each order, one after the other, by the likelihood of sampled positions left out one by one."""
    context_P, base_P = np.divmod(_sample_keys(counts[-1]), NUM_BASES)
    p_P, strengths = np.full(len(base_P), 1 / NUM_BASES), []
    for counts_Cx4 in counts:
        near_P = context_P % len(counts_Cx4)
        own_P, totals_P = counts_Cx4[near_P, base_P] - 1, counts_Cx4[near_P].sum(axis=1) - 1
        tried = {strength: _interpolate(own_P, totals_P, p_P, strength) for strength in STRENGTHS}
        best = max(tried, key=lambda strength: np.log2(tried[strength]).sum())
        p_P = tried[best]
        strengths.append(best)
    return tuple(strengths)


def _sample_keys(counts_Cx4: Array) -> Array:
    """context * 4 + base of about `_SAMPLE` training positions, evenly spaced when all are sorted by that key."""
    ends = np.cumsum(counts_Cx4)
    size = min(_SAMPLE, ends[-1])
    return np.searchsorted(ends, np.arange(size) * ends[-1] // size, side="right")


def _count_split(corpus: Corpus, split: str, families: Sequence[Offsets]) -> list[Array]:
    """How often each base occurs in each context on both strands: int64 [4^n, 4] for each tuple of n offsets."""
    counts = [np.zeros((NUM_BASES ** len(offsets), NUM_BASES), np.int64) for offsets in families]
    reach = max((abs(offset) for offsets in families for offset in offsets), default=0)
    for bases_S in _groups(corpus, split, reach):
        strands = bases_S, reverse_complement(bases_S)
        for counts_Cx4, offsets in zip(counts, families):
            keys_P = np.concatenate([_keys(strand_S, offsets) for strand_S in strands], dtype=np.int64)
            counts_Cx4 += np.bincount(keys_P, minlength=counts_Cx4.size).reshape(-1, NUM_BASES)
    for counts_Cx4, offsets in zip(counts, families):
        if not counts_Cx4.any():
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
        chunks = [chunk_bases(parse_chunk(record)) for record in records.__getitems__(group.tolist())]
        yield np.concatenate([piece for chunk_S in chunks for piece in (chunk_S, gap)])


def _keys(bases_S: Array, offsets: Offsets) -> Array:
    """context * 4 + base, int32 [P], wherever the base and all of its context are known."""
    places = (*reversed(offsets), 0)
    before, after = -min(places), max(places)
    size = max(0, bases_S.size - before - after)
    keys_P, known_P = np.zeros(size, np.int32), np.ones(size, bool)
    for place in places:
        letters_P = bases_S[before + place :][:size]
        keys_P *= NUM_BASES
        keys_P += letters_P
        known_P &= letters_P < N
    return keys_P[known_P]
