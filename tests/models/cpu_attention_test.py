"""The CPU's attention: that of plain XLA in value and gradient; what is not seen has no part in either."""

from typing import get_args

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_mesh import mesh_of

from vqdna_jax.models import cpu_attention
from vqdna_jax.models.attention import HEADS, Kernel, attention, kernel_of_padded
from vqdna_jax.partition import spec

B, L, H, C = 4, 9, 2, 8


def heads(dtype="float32", scale=1.0):
    qkv = (scale * jax.random.normal(jax.random.key(i), (B, L, H, C), dtype) for i in range(3))
    return [jax.reshard(x, spec(*HEADS)) for x in qkv]


def lengths_of(*lengths):
    return jax.reshard(jnp.array(lengths, jnp.int32), spec("batch"))


def value_and_gradients(kernel, qkv, window, lengths_B):
    def total(*qkv):
        out = attention(*qkv, kernel, window, lengths_B)
        return jnp.sum(jnp.sin(out.astype(jnp.float32))), out

    gradients, out = jax.jit(jax.grad(total, (0, 1, 2), has_aux=True))(*qkv)
    return [np.asarray(x, np.float32) for x in (out, *gradients)]


@pytest.mark.parametrize("dtype, atol", [("float32", 2e-6), ("bfloat16", 4e-2)])
@hypothesis.given(
    window=st.integers(0, L),
    lengths=st.none() | st.lists(st.integers(0, L), min_size=B, max_size=B),
    scale=st.sampled_from([0.1, 1.0, 2.0]),
)
@hypothesis.settings(max_examples=15)
def test_it_is_plain_attention_in_value_and_gradient(dtype, atol, window, lengths, scale):
    with jax.set_mesh(mesh_of()):
        lengths_B = lengths if lengths is None else lengths_of(*lengths)
        found, expected = (value_and_gradients(k, heads(dtype, scale), window, lengths_B) for k in ("cpu", "xla"))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=10 * atol, atol=max(1.0, scale**2) * atol)


@pytest.mark.parametrize("window", [0, 2])
def test_what_is_not_seen_has_no_gradient_even_where_nothing_is_seen(window, one_device):
    lengths = np.array([L, 5, 1, 0])
    at = np.arange(L)
    seen = (at[None, None] < lengths[:, None, None]) & (np.abs(at[:, None] - at) <= (window or L))
    _, dq, dk, dv = value_and_gradients("cpu", heads(), window, lengths_of(*lengths))
    alone = seen.sum(axis=2) <= 1  # of one score softmax is 1 whatever q is; of none q has no part in it
    np.testing.assert_array_equal(np.abs(dq).max(axis=(2, 3)) > 1e-6, ~alone)
    assert not np.abs(dk)[~seen.any(axis=1)].any()
    sees_nothing = ~seen.any(axis=2)  # there the mean of V is read, as plain attention does
    unread = ~seen.any(axis=1) & ~sees_nothing.any(axis=1, keepdims=True)
    assert not np.abs(dv)[unread].any()


@pytest.mark.parametrize(("kernel", "window"), [("cpu", 0), ("cpu", 300), ("xla", 0)])
def test_memory_of_many_codes_grows_with_their_number_alone(kernel, window, one_device):
    """As XLA plans it, gradients included: of twice the codes not four times as much."""
    more_than = cpu_attention.LONG * np.array([2, 4])

    def planned(codes):
        of = jax.ShapeDtypeStruct((1, codes, 2, C), jnp.float32, sharding=jax.NamedSharding(mesh_of(), spec(*HEADS)))
        total = jax.grad(lambda *qkv: jnp.sum(attention(*qkv, kernel, window)), (0, 1, 2))
        return jax.jit(total).lower(of, of, of).compile().memory_analysis().temp_size_in_bytes

    few, many = map(planned, more_than)
    assert many < 2.2 * few and many < 4 * 1024 * more_than[1]  # bytes: scores of all codes were a thousand times more


@pytest.mark.parametrize("shape", [(4,), (2, 1, 2), (2, 2, 2)])
def test_meshes_agree(shape):
    results = []
    for on in (mesh_of(), mesh_of(*shape)):
        with jax.set_mesh(on):
            results.append(value_and_gradients("cpu", heads(), 3, lengths_of(9, 4, 1, 7)))
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_attention_of_padded_sequences_is_a_kernel_that_knows_lengths():
    found = {
        kernel_of_padded(platform, 0, dtype) for platform in ("cpu", "tpu", "gpu") for dtype in ("float32", "bfloat16")
    }
    assert found == set(get_args(Kernel)) - {"splash"}
