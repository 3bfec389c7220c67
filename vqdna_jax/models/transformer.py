"""The masked-code transformer: frozen code vectors in, a context vector for every code out, and heads that name codes.

The weights of all layers are stacked, [layers, ...], however they are run; T counts the matrices up, 2 with a gate.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Annotated, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from vqdna_jax.models import lora
from vqdna_jax.models.attention import Kernel, attention
from vqdna_jax.models.forms import apart, gelu, project
from vqdna_jax.models.layers import ACTIVATION, Dtype, normalise, truncated_normal, variance_scaling
from vqdna_jax.models.rotary import rotate
from vqdna_jax.partition import gathered, sharded, spec, split_length, whole_length
from vqdna_jax.runtime.typed import NonNegative, Positive, Rule, expect, one_of

ACTIVATIONS, LOOPS, REMATS = ("gelu", "geglu"), ("unrolled", "scanned"), ("none", "dots", "full")
WEIGHT_AXES = {  # logical axes of one layer's weights
    "attention_norm": (None,),
    "qkv": ("embed", None, "heads", None),
    "out": ("heads", None, "embed"),
    "mlp_norm": (None,),
    "up": ("embed", None, "mlp"),
    "down": ("mlp", "embed"),
}


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """Everything that fixes the network; the defaults are the paper's BERT-base (86 M parameters).

    Attributes:
        layers: of attention and MLP.
        width: D, channels of the residual stream.
        heads: of the attention.
        activation: of the MLP.
        rope_base: of the rotary positions' wavelengths.
        hidden: F; "geglu" has two matrices of it up and one down, "gelu" one and one.
        window: codes that a code sees on both sides; 0: all.
        cls: a learned vector goes in front of every sequence; for its place the window's last code is left out.
        dtype: of activations and matmuls; parameters, norms, softmax and loss are f32.
    """

    layers: Positive = 12
    width: Positive = 768
    heads: Positive = 12
    hidden: Positive = 3072
    activation: Annotated[str, one_of(*ACTIVATIONS)] = "gelu"
    window: NonNegative = 0
    cls: bool = True
    rope_base: Annotated[float, Rule(lambda v: v > 1, "a number above 1")] = 10000.0
    dtype: Dtype = "bfloat16"

    def check_fields(self, prefix: str) -> None:
        """Raises BadField: the heads do not share the width in pairs of channels, which rotary positions turn."""
        even = self.width % (2 * self.heads) == 0
        expect(even, f"{prefix}width", self.width, f"a multiple of 2 x {prefix}heads={self.heads}")

    @property
    def matrices_up(self) -> int:
        return 2 if self.activation == "geglu" else 1

    def module(self, compute: "Compute") -> "Transformer":
        return Transformer(self, compute)

    def flops_per_code(self, length: int) -> float:
        """Multiply-adds x 2 of one forward pass through the layers, per code of a sequence of `length` codes."""
        matrices = 4 * self.width**2 + (1 + self.matrices_up) * self.width * self.hidden
        seen = min(length, 2 * self.window + 1) if self.window else length
        return 2 * self.layers * (matrices + 2 * seen * self.width)


@dataclasses.dataclass(frozen=True)
class Compute:
    """How the layers are run; results agree to rounding whatever is chosen.

    Attributes:
        layers: "unrolled" (fastest, and least memory on a TPU) or "scanned" (compiles in a fraction of the time).
        remat: what the backward pass computes again: "none", "dots" (all but matmuls), "full" (whole layers).
        attention: a kernel; in a config also "auto": splash on a TPU and cudnn on a GPU where they can, cpu on a
            CPU, else xla.
    """

    layers: Annotated[str, one_of(*LOOPS)] = "unrolled"
    remat: Annotated[str, one_of(*REMATS)] = "none"
    attention: Literal["auto", Kernel] = "xla"


class Transformer(nn.Module):
    """(code vectors [B, L, N, E], masked [B, L], replaced [B]) -> context vectors [B, L, D], and of CLS [B, D].

    Of a masked code the learned mask vector is added to the projected vectors, or takes their place where `replaced`.
    Where devices share a sequence they share the layers' work; what goes in and what comes out each has whole.
    """

    config: TransformerConfig
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
    ) -> tuple[Array, Array | None]:
        """`lengths_B`: codes of each sequence, CLS included; `layers`: how many to run, without the last norm then."""
        c = self.config
        x_BxLxD = embedded(self, c.width, c.dtype, vectors_BxLxNxE, masked_BxL, replaced_B)
        if c.cls:
            cls_D = self.param("cls", sharded(truncated_normal(0.02), None), (c.width,))
            first = jnp.broadcast_to(cls_D.astype(c.dtype)[None, None], (len(x_BxLxD), 1, c.width))
            x_BxLxD = jnp.concatenate([jax.reshard(first, jax.typeof(x_BxLxD).sharding.spec), x_BxLxD], axis=1)
        x_BxLxD = split_length(x_BxLxD)
        weights = {name: self._weight(name) for name in WEIGHT_AXES}
        body = functools.partial(layer, c, attention_of(self.compute), lengths_B)
        x_BxLxD = run_layers(body, c.layers, self.compute, weights, x_BxLxD, layers, adapter)
        norm_D = self.param("norm", sharded(nn.initializers.ones, None), (c.width,))
        if layers is None:
            x_BxLxD = _norm(x_BxLxD, norm_D, c.dtype)
        x_BxLxD = whole_length(x_BxLxD)
        return (x_BxLxD[:, 1:], x_BxLxD[:, 0]) if c.cls else (x_BxLxD, None)

    def _weight(self, name: str) -> Array:
        c = self.config
        channels = c.width // c.heads
        shape = {
            "attention_norm": (c.width,),
            "qkv": (c.width, 3, c.heads, channels),
            "out": (c.heads, channels, c.width),
            "mlp_norm": (c.width,),
            "up": (c.width, c.matrices_up, c.hidden),
            "down": (c.hidden, c.width),
        }[name]
        init = matrices_of(c.layers).get(name, nn.initializers.ones)
        return self.param(name, sharded(init, "layer", *WEIGHT_AXES[name]), (c.layers, *shape))


def embedded(
    module: nn.Module, width: int, dtype: str, vectors_BxLxNxE: Array, masked_BxL: Array, replaced_B: Array
) -> Array:
    """[B, L, D], by `project` and `mask`, which are made as parameters of the `module`."""
    shape = (*vectors_BxLxNxE.shape[2:], width)
    init = variance_scaling(1.0, "fan_in", "truncated_normal", in_axis=(0, 1), out_axis=2)
    project_NxExD = module.param("project", sharded(init, None, None, "embed"), shape)
    mask_D = module.param("mask", sharded(truncated_normal(0.02), None), (width,))
    project_NxExD = gathered(project_NxExD, None, None, "embed").astype(dtype)
    x_BxLxD = jnp.einsum("blne,ned->bld", vectors_BxLxNxE.astype(dtype), project_NxExD)
    gone_BxL = masked_BxL & replaced_B[:, None]
    x_BxLxD = jnp.where(gone_BxL[..., None], 0, x_BxLxD)
    return x_BxLxD + masked_BxL[..., None].astype(dtype) * mask_D.astype(dtype)[None, None]


def matrices_of(layers: int) -> dict[str, nn.initializers.Initializer]:
    """Of the matrices of so many layers, before training."""
    fan_in = functools.partial(variance_scaling, mode="fan_in", distribution="truncated_normal", batch_axis=(0,))
    outward = 1.0 / (2 * layers)  # the residual stream sums 2 layers of these
    return {
        "qkv": fan_in(1.0, in_axis=1, out_axis=(2, 3, 4)),
        "out": fan_in(outward, in_axis=(1, 2), out_axis=3),
        "up": fan_in(1.0, in_axis=1),
        "down": fan_in(outward, in_axis=1, out_axis=2),
    }


def attention_of(compute: Compute) -> Kernel:
    assert compute.attention != "auto"  # which is of configs alone
    return compute.attention


def run_layers(
    body: Callable[..., Array], total: int, compute: Compute, weights, x_BxLxD: Array, layers=None, adapter=None
) -> Array:
    """x through the first `layers` of `total` layers (all by default), unrolled or scanned: `body` is one of them,
    (x, its weights, its adapter) -> x."""
    layers = total if layers is None else layers
    if compute.remat != "none":
        policy = jax.checkpoint_policies.checkpoint_dots_with_no_batch_dims if compute.remat == "dots" else None
        body = jax.checkpoint(body, policy=policy)
    if compute.layers == "scanned":
        chosen = jax.tree.map(lambda w: w[:layers], (weights, adapter))
        return lax.scan(lambda x, w: (body(x, *w), None), x_BxLxD, chosen)[0]
    each = {name: lax.split(w, (1,) * total) for name, w in weights.items()}  # its gradient is one concatenation
    for i in range(layers):
        of_layer = adapter and adapter.of_layer(i)
        x_BxLxD = body(x_BxLxD, {name: parts[i][0] for name, parts in each.items()}, of_layer)
    return x_BxLxD


def layer(
    c: TransformerConfig,
    kernel: Kernel,
    lengths_B: Array | None,
    x_BxLxD: Array,
    w: dict[str, Array],
    adapter: lora.Adapter | None = None,
) -> Array:
    """One pre-norm layer without biases: attention with rotary positions, then an MLP (GELU or GEGLU)."""
    attention_norm_D, mlp_norm_D = w["attention_norm"], w["mlp_norm"]
    # What scales a norm scales the weights that read it, each its shard: no pass over activations is made for it.
    scaled = w | {"qkv": _scaled(w["qkv"], attention_norm_D), "up": _scaled(w["up"], mlp_norm_D)}
    whole = {name: gathered(scaled[name], *axes).astype(c.dtype) for name, axes in WEIGHT_AXES.items() if len(axes) > 1}
    h_BxLxD = normalise(x_BxLxD, c.dtype)
    qkv_BxLx3xHxC = project(h_BxLxD, whole["qkv"], 1, spec("batch", "length", None, "act_heads", None))
    thirds = zip("qkv", thirds_of(qkv_BxLx3xHxC), strict=True)
    q, k, v = (x + lora.delta(adapter, name, h_BxLxD, attention_norm_D) for name, x in thirds)
    q, k = (rotate(x, c.rope_base) for x in (q, k))
    a_BxLxHxC = attention(q, k, v, kernel, c.window, lengths_B)
    x_BxLxD += project(a_BxLxHxC, whole["out"], 2, spec(*ACTIVATION))
    x_BxLxD += lora.delta(adapter, "out", a_BxLxHxC)
    h_BxLxD = normalise(x_BxLxD, c.dtype)
    h_BxLxTxF = project(h_BxLxD, whole["up"], 1, spec("batch", "length", None, "act_mlp"))
    h_BxLxTxF += lora.delta(adapter, "up", h_BxLxD, mlp_norm_D)
    h_BxLxF = gelu(apart(h_BxLxTxF[:, :, 0]))
    if c.activation == "geglu":
        h_BxLxF *= h_BxLxTxF[:, :, 1]
    down_BxLxD = project(h_BxLxF, whole["down"], 1, spec(*ACTIVATION))
    return x_BxLxD + down_BxLxD + lora.delta(adapter, "down", h_BxLxF)


def thirds_of(qkv_BxLx3xHxC: Array) -> Iterator[Array]:
    """Their gradient is one concatenation, not a sum of three arrays that are mostly zeros."""
    return (third[:, :, 0] for third in lax.split(qkv_BxLx3xHxC, (1, 1, 1), axis=2))


def _scaled(w: Array, scale_D: Array) -> Array:
    """w [D, ...], which is split along D, times the scale."""
    scale_D = jax.reshard(scale_D, spec("embed"))
    return w * scale_D.reshape(-1, *[1] * (w.ndim - 1))


def _norm(x_BxLxD: Array, scale_D: Array, dtype: str) -> Array:
    return (normalise(x_BxLxD, dtype) * scale_D[None, None]).astype(dtype)


def born(transformer) -> dict:
    """Pretrained weights with the sharding that their training gave them."""
    axes = {name: ("layer", *of) for name, of in WEIGHT_AXES.items()} | {"project": (None, None, "embed")}
    return {name: jax.reshard(w, spec(*axes.get(name, (None,) * w.ndim))) for name, w in transformer.items()}
