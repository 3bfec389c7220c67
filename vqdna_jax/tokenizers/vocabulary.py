"""Tokenizers whose ids a published vocabulary fixes: the words that `kmers` cuts, byte pairs of a tokenizer.json.

A vocabulary is its words in the order of their ids, special ones among them; these are in no sequence of DNA. What is
no base is N here, as everywhere in this package.
"""

import collections
import dataclasses
import functools
import itertools
import json
import pathlib
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np

from vqdna_jax.errors import InputError
from vqdna_jax.genome.alphabet import N, to_bases, to_text
from vqdna_jax.runtime.exports import VOCABULARY, as_json
from vqdna_jax.runtime.files import read_json
from vqdna_jax.tokenizers import byte_pairs
from vqdna_jax.tokenizers.fixed import FixedTokenizer
from vqdna_jax.tokenizers.kmers import LONGEST_K, Kmers, OverlappingKmers

LETTERS = "ACGTN"
UNKNOWN = ("[UNK]", "<unk>")
BIGGEST = 1 << 20  # words


class VocabularyTokenizer(FixedTokenizer):
    """Tokens by the ids of `words`; a subclass is a frozen dataclass that cuts sequences into them.

    Attributes:
        words: by their ids.
    """

    listed: ClassVar[str] = "words"
    words: tuple[str, ...]

    @property
    def vocabulary(self) -> int:
        return len(self.words)

    @property
    def unknown(self) -> int:
        return next(id for id, word in enumerate(self.words) if word in UNKNOWN)

    def described(self) -> dict[str, Any]:
        return {"kind": self.kind, "k": self.k, self.listed: list(self.words)}

    def without_bases(self, tokens_L: np.ndarray) -> np.ndarray:
        return ~self._known_K[np.clip(tokens_L, 0, self.vocabulary)]

    def _files(self) -> dict[str, bytes]:
        return {VOCABULARY: as_json({self.listed: self.described()[self.listed]})}

    @classmethod
    def read_files(cls, directory: pathlib.Path) -> Any:
        stored = read_json(directory / VOCABULARY, "the vocabulary of a tokenizer; copy its directory again")
        return stored.get(cls.listed)

    @functools.cached_property
    def _known_K(self) -> np.ndarray:
        """Which ids are of bases; one more, which is not, for those out of range."""
        return np.array([*(bool(word) and set(word) <= set(LETTERS) for word in self.words), False])

    def _text(self, tokens_L: np.ndarray) -> str:
        return "".join([self.words[token] for token in tokens_L])

    def _bases(self, tokens_L: np.ndarray) -> np.ndarray:
        return to_bases(self._text(tokens_L))


@dataclasses.dataclass(frozen=True)
class _Listed(VocabularyTokenizer):
    """Words of a list, k bases each."""

    k: int
    words: tuple[str, ...]

    def __post_init__(self):
        if not 1 <= self.k <= LONGEST_K:
            raise InputError(f"tokenizer k: {self.k}; expected 1 to {LONGEST_K} for {self.kind}")
        if not set(self.words) & set(UNKNOWN):
            raise InputError(f"vocabulary: has none of {', '.join(UNKNOWN)}, the word for what is unknown")
        missing = [word for word in self._needed() if word not in self._ids]
        if missing:
            raise InputError(f"vocabulary: has no word {missing[0]}, one of {len(missing)} that {self.kind} needs")

    @classmethod
    def read(cls, k: int, words: Sequence[Any]) -> Self:
        return cls(k, checked(words))

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        return {word: id for id, word in enumerate(self.words)}

    def _needed(self) -> list[str]:
        """All words that a sequence may need, those of k bases first, as base-4 numbers order them."""
        return ["".join(word) for word in itertools.product(LETTERS[:4], repeat=self.k)]

    @functools.cached_property
    def _ids_W(self) -> np.ndarray:
        """Ids of the words that are needed."""
        return np.array([self._ids[word] for word in self._needed()], np.int32)


@dataclasses.dataclass(frozen=True)
class VocabularyOverlapping(_Listed):
    """A k-mer at every base; one with an N is unknown, and so is a sequence shorter than k."""

    kind: ClassVar[str] = "vocabulary_overlapping"
    step: ClassVar[int] = 1

    @property
    def description(self) -> str:
        return self._cut.description

    @property
    def masked_together(self) -> int:
        return self.k

    def codes_of(self, bases: int) -> int:
        return self._cut.codes_of(bases)

    def spans(self, bases: np.ndarray) -> np.ndarray:
        return self._cut.spans(bases)

    def tokens(self, bases: Sequence[np.ndarray] | np.ndarray) -> Sequence[np.ndarray] | np.ndarray:
        ids_W = np.append(self._ids_W, np.int32(self.unknown))
        if isinstance(bases, np.ndarray):
            return ids_W[self._cut.tokens(bases)]
        return [ids_W[words_L] for words_L in self._cut.tokens(bases)]

    def _text(self, tokens_L: np.ndarray) -> str:
        return super()._text(tokens_L[:1]) + "".join([self.words[token][-1] for token in tokens_L[1:]])

    @property
    def _cut(self) -> OverlappingKmers:
        return OverlappingKmers(self.k)


@dataclasses.dataclass(frozen=True)
class VocabularyKmers(_Listed):
    """k-mers side by side from the first base on, and anew after every N; single bases where less than k are left, and
    every N, are tokens of their own. With k = 1 simply bases."""

    kind: ClassVar[str] = "vocabulary_kmer"

    @property
    def description(self) -> str:
        return f"{self.k}-mers side by side" if self.k > 1 else "single bases"

    @property
    def bases_per_code(self) -> int | None:  # type: ignore[override]
        return 1 if self.k == 1 else None

    def codes_of(self, bases: int) -> int | None:
        return bases if self.k == 1 else None

    def tokens(self, bases: Sequence[np.ndarray] | np.ndarray) -> list[np.ndarray]:
        return [self._ids_W[self._words(sequence)] for sequence in bases]

    def spans(self, bases: np.ndarray) -> np.ndarray:
        long_L = self._words(bases) < 4**self.k
        stops_L = np.cumsum(np.where(long_L, self.k, 1))
        return np.stack([np.append(0, stops_L)[:-1], stops_L], axis=1)

    def _words(self, bases: np.ndarray) -> np.ndarray:
        """int32 [L], places in `_needed`."""
        edges = np.flatnonzero(np.diff(bases == N)) + 1
        single = 4**self.k
        parts = [
            np.full(len(run), single + N, np.int32) if len(run) and run[0] == N else Kmers(self.k).tokens(run)
            for run in np.split(bases, edges)
        ]
        return np.concatenate(parts)

    def _needed(self) -> list[str]:
        return [*super()._needed(), *LETTERS]


@dataclasses.dataclass(frozen=True)
class VocabularyBytePairs(VocabularyTokenizer):
    """What the `tokenizers` library makes of a tokenizer.json, without special tokens; letters that it has no word for,
    as N, are the unknown token.

    Attributes:
        stored: the file's text, as the library writes it.
    """

    stored: str
    k: int = dataclasses.field(default=0, init=False)

    kind: ClassVar[str] = "vocabulary_bpe"
    listed: ClassVar[str] = "json"
    description: ClassVar[str] = "byte pairs"

    @classmethod
    def read(cls, k: int, stored: Any) -> Self:
        if k != 0:
            raise InputError(f"tokenizer k: {k}; expected 0 for {cls.kind}, whose words differ")
        try:
            found = byte_pairs.library().Tokenizer.from_str(json.dumps(stored))
        except InputError:
            raise
        except Exception as error:  # the library raises nothing narrower
            raise InputError(f"vocabulary: the tokenizers library cannot read it ({error})") from error
        found.no_truncation()
        found.no_padding()
        _words_by_id(found)  # before its text, for which the library takes memory up to the highest id
        self = cls(found.to_str())
        if not set(checked(list(self.words))) & set(UNKNOWN):
            raise InputError(f"vocabulary: has none of {', '.join(UNKNOWN)}, the word for what is unknown")
        if not any(map(is_dna, self.words)):
            raise InputError("vocabulary: has no word of the letters A, C, G and T")
        return self

    def described(self) -> dict[str, Any]:
        return {"kind": self.kind, "k": self.k, self.listed: json.loads(self.stored)}

    @functools.cached_property
    def words(self) -> tuple[str, ...]:  # type: ignore[override]
        by_id = _words_by_id(self._encoder)
        return tuple(by_id.get(id, "") for id in range(max(by_id, default=-1) + 1))

    def codes_of(self, bases: int) -> None:
        return None

    def tokens(self, bases: Sequence[np.ndarray] | np.ndarray) -> list[np.ndarray]:
        found = self._encoder.encode_batch_fast([to_text(sequence) for sequence in bases], add_special_tokens=False)
        return [np.array(encoding.ids or [self.unknown], np.int32) for encoding in found]

    def spans(self, bases: np.ndarray) -> np.ndarray:
        offsets = self._encoder.encode(to_text(bases), add_special_tokens=False).offsets
        return np.array(offsets or [(0, len(bases))], np.int64)

    @functools.cached_property
    def _encoder(self):
        return byte_pairs.library().Tokenizer.from_str(self.stored)


def _words_by_id(encoder: Any) -> dict[int, str]:
    """Raises InputError: an id out of range."""
    by_id = {id: word for word, id in encoder.get_vocab(with_added_tokens=True).items()}
    last = max(by_id, default=-1)
    if last >= BIGGEST:
        raise InputError(f"vocabulary: {by_id[last][:20]!r} has the id {last:,}, expected 0 to {BIGGEST - 1:,}")
    return by_id


def is_dna(word: str) -> bool:
    """Whether it stands for bases that are known."""
    return bool(word) and set(word) <= set(LETTERS[:4])


def checked(words: object) -> tuple[str, ...]:
    """Words by their ids. Raises InputError: not a list of texts, none, too many, one twice."""
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        raise InputError("vocabulary: expected a list of words")
    if not 0 < len(words) <= BIGGEST:
        raise InputError(f"vocabulary: {len(words):,} words, expected 1 to {BIGGEST:,}")
    (twice, count), *_ = [*collections.Counter(filter(None, words)).most_common(1), ("", 0)]
    if count > 1:
        raise InputError(f"vocabulary: has the word {twice!r} twice; expected a word a line, each once")
    return tuple(words)
