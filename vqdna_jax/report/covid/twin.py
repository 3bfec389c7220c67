"""The control of a learned vocabulary: the same network as training begins with it."""

import jax
import numpy as np

from vqdna_jax.genome.windows import Windows
from vqdna_jax.tasks.vocabulary import Vocabulary
from vqdna_jax.tokenizers.learned import LearnedTokenizer, tensors_of

WINDOW_BP = 512  # where it is not recorded


def untrained(tokenizer: LearnedTokenizer, bases: np.ndarray, seed: int = 0) -> LearnedTokenizer:
    """Random weights, and codebooks that are k-means of what these make of `bases`, uint8 [S]."""
    task = Vocabulary(tokenizer.config, 0.5, 0.99, 0.0, 1.0, 0.0)
    width = (tokenizer.window_bp or WINDOW_BP) // tokenizer.bases_per_code * tokenizer.bases_per_code
    rows = max(1, len(bases) // width)
    windows = Windows(np.resize(bases, (rows, width)))

    with jax.set_mesh(tokenizer.mesh):
        params = jax.jit(task.init_params)((), Windows(windows.bases_BxS[:1]), jax.random.key(seed))
        codebooks = jax.jit(task.init_codebooks)(params, windows, jax.random.key(seed + 1))
        vectors = [codebook.codes_KxD() for codebook in codebooks]
    params, vectors, codebooks = jax.device_get((params, vectors, codebooks))
    tensors = tensors_of(params, vectors, [codebook.counts_K for codebook in codebooks])
    return LearnedTokenizer.from_tensors(tokenizer.config, tensors, tokenizer.mesh, tokenizer.window_bp)
