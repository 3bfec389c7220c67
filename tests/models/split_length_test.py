"""A sequence that devices share is the same sequence: attention and convolutions in value and gradient, and seams."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas.tpu import force_tpu_interpret_mode
from small_mesh import mesh_of

from vqdna_jax import partition
from vqdna_jax.models import cpu_attention, forms
from vqdna_jax.models.attention import HEADS, attention

B, L, H, C = 2, 16, 2, 4
SHARDS = (2, 4, 8)
LENGTHS = np.array([L, 7], np.int32)  # the second ends inside of a shard


def sequences(*shape):
    return np.random.default_rng(0).standard_normal((3, B, L, *shape), np.float32)


def attend(q, k, v, kernel, window, lengths=None):
    q, k, v = (jax.reshard(x, partition.spec(*HEADS)) for x in (q, k, v))
    lengths_B = lengths if lengths is None else jax.reshard(jnp.asarray(lengths), partition.spec("batch"))
    return attention(q, k, v, kernel, window, lengths_B)


def kept(kernel, window, lengths, q, k, v):
    """Attention of the codes that count, whole; what others read means nothing."""
    inside_BxL = np.arange(L)[None] < (np.full(B, L) if lengths is None else lengths)[:, None]
    return jnp.where(inside_BxL[..., None, None], partition.whole_length(attend(q, k, v, kernel, window, lengths)), 0)


def on_shards(shards, function, *sequences):
    """function of sequences, its value and the gradients of them."""

    def total(*sequences):
        out = function(*sequences)
        return jnp.sum(jnp.sin(out)), out

    with jax.set_mesh(mesh_of(context=shards)):
        gradients, out = jax.jit(jax.grad(total, range(len(sequences)), has_aux=True))(*map(jnp.asarray, sequences))
        return jax.device_get((out, *gradients))


@pytest.mark.parametrize(
    ("kernel", "window", "lengths"),
    [
        ("cpu", 0, LENGTHS),
        ("cpu", 1, None),
        ("cpu", 3, LENGTHS),
        ("cpu", 9, None),
        ("xla", 0, LENGTHS),
        ("xla", 3, None),
    ],
)
def test_attention_of_a_split_sequence_is_attention(kernel, window, lengths):
    """Windows that end in the neighbour, beyond it, and such as are wider than all that is left."""
    of = functools.partial(kept, kernel, window, lengths)
    expected, *split = (on_shards(shards, of, *sequences(H, C)) for shards in (1, *SHARDS))
    for found in split:
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), found, expected)


@pytest.mark.parametrize(
    ("kernel", "window", "lengths"), [("cpu", 0, LENGTHS), ("xla", 2, None), ("cpu", 2, LENGTHS), ("xla", 0, None)]
)
def test_attention_by_blocks_of_queries_is_attention(kernel, window, lengths, monkeypatch):
    """Blocks that end inside a shard and beyond it; those of a window are given a part of the keys."""
    of = functools.partial(kept, kernel, window, lengths)
    expected = on_shards(1, of, *sequences(H, C))
    monkeypatch.setattr(cpu_attention, "LONG", 1)
    monkeypatch.setattr(cpu_attention, "BLOCK", 3)
    for shards in (1, 2):
        found = on_shards(shards, of, *sequences(H, C))
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), found, expected)


@pytest.mark.parametrize(("window", "shards"), [(0, 2), (200, 4)])
def test_the_kernel_for_tpus_is_attention_too(window, shards):
    """Interpreted, as there is no TPU; of a window that reaches into two neighbours on each side too."""
    of = np.random.default_rng(0).standard_normal((3, 1, 512, 1, 128), np.float32)
    expected = on_shards(1, functools.partial(attend, kernel="cpu", window=window), *of)
    with force_tpu_interpret_mode():
        found = on_shards(shards, functools.partial(attend, kernel="splash", window=window), *of)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=5e-5), found, expected)


@pytest.mark.parametrize("shards", [2, 8])
def test_a_window_reaches_over_seams_as_far_as_inside(shards):
    q, k, v = map(jnp.asarray, sequences(H, C))

    @jax.jit
    def reach(v):
        def read(at, v):
            return jnp.sum(partition.whole_length(attend(q, k, v, "cpu", 2))[:, at])

        return jax.lax.map(lambda at: jax.grad(read, 1)(at, v), jnp.arange(L))

    with jax.set_mesh(mesh_of(context=shards)):
        seen_LxL = np.abs(reach(v)).sum(axis=(1, 3, 4)) > 0
    np.testing.assert_array_equal(seen_LxL, np.abs(np.arange(L)[:, None] - np.arange(L)) <= 2)


@pytest.mark.parametrize("reach", [1, 5])
def test_a_convolution_of_a_split_sequence_is_the_convolution(reach):
    """Over kernels that are wider than a shard."""
    kernel_KxD = np.random.default_rng(1).standard_normal((2 * reach + 1, C), np.float32)

    def convolve(x, other, kernel):
        x, other = map(partition.split_length, (x, other))
        return forms.depthwise(x, kernel) + forms.shift(other, reach) + 2 * forms.shift(other, -reach)

    expected, *split = (on_shards(shards, convolve, *sequences(C)[:2], kernel_KxD) for shards in (1, *SHARDS))
    for found in split:
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), found, expected)
