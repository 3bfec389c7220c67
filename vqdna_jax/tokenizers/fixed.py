"""Tokenizers that nothing was trained for, or byte pairs alone: what they share behind the interface of learned ones.

In every vocabulary the last token is the unknown one: of whatever holds an N.
"""

import abc
import functools
import os
import pathlib
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
from jax import Array

from vqdna_jax.errors import InputError
from vqdna_jax.runtime import exports
from vqdna_jax.runtime.exports import CONFIG, FIXED_TOKENIZER
from vqdna_jax.runtime.files import replace_directory
from vqdna_jax.tokenizers.base import Advance, no_advance


class FixedTokenizer(abc.ABC):
    """Tokens int32 [L, 1], of one level. A subclass is a frozen dataclass; equal ones have one digest.

    Attributes:
        kind: its name on disk. listed: the key of what it is made from beside k.
        k: bases of a word; 0 where words differ.
        step: bases from each token to the next; None where they differ.
        bases_per_code, codes_KxD: as of any `Tokenizer`.
    """

    kind: ClassVar[str]
    listed: ClassVar[str] = "merges"
    k: int
    step: ClassVar[int | None] = None
    bases_per_code: ClassVar[int | None] = None
    codes_KxD: ClassVar[tuple[Array, ...]] = ()

    @property
    @abc.abstractmethod
    def description(self) -> str:
        """In a few words."""

    @property
    @abc.abstractmethod
    def vocabulary(self) -> int:
        """K, the unknown token included."""

    @abc.abstractmethod
    def codes_of(self, bases: int) -> int | None:
        """L of a sequence of `bases` bases; None where only encoding tells."""

    @abc.abstractmethod
    def tokens(self, bases: Sequence[np.ndarray] | np.ndarray) -> Sequence[np.ndarray] | np.ndarray:
        """int32 [L] of each sequence; an array [B, L] of an array [B, S], unless `codes_of` is None."""

    @abc.abstractmethod
    def spans(self, bases: np.ndarray) -> np.ndarray:
        """First base of each token of a sequence and the base after its last one, int64 [L, 2]."""

    @abc.abstractmethod
    def _bases(self, tokens_L: np.ndarray) -> np.ndarray:
        """uint8 [S] of tokens in range."""

    @classmethod
    @abc.abstractmethod
    def read(cls, k: int, listed: Any) -> Self:
        """The tokenizer of this k and what is `listed`. Raises InputError: the kind cannot have them."""

    def with_batch(self, codes: int) -> Self:
        """The same: no network computes tokens."""
        return self

    def described(self) -> dict[str, Any]:
        """What `load.from_described` makes it from, of JSON's types."""
        return {"kind": self.kind, "k": self.k, self.listed: []}

    @functools.cached_property
    def digest(self) -> str:
        """sha256 of what decides the tokens."""
        return exports.digest(self.described(), {})

    @property
    def phases(self) -> int:
        """As of any `Tokenizer`."""
        return 1 if self.step else max(1, self.k)

    @property
    def masked_together(self) -> int:
        """Tokens of a run that is masked as one; 0: each is masked alone."""
        return 0

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        return (self.vocabulary,)

    @property
    def unknown(self) -> int:
        return self.vocabulary - 1

    @property
    def known(self) -> int:
        """Tokens 0 to `known` - 1 have bases."""
        return self.unknown

    def without_bases(self, tokens_L: np.ndarray) -> np.ndarray:
        """Which tokens are not in the vocabulary, or have no bases, bool [L]."""
        return (tokens_L < 0) | (tokens_L >= self.known)

    def encode(self, bases: Sequence[np.ndarray], advance: Advance = no_advance) -> list[np.ndarray]:
        """Tokens int32 [L, 1] of each sequence of uint8 bases [S]; `advance` is told how many, sequence by sequence."""
        outputs = []
        for tokens_L in self.tokens(list(bases)):
            outputs.append(tokens_L[:, None])
            advance(len(tokens_L))
        return outputs

    def decode(self, codes: Sequence[np.ndarray], advance: Advance = no_advance) -> list[np.ndarray]:
        """The bases of each sequence's tokens [L, 1], uint8 [S].

        Raises InputError: a token that is not in the vocabulary, or an unknown one that has no bases.
        """
        outputs = []
        for name, tokens_Lx1 in enumerate(codes):
            tokens_L = np.asarray(tokens_Lx1)[:, 0]
            if (bad := self.without_bases(tokens_L)).any():
                at = int(bad.argmax())
                raise InputError(f"codes {name}, token {at}: the bases of {tokens_L[at]} are not known")
            outputs.append(self._bases(tokens_L))
            advance(len(tokens_L))
        return outputs

    def save(self, directory: str | os.PathLike) -> str:
        """Writes config.json, and of byte pairs tokenizer.json, whole or not at all; returns the digest.

        Raises InputError: the directory holds something else. StorageError: it cannot be written.
        """
        path = pathlib.Path(directory)
        exports.refuse_foreign(path, [FIXED_TOKENIZER], "a saved tokenizer")
        config = {"schema": FIXED_TOKENIZER, "kind": self.kind, "k": self.k}
        config |= {"vocabulary": self.vocabulary, "digest": self.digest}
        replace_directory(path, {CONFIG: exports.as_json(config)} | self._files())
        return self.digest

    def _files(self) -> dict[str, bytes]:
        """Beside config.json."""
        return {}

    @classmethod
    def read_files(cls, directory: pathlib.Path) -> Any:
        """What is listed beside config.json. Raises InputError: missing or damaged."""
        return ()
