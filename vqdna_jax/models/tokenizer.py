"""The VQDNA tokenizer: one-hot DNA -> features at the quantised depths, embedding -> 4-way logits (paper Sec. 3.3).

A window of S bases has L = S / R codes.
"""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from vqdna_jax.models import quantize
from vqdna_jax.models.forms import gelu
from vqdna_jax.models.layers import ACTIVATION, Conv1d, ConvNeXtBlock, Dtype, LayerNorm, apply, variance_scaling
from vqdna_jax.partition import gathered, sharded, spec, split_length
from vqdna_jax.runtime.typed import NonNegative, OddSize, Positive, expect, one_of

BASES_PER_CODE = (1, 2, 4, 8, 16)


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """Everything that fixes the network and its codebooks; the defaults are the paper's.

    Attributes:
        quantizer: "vqvae", one codebook of K codes after the last block; "hrq", codebooks of 2K and 4K codes after
            the middle and the last block.
        code_size: K, see `quantizer`.
        bases_per_code: bases a code stands for; over 1, a strided projection after the stem.
        width: D, channels of the blocks, and of a code's vector.
        blocks: ConvNeXt blocks of the encoder, and of the decoder.
        kernel_size: codes that the depthwise convolution of a block sees.
        expansion: hidden channels of a block, as a multiple of the width.
        stem_channels: channels of the convolution over bases.
        stem_kernel_size: bases that this convolution sees.
        reach: 0: the paper's decoder, which mixes neighbouring codes; above: bases to each side of a code that the code
            alone predicts, beside its own; a multiple of bases_per_code.
        dtype: of activations and matmuls; parameters, statistics, residuals and scores are f32.
    """

    quantizer: Literal["vqvae", "hrq"] = "hrq"
    code_size: Positive = 512
    bases_per_code: Annotated[int, one_of(*BASES_PER_CODE)] = 1
    width: Positive = 384
    blocks: Positive = 6
    kernel_size: OddSize = 7
    expansion: Positive = 4
    stem_channels: Positive = 256
    stem_kernel_size: OddSize = 5
    reach: NonNegative = 0
    dtype: Dtype = "bfloat16"

    def check_fields(self, prefix: str) -> None:
        """Raises BadField: hrq quantises after two blocks, and there are fewer; a reach is no whole number of codes."""
        enough = self.quantizer != "hrq" or self.blocks > 1
        expect(enough, f"{prefix}blocks", self.blocks, "2 or more: hrq quantises after two blocks")
        size = self.bases_per_code
        expect(self.reach % size == 0, f"{prefix}reach", self.reach, f"a multiple of {prefix}bases_per_code={size}")

    def described(self) -> dict[str, Any]:
        """Its fields, of JSON's types, as exports and their digests have them: the paper's decoder is older than the
        key and has no reach there."""
        fields = dataclasses.asdict(self)
        return fields if self.reach else {name: value for name, value in fields.items() if name != "reach"}

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        return (self.code_size,) if self.quantizer == "vqvae" else (2 * self.code_size, 4 * self.code_size)

    @property
    def quantised_blocks(self) -> tuple[int, ...]:
        return (self.blocks,) if self.quantizer == "vqvae" else (self.blocks // 2, self.blocks)

    @property
    def receptive_codes(self) -> int:
        """How many codes away, at most, a base can reach a code (and a code a base, in the decoder)."""
        stem_codes = -(-(self.stem_kernel_size // 2) // self.bases_per_code)
        return max(self.blocks * (self.kernel_size // 2) + stem_codes, self.reach // self.bases_per_code)

    def encoder_flops_per_base(self) -> float:
        """Multiply-adds x 2 of one forward pass of encoder and quantizer, per base."""
        return 2 * (self._block_madds() + sum(self.codebook_sizes) * self.width) / self.bases_per_code + self._ends()

    def flops_per_base(self) -> float:
        """The same with the decoder."""
        return self.encoder_flops_per_base() + self._decoder_flops_per_base()

    def _decoder_flops_per_base(self) -> float:
        if not self.reach:
            return 2 * self._block_madds() / self.bases_per_code + self._ends()
        offsets = 2 * self.reach + self.bases_per_code
        return 2 * (2 * self.expansion * self.width**2 + 4 * offsets * self.width) / self.bases_per_code

    def _block_madds(self) -> float:
        return self.blocks * (2 * self.expansion * self.width**2 + self.kernel_size * self.width)

    def _ends(self) -> float:
        return 2 * self.stem_channels * (4 * self.stem_kernel_size + self.width)


class Encoder(nn.Module):
    """bases_BxS -> features [B, L, D] after each quantised block, deepest last."""

    config: TokenizerConfig

    @nn.compact
    def __call__(self, bases_BxS: Array, valid_BxL: Array | None = None) -> tuple[Array, ...]:
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        # An unknown base (N, or one hidden on purpose) is the zero vector: it says nothing about which base it is.
        one_hot_BxSx4 = nn.one_hot(split_length(bases_BxS), 4, dtype=dtype)
        x_BxSxC = Conv1d(c.stem_channels, c.stem_kernel_size, dtype, name="stem")(one_hot_BxSx4)
        x_BxSxC = gelu(LayerNorm(dtype, name="stem_norm")(x_BxSxC))
        x_BxLxD = Patches(c.bases_per_code, c.width, dtype, name="patches")(x_BxSxC)
        valid = _valid_BxLx1(valid_BxL, dtype)
        features = []
        for i in range(1, c.blocks + 1):
            x_BxLxD = ConvNeXtBlock(c.expansion * c.width, c.kernel_size, dtype, name=f"block_{i}")(x_BxLxD, valid)
            if i in c.quantised_blocks:
                features.append(x_BxLxD)
        return tuple(features)


class Decoder(nn.Module):
    """embedding_BxLxD -> logits_BxSx4: the encoder mirrored.

    The paper's de-convolutions have stride 1, where a transposed convolution is a convolution with its kernel read
    backwards; learned kernels make them the same thing.
    """

    config: TokenizerConfig

    @nn.compact
    def __call__(self, embedding_BxLxD: Array, valid_BxL: Array | None = None) -> Array:
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        x_BxLxD, valid = embedding_BxLxD.astype(dtype), _valid_BxLx1(valid_BxL, dtype)
        for i in range(1, c.blocks + 1):
            x_BxLxD = ConvNeXtBlock(c.expansion * c.width, c.kernel_size, dtype, name=f"block_{i}")(x_BxLxD, valid)
        x_BxSxC = Unpatch(c.bases_per_code, c.stem_channels, dtype, name="unpatch")(x_BxLxD)
        x_BxSxC = gelu(LayerNorm(dtype, name="stem_norm")(x_BxSxC))
        if valid is not None:
            x_BxSxC *= jnp.repeat(valid, c.bases_per_code, axis=1)
        return Conv1d(4, c.stem_kernel_size, dtype, name="stem")(x_BxSxC).astype(jnp.float32)


def encode(
    config: TokenizerConfig, params, codes_KxD: Sequence[Array], bases_BxS: Array, valid_BxL: Array | None = None
) -> quantize.Quantized:
    """Codes and embedding of windows, by the encoder's `params` and the codebooks' vectors, one [K, D] a level."""
    features = apply(Encoder(config), params, bases_BxS, valid_BxL)
    return quantize.hierarchical(features, codes_KxD, jnp.dtype(config.dtype))


class Patches(nn.Module):
    """[B, S, C] -> [B, S / R, D]: a convolution with kernel and stride R (for R = 1 a projection)."""

    bases: int
    width: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_BxSxC: Array) -> Array:
        batch, length, channels = x_BxSxC.shape
        init = variance_scaling(1.0, "fan_in", "truncated_normal", in_axis=(0, 1), out_axis=2)
        kernel_RxCxD = self.param("kernel", sharded(init, None, None, "embed"), (self.bases, channels, self.width))
        kernel_RxCxD = gathered(kernel_RxCxD, None, None, "embed").astype(self.dtype)
        x_BxLxRxC = x_BxSxC.reshape(batch, length // self.bases, self.bases, channels)
        return jnp.einsum("blrc,rcd->bld", x_BxLxRxC, kernel_RxCxD, out_sharding=spec(*ACTIVATION))


class Unpatch(nn.Module):
    """[B, L, D] -> [B, L R, C]: the transposed convolution of `Patches`."""

    bases: int
    channels: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_BxLxD: Array) -> Array:
        batch, length, width = x_BxLxD.shape
        init = variance_scaling(1.0, "fan_in", "truncated_normal", in_axis=0, out_axis=(1, 2))
        kernel_DxRxC = self.param("kernel", sharded(init, "embed", None, None), (width, self.bases, self.channels))
        kernel_DxRxC = gathered(kernel_DxRxC, "embed", None, None).astype(self.dtype)
        x_BxLxRxC = jnp.einsum("bld,drc->blrc", x_BxLxD, kernel_DxRxC)
        return x_BxLxRxC.reshape(batch, length * self.bases, self.channels)


def _valid_BxLx1(valid_BxL: Array | None, dtype: jnp.dtype) -> Array | None:
    return None if valid_BxL is None else valid_BxL[..., None].astype(dtype)
