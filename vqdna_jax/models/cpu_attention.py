"""Attention for a CPU: every product in the order that XLA multiplies fast there, and few passes over the scores.

Heads stand before positions, K is turned before its product, exp of the scores is divided by its sum only after the
product with V, and the backward pass makes the gradients of K and V turned, [C, L].
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

UNSEEN = -1e30  # a score of which exp makes 0
_f32 = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


def attention(
    q_BxLxHxC: Array, k_BxLxHxC: Array, v_BxLxHxC: Array, window: int = 0, lengths_B: Array | None = None
) -> Array:
    """`attention.attention` on one device."""
    # The barrier keeps three gradients apart from the concatenation that follows them: fused, it is slow.
    q, k, v = jax.lax.optimization_barrier((q_BxLxHxC, k_BxLxHxC, v_BxLxHxC))
    q_BxHxLxC = (q * jnp.asarray(q.shape[-1] ** -0.5, q.dtype)).transpose(0, 2, 1, 3)
    k_BxHxCxL, v_BxHxLxC = k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3)
    return _mix(q_BxHxLxC, k_BxHxCxL, v_BxHxLxC, _seen(q.shape[1], window, lengths_B)).transpose(0, 2, 1, 3)


def _seen(length: int, window: int, lengths_B: Array | None) -> Array | None:
    """Which codes see which, bool [B or 1, 1, L or 1, L]; None: all see all."""
    if not window and lengths_B is None:
        return None
    at_L = jnp.arange(length)
    near = jnp.abs(at_L[:, None] - at_L[None]) <= window if window else jnp.ones((1, length), bool)
    if lengths_B is None:
        return near[None, None]
    return near[None, None] & (at_L[None] < lengths_B[:, None])[:, None, None]


@jax.custom_vjp
def _mix(q_BxHxLxC: Array, k_BxHxCxL: Array, v_BxHxLxC: Array, seen: Array | None) -> Array:
    return _forward(q_BxHxLxC, k_BxHxCxL, v_BxHxLxC, seen)[0]


def _forward(q_BxHxLxC: Array, k_BxHxCxL: Array, v_BxHxLxC: Array, seen: Array | None) -> tuple[Array, Any]:
    scores_BxHxLxL = _f32("bhlc,bhcm->bhlm", q_BxHxLxC, k_BxHxCxL)
    scores_BxHxLxL = scores_BxHxLxL if seen is None else jnp.where(seen, scores_BxHxLxL, UNSEEN)
    p_BxHxLxL = jnp.exp(scores_BxHxLxL - jnp.max(scores_BxHxLxL, axis=-1, keepdims=True))
    total_BxHxLx1 = jnp.sum(p_BxHxLxL, axis=-1, keepdims=True)
    p_BxHxLxL = p_BxHxLxL.astype(v_BxHxLxC.dtype)
    out_BxHxLxC = _f32("bhlm,bhmc->bhlc", p_BxHxLxL, v_BxHxLxC) / total_BxHxLx1
    saved = q_BxHxLxC, k_BxHxCxL, v_BxHxLxC, seen, p_BxHxLxL, total_BxHxLx1, out_BxHxLxC
    return out_BxHxLxC.astype(q_BxHxLxC.dtype), saved


def _backward(saved: Any, g_BxHxLxC: Array) -> tuple[Array, Array, Array, None]:
    q_BxHxLxC, k_BxHxCxL, v_BxHxLxC, seen, p_BxHxLxL, total_BxHxLx1, out_BxHxLxC = saved
    g_BxHxLxC = g_BxHxLxC.astype(jnp.float32) / total_BxHxLx1
    mean_BxHxLx1 = jnp.sum(g_BxHxLxC * out_BxHxLxC, axis=-1, keepdims=True)
    g_BxHxLxC = g_BxHxLxC.astype(v_BxHxLxC.dtype)
    d_BxHxLxL = p_BxHxLxL * (_f32("bhlc,bhmc->bhlm", g_BxHxLxC, v_BxHxLxC) - mean_BxHxLx1)
    if seen is not None:  # of a code that sees none, p is even and not 0
        d_BxHxLxL = jnp.where(seen, d_BxHxLxL, 0)
    d_BxHxLxL = d_BxHxLxL.astype(q_BxHxLxC.dtype)
    dq_BxHxLxC = _f32("bhlm,bhcm->bhlc", d_BxHxLxL, k_BxHxCxL)
    dk_BxHxCxL = _f32("bhlc,bhlm->bhcm", q_BxHxLxC, d_BxHxLxL)
    dv_BxHxLxC = _f32("bhlm,bhlc->bhcm", p_BxHxLxL, g_BxHxLxC).swapaxes(2, 3)
    return (
        dq_BxHxLxC.astype(q_BxHxLxC.dtype),
        dk_BxHxCxL.astype(k_BxHxCxL.dtype),
        dv_BxHxLxC.astype(g_BxHxLxC.dtype),
        None,
    )


_mix.defvjp(_forward, _backward)
