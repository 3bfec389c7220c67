"""Poolings: the vectors of a sequence's codes as one vector of the sequence.

A pooling is a line of POOLS: `embed` and its help, probes, fine-tuning and the checks of configs all read it there. It
sees the windows of a long sequence one by one; `embed` joins them, fine-tuning averages what is pooled of each.

jax is imported where it is used, so that `vqdna embed --help` names the poolings without waiting for it.
"""

import dataclasses
import math
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from jax import Array

UNPOOLED = "none"  # to `embed`: the vector of every code


@dataclasses.dataclass(frozen=True)
class Pool:
    """Pure functions; numbers of codes and windows may be arrays that broadcast.

    Attributes:
        window: (h [B, L, D], CLS [B, D], kept bool [B, L]) -> f32 [B, D] of the kept codes of each window, 0 where
            none is kept; for jax.
        join: (of the windows before, of the next one) -> of all of them, [D]; for numpy, in f64.
        start: what the first window is joined to.
        finish: (of all windows, how many codes were kept, how many windows) -> the pooled vector.
        needs_cls: of a network without CLS it has nothing to read.
    """

    window: Callable[["Array", "Array | None", "Array"], "Array"]
    join: Callable[["np.ndarray", "np.ndarray"], "np.ndarray"]
    start: float
    finish: Callable[[Any, Any, Any], Any]
    needs_cls: bool = False


def _total(h_BxLxD: "Array", cls_BxD: "Array | None", kept_BxL: "Array") -> "Array":
    import jax.numpy as jnp

    return jnp.sum(jnp.where(kept_BxL[..., None], h_BxLxD.astype(jnp.float32), 0), axis=1)


def _highest(h_BxLxD: "Array", cls_BxD: "Array | None", kept_BxL: "Array") -> "Array":
    import jax.numpy as jnp

    highest_BxD = jnp.max(jnp.where(kept_BxL[..., None], h_BxLxD.astype(jnp.float32), -jnp.inf), axis=1)
    return jnp.where(jnp.any(kept_BxL, axis=1)[:, None], highest_BxD, 0)


def _cls(h_BxLxD: "Array", cls_BxD: "Array | None", kept_BxL: "Array") -> "Array":
    assert cls_BxD is not None, "needs_cls is checked where a pooling is chosen"
    return cls_BxD.astype("float32")


def _higher(before_D: "np.ndarray", next_D: "np.ndarray") -> "np.ndarray":
    import numpy as np

    return np.maximum(before_D, next_D)


POOLS = {
    "mean": Pool(_total, operator.add, 0.0, lambda total, codes, windows: total / codes),
    "max": Pool(_highest, _higher, -math.inf, lambda highest, codes, windows: highest),
    "cls": Pool(_cls, operator.add, 0.0, lambda total, codes, windows: total / windows, needs_cls=True),
}


def pool(name: str, h_BxLxD: "Array", cls_BxD: "Array | None", lengths_B: "Array") -> "Array":
    """f32 [B, D] of each window's first `lengths_B` codes, as of a whole sequence; 0 where there are none, but CLS."""
    import chex
    import jax.numpy as jnp

    chex.assert_rank([h_BxLxD, lengths_B], [3, 1])
    kept_BxL = jnp.arange(h_BxLxD.shape[1])[None] < lengths_B[:, None]
    codes_Bx1 = jnp.maximum(lengths_B, 1)[:, None].astype(jnp.float32)
    return POOLS[name].finish(POOLS[name].window(h_BxLxD, cls_BxD, kept_BxL), codes_Bx1, 1)


def without_cls(names: str) -> str:
    """The first of poolings joined by "+" that a network without CLS does not have; empty if it has them all."""
    return next((name for name in names.split("+") if name in POOLS and POOLS[name].needs_cls), "")
