"""What a word stands for: the letters around it, its commonest contexts, and the fine words under a coarse one."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from vqdna_jax.errors import InputError
from vqdna_jax.report.vocabulary.sample import Sample
from vqdna_jax.report.vocabulary.vocabularies import Coded, Vocabulary

BUSIEST = 12  # words of the first level
FINE = 4  # words of the second, under each
CONTEXTS = 5
AROUND = 6  # bases on both sides of a word, in its logo
CORE = 2  # bases on both sides of a word, in its contexts
LONGEST = 16  # bases of a word that are shown
NUM_BASES = 4


class Word(NamedTuple):
    """A code of a level, counted from 1 as pages count them."""

    level: int
    code: int

    def __str__(self) -> str:
        return f"{self.level}:{self.code}"


def word_of(text: str) -> Word:
    """LEVEL:CODE of an option. Raises InputError."""
    level, _, code = text.partition(":")
    if not (level.isdecimal() and code.isdecimal() and len(text) < 16):
        raise InputError(f"--word={text[:80]}: expected LEVEL:CODE, as 1:17, levels counted from 1 and codes from 0")
    return Word(int(level), int(code))


def check_words(asked: Sequence[Word], vocabulary: Vocabulary) -> None:
    """Raises InputError: a level or a code that the vocabulary has not."""
    sizes = vocabulary.coder.codebook_sizes
    for word in asked:
        if not 1 <= word.level <= len(sizes):
            raise InputError(
                f"--word={word}: {vocabulary.name} has no level {word.level}; its levels are 1 to {len(sizes)}"
            )
        if word.code >= sizes[word.level - 1]:
            last = sizes[word.level - 1] - 1
            raise InputError(
                f"--word={word}: {vocabulary.name} has no such code; those of level {word.level} are 0 to {last}"
            )


class Letters:
    """The letters of a sample, counted around words."""

    def __init__(self, vocabulary: Vocabulary, words: Coded, sample: Sample):
        self._bases = np.concatenate([stretch.bases for stretch in sample.stretches])
        self._words = words
        self.width = min(LONGEST, vocabulary.stride or int(np.median(words.stop_L - words.start_L)))
        self.background = np.bincount(self._bases, minlength=NUM_BASES)[:NUM_BASES] / max(
            1, (self._bases < NUM_BASES).sum()
        )
        self._core = self.width + 2 * CORE
        self._contexts = np.unique(self._keys(np.arange(len(self._bases) - self._core + 1)), return_counts=True)

    def described(self, word: Word, under: int | None = None) -> dict[str, Any]:
        """Its count, letters (share of each base at each place, the background taken off as bits) and contexts; of a
        fine word that comes `under` a coarse one, of both together. Raises InputError: it is not in the sample."""
        codes_L = self._words.codes_LxN[:, word.level - 1]
        is_word_L = codes_L == word.code
        both_L = is_word_L if under is None else is_word_L & (self._words.codes_LxN[:, 0] == under)
        starts_M = self._words.start_L[both_L]
        if not len(starts_M):
            raise InputError(f"--word={word}: does not occur in what is read; name one that does, or read more")
        shares_Wx4 = self._shares(starts_M)
        own = shares_Wx4[AROUND : AROUND + self.width]
        found = {"level": word.level, "code": word.code, "count": len(starts_M), "share": len(starts_M) / len(codes_L)}
        found |= {"gc": float(own[:, 1:3].sum() / max(own.sum(), 1e-9)), "letters": shares_Wx4.round(4).tolist()}
        return found | {"bits": self._bits(shares_Wx4).round(4).tolist(), "contexts": self._commonest(starts_M)}

    def context(self, word: Word) -> str:
        """The commonest letters of the word and around it; none where all have an N."""
        found = self._commonest(self._words.start_L[self._words.codes_LxN[:, word.level - 1] == word.code])
        return found[0]["letters"] if found else ""

    def _shares(self, starts_M: np.ndarray) -> np.ndarray:
        """f64 [AROUND + width + AROUND, 4]."""
        padded = np.pad(self._bases, (AROUND, AROUND + self.width), constant_values=NUM_BASES)
        rows = []
        for place in range(self.width + 2 * AROUND):
            counts = np.bincount(padded[starts_M + place], minlength=NUM_BASES)[:NUM_BASES]
            rows.append(counts / max(counts.sum(), 1))
        return np.array(rows)

    def _bits(self, shares_Wx4: np.ndarray) -> np.ndarray:
        """What each place says beyond the sample's composition."""
        return np.array([stats.entropy(row, self.background, base=2) if row.sum() else 0.0 for row in shares_Wx4])

    def _keys(self, starts_M: np.ndarray) -> np.ndarray:
        """The context at each start as a number, -1 with an N; all within the sample."""
        key_M, known_M = np.zeros(len(starts_M), np.int64), np.ones(len(starts_M), bool)
        for place in range(self._core):
            letters_M = self._bases[starts_M + place]
            key_M = key_M * NUM_BASES + letters_M
            known_M &= letters_M < NUM_BASES
        return np.where(known_M, key_M, -1)

    def _commonest(self, starts_M: np.ndarray) -> list[dict[str, Any]]:
        """Of all its contexts, with the share of its occurrences that have it, and how many times that is the share of
        the sample's places."""
        inside_M = starts_M[(starts_M >= CORE) & (starts_M + self._core - CORE <= len(self._bases))] - CORE
        keys, counts = np.unique(self._keys(inside_M), return_counts=True)
        keys, counts = keys[keys >= 0], counts[keys >= 0]
        rows = []
        for row in np.argsort(-counts, kind="stable")[:CONTEXTS]:
            share = counts[row] / counts.sum()
            everywhere = self._contexts[1][np.searchsorted(self._contexts[0], keys[row])] / self._contexts[1].sum()
            text = "".join("ACGT"[int(keys[row]) // NUM_BASES**place % NUM_BASES] for place in range(self._core)[::-1])
            rows.append({"letters": text, "share": float(share), "times": float(share / everywhere)})
        return rows


def busiest(vocabulary: Vocabulary, words: Coded, letters: Letters, asked: Sequence[Word]) -> list[dict[str, Any]]:
    """The words that are asked for, then the commonest of the first level, each with the commonest of the second under
    it."""
    counts_K = np.bincount(words.codes_LxN[:, 0])
    commonest = [Word(1, int(code)) for code in np.argsort(-counts_K, kind="stable")[:BUSIEST] if counts_K[code]]
    found = []
    for word in dict.fromkeys([*asked, *commonest]):
        below = _below(words, letters, word.code) if word.level == 1 and len(vocabulary.levels) > 1 else []
        found.append(letters.described(word) | {"asked": word in asked, "fine": below})
    return found


def _below(words: Coded, letters: Letters, code: int) -> list[dict[str, Any]]:
    """The commonest fine words of a coarse one: `share` is of its occurrences, `everywhere` of all words."""
    fine_L, is_under_L = words.codes_LxN[:, 1], words.codes_LxN[:, 0] == code
    counts_K, all_K = np.bincount(fine_L[is_under_L]), np.bincount(fine_L)
    rows = []
    for fine in np.argsort(-counts_K, kind="stable")[:FINE]:
        if counts_K[fine]:
            found = letters.described(Word(2, int(fine)), code)
            shares = {"share": float(counts_K[fine] / is_under_L.sum()), "everywhere": float(all_K[fine] / len(fine_L))}
            rows.append(found | shares)
    return rows


def levels(vocabulary: Vocabulary, words: Coded) -> dict[str, float]:
    """Bits of the second level, of it where the first is known, and the same of the first level shuffled; empty where
    there is one level."""
    if len(vocabulary.levels) < 2:
        return {}
    first_L, second_L = words.codes_LxN[:, 0], words.codes_LxN[:, 1]
    size = vocabulary.coder.codebook_sizes[1]
    shuffled_L = np.random.default_rng(0).permutation(first_L)
    alone = _entropy(second_L)
    known, by_chance = (_entropy(x_L * size + second_L) - _entropy(x_L) for x_L in (first_L, shuffled_L))
    return {"second": alone, "second_if_first_is_known": known, "if_shuffled": by_chance}


def _entropy(keys_L: np.ndarray) -> float:
    return float(stats.entropy(np.unique(keys_L, return_counts=True)[1], base=2))
