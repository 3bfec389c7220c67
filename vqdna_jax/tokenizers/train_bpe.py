"""Byte pairs learned from a corpus."""

from collections.abc import Iterable

from vqdna_jax.genome.alphabet import to_text
from vqdna_jax.genome.corpus import Corpus
from vqdna_jax.genome.windows import WindowBatches
from vqdna_jax.tokenizers import byte_pairs
from vqdna_jax.tokenizers.byte_pairs import BytePairs

PIECE_BP = 1000  # bases of a word that byte pairs are learnt from; the time to learn grows with it


def train_bpe(corpus: Corpus, vocabulary: int = 4096, bases: int = 10_000_000, seed: int = 0) -> BytePairs:
    """Byte pairs of about `bases` bases of a corpus's training split, drawn in proportion to its species.

    `vocabulary`: K, the unknown token included. Raises InputError: the text has too few pairs for it.
    """
    return BytePairs(byte_pairs.learn(_pieces(corpus, bases, seed), vocabulary - 1))


def _pieces(corpus: Corpus, bases: int, seed: int) -> Iterable[str]:
    """Pieces without N, PIECE_BP long."""
    batch = 64
    batches = WindowBatches(corpus, "train", PIECE_BP, batch, seed)
    for step in range(-(-bases // (batch * PIECE_BP))):
        yield from map(to_text, batches[step].bases_BxS)
