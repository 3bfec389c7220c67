"""Low-rank adaptation (LoRA, arXiv 2106.09685) of the transformer's stacked weights.

A weight W of [in, out] becomes W + alpha / rank * A B with A [in, r] and B [r, out]; B begins at zero, so an adapted
network begins as the one it adapts.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Annotated

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vqdna_jax.models.draws import bernoulli
from vqdna_jax.models.forms import project
from vqdna_jax.partition import sharded, spec
from vqdna_jax.runtime.typed import Positive, PositiveNumber, Rule, Share

TARGETS = ("q", "k", "v", "out", "up", "down")
_QKV = {name: i for i, name in enumerate("qkv")}
_OUTWARD = {  # logical axes of (x A) B
    "q": ("batch", "length", "act_heads", None),
    "k": ("batch", "length", "act_heads", None),
    "v": ("batch", "length", "act_heads", None),
    "out": ("batch", "length", "act_embed"),
    "up": ("batch", "length", None, "act_mlp"),
    "down": ("batch", "length", "act_embed"),
}
_AXES = {  # logical axes of what goes in and of what comes out
    "q": ((None,), ("heads", None)),
    "k": ((None,), ("heads", None)),
    "v": ((None,), ("heads", None)),
    "out": (("heads", None), (None,)),
    "up": ((None,), (None, "mlp")),
    "down": (("mlp",), (None,)),
}
_MERGED = {  # A B
    "q": "ndr,nrhc->ndhc",
    "k": "ndr,nrhc->ndhc",
    "v": "ndr,nrhc->ndhc",
    "out": "nhcr,nrd->nhcd",
    "up": "ndr,nrtf->ndtf",
    "down": "nfr,nrd->nfd",
}
Factors = dict[str, dict[str, Array]]  # {target: {"a": [layers, in..., r], "b": [layers, r, out...]}}


def _matches_one(targets: str) -> bool:
    try:
        return any(re.fullmatch(targets, name) for name in TARGETS)
    except re.error:
        return False


_TARGETS_RULE = Rule(_matches_one, f"a regular expression that matches one of {', '.join(TARGETS)}")


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Which weights are adapted, and by how much.

    Attributes:
        rank: r, columns of A and rows of B.
        alpha: what A B is scaled by, over the rank.
        dropout: of what goes into A, in training.
        targets: a regular expression; those of q, k, v, out, up and down that it matches whole are adapted.
    """

    rank: Positive = 8
    alpha: PositiveNumber = 16.0
    dropout: Share = 0.05
    targets: Annotated[str, _TARGETS_RULE] = "q|k|v|out"

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name in TARGETS if re.fullmatch(self.targets, name))

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


class Adapter(flax.struct.PyTreeNode):
    """What the layers read: factors with the scale in B; with `keys` [layers], a share `rate` of A's inputs is 0."""

    factors: Factors
    keys: Array | None = None
    rate: float = flax.struct.field(pytree_node=False, default=0.0)

    def of_layer(self, i: int) -> "Adapter":
        return jax.tree.map(lambda x: x[i], self)


def init(config: LoraConfig, weights: Mapping[str, Array], key: Array) -> Factors:
    """Factors for the targets among the transformer's stacked `weights`: A normal with variance 1 / in, B zero."""
    factors: Factors = {}
    for target, target_key in zip(config.names, jax.random.split(key, len(config.names))):
        inward, outward = _ends(target, weights)
        layers, rank = weights["qkv"].shape[0], config.rank
        fan_in = jax.nn.initializers.normal(math.prod(inward) ** -0.5)
        in_axes, out_axes = _AXES[target]
        a = sharded(fan_in, "layer", *in_axes, None)(target_key, (layers, *inward, rank))
        b = sharded(jax.nn.initializers.zeros, "layer", None, *out_axes)(target_key, (layers, rank, *outward))
        factors[target] = {"a": a, "b": b}
    return factors


def _ends(target: str, weights: Mapping[str, Array]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of what goes into a target's weight, and of what comes out."""
    if target in _QKV:
        _, width, _, *heads = weights["qkv"].shape
        return (width,), tuple(heads)
    shape, inward = weights[target].shape[1:], len(_AXES[target][0])
    return shape[:inward], shape[inward:]


def adapter(config: LoraConfig, factors: Factors, key: Array | None = None) -> Adapter:
    """The factors as the layers read them; dropout where there is a `key`, as in training."""
    scaled = {name: {"a": f["a"], "b": f["b"] * config.scale} for name, f in factors.items()}
    if key is None or not config.dropout or not factors:
        return Adapter(scaled)
    layers = next(iter(factors.values()))["a"].shape[0]
    return Adapter(scaled, jax.random.split(key, layers), config.dropout)


def delta(adapter: Adapter | None, target: str, x: Array, scale_D: Array | None = None) -> Array | float:
    """What the adapter of one layer adds to x W, or to (x scale) W; 0.0 where the target is not adapted."""
    if adapter is None or target not in adapter.factors:
        return 0.0
    a, b = (adapter.factors[target][name] for name in "ab")
    a = (a if scale_D is None else a * scale_D[:, None]).astype(x.dtype)
    if adapter.keys is not None:
        key = jax.random.fold_in(adapter.keys, TARGETS.index(target))
        kept = bernoulli(key, 1 - adapter.rate, x.shape, jax.typeof(x).sharding.spec)
        x = jnp.where(kept, x / (1 - adapter.rate), 0).astype(x.dtype)
    low_BxLxr = project(x, a, len(_AXES[target][0]), spec("batch", "length", None))
    return project(low_BxLxr, b.astype(x.dtype), 1, spec(*_OUTWARD[target]))


def merge(
    config: LoraConfig, weights: Mapping[str, np.ndarray], factors: Mapping[str, Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The transformer's weights with the adapter added to them, on the host: same predictions, no further cost."""
    merged = {name: np.array(w) for name, w in weights.items()}
    for target, f in factors.items():
        whole = config.scale * np.einsum(_MERGED[target], f["a"], f["b"])
        if target in _QKV:
            merged["qkv"][:, :, _QKV[target]] += whole
        else:
            merged[target] += whole
    return merged
