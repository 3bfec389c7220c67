"""Forms for a CPU: the functions of jax, in value and gradient, on every mesh; accelerators keep jax's own programs."""

import contextlib

import flax.linen as nn
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_mesh import mesh_of

from vqdna_jax.models import forms
from vqdna_jax.partition import spec

PRODUCTS = {  # einsum of [B, L, ...] with a weight, and how many axes are summed
    "bld,df->blf": 1,
    "bld,dthc->blthc": 1,
    "blhc,hcd->bld": 2,
    "blrc,rcd->bld": 2,
}


def operands(equation, inward, outward, dtype="float32"):
    x_axes, w_axes = equation.split("->")[0].split(",")
    axes = PRODUCTS[equation]
    sizes = dict(zip(w_axes[:axes], inward)) | dict(zip(w_axes[axes:], outward)) | {"b": 8, "l": 6}
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=[sizes[a] for a in names]), dtype) for names in (x_axes, w_axes)]


def value_and_gradients(product, x, w):
    def total(x, w):
        return jnp.sum(jnp.sin(product(x, w).astype(jnp.float32)))

    return jax.jit(product)(x, w), *jax.jit(jax.grad(total, (0, 1)))(x, w)


@pytest.mark.parametrize("dtype, rtol", [("float32", 1e-5), ("bfloat16", 5e-2)])
@pytest.mark.parametrize("outward", [(2, 3, 4), (5, 2, 8)])
@pytest.mark.parametrize("equation", PRODUCTS)
def test_a_product_is_the_einsum_whichever_side_is_wide(equation, outward, dtype, rtol, one_device):
    x, w = operands(equation, (4, 6), outward, dtype)
    found = value_and_gradients(lambda x, w: forms.project(x, w, PRODUCTS[equation]), x, w)
    expected = value_and_gradients(lambda x, w: jnp.einsum(equation, x, w), x, w)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype == dtype
        np.testing.assert_allclose(*(np.asarray(a, np.float32) for a in (one, other)), rtol, atol=rtol)


@pytest.mark.parametrize("shape", [(8,), (2, 2, 2), (1, 2, 4)])
def test_a_product_and_its_gradients_are_the_same_on_every_mesh(shape):
    x, w = operands("bld,df->blf", (4,), (8,))
    with jax.set_mesh(mesh_of()):
        expected = value_and_gradients(lambda x, w: forms.project(x, w, 1), x, w)
    with jax.set_mesh(mesh_of(*shape)):
        out = spec("batch", "length", "act_mlp")
        split_x, split_w = jax.reshard(x, spec("batch", None, None)), jax.reshard(w, spec(None, "mlp"))
        found = value_and_gradients(lambda x, w: forms.project(x, w, 1, out), split_x, split_w)
        assert [jax.typeof(a).sharding.spec for a in found] == [
            out,
            *(jax.typeof(a).sharding.spec for a in (split_x, split_w)),
        ]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype, atol", [("float32", 2e-5), ("bfloat16", 2e-2)])  # of flax's, which is less exact
def test_gelu_and_its_gradient_are_those_of_flax(dtype, atol, one_device):
    x = jnp.concatenate([jnp.linspace(-12, 12, 4001), jnp.array([-1e4, -0.0, 0.0, 1e4])]).astype(dtype)
    for mine, theirs in ((forms.gelu, nn.gelu), (slope(forms.gelu), slope(nn.gelu))):
        found, expected = jax.jit(mine)(x), jax.jit(theirs)(x)
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(*(np.asarray(y, np.float32) for y in (found, expected)), rtol=atol, atol=atol)


def kept_for_the_backward_pass(function, *inputs):
    """Bytes, but for the inputs, of what jax keeps of a function for its gradient."""
    _, backward = jax.vjp(function, *inputs)
    kept = {id(x): x.nbytes for x in jax.tree.leaves(backward)}
    return sum(kept.values()) - sum(kept.get(id(x), 0) for x in inputs)


@pytest.mark.parametrize("on", ["a CPU", "another device"])
def test_of_gelu_nothing_is_kept_but_its_input(on, one_device):
    x = jnp.ones((4, 8), jnp.bfloat16)
    with jax.set_mesh(mesh_of()) if on == "a CPU" else contextlib.nullcontext():
        assert kept_for_the_backward_pass(forms.gelu, x) == 0
        assert kept_for_the_backward_pass(nn.gelu, x) > 0


def test_the_slope_of_gelu_is_that_of_differences(one_device):
    x, step = np.linspace(-8, 8, 3001, dtype=np.float32), 1e-6

    def exact(x):
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    expected = (exact(x.astype(np.float64) + step) - exact(x.astype(np.float64) - step)) / (2 * step)
    np.testing.assert_allclose(jax.jit(slope(forms.gelu))(x), expected, atol=3e-6)


def test_what_is_set_apart_is_the_same_and_so_is_its_gradient(one_device):
    x = jnp.array([-np.inf, -1.0, 0.0, 3e38, np.inf, np.nan])
    y, back = jax.vjp(jax.jit(forms.apart), x)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(*back(x), x)


def slope(f):
    return jax.grad(lambda x: jnp.sum(f(x).astype(jnp.float32)))


@hypothesis.given(
    st.lists(
        st.lists(st.sampled_from([-np.inf, -1.0, 0.0, 2.0, np.inf, np.nan]), min_size=7, max_size=7),
        min_size=1,
        max_size=5,
    )
)
def test_argmax_is_the_first_of_equals_and_of_nan(rows):
    with jax.set_mesh(mesh_of()):
        found = jax.jit(forms.argmax)(jnp.asarray(rows, jnp.float32))
    np.testing.assert_array_equal(found, np.argmax(np.asarray(rows), axis=-1))


def smoothed(conv, x, kernel):
    """The convolution and the gradients of a number that depends on all of it."""

    def total(x, kernel):
        y = conv(x, kernel)
        return jnp.sum(jnp.sin(y.astype(jnp.float32))), y

    gradients, y = jax.jit(jax.grad(total, (0, 1), has_aux=True))(x, kernel)
    return [np.asarray(a, np.float32) for a in (y, *gradients)]


@pytest.mark.parametrize("dtype, atol", [("float32", 2e-5), ("bfloat16", 0.15)])
@pytest.mark.parametrize("length, size", [(1, 1), (1, 7), (3, 7), (8, 3), (30, 7), (64, 7)])
def test_a_depthwise_convolution_is_the_sum_of_its_taps(length, size, dtype, atol, one_device):
    x, kernel = (jax.random.normal(jax.random.key(i), s, dtype) for i, s in enumerate([(4, length, 5), (size, 5)]))
    for one, other in zip(smoothed(forms.depthwise, x, kernel), smoothed(forms._taps, x, kernel), strict=True):
        np.testing.assert_allclose(one, other, rtol=atol, atol=atol)


def test_a_depthwise_convolution_is_the_same_on_eight_devices():
    results = []
    for on in (mesh_of(), mesh_of(4, 2)):
        with jax.set_mesh(on):
            x = jax.reshard(jax.random.normal(jax.random.key(0), (8, 12, 5)), spec("batch", "length", None))
            results.append(smoothed(forms.depthwise, x, jax.random.normal(jax.random.key(1), (7, 5))))
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def of_ones(form, rows):
    return lambda x: form(x[None], jnp.ones((rows, 7)))


@pytest.mark.parametrize("form", [forms.argmax, forms.apart, of_ones(forms.project, 7), of_ones(forms.depthwise, 3)])
def test_without_a_cpu_the_program_is_jaxs_own(form):
    """No mesh is set, as none of CPUs is where a program for a pod or a GPU is traced."""
    assert "custom_vjp" not in str(jax.make_jaxpr(form)(jnp.ones((5, 7))))
