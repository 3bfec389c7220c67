"""Networks of published models: meshes agree, what is hidden is hidden, a causal one looks back alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_mesh import mesh_of

from vqdna_jax import partition
from vqdna_jax.models.attention import alibi_slopes
from vqdna_jax.models.bert import BertConfig
from vqdna_jax.models.hyena import HyenaConfig, convolved
from vqdna_jax.models.layers import apply
from vqdna_jax.models.transformer import Compute, born

SMALL = {"layers": 2, "width": 8, "hidden": 8}
ALIBI = BertConfig(**SMALL, heads=2, activation="geglu", up_bias=False, positions="alibi", slots=0)
ROTARY = BertConfig(**SMALL, heads=2, norm="before", positions="rotary", slots=0, end=False, hidden_share=0.12)
HYENA = HyenaConfig(**SMALL, slots=20, filter_width=4)
LENGTH = 9


def noise(config) -> dict:
    """Weights of a network, all with noise."""

    def init():
        vectors, plain = jnp.zeros((1, LENGTH, 1, config.width)), jnp.zeros((1, LENGTH), bool)
        return config.module(Compute()).init(jax.random.key(0), vectors, plain, plain[:, 0])["params"]

    rng = np.random.default_rng(0)
    shapes = partition.abstract_state(init, mesh_of())
    return jax.tree.map(lambda x: 0.4 * rng.standard_normal(x.shape, np.float32), shapes)


@functools.partial(jax.jit, static_argnums=0)
def forward(config, weights, vectors, masked, lengths):
    return apply(config.module(Compute()), weights, vectors, masked, masked[:, 0], lengths)[0]


@functools.partial(jax.jit, static_argnums=0)
def backward(config, weights, *batch):
    """(the gradient of the sum of the squares of the context vectors, these)"""

    def loss(weights):
        vectors_BxLxD = forward(config, weights, *batch)
        return jnp.sum(vectors_BxLxD**2), vectors_BxLxD

    return jax.grad(loss, has_aux=True)(weights)


def on(mesh, call, config, weights, *batch):
    """What a call gives on a mesh, on the host."""
    with jax.set_mesh(mesh):
        on_mesh = partition.batch_to_devices(batch, mesh, len(batch[0]))
        return jax.device_get(call(config, born(partition.whole_on(mesh, weights)), *on_mesh))


def inputs(config, rows: int = 8):
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((rows, LENGTH, 1, config.width), np.float32)
    return vectors, np.zeros((rows, LENGTH), bool), np.full(rows, LENGTH + config.cls, np.int32)


@pytest.mark.parametrize(("config", "mesh"), [(ALIBI, (2, 2, 2)), (ROTARY, (2, 2, 2)), (HYENA, (2, 2, 1))])
def test_meshes_agree(config, mesh):
    weights, of = noise(config), inputs(config)
    its, one = on(mesh_of(), backward, config, weights, *of)
    others, other = on(mesh_of(*mesh), backward, config, weights, *of)
    np.testing.assert_allclose(one, other, atol=1e-4)
    largest = max(float(np.abs(x).max()) for x in its.values())
    for name in its:
        np.testing.assert_allclose(its[name], others[name], atol=1e-5 * largest, err_msg=name)


@pytest.mark.parametrize("config", [ALIBI, ROTARY, HYENA])
def test_a_masked_token_is_hidden_and_what_is_behind_the_end_is_not_seen(config):
    (vectors, masked, lengths), weights = inputs(config, 1), noise(config)
    masked[:, 3], lengths[:] = True, 6 + config.cls
    first = on(mesh_of(), forward, config, weights, vectors, masked, lengths)
    vectors[:, 3], vectors[:, 6:] = 5.0, -7.0
    second = on(mesh_of(), forward, config, weights, vectors, masked, lengths)
    np.testing.assert_allclose(first[:, :6], second[:, :6], atol=1e-5)
    vectors[:, 2, :, 0] += 3
    third = on(mesh_of(), forward, config, weights, vectors, masked, lengths)
    changed = np.abs(third - second).max(axis=(0, 2)) > 1e-4
    assert changed[2:6].all() and changed[:2].all() == (config is not HYENA)


@pytest.mark.usefixtures("one_device")
def test_the_long_convolution_is_the_sum_over_what_came_before():
    rng = np.random.default_rng(0)
    x, filter_LxD = rng.standard_normal((2, 11, 3), np.float32), rng.standard_normal((11, 3), np.float32)
    expected = [[np.convolve(row[:, d], filter_LxD[:, d])[:11] for d in range(3)] for row in x]
    on_device = partition.batch_to_devices(x, mesh_of(), 2)
    np.testing.assert_allclose(convolved(on_device, jnp.asarray(filter_LxD)), np.swapaxes(expected, 1, 2), atol=1e-5)


@pytest.mark.parametrize(("heads", "slopes"), [(2, [1 / 16, 1 / 256]), (3, [1 / 16, 1 / 256, 1 / 4])])
def test_slopes_of_alibi(heads, slopes):
    """Of arXiv 2108.12409: 2^(-8 i / H) for a power of two; of three heads the third is the first of four."""
    np.testing.assert_allclose(alibi_slopes(heads), slopes)
