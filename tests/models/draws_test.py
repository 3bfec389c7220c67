"""Draws for a CPU: bit by bit those of jax.random, on every mesh."""

import jax
import numpy as np
import pytest
from small_mesh import mesh_of

from vqdna_jax.models import draws
from vqdna_jax.partition import spec


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.95, 1.0])
@pytest.mark.parametrize(
    "mesh, axes", [((), (None,) * 3), ((4, 2), ("batch", "length", None)), ((2, 2, 2), ("batch", None, "heads"))]
)
@pytest.mark.parametrize("seed", [0, 12345678901])
def test_they_are_those_of_jax(share, mesh, axes, seed):
    shape = (16, 33, 6)
    key = jax.random.fold_in(jax.random.key(seed), 7)
    with jax.set_mesh(mesh_of(*mesh)):
        found = jax.jit(lambda key: draws.bernoulli(key, share, shape, spec(*axes)))(key)
        assert found.sharding.spec == spec(*axes)
    expected = np.asarray(jax.random.bernoulli(key, share, shape))
    np.testing.assert_array_equal(np.asarray(found), expected)
    assert abs(expected.mean() - share) < 0.05


def test_keys_of_another_kind_are_drawn_with_by_jax(one_device):
    key = jax.random.key(3, impl="rbg")
    found = draws.bernoulli(key, 0.5, (64, 3), spec(None, None))
    np.testing.assert_array_equal(found, jax.random.bernoulli(key, 0.5, (64, 3)))


def test_the_generator_gives_its_published_values():
    """The known answers of Random123: keys and counters of zeros, of ones, and of digits of pi."""
    for key, counter, expected in (
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ):
        found = draws.threefry2x32(np.array(key, np.uint32), *(np.array([c], np.uint32) for c in counter))
        assert tuple(int(x[0]) for x in found) == expected
