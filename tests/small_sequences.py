"""Sequences drawn at random, the same for every run."""

import numpy as np

from vqdna_jax.genome.alphabet import to_text


def random_bases(*shape: int, seed: int = 0, letters: int = 4) -> np.ndarray:
    """uint8 of this shape; of five letters the last is N."""
    return np.random.default_rng(seed).integers(0, letters, shape).astype(np.uint8)


def random_sequences(*lengths: int, seed: int = 0) -> list[np.ndarray]:
    """uint8 of each length, N among them."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 5, length).astype(np.uint8) for length in lengths]


def random_texts(count: int, length: int, seed: int = 0) -> list[str]:
    return list(map(to_text, random_bases(count, length, seed=seed)))
