"""Hyena (arXiv 2302.10866) of order 2: long convolutions whose filters a small network of the position makes.

Causal as published, through the interface of `transformer.Transformer`; the projections have its weights' names and
shapes, with one head, so that LoRA finds them. Nothing that follows a token changes it, so padding behind a sequence
needs no mask. A filter's decay is in units of the longest input, not of this one's: a shorter input reads the beginning
of the same filter. `hyena_encoder` has the network that is trained here, of the same layers, to both sides too.
"""

import dataclasses
import functools
import math
from typing import Annotated, Any, ClassVar

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from vqdna_jax.models import lora
from vqdna_jax.models.attention import HEADS
from vqdna_jax.models.forms import gelu, project, shift
from vqdna_jax.models.heads import LanguageHead
from vqdna_jax.models.layers import ACTIVATION, Dtype, affine_norm, precision_of
from vqdna_jax.models.transformer import WEIGHT_AXES, Compute, run_layers
from vqdna_jax.partition import by_channels, by_positions, gathered, sharded, spec
from vqdna_jax.runtime.typed import Positive, PositiveNumber, one_of

DECAYED_TO = 0.05  # of a filter's values far away, which are not let fall to 0
RATE = 10.0  # of a filter's sines, before training
KEPT = ("waves", "times", "decays")  # of a filter; they are not trained


@dataclasses.dataclass(frozen=True)
class HyenaLayers:
    """What fixes the layers; the defaults are those of the smallest network that is published.

    Attributes:
        layers: of convolution and MLP. width: D. hidden: F of the MLP, tanh GELU.
        slots: tokens of the longest input, which the filters are as long as.
        taps: of the short convolution of the three projections.
        filter_width, filter_layers, filter_features: of the network that makes filters: channels, hidden layers, and
            numbers that it has of a position.
        epsilon: of the norms.
        dtype: of activations and matmuls; convolutions are f32.
    """

    layers: Positive = 2
    width: Positive = 128
    hidden: Positive = 512
    slots: Positive = 1026
    taps: Positive = 3
    filter_width: Positive = 64
    filter_layers: Positive = 2
    filter_features: Positive = 5
    epsilon: PositiveNumber = 1e-5
    dtype: Dtype = "float32"

    heads: ClassVar[int] = 1
    cls: ClassVar[bool] = False
    window: ClassVar[int] = 0

    @property
    def causal(self) -> bool:
        """Does a token see none behind it? Else there is a filter for each side."""
        return True

    def flops_per_code(self, length: int) -> float:
        """Multiply-adds x 2 of one forward pass through the layers, per token of a sequence of `length` tokens, and of
        three transforms of twice its length; the filters, which all rows share, are not counted."""
        matrices = 4 * self.width**2 + 2 * self.width * self.hidden
        return self.layers * (2 * matrices + 15 * math.log2(2 * max(length, 1)) * self.width)


@dataclasses.dataclass(frozen=True)
class HyenaConfig(HyenaLayers):
    """A network that is published.

    Attributes:
        head: of its language model: there is none, or its matrix is the table of tokens, or one of its own.
    """

    head: Annotated[str, one_of("none", "tied", "own")] = "own"

    table_scale: ClassVar[float] = 0.02
    predicts_next: ClassVar[bool] = True

    def module(self, compute: Compute) -> "Hyena":
        return Hyena(self, compute)

    def language_head(self) -> LanguageHead | None:
        return None if self.head == "none" else LanguageHead(False, self.head == "tied", self.epsilon, self.dtype)


class Hyena(nn.Module):
    """(token vectors [B, L, 1, D], masked [B, L], replaced [B]) -> (context vectors [B, L, D], None)."""

    config: HyenaConfig
    compute: Compute = Compute()

    @nn.compact
    def __call__(
        self,
        vectors_BxLxNxE: Array,
        masked_BxL: Array,
        replaced_B: Array,
        lengths_B: Array | None = None,
        layers: int | None = None,
        adapter: lora.Adapter | None = None,
    ) -> tuple[Array, None]:
        """The mask's vector takes a masked token's place; `layers`: how many to run, without the last norm then."""
        c = self.config
        chex.assert_axis_dimension(vectors_BxLxNxE, 3, c.width)
        mask_D = self.param("mask", sharded(nn.initializers.normal(0.02), None), (c.width,))
        with precision_of(c.dtype):
            x_BxLxD = jnp.where(masked_BxL[..., None], mask_D[None, None], vectors_BxLxNxE[:, :, 0]).astype(c.dtype)
            weights = {name: self._weight(name) for name in weights_of(c)}
            x_BxLxD = run_layers(
                functools.partial(layer, c, None), c.layers, self.compute, weights, x_BxLxD, layers, adapter
            )
            return last_norm(self, c, x_BxLxD, layers), None

    def _weight(self, name: str) -> Array:
        c = self.config
        shape, axes = weights_of(c)[name]
        init = functools.partial(_kept, c, name) if name in KEPT else initial(name, shape)
        return self.param(name, sharded(init, "layer", *axes), (c.layers, *shape))


def last_norm(module: nn.Module, c: HyenaLayers, x_BxLxD: Array, layers: int | None) -> Array:
    """Of all layers, none if but some were run; by `norm_scale` and `norm_bias`, parameters of the `module`."""
    scale_D = module.param("norm_scale", sharded(nn.initializers.ones, None), (c.width,))
    bias_D = module.param("norm_bias", sharded(nn.initializers.zeros, None), (c.width,))
    return x_BxLxD if layers is not None else affine_norm(x_BxLxD, scale_D, bias_D, c.epsilon).astype(c.dtype)


def initial(name: str, shape: tuple[int, ...]) -> nn.initializers.Initializer:
    """Of a weight that is trained, before it is."""
    if name == "filter_rate":
        return nn.initializers.constant(RATE)
    if name in WEIGHT_AXES:
        return nn.initializers.normal(0.02)
    if name in ("short", "filter_in", "filter_hidden", "filter_out"):
        return nn.initializers.normal((3 * shape[0 if name == "short" else -2]) ** -0.5)
    if name == "filter_skip":
        return nn.initializers.normal(1.0)
    return nn.initializers.ones if name.endswith("_scale") else nn.initializers.zeros


def _kept(c: HyenaConfig, name: str, key: Array, shape: tuple[int, ...], **placed: Any) -> Array:
    return jnp.broadcast_to(fixed_of(c, c.slots)[name][None], shape, **placed)


def fixed_of(c: HyenaLayers, length: int) -> dict[str, Array]:
    """What is fixed of a filter: of each of `length` positions its place in the longest input and waves of it, and how
    fast each channel decays, to a hundredth after 0.3 to 1.5 of the longest input."""
    at_L = jnp.arange(length, dtype=jnp.float32)
    bands = (c.filter_features - 1) // 2
    turns_LxW = (2 * math.pi / c.slots * at_L)[:, None] * jnp.linspace(1e-4, bands - 1, bands)[None]
    place_L = at_L / max(1, c.slots - 1)
    return {
        "waves": jnp.concatenate([place_L[:, None], jnp.cos(turns_LxW), -jnp.sin(turns_LxW)], axis=1),
        "times": place_L,
        "decays": jnp.linspace(math.log(0.01) / 1.5, math.log(0.01) / 0.3, c.width),
    }


def layer(
    c: HyenaLayers,
    valid_BxLx1: Array | None,
    x_BxLxD: Array,
    w: dict[str, Array],
    adapter: lora.Adapter | None = None,
) -> Array:
    """The operator, then an MLP, each after a norm and with its residual; nothing is read of what is not valid."""
    axes = weights_of(c)
    w = {name: gathered(x, *axes[name][1]).astype(c.dtype) if name in WEIGHT_AXES else x for name, x in w.items()}
    w |= {name: lax.stop_gradient(w[name]) for name in KEPT}
    h_BxLxD = affine_norm(x_BxLxD, w["attention_norm_scale"], w["attention_norm_bias"], c.epsilon).astype(c.dtype)
    x_BxLxD += _operator(c, valid_BxLx1, h_BxLxD, w, adapter)
    h_BxLxD = affine_norm(x_BxLxD, w["mlp_norm_scale"], w["mlp_norm_bias"], c.epsilon).astype(c.dtype)
    h_BxLx1xF = project(h_BxLxD, w["up"], 1, spec("batch", "length", None, "act_mlp")) + w["up_bias"][None, None]
    h_BxLx1xF += lora.delta(adapter, "up", h_BxLxD)
    h_BxLxF = gelu(h_BxLx1xF[:, :, 0].astype(c.dtype))
    y_BxLxD = project(h_BxLxF, w["down"], 1, spec(*ACTIVATION)) + lora.delta(adapter, "down", h_BxLxF)
    return x_BxLxD + (y_BxLxD + w["down_bias"][None, None]).astype(c.dtype)


def _operator(
    c: HyenaLayers, valid_BxLx1: Array | None, h_BxLxD: Array, w: dict[str, Array], adapter: lora.Adapter | None
) -> Array:
    u_BxLx3x1xD = project(h_BxLxD, w["qkv"], 1, spec("batch", "length", None, "act_heads", None))
    thirds = [u_BxLx3x1xD[:, :, i] + w["qkv_bias"][None, None, i] for i in range(3)]
    thirds = [x + lora.delta(adapter, name, h_BxLxD) for name, x in zip("qkv", thirds, strict=True)]
    first, second, value = (_short(c, _seen(_headless(x), valid_BxLx1), w, i) for i, x in enumerate(thirds))
    value = _seen(value * second, valid_BxLx1)
    mixed_BxLxD = convolved(value, filter_of(c, w, h_BxLxD.shape[1])) + value * w["filter_skip"][None, None]
    y_BxLxD = (mixed_BxLxD * first).astype(c.dtype)
    y_BxLx1xD = jnp.reshape(y_BxLxD, (*y_BxLxD.shape[:2], 1, c.width), out_sharding=spec(*HEADS))
    y_BxLxD = project(y_BxLx1xD, w["out"], 2, spec(*ACTIVATION)) + lora.delta(adapter, "out", y_BxLx1xD)
    return (y_BxLxD + w["out_bias"][None, None]).astype(c.dtype)


def _headless(x_BxLx1xD: Array) -> Array:
    rows, length, _, width = x_BxLx1xD.shape
    return jnp.reshape(x_BxLx1xD, (rows, length, width), out_sharding=spec(*ACTIVATION))


def _seen(x_BxLxD: Array, valid_BxLx1: Array | None) -> Array:
    return x_BxLxD if valid_BxLx1 is None else jnp.where(valid_BxLx1, x_BxLxD, 0)


def _short(c: HyenaLayers, x_BxLxD: Array, w: dict[str, Array], third: int) -> Array:
    """Each channel's few last tokens, or those around."""
    first = 1 - c.taps if c.causal else -(c.taps // 2)
    taps = (shift(x_BxLxD, first + k) * w["short"][k, third][None, None] for k in range(c.taps))
    return functools.reduce(jnp.add, taps) + w["short_bias"][third][None, None]


def filter_of(c: HyenaLayers, w: dict[str, Array], length: int) -> Array:
    """f32 [L, D]; to both sides [2 L, D], as `convolved` takes it."""
    rate_1xC = w["filter_rate"][None]
    x_LxC = jnp.sin(rate_1xC * (w["waves"][:length] @ w["filter_in"] + w["filter_in_bias"][None]))
    for i in range(c.filter_layers):
        x_LxC = jnp.sin(rate_1xC * (x_LxC @ w["filter_hidden"][i] + w["filter_hidden_bias"][i][None]))
    decay_LxD = jnp.exp(-w["times"][:length, None] * jnp.abs(w["decays"])[None])
    sides = jnp.split(x_LxC @ w["filter_out"], _sides(c), axis=1)
    before_LxD, *after_LxD = (side_LxD * (decay_LxD + DECAYED_TO) for side_LxD in sides)
    if c.causal:
        return before_LxD
    nothing_1xD = jnp.zeros_like(before_LxD[:1])
    return jnp.concatenate([before_LxD, nothing_1xD, after_LxD[0][:0:-1]])  # a token's own place is in `before`


def _sides(c: HyenaLayers) -> int:
    return 1 if c.causal else 2


def convolved(x_BxLxD: Array, filter_LxD: Array) -> Array:
    """f32: y[l] is the sum over m <= l of filter[l - m] x[m], each channel for itself; of a filter [2 L, D] over all m,
    where l - m < 0 counts from its end. Where devices share a sequence, each has some channels of all of it."""
    length = x_BxLxD.shape[1]

    def local(x: Array, filter_LxD: Array) -> Array:
        x = by_channels(x)
        spectrum = jnp.fft.rfft(x.astype(jnp.float32), 2 * length, axis=1)
        of_filter = jnp.fft.rfft(filter_LxD.astype(jnp.float32), 2 * length, axis=0)
        return by_positions(jnp.fft.irfft(spectrum * of_filter[None], 2 * length, axis=1)[:, :length])

    rows, channels = spec("batch", "length", None), spec(None, "length")
    return jax.shard_map(local, in_specs=(rows, channels), out_specs=rows)(x_BxLxD, jax.reshard(filter_LxD, channels))


def weights_of(c: HyenaLayers) -> dict[str, tuple[tuple[int, ...], tuple[str | None, ...]]]:
    """Shape and logical axes of one layer's weights."""
    weights: dict[str, tuple[tuple[int, ...], tuple[str | None, ...]]] = {
        "qkv": ((c.width, 3, 1, c.width), WEIGHT_AXES["qkv"]),
        "out": ((1, c.width, c.width), WEIGHT_AXES["out"]),
        "up": ((c.width, 1, c.hidden), WEIGHT_AXES["up"]),
        "up_bias": ((1, c.hidden), (None, "mlp")),
        "down": ((c.hidden, c.width), WEIGHT_AXES["down"]),
    }
    whole: dict[str, tuple[int, ...]] = {
        "qkv_bias": (3, 1, c.width),
        "short": (c.taps, 3, c.width),
        "short_bias": (3, c.width),
        "filter_in": (c.filter_features, c.filter_width),
        "filter_in_bias": (c.filter_width,),
        "filter_hidden": (c.filter_layers, c.filter_width, c.filter_width),
        "filter_hidden_bias": (c.filter_layers, c.filter_width),
        "filter_out": (c.filter_width, _sides(c) * c.width),
        "filter_rate": (c.filter_width,),
        "filter_skip": (c.width,),
        "waves": (c.slots, c.filter_features),
        "times": (c.slots,),
        "decays": (c.width,),
    }
    norms = [f"{norm}_{part}" for norm in ("attention_norm", "mlp_norm") for part in ("scale", "bias")]
    whole |= dict.fromkeys((*norms, "out_bias", "down_bias"), (c.width,))
    return weights | {name: (shape, (None,) * len(shape)) for name, shape in whole.items()}
