"""Rotary positions: one function in two forms, whose scores know distances alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqdna_jax.models import rotary

FORMS = pytest.mark.parametrize("rotate", [rotary.by_halves, rotary.by_reversal])


@FORMS
def test_attention_scores_depend_on_the_distance_alone(rotate):
    """Rotary positions: turned q and k give inner products that a common shift does not change."""
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 40, 1, 16))
    q, k = (jnp.broadcast_to(x[:, :1], x.shape) for x in (q, k))  # one vector at every place
    scores = jnp.einsum("blhc,bmhc->lm", rotate(q, 10000.0), rotate(k, 10000.0))
    for distance in (0, 1, 7, -5):
        diagonal = np.diagonal(scores, distance)
        np.testing.assert_allclose(diagonal, diagonal[0], rtol=1e-4, atol=1e-4)
    assert np.std(scores[0]) > 0.1
    np.testing.assert_allclose(np.linalg.norm(rotate(q, 1e4), axis=-1), np.linalg.norm(q, axis=-1), 1e-5)


@pytest.mark.parametrize("dtype, atol", [("float32", 1e-6), ("bfloat16", 2e-2)])
@pytest.mark.parametrize("length, channels, base", [(1, 2, 10.0), (9, 8, 1e4), (300, 32, 1e4)])
def test_both_forms_are_one_function_in_value_and_gradient(length, channels, base, dtype, atol):
    x, g = (jax.random.normal(jax.random.key(i), (2, length, 3, channels), dtype) for i in range(2))

    def run(rotate, x, g):
        out, back = jax.vjp(functools.partial(rotate, base=base), x)
        return out, *back(g)

    run = jax.jit(run, static_argnums=0)
    results = [
        [np.asarray(y, np.float32) for y in run(rotate, x, g)] for rotate in (rotary.by_halves, rotary.by_reversal)
    ]
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, atol=length * atol if dtype == "float32" else atol)
