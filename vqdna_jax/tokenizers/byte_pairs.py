"""Byte-pair encoding of DNA: learnt, applied and stored by the `tokenizers` library, which is imported on first use.

A model is its merges in the order they were learnt; everything else follows from them. Token ids are A C G T = 0 1 2 3,
then the results of the merges.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from vqdna_jax.errors import InputError
from vqdna_jax.genome.alphabet import N, to_bases, to_text
from vqdna_jax.runtime.exports import MERGES
from vqdna_jax.runtime.files import read_json
from vqdna_jax.tokenizers.fixed import FixedTokenizer

LETTERS = "ACGT"
Merges = tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class BytePairs(FixedTokenizer):
    """Byte pairs, as DNABERT-2's (arXiv 2306.15006); a run of N is one unknown token.

    Attributes:
        merges: the pairs in the order they were learnt.
    """

    merges: Merges
    k: int = dataclasses.field(default=0, init=False)

    kind: ClassVar[str] = "bpe"
    description: ClassVar[str] = "byte pairs"

    def __post_init__(self):
        if not self.merges:
            raise InputError("tokenizer merges: none, expected some for bpe: only bpe has merges")

    @classmethod
    def read(cls, k: int, merges: Sequence[Any]) -> Self:
        if k != 0:
            raise InputError(f"tokenizer k: {k}; expected 0 for {cls.kind}, whose words differ")
        return cls(checked(merges, "merges"))

    def described(self) -> dict[str, Any]:
        return {"kind": self.kind, "k": self.k, "merges": [list(pair) for pair in self.merges]}

    @property
    def vocabulary(self) -> int:
        return len(self._pieces) + 1

    def codes_of(self, bases: int) -> None:
        return None

    def tokens(self, bases: Sequence[np.ndarray] | np.ndarray) -> list[np.ndarray]:
        return encoded(self._encoder, bases, self.unknown)

    def spans(self, bases: np.ndarray) -> np.ndarray:
        (tokens_L,) = self.tokens([bases])
        lengths_L = np.array([*map(len, self._pieces), 0])[tokens_L]
        edges = np.flatnonzero(np.diff(bases == N, prepend=False, append=False))
        lengths_L[tokens_L == self.unknown] = np.diff(edges)[::2]
        stops_L = np.cumsum(lengths_L)
        return np.stack([np.append(0, stops_L)[:-1], stops_L], axis=1)

    def _bases(self, tokens_L: np.ndarray) -> np.ndarray:
        return to_bases("".join([self._pieces[token] for token in tokens_L]))

    def _files(self) -> dict[str, bytes]:
        return {MERGES: to_json(self.merges).encode()}

    @classmethod
    def read_files(cls, directory: pathlib.Path) -> Merges:
        return from_json(directory / MERGES)

    @functools.cached_property
    def _pieces(self) -> list[str]:
        return list(ids_of(self.merges))

    @functools.cached_property
    def _encoder(self):
        return encoder(self.merges)


def library():
    """The `tokenizers` package. Raises InputError where it is not installed."""
    try:
        import tokenizers
    except ImportError as error:
        raise InputError("package tokenizers: not installed, byte pairs need it; pip install vqdna_jax[bpe]") from error
    return tokenizers


def learn(words: Iterable[str], size: int) -> Merges:
    """Merges that give `size` tokens; the same for the same words. Raises InputError: the words have too few pairs."""
    package = library()
    tokenizer = package.Tokenizer(package.models.BPE())
    trainer = package.trainers.BpeTrainer(vocab_size=size, initial_alphabet=list(LETTERS), show_progress=False)
    tokenizer.train_from_iterator(words, trainer)
    merges = read_merges(json.loads(tokenizer.to_str()), "byte pairs")
    if found := size - len(ids_of(merges)):
        raise InputError(f"byte pairs: the text gave {size - found} tokens, expected {size}; train on more bases")
    return merges


def ids_of(merges: Merges) -> dict[str, int]:
    """Id of every token. Two merges may have one result: it keeps its first id."""
    ids = {letter: i for i, letter in enumerate(LETTERS)}
    for left, right in merges:
        ids.setdefault(left + right, len(ids))
    return ids


def encoder(merges: Merges):
    """A `tokenizers.Tokenizer` that takes each text as one word."""
    package = library()
    # Its cache of words is for languages: windows of DNA do not come twice.
    return package.Tokenizer(package.models.BPE(vocab=ids_of(merges), merges=list(merges), cache_capacity=0))


def encoded(tokenizer, bases: Iterable[np.ndarray], unknown: int) -> list[np.ndarray]:
    """Token ids int32 [L] of each sequence of uint8 bases, by `encoder(merges)`; a run of N is one `unknown`."""
    parts = [_runs(sequence) for sequence in bases]
    words = [text for runs in parts for text in runs if text]
    found = iter(tokenizer.encode_batch_fast(words, add_special_tokens=False))
    ids = ([i for text in runs for i in (next(found).ids if text else (unknown,))] for runs in parts)
    return [np.array(row, np.int32) for row in ids]


def to_json(merges: Merges) -> str:
    """tokenizer.json, which the library reads too."""
    return encoder(merges).to_str(pretty=True) + "\n"


def from_json(path: pathlib.Path) -> Merges:
    """The merges of a file that `to_json` made. Raises InputError: missing, damaged, or of another kind."""
    return read_merges(read_json(path, "the merges of a tokenizer; copy its directory again"), str(path))


def read_merges(stored, where: str) -> Merges:
    """The merges in the contents of a tokenizer.json, whose ids must be those that follow from them."""
    model = stored.get("model") if isinstance(stored, dict) else None
    if not isinstance(model, dict) or model.get("type") != "BPE":
        raise InputError(f"{where}: expected a byte-pair model; name a directory that vqdna_jax wrote")
    merges = checked(model.get("merges"), where)
    if model.get("vocab") != ids_of(merges):
        raise InputError(f"{where}: the vocabulary is not the one of its merges; copy the tokenizer's directory again")
    return merges


def checked(pairs, where: str) -> Merges:
    """Merges from a list of pairs. Raises InputError for the first that does not join two tokens known before it."""
    known = set(LETTERS)
    for i, pair in enumerate(pairs if isinstance(pairs, list | tuple) else [pairs]):
        is_pair = isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(part, str) for part in pair)
        if not is_pair or not known.issuperset(pair):
            raise InputError(f"{where}: merge {i} is {str(pair)[:40]!r}, expected two tokens made by earlier merges")
        known.add("".join(pair))
    return tuple((left, right) for left, right in pairs)


def _runs(bases: np.ndarray) -> list[str]:
    """The runs of known bases as text, and "" for each run of N."""
    known = bases != N
    if known.all():
        return [to_text(bases)] if bases.size else []
    edges = np.flatnonzero(np.diff(known)) + 1
    return [to_text(part) if part[0] != N else "" for part in np.split(bases, edges)]
