"""Words of k bases as tokens: single bases, k-mers at every base, k-mers side by side.

Words are numbered as base-4 numbers, A C G T = 0 1 2 3, the first base counting most.
"""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np

from vqdna_jax.errors import InputError
from vqdna_jax.tokenizers.fixed import FixedTokenizer

LONGEST_K = 8  # sums of base-4 digits stay in int32


@dataclasses.dataclass(frozen=True)
class _Words(FixedTokenizer):
    """What all of them share; words of `k` bases."""

    k: int

    @abc.abstractmethod
    def _words(self, bases: np.ndarray) -> np.ndarray:
        """int32 [..., L] of bases [..., S]."""

    def tokens(self, bases: Sequence[np.ndarray] | np.ndarray) -> Sequence[np.ndarray] | np.ndarray:
        return self._words(bases) if isinstance(bases, np.ndarray) else [self._words(sequence) for sequence in bases]

    @classmethod
    def read(cls, k: int, merges: Sequence[Any]) -> Self:
        _refuse_merges(cls.kind, merges)
        return cls(k)

    def __post_init__(self):
        if not 1 <= self.k <= LONGEST_K:
            raise InputError(f"tokenizer k: {self.k}; expected 1 to {LONGEST_K} for {self.kind}")


@dataclasses.dataclass(frozen=True)
class OneHot(_Words):
    """One base per token, N the unknown one: K = 5, and every token has its base."""

    k: int = dataclasses.field(default=1, init=False)

    kind: ClassVar[str] = "one_hot"
    description: ClassVar[str] = "single bases"
    vocabulary: ClassVar[int] = 5
    known: ClassVar[int] = 5
    step: ClassVar[int] = 1
    bases_per_code: ClassVar[int] = 1

    @classmethod
    def read(cls, k: int, merges: Sequence[Any]) -> Self:
        _refuse_merges(cls.kind, merges)
        if k != 1:
            raise InputError(f"tokenizer k: {k}; expected 1 to 1 for {cls.kind}")
        return cls()

    def codes_of(self, bases: int) -> int:
        return bases

    def spans(self, bases: np.ndarray) -> np.ndarray:
        starts_L = np.arange(len(bases))
        return np.stack([starts_L, starts_L + 1], axis=1)

    def _words(self, bases: np.ndarray) -> np.ndarray:
        return bases.astype(np.int32)

    def _bases(self, tokens_L: np.ndarray) -> np.ndarray:
        return tokens_L.astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class OverlappingKmers(_Words):
    """A k-mer at every base, K = 4^k + 1; a sequence shorter than k is one unknown token.

    DNABERT's (doi 10.1093/bioinformatics/btab083). All bases of a masked k-mer are in its neighbours, so k of them are
    masked together.
    """

    k: int = 3

    kind: ClassVar[str] = "overlapping"
    step: ClassVar[int] = 1

    @property
    def description(self) -> str:
        return f"overlapping {self.k}-mers"

    @property
    def vocabulary(self) -> int:
        return 4**self.k + 1

    @property
    def masked_together(self) -> int:
        return self.k

    def codes_of(self, bases: int) -> int:
        return max(bases - self.k + 1, min(bases, 1))

    def spans(self, bases: np.ndarray) -> np.ndarray:
        starts_L = np.arange(self.codes_of(len(bases)))
        return np.stack([starts_L, np.minimum(starts_L + self.k, len(bases))], axis=1)

    def _words(self, bases: np.ndarray) -> np.ndarray:
        if 0 < bases.shape[-1] < self.k:
            return np.full((*bases.shape[:-1], 1), self.unknown, np.int32)
        return np.minimum(_base_4(bases, self.k, 1), self.unknown)  # a word with an N is 4^k or more

    def _bases(self, tokens_L: np.ndarray) -> np.ndarray:
        place_k = 4 ** np.arange(self.k)[::-1]
        rest = tokens_L[-1:, None] // place_k[1:] % 4
        return np.append(tokens_L // place_k[0], rest).astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class Kmers(_Words):
    """k-mers side by side from the first base on, and single bases where less than k are left: K = 4^k + 5.

    The Nucleotide Transformer's (doi 10.1038/s41592-024-02523-z).
    """

    k: int = 6

    kind: ClassVar[str] = "kmer"

    @property
    def description(self) -> str:
        return f"{self.k}-mers side by side"

    @property
    def vocabulary(self) -> int:
        return 4**self.k + 5

    def codes_of(self, bases: int) -> int:
        return bases // self.k + bases % self.k

    def spans(self, bases: np.ndarray) -> np.ndarray:
        size = len(bases)
        cut = size - size % self.k
        starts_L = np.append(np.arange(0, cut, self.k), np.arange(cut, size))
        return np.stack([starts_L, np.append(starts_L[1:], size)[: len(starts_L)]], axis=1)

    def _words(self, bases: np.ndarray) -> np.ndarray:
        size, k = bases.shape[-1], self.k
        cut = size - size % k
        words, rest = _base_4(bases[..., :cut], k, k), bases[..., cut:].astype(np.int32) + 4**k
        return np.concatenate([np.where(words < 4**k, words, self.unknown), rest], axis=-1)  # 4^k + N is unknown

    def _bases(self, tokens_L: np.ndarray) -> np.ndarray:
        single_L = tokens_L >= 4**self.k
        whole = tokens_L[~single_L, None] // 4 ** np.arange(self.k)[::-1] % 4
        return np.append(whole, tokens_L[single_L] - 4**self.k).astype(np.uint8)


def _refuse_merges(kind: str, merges: Sequence[Any]) -> None:
    if merges:
        raise InputError(f"tokenizer merges: {len(merges)} of them for {kind}; only bpe has merges")


def _base_4(bases: np.ndarray, k: int, step: int) -> np.ndarray:
    """Every `step`-th word of k bases as a number, int32 [..., L]; of one with an N the number is 4^k or more."""
    digits = np.array([0, 1, 2, 3, 4**k], np.int32)[bases]
    last = max(0, digits.shape[-1] - k + 1)
    total = digits[..., 0:last:step].copy()
    for i in range(1, k):
        total *= 4
        total += digits[..., i : last + i : step]
    return total
