"""BERT and its kin: encoders with biases, learned positions (or rotary ones, or ALiBi), and a norm before or after.

They read tokens through the same interface as `transformer.Transformer`, weights are stacked under the same names, so
that LoRA, pooling and fine-tuning know no difference. Of a vocabulary's special tokens the first, the last and the mask
are parameters here: the table of tokens holds them too, but no sequence of DNA has them.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Annotated, ClassVar

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from vqdna_jax.models import lora
from vqdna_jax.models.attention import Kernel, alibi_slopes, attention
from vqdna_jax.models.forms import project
from vqdna_jax.models.heads import LanguageHead
from vqdna_jax.models.layers import ACTIVATION, Dtype, affine_norm, precision_of
from vqdna_jax.models.rotary import rotate
from vqdna_jax.models.transformer import WEIGHT_AXES, Compute, attention_of, run_layers, thirds_of
from vqdna_jax.partition import gathered, sharded, spec
from vqdna_jax.runtime.typed import NonNegative, Positive, PositiveNumber, Share, expect, one_of

ROPE_BASE = 10000.0
GATES: dict[str, Callable[[Array], Array]] = {
    "geglu": functools.partial(jax.nn.gelu, approximate=False),
    "swiglu": jax.nn.silu,
}
POSITIONS, NORMS, HEADS = ("learned", "rotary", "alibi"), ("after", "before"), ("none", "tied", "own")


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Everything that fixes the network; the defaults are BERT's.

    Attributes:
        layers, width, heads, hidden: as of `TransformerConfig`.
        activation: of the MLP, gelu by the error function; or a gate of one of two matrices up.
        up_bias, down_bias: has the MLP biases? The attention has.
        norm: of each sublayer, after its residual (and of the embeddings too), or before it (and of the output too).
        positions: learned vectors for `slots` tokens, first and last included; or in the attention, for any number.
        end: a learned vector goes behind every sequence; one in front there always is.
        hidden_share: of training's tokens that were hidden as zeros; the others are scaled to make up for them.
        epsilon: of the norms.
        head: of its language model: there is none, or its last matrix is the table of tokens, or one of its own.
        dtype: of activations and matmuls.
    """

    layers: Positive = 12
    width: Positive = 768
    heads: Positive = 12
    hidden: Positive = 3072
    activation: Annotated[str, one_of("gelu", *GATES)] = "gelu"
    up_bias: bool = True
    down_bias: bool = True
    norm: Annotated[str, one_of(*NORMS)] = "after"
    positions: Annotated[str, one_of(*POSITIONS)] = "learned"
    slots: NonNegative = 512
    end: bool = True
    hidden_share: Share = 0.0
    epsilon: PositiveNumber = 1e-12
    head: Annotated[str, one_of(*HEADS)] = "tied"
    dtype: Dtype = "float32"

    table_scale: ClassVar[float] = 0.02
    predicts_next: ClassVar[bool] = False
    cls: ClassVar[bool] = True
    window: ClassVar[int] = 0

    def check_fields(self, prefix: str) -> None:
        """Raises BadField: the heads do not share the width, of rotary positions in pairs of channels."""
        each = 2 * self.heads if self.positions == "rotary" else self.heads
        expect(self.width % each == 0, f"{prefix}width", self.width, f"a multiple of {each}, by {prefix}heads")

    @property
    def matrices_up(self) -> int:
        return 2 if self.activation in GATES else 1

    def module(self, compute: Compute) -> "Bert":
        return Bert(self, compute)

    def language_head(self) -> LanguageHead | None:
        if self.head == "none":
            return None
        return LanguageHead(True, self.head == "tied", self.epsilon, self.dtype)

    def flops_per_code(self, length: int) -> float:
        """Multiply-adds x 2 of one forward pass through the layers, per token of a sequence of `length` tokens."""
        matrices = 4 * self.width**2 + (1 + self.matrices_up) * self.width * self.hidden
        return 2 * self.layers * (matrices + 2 * length * self.width)


class Bert(nn.Module):
    """(token vectors [B, L, 1, D], masked [B, L], replaced [B]) -> context vectors [B, L, D], and of the first slot
    [B, D]. The mask's vector takes a masked token's place, whatever `replaced` says."""

    config: BertConfig
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
    ) -> tuple[Array, Array]:
        """`lengths_B`: tokens of each sequence, the first slot included; `layers`: how many to run, without the last
        norm then."""
        c, length = self.config, vectors_BxLxNxE.shape[1]
        ends_B = lengths_B if lengths_B is None else lengths_B + c.end
        with precision_of(c.dtype):
            x_BxLxD = self._embed(vectors_BxLxNxE, masked_BxL, lengths_B)
            weights = {name: self._weight(name) for name in _weights_of(c)}
            body = functools.partial(layer, c, attention_of(self.compute), ends_B)
            x_BxLxD = run_layers(body, c.layers, self.compute, weights, x_BxLxD, layers, adapter)
            if c.norm == "before":
                scale_D, bias_D = self._vector("norm_scale", one=True), self._vector("norm_bias")
                x_BxLxD = _normed(c, x_BxLxD, scale_D, bias_D) if layers is None else x_BxLxD
        return x_BxLxD[:, 1 : 1 + length], x_BxLxD[:, 0]

    def _embed(self, vectors_BxLxNxE: Array, masked_BxL: Array, lengths_B: Array | None) -> Array:
        c, length = self.config, masked_BxL.shape[1]
        chex.assert_axis_dimension(vectors_BxLxNxE, 3, c.width)
        first_D, mask_D = self._vector("cls"), self._vector("mask")
        hidden_D = jnp.zeros_like(mask_D) if c.hidden_share else mask_D
        x_BxLxD = jnp.where(masked_BxL[..., None], hidden_D[None, None], vectors_BxLxNxE[:, :, 0])
        sides = [_slot(x_BxLxD, first_D), x_BxLxD]
        if c.end:
            sides.append(_slot(x_BxLxD, self._vector("end")))
        x_BxLxD = jnp.concatenate(sides, axis=1)
        slots = x_BxLxD.shape[1]
        if c.end and lengths_B is not None:
            is_end_BxL = jnp.arange(slots)[None] == lengths_B[:, None]
            x_BxLxD = jnp.where(is_end_BxL[..., None], x_BxLxD[:, -1:], x_BxLxD)
        if c.hidden_share:
            total_B = slots if lengths_B is None else lengths_B + c.end
            there_BxL = jnp.arange(length)[None] < (length if lengths_B is None else lengths_B[:, None] - 1)
            shown_B = 1 - jnp.sum(masked_BxL & there_BxL, axis=1) / total_B
            x_BxLxD *= ((1 - c.hidden_share) / shown_B)[:, None, None]
        if c.positions == "learned":
            positions_LxD = self.param("positions", _matrix(None, None), (c.slots, c.width))
            x_BxLxD += positions_LxD[None, :slots]
        if c.norm == "after":
            x_BxLxD += self._vector("segment")[None, None]
            x_BxLxD = _normed(c, x_BxLxD, self._vector("embed_scale", one=True), self._vector("embed_bias"))
        return x_BxLxD.astype(c.dtype)

    def _vector(self, name: str, one: bool = False) -> Array:
        init = nn.initializers.ones if one else nn.initializers.zeros
        if name in ("cls", "end", "mask", "segment"):
            init = nn.initializers.normal(0.02)
        return self.param(name, sharded(init, None), (self.config.width,))

    def _weight(self, name: str) -> Array:
        shape, axes = _weights_of(self.config)[name]
        init = nn.initializers.ones if name.endswith("_scale") else nn.initializers.zeros
        make = _matrix("layer", *axes) if name in WEIGHT_AXES else sharded(init, "layer", *axes)
        return self.param(name, make, (self.config.layers, *shape))


def layer(
    c: BertConfig,
    kernel: Kernel,
    lengths_B: Array | None,
    x_BxLxD: Array,
    w: dict[str, Array],
    adapter: lora.Adapter | None = None,
) -> Array:
    """Attention, then an MLP, each with its residual and its norm."""
    axes = _weights_of(c)
    w = {name: gathered(x, *axes[name][1]).astype(c.dtype) if name in WEIGHT_AXES else x for name, x in w.items()}
    attend = functools.partial(_attend, c, kernel, lengths_B, w=w, adapter=adapter)
    x_BxLxD = _sublayer(c, "attention_norm", w, x_BxLxD, attend)
    return _sublayer(c, "mlp_norm", w, x_BxLxD, functools.partial(_mlp, c, w=w, adapter=adapter))


def _sublayer(c: BertConfig, norm: str, w: dict[str, Array], x_BxLxD: Array, of) -> Array:
    scale_D, bias_D = w[f"{norm}_scale"], w[f"{norm}_bias"]
    if c.norm == "before":
        return x_BxLxD + of(_normed(c, x_BxLxD, scale_D, bias_D))
    return _normed(c, x_BxLxD + of(x_BxLxD), scale_D, bias_D)


def _attend(c: BertConfig, kernel: Kernel, lengths_B, h_BxLxD: Array, w, adapter) -> Array:
    heads = spec("batch", "length", None, "act_heads", None)
    qkv_BxLx3xHxC = project(h_BxLxD, w["qkv"], 1, heads) + w["qkv_bias"].astype(c.dtype)[None, None]
    thirds = zip("qkv", thirds_of(qkv_BxLx3xHxC), strict=True)
    q, k, v = (x + lora.delta(adapter, name, h_BxLxD) for name, x in thirds)
    if c.positions == "rotary":
        q, k = (rotate(x, ROPE_BASE) for x in (q, k))
    slopes_H = alibi_slopes(c.heads) if c.positions == "alibi" else None
    a_BxLxHxC = attention(q, k, v, kernel, 0, lengths_B, slopes_H)
    y_BxLxD = project(a_BxLxHxC, w["out"], 2, spec(*ACTIVATION)) + lora.delta(adapter, "out", a_BxLxHxC)
    return y_BxLxD + w["out_bias"].astype(c.dtype)[None, None]


def _mlp(c: BertConfig, h_BxLxD: Array, w, adapter) -> Array:
    h_BxLxTxF = project(h_BxLxD, w["up"], 1, spec("batch", "length", None, "act_mlp"))
    h_BxLxTxF += lora.delta(adapter, "up", h_BxLxD)
    if c.up_bias:
        h_BxLxTxF += w["up_bias"].astype(c.dtype)[None, None]
    if c.activation == "gelu":
        h_BxLxF = jax.nn.gelu(h_BxLxTxF[:, :, 0], approximate=False)
    else:
        h_BxLxF = GATES[c.activation](h_BxLxTxF[:, :, 0]) * h_BxLxTxF[:, :, 1]
    y_BxLxD = project(h_BxLxF, w["down"], 1, spec(*ACTIVATION)) + lora.delta(adapter, "down", h_BxLxF)
    return y_BxLxD + w["down_bias"].astype(c.dtype)[None, None] if c.down_bias else y_BxLxD


def _weights_of(c: BertConfig) -> dict[str, tuple[tuple[int, ...], tuple[str | None, ...]]]:
    """Shape and logical axes of one layer's weights."""
    channels, none = c.width // c.heads, (None,)
    weights: dict[str, tuple[tuple[int, ...], tuple[str | None, ...]]] = {
        "qkv": ((c.width, 3, c.heads, channels), WEIGHT_AXES["qkv"]),
        "qkv_bias": ((3, c.heads, channels), (None, "heads", None)),
        "out": ((c.heads, channels, c.width), WEIGHT_AXES["out"]),
        "out_bias": ((c.width,), none),
        "up": ((c.width, c.matrices_up, c.hidden), WEIGHT_AXES["up"]),
        "down": ((c.hidden, c.width), WEIGHT_AXES["down"]),
    }
    for norm in ("attention_norm", "mlp_norm"):
        weights |= {f"{norm}_scale": ((c.width,), none), f"{norm}_bias": ((c.width,), none)}
    if c.up_bias:
        weights["up_bias"] = (c.matrices_up, c.hidden), (None, "mlp")
    return weights | ({"down_bias": ((c.width,), none)} if c.down_bias else {})


def _matrix(*axes: str | None):
    return sharded(nn.initializers.normal(0.02), *axes)


def _slot(x_BxLxD: Array, vector_D: Array) -> Array:
    """One more slot of every row."""
    one = jnp.broadcast_to(vector_D[None, None], (len(x_BxLxD), 1, len(vector_D)))
    return jax.reshard(one, jax.typeof(x_BxLxD).sharding.spec)


def _normed(c: BertConfig, x_BxLxD: Array, scale_D: Array, bias_D: Array) -> Array:
    return affine_norm(x_BxLxD, scale_D, bias_D, c.epsilon).astype(c.dtype)
