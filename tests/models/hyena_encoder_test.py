"""The Hyena network that is trained here: what it sees, the published layers where it is causal, padding, meshes."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_mesh import mesh_of

from vqdna_jax import partition
from vqdna_jax.inference import load
from vqdna_jax.models import hyena, lora
from vqdna_jax.models.hyena import KEPT
from vqdna_jax.models.hyena_encoder import HyenaEncoderConfig
from vqdna_jax.models.lora import LoraConfig
from vqdna_jax.models.transformer import Compute
from vqdna_jax.rivals.importing import import_model

B, L, N, E = 8, 12, 2, 6
BOTH = HyenaEncoderConfig(2, 16, 24, slots=20, filter_width=8)
CAUSAL = dataclasses.replace(BOTH, causal=True)
GOLDEN = pathlib.Path(__file__).parents[1] / "rivals/golden/hyenadna"

pytestmark = pytest.mark.usefixtures("one_device")


def inputs(length=L, rows=B):
    """(vectors, masked, replaced): half of the rows have their masked codes replaced."""
    rng = np.random.default_rng(0)
    masked_BxL = rng.random((rows, length)) < 0.3
    return rng.standard_normal((rows, length, N, E), np.float32), masked_BxL, np.arange(rows) % 2 == 0


def weights_of(config):
    """With noise on every weight: biases that are zeros hide what is left out."""
    of = map(jnp.asarray, inputs(rows=1))
    return noisy(jax.eval_shape(config.module(Compute()).init, jax.random.key(0), *of)["params"])


def noisy(weights):
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: 0.3 * rng.standard_normal(x.shape, np.float32), weights)


def forward(config, weights, *of, compute=None):
    return config.module(compute or Compute()).apply({"params": weights}, *of)[0]


def on_device(batch):
    return partition.batch_to_devices(batch, jax.sharding.get_mesh(), len(jax.tree.leaves(batch)[0]))


def test_causal_it_is_the_network_that_is_published(tmp_path):
    """Of an import, whose file has what is fixed of its filters; after the last norm, and after one layer."""
    import_model("hyenadna", GOLDEN, tmp_path / "export")
    base = load.load(tmp_path / "export").pretrained
    published, theirs = base.transformer, jax.device_get(dict(base.weights["transformer"]))
    same = {f.name: getattr(published, f.name) for f in dataclasses.fields(hyena.HyenaLayers)}
    ours = HyenaEncoderConfig(**same, causal=True)
    weights = {name: w for name, w in theirs.items() if name not in KEPT}
    weights["project"] = np.eye(published.width, dtype=np.float32)[None]
    rng = np.random.default_rng(0)
    of = rng.standard_normal((2, 38, 1, published.width), np.float32), rng.random((2, 38)) < 0.2, np.ones(2, bool)

    @jax.jit
    def both(of):
        return [(forward(ours, weights, *of, None, n), forward(published, theirs, *of, None, n)) for n in (None, 1)]

    for found, expected in both(on_device(of)):
        assert np.abs(expected).max() > 0.5
        np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("config", [BOTH, CAUSAL], ids=["both", "causal"])
def test_what_reaches_a_code_is_of_both_sides_or_before_it_and_never_padding(config):
    """By the gradient of each code's vector, of a whole sequence and of one of five codes, which is as without
    padding."""
    vectors, _, _ = inputs(rows=2)
    weights = weights_of(config)

    @jax.jit
    def vectors_and_reach(of):
        def total(vectors, at):
            h_BxLxD = forward(config, weights, vectors, *of[1:])
            return jnp.sum(jnp.square(h_BxLxD[:, at])), h_BxLxD

        def reach(at):
            gradient, h_BxLxD = jax.grad(total, has_aux=True)(of[0], at)
            return jnp.max(jnp.abs(gradient), axis=(2, 3)), h_BxLxD

        return jax.lax.map(reach, jnp.arange(L))

    plain, lengths_B = np.zeros((2, L), bool), np.array([L, 5], np.int32)
    reach_LxBxL, h_LxBxLxD = vectors_and_reach(on_device((vectors, plain, plain[:, 0], lengths_B)))
    expected_LxL = np.tri(L, dtype=bool) if config.causal else np.ones((L, L), bool)
    np.testing.assert_array_equal(np.asarray(reach_LxBxL)[:, 0] > 1e-5, expected_LxL)
    np.testing.assert_array_equal(np.asarray(reach_LxBxL)[:5, 1, :5] > 1e-5, expected_LxL[:5, :5])
    assert not np.asarray(reach_LxBxL)[:5, 1, 5:].any()
    short = on_device((vectors[1:, :5], plain[1:, :5], plain[1:, 0]))
    bare = jax.jit(lambda of: forward(config, weights, *of))(short)
    np.testing.assert_allclose(h_LxBxLxD[0, 1, :5], bare[0], atol=1e-5)


def test_each_side_has_a_filter_of_its_own_as_long_as_the_sequence():
    """Against sums that are written out."""
    w = {name: of[0] for name, of in weights_of(BOTH).items() if name.startswith("filter")}
    filter_2LxD = np.asarray(jax.jit(lambda w: hyena.filter_of(BOTH, w | hyena.fixed_of(BOTH, L), L))(w))
    before_LxD, after_LxD = filter_2LxD[:L], filter_2LxD[-1:L:-1]  # by distance, from 0 and from 1
    assert np.abs(before_LxD[1:] - after_LxD).max() > 0.1 and not filter_2LxD[L].any()
    x_BxLxD = np.random.default_rng(2).standard_normal((2, L, 16), np.float32)
    expected = np.zeros_like(x_BxLxD)
    for at in range(L):
        for m in range(L):
            of_D = before_LxD[at - m] if m <= at else after_LxD[m - at - 1]
            expected[:, at] += of_D * x_BxLxD[:, m]
    found = jax.jit(hyena.convolved)(on_device(x_BxLxD), filter_2LxD)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_an_adapter_on_every_matrix_is_what_it_is_merged():
    config, weights, rng = LoraConfig(2, targets=".*"), weights_of(BOTH), np.random.default_rng(3)
    factors = jax.eval_shape(lambda: lora.init(config, weights, jax.random.key(0)))
    factors = jax.tree.map(lambda x: 0.2 * rng.standard_normal(x.shape, np.float32), factors)
    of = *inputs(rows=2), np.array([L, 5], np.int32)

    @jax.jit
    def both(factors, merged, of):
        adapted = forward(BOTH, weights, *of, None, lora.adapter(config, factors))
        return adapted, forward(BOTH, merged, *of), forward(BOTH, weights, *of)

    adapted, merged, plain = both(factors, lora.merge(config, weights, factors), on_device(of))
    assert set(factors) == {"q", "k", "v", "out", "up", "down"}
    np.testing.assert_allclose(adapted, merged, atol=1e-4)
    assert np.abs(adapted - plain).max() > 0.1


def loss(weights, compute, batch):
    of, lengths_B = batch
    return jnp.mean(jnp.square(forward(BOTH, weights, *of, lengths_B, compute=compute)))


def gradients_on(mesh, compute):
    """(weights as they are born on the mesh, the loss of padded sequences and its gradient of every weight)"""
    with jax.set_mesh(mesh):
        batch = partition.batch_to_devices((inputs(), np.arange(5, 5 + B, dtype=np.int32)), mesh, B)
        born = jax.jit(lambda of: BOTH.module(compute).init(jax.random.key(0), *of)["params"])(batch[0])
        placed = jax.tree.map(lambda of, x: jax.device_put(of, x.sharding), noisy(born), born)
        return born, *jax.device_get(jax.jit(jax.value_and_grad(loss), static_argnums=1)(placed, compute, batch))


@pytest.fixture(scope="module")
def on_one():
    return gradients_on(mesh_of(), Compute())


@pytest.mark.parametrize(
    ("sizes", "compute"),
    [((2, 2), Compute()), ((1, 4), Compute(layers="scanned", remat="full"))],
    ids=["data and fsdp", "fsdp, scanned"],
)
def test_meshes_and_ways_to_run_the_layers_agree(sizes, compute, on_one):
    (_, expected, gradients), (born, found, others) = on_one, gradients_on(mesh_of(*sizes), compute)
    assert found == pytest.approx(expected, rel=1e-5)
    for name, of in gradients.items():
        np.testing.assert_allclose(others[name], of, atol=1e-4 * np.abs(of).max(), err_msg=name)
        assert np.abs(of).max() > 0, name
    assert born["qkv"].addressable_shards[0].data.size * sizes[1] == born["qkv"].size
