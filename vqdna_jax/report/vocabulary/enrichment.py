"""Words that are commoner or rarer where a label holds than elsewhere, beside shuffled labels.

A label of bases (genes, repeats) is shuffled by moving it along the sample, round its end, so that genes stay genes;
one of whole genomes (species) by dealing out its blocks anew. `z` is how far a count is from those of shuffles, in
their standard deviations. By G and C: what is expected is counted tenth by tenth of the bases by the G and C around
them, so that what is left is not that words rich in G and C are where G and C are.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import stats

from vqdna_jax.report.vocabulary.labels import STRATA

SHUFFLES = 60
RATE = 0.05  # false discoveries among all that are found
LEAST = 10  # of a word, that are expected where the label holds and elsewhere, for it to be tested
NEAREST = 20  # this part of the sample a label is moved at least: by a few codons, codons would stay codons
BLOCK = 2000  # words that are dealt out together
MOST_SHOWN = 8
How = Literal["moved", "dealt"]


class _Table(NamedTuple):
    """Counts of each word, with what is expected of it; all [K]."""

    seen: np.ndarray
    expected: np.ndarray
    expected_by_gc: np.ndarray


class _Test(NamedTuple):
    """Of each word that is tested, [T], and of every shuffle in its place, [SHUFFLES]: how many it finds."""

    z: np.ndarray
    found: np.ndarray  # bool
    found_in_shuffles: np.ndarray


def enrichment(
    codes_L: np.ndarray, size: int, label_L: np.ndarray, strata_L: np.ndarray, how: How, seed: int = 0
) -> dict[str, Any]:
    """What of a label the words of one level tell.

    Returns:
        share (of the words that are where it holds), tested, found, found_by_gc, in_shuffles, in_shuffles_by_gc (the
        mean over shuffles, each tested as if it were the label, and most), bits (mutual information of word and label,
        less that of shuffles; label_bits: what there is to tell), words (those of the largest |z| by G and C).
    """
    rng = np.random.default_rng(seed)
    key_L = (codes_L * STRATA + strata_L).astype(np.int32)
    by_stratum_KxT = np.bincount(key_L, minlength=size * STRATA).reshape(size, STRATA)
    table = _count(key_L, label_L, by_stratum_KxT)
    shuffled = [_count(key_L, _shuffled(label_L, rng, how), by_stratum_KxT) for _ in range(SHUFFLES)]
    total_K = by_stratum_KxT.sum(axis=1)
    tested_T = np.flatnonzero((table.expected >= LEAST) & (total_K - table.expected >= LEAST))
    plain = _test(table, shuffled, tested_T, False)
    by_gc = _test(table, shuffled, tested_T, True)
    bits, *of_shuffles = (_information(one.seen, total_K) for one in (table, *shuffled))
    order = tested_T[np.argsort(-np.abs(by_gc.z), kind="stable")][:MOST_SHOWN]
    z_by_gc, z = (dict(zip(tested_T.tolist(), test.z.tolist())) for test in (by_gc, plain))
    found = set(tested_T[by_gc.found].tolist())
    return {
        "share": float(label_L.mean()),
        "tested": len(tested_T),
        "found": int(plain.found.sum()),
        "found_by_gc": int(by_gc.found.sum()),
        "in_shuffles": float(plain.found_in_shuffles.mean()),
        "in_shuffles_by_gc": float(by_gc.found_in_shuffles.mean()),
        "most_in_shuffles_by_gc": int(by_gc.found_in_shuffles.max(initial=0)),
        "bits": bits - float(np.mean(of_shuffles)),
        "label_bits": float(stats.entropy([label_L.mean(), 1 - label_L.mean()], base=2)),
        "words": [
            {
                "code": int(code),
                "seen": int(table.seen[code]),
                "expected": float(table.expected[code]),
                "times": float(table.seen[code] / table.expected[code]),
                "times_by_gc": float(table.seen[code] / max(table.expected_by_gc[code], 1e-9)),
                "z": z[int(code)],
                "z_by_gc": z_by_gc[int(code)],
                "found": int(code) in found,
            }
            for code in order
        ],
    }


def _count(key_L: np.ndarray, label_L: np.ndarray, by_stratum_KxT: np.ndarray) -> _Table:
    """`key_L`: code and stratum of each word, as one number."""
    seen_KxT = np.bincount(key_L[label_L], minlength=by_stratum_KxT.size).reshape(by_stratum_KxT.shape)
    share_T = seen_KxT.sum(axis=0) / np.maximum(by_stratum_KxT.sum(axis=0), 1)
    return _Table(seen_KxT.sum(axis=1), by_stratum_KxT.sum(axis=1) * label_L.mean(), by_stratum_KxT @ share_T)


def _shuffled(label_L: np.ndarray, rng: np.random.Generator, how: How) -> np.ndarray:
    if how == "moved":
        near = len(label_L) // NEAREST
        return np.roll(label_L, rng.integers(near, len(label_L) - near) or 1)
    blocks = np.array_split(label_L, max(2, len(label_L) // BLOCK))
    return np.concatenate([blocks[at] for at in rng.permutation(len(blocks))])


def _test(table: _Table, shuffled: list[_Table], tested_T: np.ndarray, by_gc: bool) -> _Test:
    def apart(one: _Table) -> np.ndarray:
        return (one.seen - (one.expected_by_gc if by_gc else one.expected))[tested_T]

    of_shuffles_SxT = np.stack([apart(one) for one in shuffled])
    mean_T, spread_T = of_shuffles_SxT.mean(axis=0), of_shuffles_SxT.std(axis=0, ddof=1)
    spread_T = np.maximum(spread_T, 1e-9)
    z_T = (apart(table) - mean_T) / spread_T
    z_SxT = (of_shuffles_SxT - mean_T) / spread_T
    return _Test(z_T, discoveries(z_T), discoveries(z_SxT).sum(axis=1))


def discoveries(z_xT: np.ndarray) -> np.ndarray:
    """Which are found with RATE false ones among them (Benjamini and Hochberg), of two sides, bool [..., T]."""
    if not z_xT.shape[-1]:
        return np.zeros(z_xT.shape, bool)
    return stats.false_discovery_control(2 * stats.norm.sf(np.abs(z_xT)), axis=-1) <= RATE


def _information(seen_K: np.ndarray, total_K: np.ndarray) -> float:
    """Mutual information, in bits, of a word and whether a label holds."""
    joint_2xK = np.stack([seen_K, total_K - seen_K]) / total_K.sum()
    parts = (stats.entropy(p, base=2) for p in (joint_2xK.sum(axis=0), joint_2xK.sum(axis=1), joint_2xK.ravel()))
    words, label, both = (float(bits) for bits in parts)
    return words + label - both
