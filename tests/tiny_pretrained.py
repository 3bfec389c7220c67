"""A pretrained model of random weights, small enough for tests, and its export."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from small_mesh import mesh_of
from tiny_tokenizer import save_tiny

from vqdna_jax import partition
from vqdna_jax.inference import load
from vqdna_jax.inference.saved import pretrained
from vqdna_jax.models.heads import Heads
from vqdna_jax.models.transformer import Compute, Transformer, TransformerConfig
from vqdna_jax.tasks.masked_tokens import MaskedTokens, masking_of
from vqdna_jax.tokenizers.batches import Layout, Tokens
from vqdna_jax.tokenizers.fixed import FixedTokenizer


def tiny_transformer(**changes) -> TransformerConfig:
    return TransformerConfig(**{"layers": 1, "width": 16, "heads": 2, "hidden": 32, "dtype": "float32"} | changes)


@functools.cache
def shapes_of(config: TransformerConfig, levels: tuple[int, ...], code_width: int, bases_per_code: int):
    """{"transformer", "heads"}"""

    def init():
        key, rows = jax.random.key(0), partition.spec("batch")
        shapes = [(1, 1, len(levels), code_width), (1, 1, config.width), (1, 1)]
        vectors, context, none = (jnp.zeros(shape, out_sharding=rows) for shape in shapes)
        transformer = Transformer(config).init(key, vectors, none > 0, none[:, 0] > 0)
        codes = tuple(jnp.zeros((size, code_width)) for size in levels)
        heads = Heads(bases_per_code, config.dtype).init(key, context, codes)
        return {"transformer": transformer["params"], "heads": heads["params"]}

    return partition.abstract_state(init, mesh_of())


def random_weights(config: TransformerConfig, levels: tuple[int, ...], code_width: int, bases_per_code: int, seed: int):
    """{"transformer", "heads"} with noise on every parameter: norms that are ones and heads that are zeros hide what is
    left out."""
    rng, shapes = np.random.default_rng(seed), shapes_of(config, levels, code_width, bases_per_code)
    return jax.tree.map(lambda p: 0.4 * rng.standard_normal(p.shape, np.float32), shapes)


def save_tiny_pretrained(
    directory: pathlib.Path, bases_per_code: int = 1, context: int = 64, seed: int = 0, reach: int = 0, **transformer
) -> str:
    """An export whose training windows have `context` codes, CLS included; returns its digest."""
    tokenizer_dir = directory.with_name(f"{directory.name}-tokenizer")
    save_tiny(tokenizer_dir, "hrq", bases_per_code, reach=reach)
    tokenizer, config = load.load(tokenizer_dir).tokenizer, tiny_transformer(**transformer)
    weights = random_weights(config, tokenizer.codebook_sizes, tokenizer.config.width, bases_per_code, seed)
    return pretrained.save(directory, tokenizer, config, weights, context * bases_per_code, context - config.cls, {})


def over_fixed(tokenizer: FixedTokenizer, layout: Layout, seed: int = 0):
    """(pretraining task with a tiny transformer over a fixed tokenizer, its parameters, all with noise)"""
    task = MaskedTokens(tiny_transformer(), Compute(), tokenizer.vocabulary, 8, masking_of(tokenizer), layout)

    def init():
        return task.init_params((), Tokens(jnp.ones(1, jnp.int32), jnp.zeros((1, 4), jnp.int32)), jax.random.key(0))

    shapes = partition.abstract_state(init, mesh_of())
    rng = np.random.default_rng(seed)
    return task, jax.tree.map(lambda p: 0.4 * rng.standard_normal(p.shape, np.float32), shapes)


def save_tiny_over_fixed(
    directory: pathlib.Path, tokenizer: FixedTokenizer, window_bp: int = 64, length: int = 63, card=None
) -> str:
    """An export over a fixed tokenizer, whose training windows have `length` tokens and CLS; returns its digest."""
    _, params = over_fixed(tokenizer, Layout(window_bp, length, 1.0, True))
    return pretrained.save(directory, tokenizer, tiny_transformer(), params, window_bp, length, card or {})
