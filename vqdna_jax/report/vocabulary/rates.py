"""How a vocabulary is used, what it costs and loses, what k-mers explain of it, and how it takes the other strand."""

from typing import Any

import numpy as np

from vqdna_jax.evaluation import code_statistics as statistics
from vqdna_jax.genome.alphabet import reverse_complement
from vqdna_jax.report.vocabulary.vocabularies import Coded, Vocabulary, Windows, in_windows

KMERS = range(1, 7)
REACH = 6  # bases before and after a word, in its profile


def usage(vocabulary: Vocabulary, words: Coded) -> list[dict[str, Any]]:
    """Of each level, and of a control: as many words drawn evenly from as many codes."""
    rows = []
    for n, size in enumerate(vocabulary.coder.codebook_sizes):
        counts_K = np.bincount(words.codes_LxN[:, n], minlength=size)
        even = np.bincount(np.random.default_rng(0).integers(0, size, len(words.codes_LxN)), minlength=size)
        curve = np.sort(counts_K)[::-1] / counts_K.sum()
        at = np.unique(np.geomspace(1, size, 40).round().astype(int)) - 1
        rows.append(
            {"level": n + 1, "codes": size}
            | statistics.usage_from_counts(counts_K)
            | {"even": statistics.usage_from_counts(even)["perplexity"]}
            | {"ranks": [[int(rank) + 1, float(curve[rank])] for rank in at if curve[rank] > 0]}
        )
    return rows


def rate(vocabulary: Vocabulary, words: Coded, windows: Windows) -> dict[str, Any]:
    """Bits a base: order-0 entropy of the words of a place, times words a base. Right: share of the bases of the
    windows that decoding gives back."""
    sizes = vocabulary.coder.codebook_sizes
    found = statistics.code_bits_per_base(words.codes_LxN[None], sizes, 1)
    words_a_base = len(words.codes_LxN) / _covered(words)
    decoded = zip(vocabulary.coder.decode(windows.codes), windows.bases_BxS)
    right = np.mean([np.mean(back[: len(bases)] == bases) for back, bases in decoded])
    return {
        "bits_a_base": float(found["bits_per_base"] * words_a_base),
        "bits_a_word": float(found["bits_per_base"]),
        "bases_a_word": 1 / words_a_base,
        "different": found["tuples_used"],
        "unseen": found["unseen_share"],
        "right": float(right),
    }


def _covered(words: Coded) -> int:
    """Bases that have a word."""
    edges = np.maximum.accumulate(np.append(0, words.stop_L[:-1]))
    return int(np.maximum(words.stop_L - np.maximum(words.start_L, edges), 0).sum())


def guesses(windows_BxS: np.ndarray, period: int = 8) -> list[dict[str, float]]:
    """The control of rate against distortion: some of every eight bases are kept, the others guessed, the commonest."""
    counts = np.bincount(windows_BxS.ravel(), minlength=4)
    bits, commonest = statistics.usage_from_counts(counts)["entropy_bits"], counts.max() / counts.sum()
    shares = [kept / period for kept in range(period + 1)]
    return [{"bits_a_base": kept * bits, "right": float(kept + (1 - kept) * commonest)} for kept in shares]


def kmers(vocabulary: Vocabulary, windows: Windows) -> list[dict[str, Any]]:
    """What a k-mer at the word explains of each level, and what the word says of each base around; empty of words that
    differ in length."""
    r, windows_BxS = vocabulary.stride, windows.bases_BxS
    if not r or windows_BxS.shape[1] % r:
        return []
    codes_BxLxN = np.stack(windows.codes)
    rows = []
    for n, size in enumerate(vocabulary.coder.codebook_sizes):
        codes_BxL = codes_BxLxN[..., n]
        best = statistics.best_kmer(codes_BxL, windows_BxS, r, KMERS, size)
        profile = statistics.kmer_information_profile(codes_BxL, windows_BxS, r, REACH, size)
        keys = ("k", "offset", "corrected_bits", "shuffled_bits", "explained_share", "positions")
        rows.append(
            {"level": n + 1, "entropy": best["code_entropy_bits"]}
            | {key: best[key] for key in keys}
            | {"by_k": [{key: row[key] for key in keys} for row in best["by_k"]]}
            | {"profile": [[row["offset"], row["corrected_bits"]] for row in profile]}
        )
    return rows


def strands(vocabulary: Vocabulary, windows: Windows) -> list[dict[str, float]]:
    """How often the word of a place is, read on the other strand, the partner of its word; of each level.

    cut: share of the words that the other strand cuts at the same bases; of the rest nothing can agree.
    """
    other, size = in_windows(vocabulary, reverse_complement(windows.bases_BxS)), windows.bases_BxS.shape[1]
    both = zip(windows.codes, windows.spans, other.codes, other.spans)
    sides = [_pairs(codes, spans, back, size - back_spans[:, ::-1]) for codes, spans, back, back_spans in both]
    cut = sum(len(here) for here, _, _ in sides) / sum(words for _, _, words in sides)
    fit, test = ([np.concatenate([pairs[side] for pairs in sides[half::2]]) for side in (0, 1)] for half in (0, 1))
    rows = []
    for n, codes in enumerate(vocabulary.coder.codebook_sizes):
        if not len(fit[0]) or not len(test[0]):
            rows.append({"level": n + 1, "cut": cut, "consistency": 0.0, "chance": 0.0})
            continue
        found = statistics.partner_agreement(fit[0][:, n], fit[1][:, n], test[0][:, n], test[1][:, n], codes)
        rows.append({"level": n + 1, "cut": cut} | {key: cut * value for key, value in found.items()})
    return rows


def _pairs(codes_LxN, spans_Lx2, back_LxN, back_Lx2) -> tuple[np.ndarray, np.ndarray, int]:
    """The words of both strands that have the same bases, and how many words there are."""
    keys, back = (spans[:, 0] * (1 << 32) + spans[:, 1] for spans in (spans_Lx2, back_Lx2))
    _, here, there = np.intersect1d(keys, back, return_indices=True)
    return codes_LxN[here], back_LxN[there], len(codes_LxN)
