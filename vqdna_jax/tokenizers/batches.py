"""Windows of a corpus as batches of a fixed tokenizer's tokens, of one static length."""

from typing import NamedTuple

import flax.struct
import numpy as np

from vqdna_jax.errors import InputError
from vqdna_jax.genome.alphabet import reverse_complement
from vqdna_jax.genome.corpus import Corpus
from vqdna_jax.genome.epochs import random_bits
from vqdna_jax.genome.windows import WindowBatches, evaluation_windows
from vqdna_jax.partition import AnyArray
from vqdna_jax.tokenizers.fixed import FixedTokenizer

MEASURED_WINDOWS = 1024
WHOLE_SHARE = 0.99  # of the windows, whose byte pairs all fit; more padding would help few
SLOTS = 8  # tokens and CLS are a multiple of this where nothing is lost by it
SHORTEST = 8
_STRAND = 7  # apart from what else is drawn with the seed


class Layout(NamedTuple):
    """How windows of `window_bp` bases become tokens.

    Attributes:
        length: L, without CLS.
        bases_per_token: the mean step from one token to the next.
        padded: do windows differ in tokens, so that some end before L.
    """

    window_bp: int
    length: int
    bases_per_token: float
    padded: bool


def layout(tokenizer: FixedTokenizer, window_bp: int, cls: bool, corpus: Corpus | None = None) -> Layout:
    """The layout for training on windows of `window_bp` bases.

    Tokens at every base lose the last few (as codes lose one to CLS), so that with CLS there are a multiple of SLOTS.
    Side by side, tokens are few, and those at the end may be of their own sort (single bases after k-mers), which must
    be seen in training: all are kept. Where windows differ in tokens, which needs the `corpus`, there is room for all
    tokens of WHOLE_SHARE of its training windows.

    Raises InputError: no window fits, or a window has fewer than SHORTEST tokens.
    """
    tokens = tokenizer.codes_of(window_bp)
    if tokens is None:
        if corpus is None:
            raise ValueError("windows that differ in tokens are measured on a corpus")
        most, per_token = _measure(tokenizer, window_bp, corpus)
        slots = -(-(most + cls) // SLOTS) * SLOTS
    elif tokenizer.step is None:
        slots, per_token = tokens + cls, window_bp / tokens
    else:
        slots, per_token = (tokens + cls) // SLOTS * SLOTS, float(tokenizer.step)
    if slots - cls < SHORTEST:
        raise InputError(
            f"config key data.window_bp: {window_bp} gives {max(slots - cls, 0)} tokens of kind {tokenizer.kind},"
            f" expected at least {SHORTEST}; use longer windows"
        )
    return Layout(window_bp, slots - cls, per_token, tokens is None)


def _measure(tokenizer: FixedTokenizer, window_bp: int, corpus: Corpus) -> tuple[int, float]:
    """(tokens that WHOLE_SHARE of the windows do not exceed, mean bases per token)"""
    windows = np.asarray(evaluation_windows(corpus, "train", window_bp, MEASURED_WINDOWS).bases_BxS)
    counts = [len(tokens_L) for tokens_L in tokenizer.tokens(windows)]
    return int(np.quantile(counts, WHOLE_SHARE, method="higher")), windows.size / sum(counts)


class Tokens(flax.struct.PyTreeNode):
    """Tokens int32 [B, L] of windows, of which the first `lengths_B` count. The order of the fields is that of the
    digest of a batch."""

    lengths_B: AnyArray
    tokens_BxL: AnyArray


def tokens_batch(tokenizer: FixedTokenizer, bases_BxS: np.ndarray, length: int) -> Tokens:
    """Windows of bases as so many tokens each: cut, or padded with the unknown token."""
    tokens_BxL = np.full((len(bases_BxS), length), tokenizer.unknown, np.int32)
    lengths_B = np.empty(len(bases_BxS), np.int32)
    for row, tokens_L in enumerate(tokenizer.tokens(bases_BxS)):
        lengths_B[row] = min(len(tokens_L), length)
        tokens_BxL[row, : lengths_B[row]] = tokens_L[:length]
    return Tokens(lengths_B, tokens_BxL)


class TokenBatches:
    """`batches[step]`: the windows of `WindowBatches`, each on a random strand, as tokens of one process's rows.

    The strand is drawn here: tokens of the other strand cannot be had from tokens.
    """

    def __init__(
        self,
        windows: WindowBatches,
        tokenizer: FixedTokenizer,
        length: int,
        global_batch: int,
        seed: int,
        *,
        process_index: int = 0,
        process_count: int = 1,
    ):
        """`global_batch`, `seed` and the process are those of `windows`."""
        self._windows, self._tokenizer, self._length, self._seed = windows, tokenizer, length, seed
        self._global_batch = global_batch
        first, stop = (global_batch * index // process_count for index in (process_index, process_index + 1))
        self._rows = slice(first, stop)
        self.steps_per_epoch = windows.steps_per_epoch

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, step: int) -> Tokens:
        bases_BxS = np.asarray(self._windows[step].bases_BxS)
        other_B = random_bits(self._seed, int(step), _STRAND, count=self._global_batch)[self._rows] >> 63
        bases_BxS = np.where(other_B[:, None] == 1, reverse_complement(bases_BxS), bases_BxS)
        return tokens_batch(self._tokenizer, bases_BxS, self._length)

    def summary(self) -> str:
        return self._windows.summary()
