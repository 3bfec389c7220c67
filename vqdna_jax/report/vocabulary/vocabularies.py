"""The vocabularies of an audit: the model's, those it is set against, and the codes of a sample in each."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from vqdna_jax.errors import InputError
from vqdna_jax.genome.alphabet import N, to_text
from vqdna_jax.inference.load import load
from vqdna_jax.report.vocabulary.one_hot_vq import OneHotVQ
from vqdna_jax.report.vocabulary.sample import Sample
from vqdna_jax.runtime.progress import progress_bar
from vqdna_jax.tokenizers import byte_pairs
from vqdna_jax.tokenizers.base import Advance
from vqdna_jax.tokenizers.byte_pairs import BytePairs
from vqdna_jax.tokenizers.kmers import Kmers

ONE_HOT, SIX_MERS, BYTE_PAIRS = "one-hot-vq", "6-mers", "bpe"  # what needs no directory
BUILT_IN = (ONE_HOT, SIX_MERS, BYTE_PAIRS)
LEARNED_ON = 2_000_000  # bases, of byte pairs
PIECE = 1000
MOST_PAIRS, BASES_A_PAIR = 4095, 240  # tokens beside the unknown one, and how many bases there are for each at least
SIZES = (1024, 2048)  # codebooks of one-hot VQ, where the model is not one of learned codes


class Coder(Protocol):
    """What an audit needs of a `Tokenizer`; `OneHotVQ` has it too."""

    @property
    def description(self) -> str: ...
    @property
    def codebook_sizes(self) -> tuple[int, ...]: ...
    @property
    def bases_per_code(self) -> int | None: ...
    def encode(self, bases: Sequence[np.ndarray], advance: Advance = ...) -> list[np.ndarray]: ...
    def decode(self, codes: Sequence[np.ndarray], advance: Advance = ...) -> list[np.ndarray]: ...
    def spans(self, bases: np.ndarray) -> np.ndarray: ...


class Vocabulary(NamedTuple):
    name: str
    coder: Coder
    digest: str = ""  # of what was read from a directory

    @property
    def levels(self) -> range:
        return range(len(self.coder.codebook_sizes))

    @property
    def stride(self) -> int | None:
        """Bases from each word to the next and of each word, of a sequence of a multiple of them; None where words
        differ."""
        return self.coder.k if isinstance(self.coder, Kmers) else self.coder.bases_per_code


class Windows(NamedTuple):
    """Windows of a sample in a vocabulary: bases uint8 [B, S], of each codes [L, N] and spans [L, 2]."""

    bases_BxS: np.ndarray
    codes: list[np.ndarray]
    spans: list[np.ndarray]

    def first(self, count: int) -> "Windows":
        return Windows(self.bases_BxS[:count], self.codes[:count], self.spans[:count])


def in_windows(vocabulary: Vocabulary, bases_BxS: np.ndarray) -> Windows:
    codes = vocabulary.coder.encode(list(bases_BxS))
    return Windows(bases_BxS, codes, list(map(vocabulary.coder.spans, bases_BxS)))


class Coded(NamedTuple):
    """A sample in a vocabulary, its stretches one after the other; words that hold an N are left out.

    Attributes:
        codes_LxN: of each word. middle_L: the base in its middle, counted over all stretches.
        start_L, stop_L: its bases, counted alike.
    """

    codes_LxN: np.ndarray
    start_L: np.ndarray
    stop_L: np.ndarray

    @property
    def middle_L(self) -> np.ndarray:
        return (self.start_L + self.stop_L - 1) // 2


def read_vocabulary(model: str) -> Vocabulary:
    """That of a model, by its directory or by the name of one that ships, called after it. Raises InputError."""
    loaded = load(model)
    parts = [part for part in model.rstrip("/").split("/") if part]
    name = parts[-2] if len(parts) > 1 and parts[-1] == "export" else parts[-1]
    return Vocabulary(name, loaded.tokenizer, loaded.tokenizer_digest)


def set_against(own: Vocabulary, names: Sequence[str], windows_BxS: np.ndarray, sample: Sample) -> list[Vocabulary]:
    """Those of BUILT_IN, which are fitted to the sample, and models as `read_vocabulary` takes them.

    Raises InputError: there is no such model, or two have a name.
    """
    found = [_built_in(name, own, windows_BxS, sample) if name in BUILT_IN else read_vocabulary(name) for name in names]
    called = [own.name, *(one.name for one in found)]
    if repeated := [name for name in called if called.count(name) > 1]:
        raise InputError(f"--against: two vocabularies are named {repeated[0]!r}; name each once")
    return found


def _built_in(name: str, model: Vocabulary, windows_BxS: np.ndarray, sample: Sample) -> Vocabulary:
    if name == SIX_MERS:
        return Vocabulary(name, Kmers(6))
    if name == BYTE_PAIRS:
        return Vocabulary(name, _byte_pairs(sample))
    is_learned = len(model.coder.codebook_sizes) > 1 or model.coder.bases_per_code
    sizes = model.coder.codebook_sizes if is_learned else SIZES
    return Vocabulary(name, OneHotVQ.fit(windows_BxS, model.coder.bases_per_code or 1, sizes))


def _byte_pairs(sample: Sample) -> BytePairs:
    """Learnt from pieces of the sample itself, at even distances."""
    pieces = [
        stretch.bases[start : start + PIECE]
        for stretch in sample.stretches
        for start in range(0, len(stretch.bases), PIECE)
        if (stretch.bases[start : start + PIECE] < N).all()
    ]
    chosen = pieces[:: -(-len(pieces) * PIECE // LEARNED_ON) or 1]
    size = max(8, min(MOST_PAIRS, sum(map(len, chosen)) // BASES_A_PAIR))
    return BytePairs(byte_pairs.learn(map(to_text, chosen), size))


def coded(vocabulary: Vocabulary, sample: Sample, progress: bool) -> Coded:
    """The words of the sample. Raises InputError: none is without N."""
    coder, before, found = vocabulary.coder, 0, []
    r = coder.bases_per_code or 0
    with progress_bar(f"{vocabulary.name}: encoding", sample.size, " bases", progress) as bar:
        for stretch in sample.stretches:
            (codes_LxN,) = coder.encode([stretch.bases], lambda codes: bar.update(codes * r))
            bar.update(0 if r else len(stretch.bases))  # of words that differ in length, a stretch at once
            spans_Lx2 = coder.spans(stretch.bases)
            unknown_S = np.append(0, np.cumsum(stretch.bases == N))
            known_L = unknown_S[spans_Lx2[:, 0]] == unknown_S[spans_Lx2[:, 1]]
            found.append((codes_LxN[known_L], *(before + spans_Lx2[known_L]).T))
            before += len(stretch.bases)
    codes_LxN, start_L, stop_L = (np.concatenate(parts) for parts in zip(*found))
    if not len(codes_LxN):
        raise InputError(f"{vocabulary.name}: no word of what is read is without N; name other files or regions")
    return Coded(codes_LxN.astype(np.int64), start_L, stop_L)
