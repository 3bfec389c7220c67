"""A tokenizer of random weights, small enough for tests, and its export."""

import functools
import pathlib

import jax
import numpy as np
from small_mesh import mesh_of

from vqdna_jax.inference.saved import tokenizer
from vqdna_jax.models.context import decoder_of
from vqdna_jax.models.quantize import Codebook
from vqdna_jax.models.tokenizer import Encoder, TokenizerConfig

CARD = {
    "result": {"reconstruction_accuracy": 0.987654, "codebook_1_perplexity": 7.5},
    "config": {"data": {"window_bp": 64, "global_batch": 16}, "seed": 3},
    "species": {"E. coli": 4641652, "phiX174": 5386},
    "steps": 600,
    "date": "2026-11-22",
    "command": "python -m vqdna_jax.main --config=configs/hrq.py:tiny",
    "throughput": 1.5e5,
}


def tiny_config(quantizer: str = "hrq", bases_per_code: int = 1, reach: int = 0) -> TokenizerConfig:
    return TokenizerConfig(
        quantizer,
        code_size=8,
        bases_per_code=bases_per_code,
        width=16,
        blocks=2,
        expansion=2,
        stem_channels=8,
        reach=reach,
        dtype="float32",
    )


def random_weights(config: TokenizerConfig, seed: int = 0):
    """(params, codebooks), with noise on every parameter: a bias of zero hides what leaks in from beyond the ends."""
    bases, embedding = np.zeros((1, config.bases_per_code), np.uint8), np.zeros((1, 1, config.width), np.float32)
    modules = {"encoder": (Encoder(config), bases), "decoder": (decoder_of(config), embedding)}
    key, rng = jax.random.key(seed), np.random.default_rng(seed)
    shapes = {name: jax.eval_shape(module.init, key, x)["params"] for name, (module, x) in modules.items()}
    noisy = jax.tree.map(lambda p: 0.4 * rng.standard_normal(p.shape, np.float32), shapes)
    counts = [rng.uniform(0.5, 5, size).astype(np.float32) for size in config.codebook_sizes]
    return noisy, tuple(Codebook(c, 2 * rng.standard_normal((len(c), config.width), np.float32)) for c in counts)


@functools.cache
def tiny_weights(quantizer: str, bases_per_code: int, seed: int = 0, reach: int = 0):
    with jax.set_mesh(mesh_of()):
        return random_weights(tiny_config(quantizer, bases_per_code, reach), seed)


def save_tiny(
    directory: pathlib.Path, quantizer: str = "hrq", bases_per_code: int = 1, seed: int = 0, reach: int = 0
) -> str:
    config, weights = (
        tiny_config(quantizer, bases_per_code, reach),
        tiny_weights(quantizer, bases_per_code, seed, reach),
    )
    return tokenizer.save(directory, config, *weights, CARD)
