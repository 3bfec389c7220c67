"""One-hot VQ: k-means of the one-hot letters around a place, level after level, with no network. What a learned
vocabulary has to be better than.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Self

import numpy as np
from sklearn.cluster import KMeans

from vqdna_jax.genome.alphabet import N
from vqdna_jax.tokenizers.base import Advance, no_advance

FLANK = 4  # bases on both sides of a code's own that it is fitted on, where windows stay short
LONGEST = 9  # bases of a window, of which each has its entry in a table
FITTED = 20_000  # windows
STEPS = 10  # of Lloyd's


@dataclasses.dataclass(frozen=True)
class OneHotVQ:
    """Codes of windows of `width` bases, of which the middle `bases_per_code` are the code's own.

    Attributes:
        centres: f32 [K, 4 width] of each level; a level is of what the ones before have left over.
    """

    bases_per_code: int
    width: int
    centres: tuple[np.ndarray, ...]

    @classmethod
    def fit(cls, windows_BxS: np.ndarray, bases_per_code: int, sizes: Sequence[int], seed: int = 0) -> Self:
        """Codebooks of these sizes, or of as many codes as there are different windows."""
        width = max(bases_per_code, min(bases_per_code + 2 * FLANK, LONGEST))
        rng, rows = np.random.default_rng(seed), len(windows_BxS)
        row_M = rng.integers(0, rows, FITTED)
        at_M = rng.integers(0, windows_BxS.shape[1] - width + 1, FITTED)
        rest_MxF = _one_hot(windows_BxS[row_M[:, None], at_M[:, None] + np.arange(width)])
        centres = []
        for size in sizes:
            different = len(np.unique(rest_MxF.round(5), axis=0))
            means = KMeans(min(size, different), init="random", n_init=1, max_iter=STEPS, random_state=seed).fit(
                rest_MxF
            )
            centres.append(means.cluster_centers_.astype(np.float32))
            rest_MxF = rest_MxF - centres[-1][means.labels_]
        return cls(bases_per_code, width, tuple(centres))

    @property
    def description(self) -> str:
        sizes = " + ".join(map(str, self.codebook_sizes))
        return f"k-means of one-hot windows of {self.width}, codes {sizes}, {self.bases_per_code} bases per code"

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        return tuple(map(len, self.centres))

    def encode(self, bases: Sequence[np.ndarray], advance: Advance = no_advance) -> list[np.ndarray]:
        """As of any `Tokenizer`; of N, and beyond the ends, nothing is known: such letters are zeros."""
        letters_LxW = np.concatenate([self._windows(sequence) for sequence in bases])
        counts = [-(-len(sequence) // self.bases_per_code) for sequence in bases]
        codes_LxN = self._looked_up(letters_LxW) if self.width <= LONGEST else self._codes(_one_hot(letters_LxW))
        advance(len(codes_LxN))
        return np.split(codes_LxN, np.cumsum(counts)[:-1])

    def _windows(self, bases: np.ndarray) -> np.ndarray:
        """The letters around each code, uint8 [L, W]."""
        before = (self.width - self.bases_per_code) // 2
        padded = np.pad(bases, (before, self.width), constant_values=N)
        views = np.lib.stride_tricks.sliding_window_view(padded, self.width)
        return views[: len(bases) : self.bases_per_code]

    def _looked_up(self, letters_LxW: np.ndarray) -> np.ndarray:
        known_L, places = (letters_LxW < N).all(axis=1), N ** np.arange(self.width)[::-1]
        codes_LxN = self._table[np.where(known_L, letters_LxW @ places, 0)]
        codes_LxN[~known_L] = self._codes(_one_hot(letters_LxW[~known_L]))
        return codes_LxN

    @functools.cached_property
    def _table(self) -> np.ndarray:
        """Codes of all windows without N, by the number that their letters are."""
        places = N ** np.arange(self.width)[::-1]
        return self._codes(_one_hot(np.arange(N**self.width)[:, None] // places % N))

    def _codes(self, rest_MxF: np.ndarray) -> np.ndarray:
        """The nearest centre of each level, int32 [M, N]."""
        codes = []
        for centres_KxF in self.centres:
            norm_K = (centres_KxF**2).sum(axis=1) / 2
            parts = np.array_split(rest_MxF, 1 + len(rest_MxF) // 8192)
            codes.append(np.concatenate([(part @ centres_KxF.T - norm_K).argmax(axis=1) for part in parts]))
            rest_MxF = rest_MxF - centres_KxF[codes[-1]]
        return np.stack(codes, axis=1).astype(np.int32)

    def decode(self, codes: Sequence[np.ndarray], advance: Advance = no_advance) -> list[np.ndarray]:
        """The likeliest letter of each of a code's own bases."""
        before = (self.width - self.bases_per_code) // 2
        outputs = []
        for codes_LxN in codes:
            sum_LxF = sum(of_level[codes_LxN[:, n]] for n, of_level in enumerate(self.centres))
            letters_LxWx4 = np.asarray(sum_LxF).reshape(len(codes_LxN), self.width, 4)
            own = letters_LxWx4[:, before : before + self.bases_per_code]
            outputs.append(own.argmax(axis=2).astype(np.uint8).ravel())
            advance(len(codes_LxN))
        return outputs

    def spans(self, bases: np.ndarray) -> np.ndarray:
        starts_L = np.arange(0, len(bases), self.bases_per_code)
        return np.stack([starts_L, np.minimum(starts_L + self.bases_per_code, len(bases))], axis=1)


def _one_hot(bases_MxW: np.ndarray) -> np.ndarray:
    """f32 [M, 4 W]; of N zeros."""
    return np.eye(N + 1, N, dtype=np.float32)[bases_MxW].reshape(len(bases_MxW), -1)
