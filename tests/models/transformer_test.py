"""The transformer: how it is run changes nothing, positions are relative, windows are local, sizes are the paper's."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import mcm
from vqdna_jax import partition, stages
from vqdna_jax.models import attention, transformer
from vqdna_jax.models.heads import Heads
from vqdna_jax.models.transformer import Compute, Transformer, TransformerConfig

SMALL = TransformerConfig(layers=2, width=32, heads=4, hidden=48, dtype="float32")
B, L, N, E = 4, 24, 2, 8

pytestmark = pytest.mark.usefixtures("one_device")


def inputs(length=L):
    vectors = jax.random.normal(jax.random.key(0), (B, length, N, E))
    masked = jax.random.bernoulli(jax.random.key(1), 0.25, (B, length))
    return on_mesh(vectors, masked, jnp.arange(B) % 2 == 0)


def on_mesh(*arrays):
    return tuple(jax.reshard(x, partition.spec("batch", *[None] * (x.ndim - 1))) for x in arrays)


def noisy(params):
    """Every parameter away from its first value: zeros and ones hide mistakes."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(7), len(leaves))
    return jax.tree.unflatten(tree, [x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys)])


def weights(config):
    return noisy(jax.jit(Transformer(config).init)(jax.random.key(0), *inputs()))


def run(config, params, *arguments):
    return jax.jit(Transformer(config).apply)(params, *on_mesh(*arguments))


def test_unrolled_scanned_and_rematerialised_agree_in_value_and_gradient():
    params, given, gradients, programs = weights(SMALL), inputs(), {}, {}
    for layers in transformer.LOOPS:
        for remat in transformer.REMATS:
            network = Transformer(SMALL, Compute(layers, remat))

            def loss(params, network=network):
                return jnp.sum(jnp.square(network.apply(params, *given)[0]))

            traced = jax.jit(jax.value_and_grad(loss)).trace(params)
            programs[layers, remat] = str(traced.jaxpr)
            gradients[layers, remat] = traced.lower().compile()(params)
    assert len(set(programs.values())) == 6  # each setting really is another program
    assert all(("scan" in program) == (layers == "scanned") for (layers, _), program in programs.items())
    assert all(("remat" in program or "checkpoint" in program) == (r != "none") for (_, r), program in programs.items())
    expected = gradients.pop(("unrolled", "none"))
    for found in gradients.values():
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-4), expected, found)


def reference_attention(q, k, v, seen_LxL):
    """In numpy, f64, one head at a time."""
    out = np.zeros(q.shape)
    for b in range(q.shape[0]):
        for h in range(q.shape[2]):
            scores = q[b, :, h].astype(np.float64) @ k[b, :, h].T / np.sqrt(q.shape[-1])
            scores = np.where(seen_LxL, scores, -np.inf)
            p = np.exp(scores - scores.max(axis=1, keepdims=True))
            out[b, :, h] = p / p.sum(axis=1, keepdims=True) @ v[b, :, h]
    return out


@pytest.mark.parametrize("kernel", ["xla", "cpu"])
@pytest.mark.parametrize("window", [0, 3])
def test_attention_is_softmax_of_scaled_products_full_or_in_a_window(window, kernel):
    q, k, v = np.random.default_rng(0).normal(size=(3, 2, 17, 3, 8)).astype(np.float32)
    heads = [jax.reshard(x, partition.spec(*attention.HEADS)) for x in (q, k, v)]
    distance = np.abs(np.arange(17)[:, None] - np.arange(17))
    expected = reference_attention(q, k, v, distance <= window if window else distance >= 0)
    found = jax.jit(functools.partial(attention.attention, kernel=kernel, window=window))(*heads)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_window_bounds_what_reaches_a_code_by_gradient():
    """Three layers that see two codes on each side: six, and not one more."""
    local = dataclasses.replace(SMALL, layers=3, window=2, cls=False)
    params, (vectors, masked, replaced) = weights(local), inputs()

    def middle(vectors):
        return jnp.sum(Transformer(local).apply(params, vectors, masked & False, replaced)[0][:, 12])

    reach_L = np.abs(jax.jit(jax.grad(middle))(vectors)).sum(axis=(0, 2, 3)) > 0
    np.testing.assert_array_equal(np.flatnonzero(reach_L), np.arange(6, 19))


def test_padding_is_not_seen():
    params, (vectors, masked, replaced) = weights(SMALL), inputs()
    lengths = jnp.array([25, 20, 11, 2])  # CLS included
    out, cls = run(SMALL, params, vectors, masked, replaced, lengths)
    for row, length in enumerate(np.asarray(lengths)):
        alone, alone_cls = run(
            SMALL, params, *(x[row : row + 1, : length - 1] for x in (vectors, masked)), replaced[row : row + 1]
        )
        np.testing.assert_allclose(out[row, : length - 1], alone[0], atol=2e-5)
        np.testing.assert_allclose(cls[row], alone_cls[0], atol=2e-5)


def test_a_replaced_code_says_nothing_and_a_marked_one_keeps_its_vector():
    params, (vectors, masked, replaced) = weights(SMALL), inputs()

    def total(vectors):
        out, _ = Transformer(SMALL).apply(params, vectors, masked, replaced)
        return jnp.sum(jnp.square(out))

    reach_BxL = np.abs(jax.jit(jax.grad(total))(vectors)).sum(axis=(2, 3)) > 0
    np.testing.assert_array_equal(reach_BxL, ~np.asarray(masked & replaced[:, None]))
    plain, _ = run(SMALL, params, vectors, masked & False, replaced)
    marked, _ = run(SMALL, params, vectors, masked, replaced)
    assert (np.abs(plain - marked).max(axis=(1, 2)) > 1e-3).all()


@pytest.mark.parametrize("activation", transformer.ACTIVATIONS)
def test_flops_by_formula_are_xlas_count(activation):
    config = dataclasses.replace(SMALL, activation=activation, cls=False, width=64, hidden=96)
    params = jax.eval_shape(Transformer(config).init, jax.random.key(0), *inputs(64))

    def forward(params):
        return Transformer(config).apply(params, *inputs(64))[0]

    counted = jax.jit(forward).lower(params).compile().cost_analysis()["flops"]
    embedding = 2 * B * 64 * N * E * 64
    assert config.flops_per_code(64) * B * 64 + embedding == pytest.approx(counted, rel=0.1)


def sizes(preset, activation="gelu"):
    model = stages.read_settings(mcm.get_config(preset)).model.network(512)
    codes = tuple(jax.ShapeDtypeStruct((size, 384), jnp.float32) for size in (1024, 2048))
    shapes = [jax.ShapeDtypeStruct(s, d) for s, d in (((1, 8, 2, 384), jnp.float32), ((1, 8), bool), ((1,), bool))]
    network = jax.eval_shape(Transformer(model).init, jax.random.key(0), *shapes)
    h = jax.ShapeDtypeStruct((1, 2, model.width), model.dtype)
    heads = jax.eval_shape(Heads(1, model.dtype).init, jax.random.key(0), h, codes)
    return sum(leaf.size for leaf in jax.tree.leaves((network, heads)))


def test_the_presets_have_the_sizes_they_claim():
    """base: within 2 % of the paper's 86 M, heads and embedding included, on the paper's tokenizer."""
    assert sizes("base") == pytest.approx(86e6, rel=0.02)
    assert sizes("large") == pytest.approx(1.2e9, rel=0.05)


def test_the_kernel_follows_the_platform():
    choose = attention.best_kernel
    assert choose("tpu", 512, 0, "bfloat16") == "splash" and choose("tpu", 100, 0, "bfloat16") == "xla"
    assert choose("gpu", 512, 0, "bfloat16") == "cudnn" and choose("gpu", 512, 0, "float32") == "xla"
    assert choose("gpu", 512, 64, "bfloat16") == "xla" and choose("cpu", 512, 0, "bfloat16") == "cpu"


def test_heads_begin_at_even_odds_and_score_by_code_vectors():
    codes = tuple(jax.random.normal(jax.random.key(n), (size, E)) for n, size in enumerate((6, 10)))
    h = jax.random.normal(jax.random.key(3), (B, 5, 32))
    heads = Heads(bases_per_code=4, dtype="float32")
    params = heads.init(jax.random.key(0), h, codes)
    logits, bases = heads.apply(params, h, codes)
    assert [x.shape for x in logits] == [(B, 5, 6), (B, 5, 10)] and bases.shape == (B, 5, 4, 4)
    assert not any(np.any(x) for x in (*logits, bases))
    logits, _ = heads.apply(noisy(params), h, codes)
    doubled, _ = heads.apply(noisy(params), h, (codes[0].at[3].set(codes[0][2]), codes[1]))
    bias = noisy(params)["params"]["code_1_bias"]
    np.testing.assert_allclose(doubled[0][..., 3] - bias[3], logits[0][..., 2] - bias[2], atol=1e-5)
