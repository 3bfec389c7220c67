"""Genomes spelled in words: of the reference all, of every other genome only what its substitutions may change.

A substitution reaches `halo` words at most, so the words of thousands of genomes are known from a few thousand short
stretches, each encoded once: word by word what encoding the whole genomes gives. G counts genomes, U stretches, L words
of the reference, N levels, K words of a level's vocabulary.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from scipy import sparse

from vqdna_jax.report.covid.genotypes import Genomes
from vqdna_jax.runtime.progress import progress_bar
from vqdna_jax.tokenizers.base import Advance, no_advance


@dataclasses.dataclass(frozen=True)
class Reader:
    """What spells.

    Attributes:
        encode: (uint8 bases [S] of each sequence, what hears how many more words are done) -> words [L, N] of each, as
            if alone and whole.
        halo: how many words away a base can reach one.
    """

    encode: Callable[[Sequence[np.ndarray], Advance], Sequence[np.ndarray]]
    halo: int
    bases_per_code: int = 1


@dataclasses.dataclass(frozen=True, eq=False)
class Spelling:
    """Attributes:
    starts_U, stops_U: the words of each stretch. words: [l, N] of each. has_GxU: which genome has which.
    """

    reader: Reader
    reference_LxN: np.ndarray
    starts_U: np.ndarray
    stops_U: np.ndarray
    words: list[np.ndarray]
    has_GxU: sparse.csc_array

    @property
    def levels(self) -> int:
        return self.reference_LxN.shape[1]

    def of(self, base: int) -> int:
        """The word that stands for a base; of the last bases, where no k-mer begins, the last one, which has them."""
        return min(base // self.reader.bases_per_code, len(self.reference_LxN) - 1)

    def at(self, word: int) -> np.ndarray:
        """The word at one place of every genome, [G, N]."""
        words_GxN = np.repeat(self.reference_LxN[[word]], self.has_GxU.shape[0], axis=0)
        for stretch in np.flatnonzero((self.starts_U <= word) & (word < self.stops_U)):
            genomes = self.has_GxU.indices[self.has_GxU.indptr[stretch] : self.has_GxU.indptr[stretch + 1]]
            words_GxN[genomes] = self.words[stretch][word - self.starts_U[stretch]]
        return words_GxN

    def inside(self, start: int, stop: int, bases: int) -> tuple[int, int]:
        """The words of a sequence of so many bases that read none outside [start, stop)."""
        r, halo = self.reader.bases_per_code, self.reader.halo
        first = -(-start // r) + halo if start else 0
        last = stop // r - halo if stop < bases else len(self.reference_LxN)
        return first, max(first, last)

    def changes(self, first: int, last: int, level: int, size: int) -> sparse.csr_array:
        """How many more of each word are in places [first, last) of every genome than of the reference, [G, K]."""
        chosen = np.flatnonzero((self.starts_U < last) & (self.stops_U > first))
        starts, stops = np.maximum(self.starts_U[chosen], first), np.minimum(self.stops_U[chosen], last)
        row_M = np.repeat(np.arange(len(chosen)), stops - starts)
        parts = list(zip(chosen, starts, stops))
        new = [self.words[u][start - self.starts_U[u] : stop - self.starts_U[u], level] for u, start, stop in parts]
        old = [self.reference_LxN[start:stop, level] for _, start, stop in parts]
        signs_M, word_M = np.repeat([1.0, -1.0], len(row_M)), np.concatenate([*new, *old, np.zeros(0, np.int64)])
        counts_UxK = sparse.csr_array((signs_M, (np.tile(row_M, 2), word_M)), (len(chosen), size))
        found_GxK = sparse.csr_array(self.has_GxU[:, chosen] @ counts_UxK)
        found_GxK.eliminate_zeros()
        return found_GxK


def spell(reader: Reader, genomes: Genomes, name: str = "", progress: bool = False) -> Spelling:
    """`name`: of the words, for the progress."""
    (reference_LxN,) = reader.encode([genomes.reference], no_advance)
    found, member = dict[tuple[bytes, bytes], int](), list[list[int]]()
    for genotype in genomes.genotypes:
        word_M = genotype.places_M // reader.bases_per_code
        cuts = np.flatnonzero(np.diff(word_M) > 2 * reader.halo) + 1
        parts = zip(np.split(genotype.places_M, cuts), np.split(genotype.bases_M, cuts))
        keys = [(places.tobytes(), bases.tobytes()) for places, bases in parts if len(places)]
        member.append([found.setdefault(key, len(found)) for key in keys])
    stretches = [_Stretch.of(reader, genomes.reference, len(reference_LxN), *key) for key in found]
    read = sum(-(-len(stretch.bases) // reader.bases_per_code) for stretch in stretches)
    with progress_bar(name, read, "words", progress) as bar:
        encoded = reader.encode([stretch.bases for stretch in stretches], bar.update)
    columns = np.concatenate([np.array(of, np.int64) for of in member])
    ends = np.cumsum([0, *map(len, member)])
    has_GxU = sparse.csr_array((np.ones(len(columns)), columns, ends), (len(member), len(stretches)))
    return Spelling(
        reader,
        reference_LxN.astype(np.int64),
        np.array([stretch.start for stretch in stretches], np.int64),
        np.array([stretch.stop for stretch in stretches], np.int64),
        [words[s.start - s.left : s.stop - s.left].astype(np.int64) for s, words in zip(stretches, encoded)],
        has_GxU.tocsc(),
    )


@dataclasses.dataclass(frozen=True)
class _Stretch:
    """Words [start, stop), read off bases that begin with word `left`."""

    start: int
    stop: int
    left: int
    bases: np.ndarray

    @classmethod
    def of(cls, reader: Reader, reference: np.ndarray, words: int, places: bytes, bases: bytes) -> "_Stretch":
        """Around substitutions, with all bases that its words read."""
        r, halo, places_M = reader.bases_per_code, reader.halo, np.frombuffer(places, np.int64)
        first, last = int(places_M[0] // r), int(places_M[-1] // r) + 1
        left = max(0, first - 2 * halo)
        around = reference[left * r : (last + 2 * halo) * r].copy()
        around[places_M - left * r] = np.frombuffer(bases, np.uint8)
        return cls(max(0, first - halo), min(words, last + halo), left, around)
