"""What a learned DNA vocabulary holds: code usage, rate, k-mer content, strand agreement, context, k-mer counts.

Reconstruction alone says little: at one code per base it stays near 100 % while the codebook dies, and codes of two
bits per base may be plain k-mers. These pure functions measure the rest from codes and bases, each with a control.

Bases are uint8, A C G T = 0 1 2 3, else 4. Code i covers bases [i * R, (i + 1) * R), R = bases_per_code, S = L * R; M
counts the positions that a mask keeps.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy import sparse

Array = np.ndarray
NUM_BASES = 4
ZERO: Any = 0  # of 0 / 0; scikit-learn's type of zero_division is that of its default, a string
_DENSE_CELLS = 1 << 21  # up to this many cells a dense count table (16 MB) is faster than hashing a million keys


def _entropy_bits(counts: Array) -> float:
    """Plug-in entropy of counts, -sum p log2 p; 0 where there is nothing."""
    shares = counts[counts > 0] / max(counts.sum(), 1)
    return max(0.0, float(-(shares * np.log2(shares)).sum()))


def _key_entropy_bits(keys_M: Array, size: int) -> float:
    """Plug-in entropy of keys in [0, size)."""
    return _entropy_bits(np.bincount(keys_M) if size <= _DENSE_CELLS else np.unique(keys_M, return_counts=True)[1])


def usage_from_counts(counts_K: Array) -> dict[str, float]:
    """How a codebook is used, from the counts of each code over a whole evaluation set (one batch misleads).

    used: codes seen. utilisation: used / K. entropy_bits: H of the code distribution. perplexity: 2^H, from 1 to K.
    busiest_share: share of the positions held by the commonest code.
    """
    entropy_bits = _entropy_bits(counts_K)
    return {
        "used": int(np.count_nonzero(counts_K)),
        "utilisation": float(np.mean(counts_K > 0)),
        "perplexity": 2.0**entropy_bits,
        "busiest_share": float(counts_K.max() / max(counts_K.sum(), 1)),
        "entropy_bits": entropy_bits,
    }


def usage(codes: Array, codebook_size: int) -> dict[str, float]:
    """`usage_from_counts` of the codes of one level, an array of any shape."""
    counts_K = np.bincount(np.ravel(codes), minlength=codebook_size)
    if counts_K.size > codebook_size:
        raise ValueError(f"code {counts_K.size - 1} is outside a codebook of {codebook_size}; is this the right level?")
    return usage_from_counts(counts_K)


def joint_codes(codes_BxLxN: Array, codebook_sizes: Sequence[int]) -> Array:
    """The code tuple of each position as one integer [B, L] in [0, prod K_n), first level most significant."""
    return np.asarray(np.ravel_multi_index(tuple(np.moveaxis(codes_BxLxN, -1, 0)), tuple(codebook_sizes)))


def code_bits_per_base(codes_BxLxN: Array, codebook_sizes: Sequence[int], bases_per_code: int) -> dict[str, float]:
    """Rate of the code stream: order-0 entropy of the code tuple of a position, divided by bases_per_code.

    plug_in: H of the observed distribution, biased low. bits_per_base: with the Miller-Madow correction, H +
    (tuples_used - 1) / (2 P ln 2) over P positions. unseen_share: Good-Turing estimate of the chance that the next
    tuple is new (tuples seen once / P); above a few per cent both are too low and more positions are needed. Order 0
    ignores that neighbours predict one another, so it bounds the true rate from above.
    """
    counts = np.unique(joint_codes(codes_BxLxN, codebook_sizes), return_counts=True)[1]
    plug_in, positions = _entropy_bits(counts), max(counts.sum(), 1)
    return {
        "bits_per_base": (plug_in + max(counts.size - 1, 0) / (2 * positions * np.log(2))) / bases_per_code,
        "plug_in": plug_in / bases_per_code,
        "tuples_used": int(counts.size),
        "unseen_share": float(np.count_nonzero(counts == 1) / positions),
    }


def _kmers_at(bases_BxS: Array, starts_L: Array, k: int) -> tuple[Array, Array]:
    """Index in [0, 4^k) of the k-mer at each start [B, L], and where it is whole: inside the window and free of N."""
    num_bases = bases_BxS.shape[1]
    inside_L = (starts_L >= 0) & (starts_L + k <= num_bases)
    whole_BxL = np.broadcast_to(inside_L, (len(bases_BxS), len(starts_L))).copy()
    kmers_BxL = np.zeros(whole_BxL.shape, np.int64)
    for shift in range(k):
        letters_BxL = bases_BxS[:, np.clip(starts_L + shift, 0, num_bases - 1)]
        kmers_BxL = kmers_BxL * NUM_BASES + letters_BxL
        whole_BxL &= letters_BxL < NUM_BASES
    return kmers_BxL, whole_BxL


def _patch_starts(codes_BxL: Array, bases_BxS: Array, bases_per_code: int) -> Array:
    """First base of each code [L], once the two arrays are known to fit."""
    if bases_BxS.shape != (len(codes_BxL), codes_BxL.shape[1] * bases_per_code):
        raise ValueError(f"codes {codes_BxL.shape} x {bases_per_code} bases per code do not cover {bases_BxS.shape}")
    return np.arange(codes_BxL.shape[1]) * bases_per_code


def kmer_information(
    codes_BxL: Array, bases_BxS: Array, bases_per_code: int, k: int, offset: int, codebook_size: int
) -> dict[str, float]:
    """Mutual information between code i and the k-mer that starts at base i * bases_per_code + offset.

    k-mers with an N or across the window's edge are left out; `positions` counts the rest. bits: the plug-in
    I = H(code) + H(k-mer) - H(code, k-mer), biased upwards. shuffled_bits: the same with the codes permuted (one fixed
    seed), the bias if both were independent. A function has no bias, so I - shuffled is far too low for real k-mers
    (4.3 of 8.6 bits at K = 512, k = 5, 20,000 positions); hence, rescaled,
        corrected_bits = C (I - shuffled) / (C - shuffled),  C = min(H(code), H(k-mer)):
    right at both ends, within 0.6 bits in between while shuffled < C / 2 (simulated). explained_share: of H(code).
    """
    starts_L = _patch_starts(codes_BxL, bases_BxS, bases_per_code) + offset
    kmers_BxL, whole_BxL = _kmers_at(bases_BxS, starts_L, k)
    codes_M, kmers_M = codes_BxL[whole_BxL].astype(np.int64), kmers_BxL[whole_BxL]
    num_kmers = NUM_BASES**k
    code_bits, kmer_bits = _key_entropy_bits(codes_M, codebook_size), _key_entropy_bits(kmers_M, num_kmers)
    bits, shuffled = (
        code_bits + kmer_bits - _key_entropy_bits(paired_M * num_kmers + kmers_M, codebook_size * num_kmers)
        for paired_M in (codes_M, np.random.default_rng(0).permutation(codes_M))
    )
    ceiling = min(code_bits, kmer_bits)
    # A shuffle that reaches the ceiling leaves nothing to measure with: one code, one k-mer, or far too few positions.
    corrected = ceiling * (bits - shuffled) / (ceiling - shuffled) if ceiling - shuffled > 1e-9 else 0.0
    return {
        "k": k,
        "offset": offset,
        "bits": bits,
        "shuffled_bits": shuffled,
        "corrected_bits": corrected,
        "explained_share": corrected / code_bits if code_bits > 0 else 0.0,
        "kmer_entropy_bits": kmer_bits,
        "code_entropy_bits": code_bits,
        "positions": int(codes_M.size),
    }


def kmer_information_profile(
    codes_BxL: Array, bases_BxS: Array, bases_per_code: int, reach: int, codebook_size: int
) -> list[dict[str, float]]:
    """Context: `kmer_information` of the base at each offset, -reach to reach, from the code's first base."""
    at = range(-reach, reach + 1)
    return [kmer_information(codes_BxL, bases_BxS, bases_per_code, 1, offset, codebook_size) for offset in at]


def best_kmer(
    codes_BxL: Array, bases_BxS: Array, bases_per_code: int, ks: Iterable[int], codebook_size: int, reach: int = 2
) -> dict:
    """The k-mer that the code is, if it is one: for each k the offset of the highest corrected_bits, and the best k.

    Offsets run over every k-mer that comes within `reach` bases of the code's own, for codes drift by a base or two.
    A longer k-mer holds the shorter ones, so the best k is the smallest within 2 % of the code's entropy of the top.
    Returns that row of `kmer_information` and, as "by_k", the best row of each k.
    """
    by_k = []
    for k in sorted(ks):
        offsets = range(1 - k - reach, bases_per_code + reach)
        rows = [kmer_information(codes_BxL, bases_BxS, bases_per_code, k, offset, codebook_size) for offset in offsets]
        by_k.append(max(rows, key=lambda row: row["corrected_bits"]))
    top = max(row["corrected_bits"] for row in by_k)
    best = next(row for row in by_k if row["corrected_bits"] >= top - 0.02 * row["code_entropy_bits"])
    return {**best, "by_k": by_k}


def _commonest_partner(codes_M: Array, partners_M: Array, num_partners: int, num_codes: int = 0) -> Array:
    """The partner most often seen with each code [K], -1 for a code not seen; ties go to the lower partner."""
    pairs, counts = np.unique(codes_M.astype(np.int64) * num_partners + partners_M, return_counts=True)
    ordered = pairs[np.lexsort((pairs, -counts))]
    seen, first = np.unique(ordered // num_partners, return_index=True)
    partner_K = np.full(max(num_codes, seen[-1] + 1), -1)
    partner_K[seen] = ordered[first] % num_partners
    return partner_K


def purity(codes_BxL: Array, bases_BxS: Array, bases_per_code: int) -> dict[str, float]:
    """Share of the positions whose base is the commonest base of their code, averaged over the code's own bases.

    1 means that code i determines its bases by itself; lower, that the decoder needs the neighbours, or that the code
    is aligned with other bases. chance: the same with the codes permuted, at least the share of the commonest base.
    """
    starts_L = _patch_starts(codes_BxL, bases_BxS, bases_per_code)
    scores_Rx2 = []
    for offset in range(bases_per_code):
        bases_BxL, known_BxL = _kmers_at(bases_BxS, starts_L + offset, 1)
        codes_M, bases_M = codes_BxL[known_BxL], bases_BxL[known_BxL]
        pairings = codes_M, np.random.default_rng(offset).permutation(codes_M)
        scores_Rx2.append([np.mean(_commonest_partner(c_M, bases_M, NUM_BASES)[c_M] == bases_M) for c_M in pairings])
    return dict(zip(("purity", "chance"), np.mean(scores_Rx2, axis=0).tolist(), strict=True))


def strand_consistency(codes_BxL: Array, reverse_codes_BxL: Array, codebook_size: int) -> dict[str, float]:
    """How well the code of a place predicts the code of the same place read on the other strand.

    reverse_codes_BxL are the codes of the reverse-complemented windows, so position i faces L - 1 - i. The map from a
    code to its commonest partner is fitted on the even windows and scored on the odd ones, which must not overlap
    them. consistency: share that agrees, 1 if the vocabulary is closed under reverse complement. chance: agreement if
    partners were independent of codes, sum_k p(k) q(map(k)), with p and q the odd windows' codes and partners.
    """
    partners_BxL = reverse_codes_BxL[:, ::-1]
    fit = codes_BxL[::2].ravel(), partners_BxL[::2].ravel()
    return partner_agreement(*fit, codes_BxL[1::2].ravel(), partners_BxL[1::2].ravel(), codebook_size)


def partner_agreement(
    fit_codes_M: Array, fit_partners_M: Array, codes_M: Array, partners_M: Array, codebook_size: int
) -> dict[str, float]:
    """`strand_consistency` of codes and partners, each a row, whose map is fitted on the first two and scored on the
    others."""
    partner_K = _commonest_partner(fit_codes_M, fit_partners_M, codebook_size, codebook_size)
    q_K = np.bincount(partners_M, minlength=codebook_size) / partners_M.size
    mapped_M = partner_K[codes_M]
    chance = np.mean(np.append(q_K, 0.0)[mapped_M])  # a code not seen in the fit maps to -1, the appended zero
    return {"consistency": float(np.mean(mapped_M == partners_M)), "chance": float(chance)}


def substitution_effect(codes_BxLxN: Array, mutated_codes_BxLxN: Array, position_B: Array, bases_per_code: int) -> dict:
    """What one substituted base per window does to the codes; position_B is the base's index in its window.

    changed_per_level: mean number of codes changed, a list of N. silent_share: share of the substitutions that change
    no code of any level. reach_max, reach_p95: distance in codes from the code that holds the base to the codes
    changed at any level, maximum and 95th percentile over the changed codes (0 if none changed).
    """
    changed_BxLxN = codes_BxLxN != mutated_codes_BxLxN
    changed_BxL = changed_BxLxN.any(axis=2)
    windows, indices = np.nonzero(changed_BxL)
    reach_M = np.abs(indices - np.asarray(position_B)[windows] // bases_per_code)
    return {
        "changed_per_level": changed_BxLxN.sum(axis=1).mean(axis=0).tolist(),
        "silent_share": float(np.mean(~changed_BxL.any(axis=1))),
        "reach_max": int(reach_M.max(initial=0)),
        "reach_p95": int(np.percentile(reach_M, 95, method="inverted_cdf")) if reach_M.size else 0,
    }


def kmer_counts(bases_BxS: Array, k: int) -> sparse.csr_array:
    """How often each k-mer begins in each window, float32 [B, 4^k] in lexical order; sparse, as a window holds few.

    Every start counts; k-mers with an N are left out.
    """
    kmers_BxL, whole_BxL = _kmers_at(bases_BxS, np.arange(bases_BxS.shape[1] - k + 1), k)
    return counted(kmers_BxL[whole_BxL], whole_BxL.sum(axis=1), NUM_BASES**k)


def counted(keys_M: Array, of_row_B: Array | Sequence[int], size: int) -> sparse.csr_array:
    """How often each of `size` keys is in each row, float32 [B, size]; `keys_M` are those of one row after the other,
    of which each has so many."""
    ends_B = np.append(0, np.cumsum(of_row_B)).astype(np.int32)  # as keys: products read half as much as of int64
    ones_M = np.ones(len(keys_M), np.float32)
    counts_BxK = sparse.csr_array((ones_M, keys_M.astype(np.int32), ends_B), (len(ends_B) - 1, size))
    counts_BxK.sum_duplicates()
    return counts_BxK


def kmer_shares(bases_BxS: Array, k: int) -> sparse.csr_array:
    """`kmer_counts`, a row of which sums to 1, or to 0 where no k-mer is whole: the control that a vocabulary has to
    beat."""
    counts_BxK = kmer_counts(bases_BxS, k)
    counts_BxK.data /= np.repeat(np.asarray(counts_BxK.sum(axis=1)), np.diff(counts_BxK.indptr))
    return counts_BxK
