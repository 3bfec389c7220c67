"""What the case study spells genomes with: learned words, k-mers, single bases, and all that a word may depend on."""

from collections.abc import Sequence

import numpy as np

from vqdna_jax.genome.alphabet import N
from vqdna_jax.report.covid.spelling import Reader
from vqdna_jax.tokenizers.base import Advance, no_advance
from vqdna_jax.tokenizers.kmers import OneHot, OverlappingKmers
from vqdna_jax.tokenizers.learned import LearnedTokenizer

K = 6  # of the k-mers, as of the paper's rivals
VOCABULARY = OverlappingKmers(K).vocabulary


def learned(tokenizer: LearnedTokenizer) -> Reader:
    return Reader(tokenizer.encode, tokenizer.config.receptive_codes, tokenizer.bases_per_code)


def kmers() -> Reader:
    """A k-mer at every base."""
    return Reader(OverlappingKmers(K).encode, K - 1)


def bases() -> Reader:
    return Reader(OneHot().encode, 0)


def contexts(of: Reader) -> Reader:
    """All bases that a word of `of` may depend on, as one number: what no word can tell more than."""
    width = (2 * of.halo + 1) * of.bases_per_code
    # Odd numbers of 64 bits: that two of the contexts met here share a sum is not to be expected.
    factors = np.random.default_rng(0).integers(1 << 62, size=width) * 2 + 1

    def encode(sequences: Sequence[np.ndarray], advance: Advance = no_advance) -> list[np.ndarray]:
        return [_sums(sequence, of, factors)[:, None] for sequence in sequences]

    return Reader(encode, of.halo, of.bases_per_code)


def _sums(sequence: np.ndarray, of: Reader, factors: np.ndarray) -> np.ndarray:
    r = of.bases_per_code
    padded = np.pad(sequence, (of.halo * r, of.halo * r + -len(sequence) % r), constant_values=N).astype(np.int64)
    windows_LxW = np.lib.stride_tricks.sliding_window_view(padded, len(factors))[::r]
    with np.errstate(over="ignore"):
        return windows_LxW @ factors
