"""LoRA: it begins as nothing, ends as an addition to the weights, and is the same however and wherever it is run."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_mesh import mesh_of

from vqdna_jax import partition
from vqdna_jax.models import lora
from vqdna_jax.models.lora import TARGETS, LoraConfig
from vqdna_jax.models.transformer import Compute, Transformer, TransformerConfig

SMALL = TransformerConfig(layers=2, width=16, heads=2, hidden=24, activation="geglu", dtype="float32")
ALL = LoraConfig(rank=3, alpha=6.0, dropout=0.25, targets=".*")
FOUR = LoraConfig(rank=3, alpha=6.0, dropout=0.25, targets="v|out|up|down")  # fewer masks to compile
B, L, N, E, D, H, C, F = 8, 6, 2, 4, 16, 2, 8, 24
INWARD = {"q": (D,), "k": (D,), "v": (D,), "out": (H, C), "up": (D,), "down": (F,)}
OUTWARD = {"q": (H, C), "k": (H, C), "v": (H, C), "out": (D,), "up": (2, F), "down": (D,)}
WAYS = (Compute("unrolled"), Compute("unrolled", "dots"), Compute("scanned", "full"))
ONE = (1, 1, 1)

pytestmark = pytest.mark.usefixtures("one_device")


def inputs():
    vectors = jax.random.normal(jax.random.key(0), (B, L, N, E))
    plain = jnp.zeros((B, L), bool)
    return tuple(jax.reshard(x, partition.spec("batch", *[None] * (x.ndim - 1))) for x in (vectors, plain, plain[:, 0]))


@functools.cache
def weights():
    """On the host, every one away from its first value."""
    with jax.set_mesh(mesh_of()):
        shapes = jax.eval_shape(Transformer(SMALL).init, jax.random.key(0), *inputs())["params"]
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: 0.3 * rng.standard_normal(x.shape, np.float32), shapes)


@functools.partial(jax.jit, static_argnums=0)
def first(config, params):
    return lora.init(config, params, jax.random.key(1))


def fresh(config=ALL):
    return first(config, weights())


@functools.cache
def trained():
    """Factors on the host, as if trained: B is no longer zero."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: 0.3 * rng.standard_normal(x.shape, np.float32), fresh())


def only(target):
    return {name: {"a": f["a"], "b": f["b"] * (name == target)} for name, f in trained().items()}


@functools.partial(jax.jit, static_argnums=0)
def outputs(compute, params, factors=None, key=None):
    adapter = None if factors is None else lora.adapter(ALL, factors, key)
    return Transformer(SMALL, compute).apply({"params": params}, *inputs(), adapter=adapter)


@pytest.mark.parametrize("compute", WAYS[::2], ids=lambda c: c.layers)
def test_an_adapted_network_begins_as_the_one_it_adapts(compute):
    """To the bit, dropout or not."""
    factors = fresh()
    assert all(np.all(f["a"]) and not np.any(f["b"]) for f in factors.values())
    for found, expected in zip(outputs(compute, weights(), factors, jax.random.key(0)), outputs(compute, weights())):
        np.testing.assert_array_equal(found, expected)


def test_a_begins_with_variance_one_over_its_inputs():
    wide = fresh(LoraConfig(rank=64, targets="q|k|out"))
    for name, f in wide.items():
        assert np.var(f["a"]) == pytest.approx(1 / 16, rel=0.15) and np.prod(INWARD[name]) == 16
    assert not np.array_equal(wide["q"]["a"], wide["k"]["a"])


@pytest.mark.parametrize("compute", WAYS, ids=lambda c: f"{c.layers}-{c.remat}")
def test_merged_weights_give_what_the_adapter_gives(compute):
    plain = outputs(WAYS[0], weights())[0]
    for target in TARGETS:
        merged = lora.merge(ALL, weights(), only(target))
        found, expected = outputs(compute, weights(), only(target)), outputs(WAYS[0], merged)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), found, expected)
        assert np.abs(found[0] - plain).max() > 1e-2, target


@pytest.mark.parametrize("target", TARGETS)
def test_merging_adds_the_scaled_product_to_its_weight_and_to_no_other(target):
    before = {name: w.copy() for name, w in weights().items()}
    merged = lora.merge(ALL, weights(), only(target))
    a, b = (trained()[target][name].astype(np.float64) for name in "ab")
    a, b = a.reshape(2, -1, ALL.rank), b.reshape(2, ALL.rank, -1)
    for name, w in weights().items():
        np.testing.assert_array_equal(w, before[name])  # what goes in stays as it is
        added = merged[name] - w
        if name == "qkv" and target in ("q", "k", "v"):
            others = np.delete(added, "qkv".index(target), axis=2)
            added = added[:, :, "qkv".index(target)]
            assert not np.any(others)
        elif name != target:
            np.testing.assert_array_equal(merged[name], w)
            continue
        expected = 2.0 * np.stack([a[layer] @ b[layer] for layer in range(2)])  # alpha / rank = 2
        np.testing.assert_allclose(added, expected.reshape(added.shape), atol=1e-5)


@pytest.mark.parametrize(
    ("targets", "names"),
    [
        ("q|k|v|out", ("q", "k", "v", "out")),
        ("v|q", ("q", "v")),
        ("up|down", ("up", "down")),
        (".*", TARGETS),
        ("u", ()),  # a part of a name is none
        ("[^o].*", ("q", "k", "v", "up", "down")),
    ],
)
def test_targets_choose_parameters_and_their_number_is_the_formula(targets, names):
    config = LoraConfig(rank=5, targets=targets)
    assert config.names == names
    factors = jax.eval_shape(functools.partial(first, config), weights())
    assert tuple(sorted(factors, key=TARGETS.index)) == names
    for name, f in factors.items():
        assert f["a"].shape == (2, *INWARD[name], 5) and f["b"].shape == (2, 5, *OUTWARD[name])
    ends = {"q": D + D, "k": D + D, "v": D + D, "out": D + D, "up": D + 2 * F, "down": F + D}
    assert sum(x.size for x in jax.tree.leaves(factors)) == 2 * 5 * sum(ends[name] for name in names)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def delta(config, target, layer, factors, x, key=None):
    x = jax.reshard(x, partition.spec("batch", *[None] * (x.ndim - 1)))
    return lora.delta(lora.adapter(config, factors, key).of_layer(layer), target, x)


@pytest.mark.parametrize("target", TARGETS)
def test_delta_is_two_matrix_products(target):
    """In numpy, f64, over flattened axes."""
    x = np.random.default_rng(2).standard_normal((B, L, *INWARD[target]), np.float32)
    for layer in range(2):
        a, b = (trained()[target][name][layer].astype(np.float64) for name in "ab")
        low = x.reshape(B * L, -1).astype(np.float64) @ a.reshape(-1, ALL.rank)
        expected = 2.0 * (low @ b.reshape(ALL.rank, -1)).reshape(B, L, *OUTWARD[target])
        np.testing.assert_allclose(delta(ALL, target, layer, trained(), x), expected, rtol=1e-4, atol=1e-4)


def test_what_is_not_adapted_gets_nothing():
    adapter = lora.adapter(ALL, {"q": trained()["q"]}).of_layer(0)
    assert lora.delta(None, "q", jnp.ones((1, 1, D))) == 0.0 == lora.delta(adapter, "k", jnp.ones((1, 1, D)))


class TestDropout:
    """Seen through factors that are identities: what is added is what is left of the input."""

    config = LoraConfig(rank=D, alpha=float(D), dropout=0.25, targets="q|k")
    factors = {
        name: {"a": np.stack([np.eye(D, dtype=np.float32)] * 2), "b": np.stack([np.eye(D, dtype=np.float32)] * 2)}
        for name in "qk"
    }
    x = np.random.default_rng(3).standard_normal((16, 64, D), np.float32)

    def left(self, target="q", layer=0, key=0):
        factors = {name: f | {"b": f["b"].reshape(2, D, H, C)} for name, f in self.factors.items()}
        key = None if key is None else jax.random.key(key)
        return np.asarray(delta(self.config, target, layer, factors, self.x, key)).reshape(self.x.shape)

    def test_without_a_key_there_is_none(self):
        np.testing.assert_allclose(self.left(key=None), self.x, rtol=1e-6)

    def test_a_share_is_zero_and_the_rest_is_larger_so_that_the_mean_stays(self):
        left = self.left()
        kept = left != 0
        assert kept.mean() == pytest.approx(0.75, abs=4 * (0.75 * 0.25 / left.size) ** 0.5)
        np.testing.assert_allclose(left[kept], self.x[kept] / 0.75, rtol=1e-6)
        assert (left * self.x).mean() == pytest.approx((self.x**2).mean(), rel=0.03)

    def test_it_is_a_function_of_key_layer_and_target(self):
        first = self.left() != 0
        np.testing.assert_array_equal(first, self.left() != 0)
        for other in (self.left(key=1), self.left(layer=1), self.left(target="k")):
            assert (first == (other != 0)).mean() == pytest.approx(0.75**2 + 0.25**2, abs=0.02)  # as by chance


@functools.partial(jax.jit, static_argnums=0)
def gradients(compute, factors, params, key):
    """(loss, its gradients by the factors), with dropout."""

    def loss(factors):
        out, cls = Transformer(SMALL, compute).apply(
            {"params": params}, *inputs(), adapter=lora.adapter(FOUR, factors, key)
        )
        return jnp.mean(jnp.square(out - 1)) + jnp.mean(cls)

    return jax.value_and_grad(loss)(factors)


def four():
    return {name: trained()[name] for name in FOUR.names}


close = functools.partial(jax.tree.map, functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5))


def test_how_layers_are_run_changes_no_gradient_dropout_included():
    found = [gradients(compute, four(), weights(), jax.random.key(5)) for compute in WAYS[::2]]
    close(*found)
    assert all(np.abs(x).max() > 1e-4 for x in jax.tree.leaves(found[0][1]))  # every factor is reached
    assert abs(found[0][0] - gradients(WAYS[0], four(), weights(), jax.random.key(6))[0]) > 1e-4


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2)])
def test_meshes_agree_in_first_values_loss_and_gradient_dropout_included(shape):
    alone, expected = jax.device_get(fresh(FOUR)), gradients(WAYS[0], four(), weights(), jax.random.key(5))
    with jax.set_mesh(mesh_of(*shape)):
        factors = fresh(FOUR)
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(factors), alone)
        assert factors["v"]["b"].sharding.spec == jax.P(None, None, "tensor", None)
        assert factors["out"]["a"].sharding.spec == jax.P(None, "tensor", None, None)
        factors = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), four(), factors)
        found = gradients(WAYS[0], factors, weights(), jax.random.key(5))
        close(jax.device_get(found), jax.device_get(expected))
