"""The normalisation that norms share, and what layers make of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqdna_jax.models import layers

pytestmark = pytest.mark.usefixtures("one_device")


def plain(x, epsilon=1e-6):
    x = x.astype(jnp.float32)
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    return centred / jnp.sqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + epsilon)


def value_and_slope(function, x):
    def total(x):
        return jnp.sum(jnp.sin(3 * function(x).astype(jnp.float32)))

    return jax.jit(function)(x), jax.jit(jax.grad(total))(x)


@pytest.mark.parametrize("dtype, atol", [("float32", 2e-5), ("bfloat16", 6e-2)])
@pytest.mark.parametrize("shape", [(2, 5, 16), (3, 1, 7)])
def test_a_norm_and_its_gradient_are_those_of_jax(shape, dtype, atol):
    x = (5 + 3 * jax.random.normal(jax.random.key(0), shape)).astype(dtype)
    found, expected = value_and_slope(lambda x: layers.normalise(x, dtype), x), value_and_slope(plain, x)
    assert [y.dtype for y in found] == [dtype, dtype]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(*(np.asarray(y, np.float32) for y in (one, other)), rtol=atol, atol=atol)


def test_what_does_not_vary_has_norm_0_and_a_finite_gradient():
    for y in value_and_slope(layers.normalise, jnp.full((1, 2, 8), 3.0)):
        np.testing.assert_array_equal(y, jnp.zeros((1, 2, 8)))


def test_of_a_norm_what_went_in_is_not_kept():
    x = jax.random.normal(jax.random.key(0), (2, 5, 16)).astype(jnp.bfloat16)
    out, backward = jax.vjp(lambda x: layers.normalise(x, "bfloat16"), x)
    kept = [y for y in jax.tree.leaves(backward) if y.size >= x.size]
    assert len(kept) == 1
    np.testing.assert_array_equal(kept[0].astype(np.float32), out.astype(np.float32))


def test_scale_and_bias_of_a_norm_act_as_they_do_on_activations():
    """`mlp_of_norm` puts them into the weights that read them."""
    block = layers.ConvNeXtBlock(hidden=12, kernel_size=3, dtype=jnp.float32)
    x = jax.random.normal(jax.random.key(0), (2, 9, 6))
    params = jax.tree.map(
        lambda p: p + 0.3 * jax.random.normal(jax.random.key(p.size), p.shape),
        jax.jit(block.init)(jax.random.key(1), x)["params"],
    )

    whole = jax.device_get(params)

    def by_hand(params, x):
        conv, norm, mlp = params["conv"], params["norm"], params["mlp"]
        padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
        h = sum(padded[:, k : k + x.shape[1]] * conv["kernel"][k] for k in range(3)) + conv["bias"]
        h = plain(h) * norm["scale"] + norm["bias"]
        return x + jax.nn.gelu(h @ mlp["up"] + mlp["up_bias"]) @ mlp["down"] + mlp["down_bias"]

    by_hand = jax.jit(jax.numpy_rank_promotion("allow")(by_hand))

    def slopes(function, params):
        return jax.jit(jax.grad(lambda params: jnp.sum(jnp.sin(function(params, x)))))(params)

    @jax.jit
    def of_block(params, x):
        return layers.apply(block, params, x)

    np.testing.assert_allclose(of_block(params, x), by_hand(whole, x), rtol=1e-5, atol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        slopes(of_block, params),
        slopes(by_hand, whole),
    )
