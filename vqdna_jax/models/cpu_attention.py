"""Attention for a CPU: every product in the order that XLA multiplies fast there, and few passes over the scores.

Heads stand before positions, K is turned before its product, exp of the scores is divided by its sum only after the
product with V, and the backward pass makes the gradients of K and V turned, [C, L].
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

LONG = 4096  # codes, from which on the scores of all of them are never there at once
BLOCK = 256  # queries, whose scores are, where they are many
UNSEEN = -1e30  # a score of which exp makes 0
_f32 = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


class Places(NamedTuple):
    """Where queries and keys lie in the sequence.

    Attributes:
        query, key: the position of the first of each.
        total: L; there are keys beyond the ends, which nothing sees. 0: there are none.
    """

    query: Array | int = 0
    key: Array | int = 0
    total: int = 0


ALL_HERE = Places()


def attention(
    q_BxQxHxC: Array,
    k_BxLxHxC: Array,
    v_BxLxHxC: Array,
    window: int = 0,
    lengths_B: Array | None = None,
    places: Places = ALL_HERE,
) -> Array:
    """`attention.attention` on one device, of some or all of the queries."""
    # The barrier keeps three gradients apart from the concatenation that follows them: fused, it is slow.
    q, k, v = jax.lax.optimization_barrier((q_BxQxHxC, k_BxLxHxC, v_BxLxHxC))
    q_BxHxQxC = (q * jnp.asarray(q.shape[-1] ** -0.5, q.dtype)).transpose(0, 2, 1, 3)
    k_BxHxCxL, v_BxHxLxC = k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3)
    mix = _mix_all if q.shape[1] * k.shape[1] <= LONG**2 else _mix_in_blocks
    return mix(q_BxHxQxC, k_BxHxCxL, v_BxHxLxC, window, lengths_B, places).transpose(0, 2, 1, 3)


def seen(queries: int, keys: int, window: int, lengths_B: Array | None, places: Places = ALL_HERE) -> Array | None:
    """Which codes see which, bool [B or 1, 1, Q or 1, L]; None: all see all."""
    if not window and lengths_B is None and not places.total:
        return None
    query_Q, key_L = places.query + jnp.arange(queries), places.key + jnp.arange(keys)
    near = jnp.abs(query_Q[:, None] - key_L[None]) <= window if window else jnp.ones((1, keys), bool)
    if places.total:
        near &= ((key_L >= 0) & (key_L < places.total))[None]
    if lengths_B is None:
        return near[None, None]
    return near[None, None] & (key_L[None] < lengths_B[:, None])[:, None, None]


def _mix_all(
    q_BxHxQxC: Array, k_BxHxCxL: Array, v_BxHxLxC: Array, window: int, lengths_B: Array | None, places: Places
) -> Array:
    queries, keys = q_BxHxQxC.shape[2], v_BxHxLxC.shape[2]
    return _mix(q_BxHxQxC, k_BxHxCxL, v_BxHxLxC, seen(queries, keys, window, lengths_B, places))


def _mix_in_blocks(
    q_BxHxQxC: Array, k_BxHxCxL: Array, v_BxHxLxC: Array, window: int, lengths_B: Array | None, places: Places
) -> Array:
    """BLOCK queries of one head at a time, whose scores the backward pass makes again: memory grows with L alone. In a
    window a block is given the keys that it sees, and time grows so too."""
    (rows, heads, queries, channels), keys = q_BxHxQxC.shape, v_BxHxLxC.shape[2]
    blocks, reach = -(-queries // BLOCK), BLOCK + 2 * window
    near = bool(window) and reach < keys
    first = jnp.arange(blocks) * BLOCK
    # Of the keys that a block sees, those beyond the ends of what is here are left to the mask.
    first_key = jnp.clip(first + places.query - places.key - window, 0, keys - reach) if near else 0 * first

    def of_head(head: tuple[Array, ...]) -> Array:
        q_QxC, k_CxL, v_LxC, *ends = head
        ends_1 = ends[0][None] if ends else None

        @jax.checkpoint
        def of_block(block: tuple[Array, Array, Array]) -> Array:
            q_TxC, query, key = block
            k, v, at = k_CxL, v_LxC, places._replace(query=places.query + query)
            if near:  # else where keys lie is the same for all blocks: no row of it is kept for each
                k, v = lax.dynamic_slice_in_dim(k, key, reach, 1), lax.dynamic_slice_in_dim(v, key, reach, 0)
                at = at._replace(key=places.key + key)
            return _mix_all(q_TxC[None, None], k[None, None], v[None, None], window, ends_1, at)[0, 0]

        padded_QxC = jnp.pad(q_QxC, ((0, blocks * BLOCK - queries), (0, 0)))
        out = lax.map(of_block, (padded_QxC.reshape(blocks, BLOCK, channels), first, first_key))
        return out.reshape(-1, channels)[:queries]

    each = [x.reshape(rows * heads, *x.shape[2:]) for x in (q_BxHxQxC, k_BxHxCxL, v_BxHxLxC)]
    ends = [] if lengths_B is None else [jnp.repeat(lengths_B, heads)]
    return lax.map(of_head, (*each, *ends)).reshape(q_BxHxQxC.shape)


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
