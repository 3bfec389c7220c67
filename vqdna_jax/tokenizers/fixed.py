"""Conventional tokenizers of DNA, behind the interface of the learned ones: single bases, k-mers, byte pairs.

Legend: S bases, L tokens, B windows, K vocabulary. Bases are uint8, A C G T N = 0 1 2 3 4. In every vocabulary the last
token is the unknown one: of whatever holds an N.
"""

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vqdna_jax.errors import InputError
from vqdna_jax.genome.alphabet import N, to_bases
from vqdna_jax.runtime import exports
from vqdna_jax.runtime.exports import CONFIG
from vqdna_jax.runtime.files import replace_directory
from vqdna_jax.tokenizers import byte_pairs
from vqdna_jax.tokenizers.byte_pairs import Merges

FIXED_TOKENIZER = "vqdna-fixed-tokenizer/1"
SCHEMAS = {FIXED_TOKENIZER: {"kind", "k", "vocabulary", "digest"}}
MERGES = "tokenizer.json"
# The k of the models known for them: DNABERT (doi 10.1093/bioinformatics/btab083) and the Nucleotide Transformer
# (doi 10.1038/s41592-024-02523-z). Byte pairs are DNABERT-2's (arXiv 2306.15006).
KINDS = {"one_hot": 1, "overlapping": 3, "kmer": 6, "bpe": 0}
LONGEST_K = 8  # sums of base-4 digits stay in int32


@dataclasses.dataclass(frozen=True)
class FixedTokenizer:
    """`kind`: one of KINDS.

    one_hot: one base a token, K = 5. overlapping: a k-mer at every base, K = 4^k + 1; a sequence shorter than k is one
    unknown token. kmer: k-mers side by side from the first base on, and single bases where less than k are left,
    K = 4^k + 5. bpe: byte pairs, and a run of N is one unknown token.

    Attributes:
        k: bases of a k-mer; -1: what KINDS has, which for one_hot and bpe is all there is.
        merges: of byte pairs, in the order they were learnt.

    Raises InputError: an unknown kind, a k or merges that the kind does not have.
    """

    kind: str
    k: int = -1
    merges: Merges = ()

    def __post_init__(self):
        if self.kind not in KINDS:
            raise InputError(f"tokenizer kind: {self.kind!r}; expected one of {', '.join(KINDS)}")
        if self.k == -1:
            object.__setattr__(self, "k", KINDS[self.kind])
        allowed = range(1, LONGEST_K + 1) if self._has_k else (KINDS[self.kind],)
        if self.k not in allowed:
            raise InputError(f"tokenizer k: {self.k}; expected {allowed[0]} to {allowed[-1]} for {self.kind}")
        if bool(self.merges) != (self.kind == "bpe"):
            raise InputError(f"tokenizer merges: {len(self.merges)} of them for {self.kind}; only bpe has merges")

    @property
    def _has_k(self) -> bool:
        return self.kind in ("overlapping", "kmer")

    @property
    def vocabulary(self) -> int:
        """K, the unknown token included."""
        if self.kind == "bpe":
            return len(self._pieces) + 1
        return 4**self.k + (5 if self.kind == "kmer" else 1)

    @property
    def unknown(self) -> int:
        return self.vocabulary - 1

    @functools.cached_property
    def digest(self) -> str:
        """sha256 of what decides the tokens."""
        return exports.digest(self.described(), {})

    def described(self) -> dict[str, Any]:
        """What `from_described` makes it from, of JSON's types."""
        return {"kind": self.kind, "k": self.k, "merges": [list(pair) for pair in self.merges]}

    def encode_bases(
        self, bases: Sequence[np.ndarray], advance: Callable[[int], None] = lambda tokens: None
    ) -> list[np.ndarray]:
        """Tokens int32 [L, 1] of each sequence of uint8 bases [S]; `advance` is told how many, sequence by sequence."""
        rows = self._byte_pairs(bases) if self.kind == "bpe" else map(self._words, bases)
        outputs = []
        for tokens_L in rows:
            outputs.append(tokens_L[:, None])
            advance(len(tokens_L))
        return outputs

    def encode_windows(self, bases_BxS: np.ndarray) -> Sequence[np.ndarray]:
        """Tokens int32 [L] of each window, together an array [B, L] unless the kind is bpe."""
        return self._byte_pairs(bases_BxS) if self.kind == "bpe" else self._words(bases_BxS)

    def spans(self, bases: np.ndarray) -> np.ndarray:
        """First base of each token of a sequence and the base after its last one, int64 [L, 2]."""
        size = len(bases)
        if self.kind == "bpe":
            stops_L = np.cumsum(self._lengths(self._byte_pairs([bases])[0], bases))
            return np.stack([np.append(0, stops_L)[:-1], stops_L], axis=1)
        if self.kind != "kmer":
            starts_L = np.arange(max(size - self.k + 1, min(size, 1)))
            return np.stack([starts_L, np.minimum(starts_L + self.k, size)], axis=1)
        cut = size - size % self.k
        starts_L = np.append(np.arange(0, cut, self.k), np.arange(cut, size))
        return np.stack([starts_L, np.append(starts_L[1:], size)[: len(starts_L)]], axis=1)

    def decode(self, tokens_Lx1: np.ndarray) -> np.ndarray:
        """The bases of a sequence's tokens, uint8 [S]; of one_hot with its Ns.

        Raises InputError: a token that is not in the vocabulary, or is unknown and not of one_hot.
        """
        tokens_L = np.asarray(tokens_Lx1)[:, 0]
        known = self.vocabulary - (self.kind != "one_hot")
        if (bad := (tokens_L < 0) | (tokens_L >= known)).any():
            at = int(bad.argmax())
            raise InputError(f"token {at}: {tokens_L[at]} is not in 0 to {known - 1}, so its bases are not known")
        if self.kind == "one_hot":
            return tokens_L.astype(np.uint8)
        if self.kind == "bpe":
            return to_bases("".join([self._pieces[token] for token in tokens_L]))
        place_k = 4 ** np.arange(self.k)[::-1]
        if self.kind == "overlapping":
            rest = tokens_L[-1:, None] // place_k[1:] % 4
            return np.append(tokens_L // place_k[0], rest).astype(np.uint8)
        single_L = tokens_L >= 4**self.k
        whole = tokens_L[~single_L, None] // place_k % 4
        return np.append(whole, tokens_L[single_L] - 4**self.k).astype(np.uint8)

    def save(self, directory: str | os.PathLike) -> str:
        """Writes config.json, and of byte pairs tokenizer.json, whole or not at all; returns the digest.

        Raises InputError: the directory holds something else, or cannot be written.
        """
        path = pathlib.Path(directory)
        exports.refuse_foreign(path, SCHEMAS, "a saved tokenizer")
        config = {"schema": FIXED_TOKENIZER, "kind": self.kind, "k": self.k}
        config |= {"vocabulary": self.vocabulary, "digest": self.digest}
        files = {CONFIG: (json.dumps(config, indent=2) + "\n").encode()}
        if self.kind == "bpe":
            files[MERGES] = byte_pairs.to_json(self.merges).encode()
        replace_directory(path, files)
        return self.digest

    def _words(self, bases: np.ndarray) -> np.ndarray:
        """int32 [..., L] of bases [..., S], of every kind but bpe."""
        size, k = bases.shape[-1], self.k
        if self.kind != "kmer":
            if 0 < size < k:
                return np.full((*bases.shape[:-1], 1), self.unknown, np.int32)
            return np.minimum(_base_4(bases, k, 1), self.unknown)  # a word with an N is 4^k or more
        cut = size - size % k
        words, rest = _base_4(bases[..., :cut], k, k), bases[..., cut:].astype(np.int32) + 4**k
        return np.concatenate([np.where(words < 4**k, words, self.unknown), rest], axis=-1)  # 4^k + N is unknown

    @functools.cached_property
    def _pieces(self) -> list[str]:
        return list(byte_pairs.vocabulary(self.merges))

    @functools.cached_property
    def _encoder(self):
        return byte_pairs.encoder(self.merges)

    def _byte_pairs(self, bases: Sequence[np.ndarray]) -> list[np.ndarray]:
        """int32 [L] of each sequence."""
        return byte_pairs.encode(self._encoder, bases, self.unknown)

    def _lengths(self, tokens_L: np.ndarray, bases: np.ndarray) -> np.ndarray:
        """Bases of each byte-pair token of a sequence."""
        lengths_L = np.array([*map(len, self._pieces), 0])[tokens_L]
        edges = np.flatnonzero(np.diff(bases == N, prepend=False, append=False))
        lengths_L[tokens_L == self.unknown] = np.diff(edges)[::2]
        return lengths_L


def from_described(described: Mapping[str, Any], where: str) -> FixedTokenizer:
    """The inverse of `FixedTokenizer.described`. Raises InputError that begins with `where`."""
    if not isinstance(described, dict) or set(described) != {"kind", "k", "merges"}:
        raise InputError(f"{where}: expected kind, k and merges; copy the directory again")
    if not isinstance(described["kind"], str) or type(described["k"]) is not int:
        raise InputError(f"{where}: kind {described['kind']!r} and k {described['k']!r}, expected text and an integer")
    try:
        return FixedTokenizer(described["kind"], described["k"], byte_pairs.checked(described["merges"], "merges"))
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def load(directory: str | os.PathLike) -> FixedTokenizer:
    """Reads what `save` wrote. Raises InputError: a file is missing, damaged or changed."""
    path = pathlib.Path(directory)
    config = exports.read_config(path / CONFIG, SCHEMAS)
    merges = byte_pairs.from_json(path / MERGES) if config["kind"] == "bpe" else ()
    described = {"kind": config["kind"], "k": config["k"], "merges": merges}
    tokenizer = from_described(described, str(path / CONFIG))
    exports.check_digest(path, tokenizer.digest, config["digest"])
    return tokenizer


def _base_4(bases: np.ndarray, k: int, step: int) -> np.ndarray:
    """Every `step`-th word of k bases as a number, int32 [..., L]; of one with an N the number is 4^k or more."""
    digits = np.array([0, 1, 2, 3, 4**k], np.int32)[bases]
    last = max(0, digits.shape[-1] - k + 1)
    total = digits[..., 0:last:step].copy()
    for i in range(1, k):
        total *= 4
        total += digits[..., i : last + i : step]
    return total
