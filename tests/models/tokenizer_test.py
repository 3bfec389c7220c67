"""The tokenizer's network: its size, what a base reaches, padding, and the FLOP formula."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_sequences import random_bases

from vqdna_jax.models import layers
from vqdna_jax.models.context import decoder_of
from vqdna_jax.models.tokenizer import BASES_PER_CODE, Decoder, Encoder, TokenizerConfig

TINY = TokenizerConfig(code_size=8, width=12, blocks=2, expansion=2, stem_channels=10, dtype="float32")

pytestmark = pytest.mark.usefixtures("one_device")


def init(module, inputs):
    return jax.jit(module.init)(jax.random.key(0), inputs)


def size(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_paper_sizes():
    """Paper Sec. 3.3: 7.22 M parameters in each half; 0.98 M more for HRQ's codebooks than for VQVAE's."""
    hrq, vqvae = TokenizerConfig(), TokenizerConfig(quantizer="vqvae")
    encoder = jax.eval_shape(lambda: init(Encoder(hrq), random_bases(1, 64)))
    decoder = jax.eval_shape(lambda: init(Decoder(hrq), jnp.zeros((1, 64, 384))))
    assert round(size(encoder) / 1e6, 2) == round(size(decoder) / 1e6, 2) == 7.22
    assert hrq.codebook_sizes == (1024, 2048) and vqvae.codebook_sizes == (512,)
    assert hrq.quantised_blocks == (3, 6) and vqvae.quantised_blocks == (6,)


@pytest.mark.parametrize("bases_per_code", BASES_PER_CODE)
def test_shapes_for_every_bases_per_code(bases_per_code):
    config = dataclasses.replace(TINY, bases_per_code=bases_per_code)

    def run(module, inputs):
        return jax.eval_shape(module.apply, jax.eval_shape(lambda x: init(module, x), inputs), inputs)

    features = run(Encoder(config), random_bases(2, 64))
    assert [f.shape for f in features] == [(2, 64 // bases_per_code, 12)] * 2
    logits = run(Decoder(config), features[0])
    assert logits.shape == (2, 64, 4) and logits.dtype == jnp.float32


@pytest.mark.parametrize("bases_per_code", [1, 4, 16])
def test_receptive_field_by_change_of_one_base(bases_per_code):
    """A base changes features within receptive_codes of its own code, up to the very last of them, and none beyond."""
    config = dataclasses.replace(TINY, bases_per_code=bases_per_code)
    bases = random_bases(1, 64 * bases_per_code)
    position = 30 * bases_per_code
    changed = bases.copy()
    changed[0, position] = (changed[0, position] + 1) % 4
    encoder = Encoder(config)
    params = init(encoder, bases)
    before, after = jax.jit(encoder.apply)(params, bases)[-1], jax.jit(encoder.apply)(params, changed)[-1]
    moved = np.flatnonzero(np.any(before[0] != after[0], axis=-1)) - 30
    assert moved.min() == -config.receptive_codes
    assert config.receptive_codes - 1 <= moved.max() <= config.receptive_codes


def test_valid_makes_padding_the_same_as_a_shorter_sequence():
    bases, length = random_bases(3, 40), 27
    encoder, decoder = Encoder(TINY), Decoder(TINY)
    params = init(encoder, bases)
    padded = bases.copy()
    padded[:, length:] = 4
    valid = np.arange(40)[None] < np.full((3, 1), length)
    features = jax.jit(encoder.apply)(params, padded, valid)[-1]
    np.testing.assert_allclose(features[:, :length], jax.jit(encoder.apply)(params, bases[:, :length])[-1], atol=1e-5)
    decoder_params = init(decoder, features)
    junk = features.at[:, length:].set(7.0)
    short = jax.jit(decoder.apply)(decoder_params, features[:, :length])
    np.testing.assert_allclose(jax.jit(decoder.apply)(decoder_params, junk, valid)[:, :length], short, atol=1e-5)


def test_convolutions_are_laxs():
    x = np.random.default_rng(0).normal(size=(2, 30, 6)).astype(np.float32)
    dimensions = ("NWC", "WIO", "NWC")
    for module, groups in (
        (layers.DepthwiseConv(7, jnp.float32), 6),
        (layers.Conv1d(9, 5, jnp.float32), 1),
        (layers.Conv1d(3, 5, jnp.float32), 1),
    ):
        params = jax.jit(module.init)(jax.random.key(1), x)
        kernel = params["params"]["kernel"]
        kernel = kernel[:, None] if groups > 1 else kernel
        expected = jax.lax.conv_general_dilated(
            x, kernel, (1,), "SAME", dimension_numbers=dimensions, feature_group_count=groups
        )
        np.testing.assert_allclose(jax.jit(module.apply)(params, x), expected, atol=1e-5)


def test_unknown_bases_are_the_zero_vector():
    """N and a hidden base carry no hint of the base: all letters over 3 give the same features."""
    bases = random_bases(1, 32)
    encoder = Encoder(TINY)
    params = init(encoder, bases)
    outputs = []
    for unknown in (4, 5, 255):
        bases[0, 10] = unknown
        outputs.append(jax.jit(encoder.apply)(params, bases)[-1])
    np.testing.assert_array_equal(outputs[0], outputs[1])
    np.testing.assert_array_equal(outputs[0], outputs[2])


@pytest.mark.parametrize(("bases_per_code", "reach"), [(1, 0), (8, 0), (1, 16)])
def test_flop_formula_is_what_xla_counts(bases_per_code, reach):
    size = {"width": 96, "expansion": 4, "stem_channels": 64, "dtype": "float32"}
    config = TokenizerConfig(**size, bases_per_code=bases_per_code, reach=reach)
    bases = random_bases(4, 256)

    def count(module, inputs):
        """(FLOPs before XLA changes anything, shapes of what the module gives)"""
        params = jax.eval_shape(lambda x: init(module, x), inputs)
        lowered = jax.jit(module.apply).lower(params, inputs)
        return lowered.cost_analysis()["flops"], lowered.out_info

    encoding, features = count(Encoder(config), bases)
    decoding, _ = count(decoder_of(config), features[-1])
    counted = encoding + decoding
    lookup = 2 * sum(config.codebook_sizes) * config.width / bases_per_code
    formula = (config.flops_per_base() - lookup) * bases.size
    assert 0.85 < formula / counted < 1.05  # XLA also counts norms, GELU and residuals
