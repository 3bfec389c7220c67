"""A tokenizer as its training leaves it, saved with its card; `tokenizers.load` reads it."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from vqdna_jax.inference.saved import cards
from vqdna_jax.models.layers import Params
from vqdna_jax.models.quantize import Codebook
from vqdna_jax.models.tokenizer import TokenizerConfig
from vqdna_jax.tokenizers.learned import LearnedTokenizer, tensors_of


def save(
    directory: str | os.PathLike,
    config: TokenizerConfig,
    params: Params,
    codebooks: Sequence[Codebook],
    card: Mapping[str, Any],
) -> str:
    """Writes a tokenizer so that `load` gives it back bit by bit, and returns its digest.

    The directory appears whole or not at all; an export that is already there is replaced, other files in it are kept.
    Call it on one process; arrays that span processes must be replicated.

    Args:
        params: {"encoder": ..., "decoder": ...} as in the train state; `codebooks`: one per level.
        card: what the model card tells, every key optional: result (flat metrics), config (of the run), species
            ({name: training bases}), corpus_digest, init_from_digest (of what the run began with), steps, date,
            command, throughput (bases per second).

    Raises InputError: the directory holds something else. StorageError: it cannot be written.
    """
    codebooks = jax.device_get(tuple(codebooks))
    codes = [codebook.sums_KxD / np.maximum(codebook.counts_K, 1e-12)[:, None] for codebook in codebooks]
    tensors = tensors_of(params, codes, [codebook.counts_K for codebook in codebooks])
    run = card.get("config") or {}
    window_bp, hidden_share = run.get("data", {}).get("window_bp"), run.get("hidden_share")
    tokenizer = LearnedTokenizer.from_tensors(config, tensors, None, window_bp, hidden_share)
    return tokenizer.save(directory, cards.facts(card), cards.of_tokenizer(config, tokenizer.digest, card))
