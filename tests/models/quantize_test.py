"""Quantization against an obvious NumPy implementation, the EMA identities, and the same numbers on every mesh."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_mesh import mesh_of

from vqdna_jax import partition
from vqdna_jax.models import quantize
from vqdna_jax.models.quantize import Assignments, Codebook

B, L, D, SIZES = 8, 24, 5, (6, 11)

pytestmark = pytest.mark.usefixtures("one_device")

# An operation alone is compiled as slowly as all of them at once.
assign, statistics = jax.jit(quantize.assign), jax.jit(quantize.statistics, static_argnums=(2, 4))
hierarchical = jax.jit(quantize.hierarchical, static_argnums=2)
ema_update = jax.jit(quantize.ema_update, static_argnums=(2, 3, 4))


def random_inputs(seed=0):
    rng = np.random.default_rng(seed)
    features = [rng.normal(size=(B, L, D)).astype(np.float32) for _ in SIZES]
    codes = [rng.normal(size=(size, D)).astype(np.float32) for size in SIZES]
    return features, codes


def put(x):
    """As an activation: batch over the mesh's batch axes."""
    return jax.reshard(jnp.asarray(x), partition.spec("batch", *[None] * (np.ndim(x) - 1)))


def hrq_in_numpy(features, codebooks):
    """Paper Eq. 6, a token and a code at a time."""
    shape = features[0].shape[:2]
    codes = np.zeros((*shape, len(codebooks)), int)
    embedding, commitment = np.zeros(features[0].shape), 0.0
    for b in range(shape[0]):
        for i in range(shape[1]):
            previous = None
            for n, codebook in enumerate(codebooks):
                z = features[n][b, i].astype(np.float64)
                h = z if previous is None else 2 * z - previous
                distances = [np.linalg.norm(h - e) for e in codebook]
                codes[b, i, n] = int(np.argmin(distances))
                previous = codebook[codes[b, i, n]].astype(np.float64)
                embedding[b, i] += previous / len(codebooks)
                commitment += np.sum((h - previous) ** 2)
    return codes, embedding, commitment / features[0].size


def test_hierarchical_is_the_papers_equations():
    features, codebooks = random_inputs()
    got = hierarchical([put(z) for z in features], [jnp.asarray(c) for c in codebooks], jnp.float32)
    codes, embedding, commitment = hrq_in_numpy(features, codebooks)
    np.testing.assert_array_equal(got.codes_BxLxN, codes)
    np.testing.assert_allclose(got.embedding_BxLxD, embedding, atol=1e-6)
    np.testing.assert_allclose(got.commitment, commitment, rtol=1e-5)
    np.testing.assert_allclose(
        quantize.embed(got.codes_BxLxN, [jnp.asarray(c) for c in codebooks]), embedding, atol=1e-6
    )


def test_one_level_is_plain_vq():
    features, codebooks = random_inputs()
    got = hierarchical([put(features[0])], [jnp.asarray(codebooks[0])], jnp.float32)
    distances = np.linalg.norm(features[0][:, :, None] - codebooks[0], axis=-1)
    np.testing.assert_array_equal(got.codes_BxLxN[..., 0], distances.argmin(-1))


@pytest.mark.parametrize("tokens", [1, 1000, 1024, 1025, 3000])
def test_nearest_in_blocks_is_nearest_at_once(tokens):
    rng = np.random.default_rng(tokens)
    z, codes = rng.normal(size=(tokens, 16)).astype(np.float32), rng.normal(size=(37, 16)).astype(np.float32)
    distances = ((z[:, None].astype(np.float64) - codes) ** 2).sum(-1)
    np.testing.assert_array_equal(jax.jit(quantize.nearest)(z, codes), distances.argmin(-1))


def test_no_scores_of_all_tokens_are_kept_on_the_cpu_either():
    z, codes = jax.ShapeDtypeStruct((65536, 32), jnp.float32), jax.ShapeDtypeStruct((512, 32), jnp.float32)
    memory = jax.jit(quantize.nearest).lower(z, codes).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 65536 * 512 * 4 / 8


def test_bf16_finds_the_nearest_of_the_rounded_codes_far_from_the_origin():
    """Mean 5, spread 0.1: with norms of unrounded codes most lookups would be wrong."""
    rng = np.random.default_rng(0)
    z = jnp.asarray(5 + 0.1 * rng.normal(size=(2000, 64)), jnp.bfloat16)
    codes = jnp.asarray(5 + 0.1 * rng.normal(size=(256, 64)), jnp.float32)
    rounded = np.asarray(codes.astype(jnp.bfloat16), np.float64)
    exact = ((np.asarray(z, np.float64)[:, None] - rounded) ** 2).sum(-1).argmin(-1)
    assert np.mean(np.asarray(jax.jit(quantize.nearest)(z, codes)) == exact) > 0.99


def test_gradients_reach_the_features_and_never_the_codebook():
    features, codebooks = random_inputs()

    def embedding_sum(features, codebooks):
        return jnp.sum(hierarchical(features, codebooks, jnp.float32).embedding_BxLxD)

    def commitment(features, codebooks):
        return hierarchical(features, codebooks, jnp.float32).commitment

    features, codebooks = [put(z) for z in features], [jnp.asarray(c) for c in codebooks]
    by_feature, by_code = jax.jit(jax.grad(embedding_sum, argnums=(0, 1)))(features, codebooks)
    # straight through: d mean(H1, H2) / d(Z1, Z2) with H1 = Z1, H2 = 2 Z2 - e
    np.testing.assert_allclose(by_feature[0], 0.5, rtol=1e-6)
    np.testing.assert_allclose(by_feature[1], 1.0, rtol=1e-6)
    by_commitment, by_code_too = jax.jit(jax.grad(commitment, argnums=(0, 1)))(features, codebooks)
    assert all(np.abs(g).max() > 0 for g in by_commitment)
    assert all(not np.any(g) for g in by_code + by_code_too)


def test_statistics_are_counts_sums_and_vectors_of_the_batch():
    (h, _), (codebook, _) = random_inputs()
    codes = assign(put(h), codebook)
    new = jax.device_get(statistics(put(h), codes, SIZES[0], jax.random.key(0)))
    codes = np.asarray(codes)
    for k in range(SIZES[0]):
        assert new.counts_K[k] == (codes == k).sum()
        np.testing.assert_allclose(new.sums_KxD[k], h[codes == k].sum(0), atol=1e-5)
    rows = {tuple(row) for row in h.reshape(-1, D)}
    assert all(tuple(candidate) in rows for candidate in np.asarray(new.candidates_KxD))


@pytest.mark.parametrize("shape", [(8, 1), (4, 2), (1, 4)])
@pytest.mark.parametrize("every", [1, 2])
def test_every_mesh_has_the_same_statistics_and_candidates(shape, every):
    (h, _), (codebook, _) = random_inputs()

    def run(h_BxLxD):
        codes = assign(h_BxLxD, codebook)
        return codes, statistics(h_BxLxD, codes, SIZES[0], jax.random.key(3), every)

    codes, alone = jax.jit(run)(put(h))
    with jax.set_mesh(mesh_of(*shape)):
        sharded_codes, sharded = jax.jit(run)(put(h))
    np.testing.assert_array_equal(codes, sharded_codes)
    np.testing.assert_array_equal(alone.counts_K, sharded.counts_K)
    np.testing.assert_array_equal(alone.candidates_KxD, sharded.candidates_KxD)
    np.testing.assert_allclose(alone.sums_KxD, sharded.sums_KxD, atol=1e-5)


@pytest.mark.parametrize("every", [2, 3])
def test_statistics_of_some_rows_are_those_of_these_rows_alone(every):
    (h, _), (codebook, _) = random_inputs()
    codes = assign(put(h), codebook)
    some = statistics(put(h), codes, SIZES[0], jax.random.key(3), every)
    alone = statistics(put(h[::every]), put(codes[::every]), SIZES[0], jax.random.key(3))
    np.testing.assert_array_equal(some.counts_K, alone.counts_K)
    np.testing.assert_allclose(some.sums_KxD, alone.sums_KxD, atol=1e-5)
    np.testing.assert_array_equal(some.candidates_KxD, alone.candidates_KxD)


def random_codebook(seed=0, size=7):
    rng = np.random.default_rng(seed)
    return Codebook(
        jnp.asarray(rng.uniform(1, 3, size), jnp.float32), jnp.asarray(rng.normal(size=(size, D)), jnp.float32)
    )


def assignments(like: Codebook, seed=1):
    other = random_codebook(seed)
    return Assignments(other.counts_K, other.sums_KxD, jnp.full_like(like.sums_KxD, 9.0))


def test_ema_of_its_own_statistics_is_a_fixed_point():
    codebook = random_codebook()
    new = Assignments(codebook.counts_K, codebook.sums_KxD, codebook.sums_KxD)
    updated = ema_update(codebook, new, 0.9, 0.0, 0.1)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), updated, codebook)


def test_ema_mixes_counts_and_sums_and_forgets_at_decay_0():
    codebook, new = random_codebook(), assignments(random_codebook())
    mixed = ema_update(codebook, new, 0.75, 0.0, 0.1)
    np.testing.assert_allclose(mixed.counts_K, 0.75 * codebook.counts_K + 0.25 * new.counts_K, rtol=1e-6)
    np.testing.assert_allclose(mixed.sums_KxD, 0.75 * codebook.sums_KxD + 0.25 * new.sums_KxD, rtol=1e-6)
    forgot = ema_update(codebook, new, 0.0, 0.0, 0.1)
    np.testing.assert_allclose(forgot.codes_KxD(), new.sums_KxD / new.counts_K[:, None], rtol=1e-6)


def test_only_dead_codes_are_revived_with_their_candidate():
    codebook = random_codebook()
    counts = codebook.counts_K.at[2].set(0.0).at[5].set(1e-3)
    candidates = jnp.arange(7.0)[:, None] * jnp.ones((1, D))
    revived = quantize.revive(codebook.replace(counts_K=counts), candidates, 0.03, 0.1)
    dead = np.array([2, 5])
    alive = np.setdiff1d(np.arange(7), dead)
    np.testing.assert_allclose(revived.codes_KxD()[dead], candidates[dead], rtol=1e-6)
    np.testing.assert_allclose(revived.counts_K[dead], 0.1 * jnp.mean(counts), rtol=1e-6)
    np.testing.assert_array_equal(revived.counts_K[alive], counts[alive])
    np.testing.assert_array_equal(revived.sums_KxD[alive], codebook.sums_KxD[alive])


def init_codebook(h, size):
    run = jax.jit(quantize.init_codebook, static_argnums=(1, 3))
    return run(put(h), size, jax.random.key(0), 0.1)


def test_init_from_data_is_k_means():
    """Well separated clusters: every code sits on a cluster mean, and every cluster has a code."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, D)) * 20
    h = (centres[rng.integers(0, 4, (B, L))] + rng.normal(size=(B, L, D))).astype(np.float32)
    codebook = init_codebook(h, 16)
    codes = np.asarray(codebook.codes_KxD())
    error = np.linalg.norm(h[:, :, None] - codes, axis=-1).min(-1).mean()
    to_centres = np.linalg.norm(h[:, :, None] - centres, axis=-1).min(-1).mean()
    assert error < to_centres
    assert np.isfinite(codes).all()


@pytest.mark.parametrize("h", [np.zeros((B, L, D), np.float32), np.ones((B, L, D), np.float32)])
def test_identical_inputs_give_finite_codebooks(h):
    codebook = init_codebook(h, 6)
    codes = assign(put(h), codebook.codes_KxD())
    new = statistics(put(h), codes, 6, jax.random.key(1))
    updated = ema_update(codebook, new, 0.9, 0.03, 0.1)
    assert np.isfinite(updated.codes_KxD()).all()
    np.testing.assert_allclose(quantize.look_up(codes, updated.codes_KxD()), h, atol=1e-5)


@pytest.mark.parametrize("codes", ["even", "one holds all", "some beyond the codebook"])
def test_sums_that_take_turns_are_the_sums(codes):
    """As a GPU has them, where additions to one place wait for each other."""
    rng, size = np.random.default_rng(0), 6
    h = rng.normal(size=(1003, 5)).astype(np.float32)
    codes = {"even": rng.integers(0, size, 1003), "one holds all": np.full(1003, 2)}.get(
        codes, rng.integers(0, size + 3, 1003)
    )
    counts, sums = jax.jit(functools.partial(quantize.scattered_apart, size))(h, codes.astype(np.int32))
    np.testing.assert_array_equal(counts, np.bincount(codes, minlength=size)[:size])
    np.testing.assert_allclose(sums, [h[codes == k].sum(0) for k in range(size)], rtol=1e-5, atol=1e-4)
