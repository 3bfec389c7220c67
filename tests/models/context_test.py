"""Decoding by single codes: what one code says no other code moves, and what all say of a base is added up."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_sequences import random_bases

from vqdna_jax import partition
from vqdna_jax.models import context
from vqdna_jax.models.layers import apply
from vqdna_jax.models.tokenizer import TokenizerConfig
from vqdna_jax.runtime import typed

CODES = 10

pytestmark = pytest.mark.usefixtures("one_device")


def config_of(bases_per_code: int, reach: int) -> TokenizerConfig:
    size = {"code_size": 4, "width": 8, "blocks": 2, "expansion": 2, "stem_channels": 6, "dtype": "float32"}
    return TokenizerConfig(bases_per_code=bases_per_code, reach=reach, **size)


@pytest.fixture(params=[(1, 3), (2, 4), (4, 4)])
def decoded(request):
    """(config, parameters with noise on each, an embedding)"""
    config, rng = config_of(*request.param), np.random.default_rng(0)
    embedding = rng.normal(size=(2, CODES, config.width)).astype(np.float32)
    shapes = jax.eval_shape(context.decoder_of(config).init, jax.random.key(0), embedding)["params"]
    return config, jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes), embedding


def test_the_gradient_of_a_prediction_reaches_its_own_code_alone(decoded):
    config, params, embedding = decoded

    @jax.jit
    def gradients(embedding_BxLxD):
        def of_code(x, code):
            return jnp.sum(apply(context.ContextDecoder(config), params, x)[:, code] ** 2)

        return [jax.grad(of_code)(embedding_BxLxD, code) for code in range(CODES)]

    on_device = jax.reshard(jnp.asarray(embedding), partition.spec("batch", None, None))
    for code, gradient in enumerate(np.asarray(x) for x in gradients(on_device)):
        moved = np.any(gradient != 0, axis=-1)
        assert moved[:, code].all() and moved.sum() == len(embedding)


def test_bases_around_a_code_are_those_of_the_window_and_n_beyond_it(decoded):
    config = decoded[0]
    r, reach = config.bases_per_code, config.reach
    bases = random_bases(2, CODES * r)
    found = np.asarray(jax.jit(context.around, static_argnums=0)(config, bases))
    padded = np.pad(bases, ((0, 0), (reach, reach)), constant_values=4)
    for code in range(CODES):
        np.testing.assert_array_equal(found[:, code], padded[:, code * r : code * r + 2 * reach + r])


def test_scores_of_a_base_are_the_sum_over_the_codes_around_it(decoded):
    config, params, embedding = decoded
    r, reach, valid = config.bases_per_code, config.reach, np.arange(CODES)[None] < np.array([[CODES], [7]])
    logits = np.asarray(jax.jit(context.ContextDecoder(config).apply)({"params": params}, embedding), np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = np.zeros((2, CODES * r + 2 * reach, 4))
    for row, code in zip(*np.nonzero(valid)):
        expected[row, code * r : code * r + 2 * reach + r] += log_p[row, code]
    found = jax.jit(context.rebuild, static_argnums=0)(config, params, embedding, valid)
    np.testing.assert_allclose(found, expected[:, reach:-reach], rtol=1e-4, atol=1e-4)


def test_a_reach_is_of_whole_codes():
    fields = config_of(4, 8).described()
    assert typed.read(TokenizerConfig, fields) == config_of(4, 8)
    with pytest.raises(typed.BadField, match=r"model\.reach: found 6, expected a multiple of model\.bases_per_code=4"):
        typed.read(TokenizerConfig, fields | {"reach": 6}, "model.")
