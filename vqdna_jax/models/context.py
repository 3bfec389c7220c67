"""Decoding by single codes: each says by itself which bases lie around it, and what all say of a base is joined.

The paper's decoder mixes neighbouring codes, so that no code needs to say more than its own few bases. Here a code
stands alone, as a word does in a skip-gram: it has O = 2 reach + R offsets, from `reach` bases before its first base to
`reach` after its last.
"""

from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from vqdna_jax.genome.alphabet import N
from vqdna_jax.models.forms import shift
from vqdna_jax.models.layers import LayerNorm, Params, apply, mlp_of_norm, variance_scaling
from vqdna_jax.models.tokenizer import Decoder, TokenizerConfig
from vqdna_jax.partition import gathered, sharded, spec


class ContextDecoder(nn.Module):
    """embedding_BxLxD -> logits [B, L, O, 4] of the bases around each code, f32; no code sees another."""

    config: TokenizerConfig

    @nn.compact
    def __call__(self, embedding_BxLxD: Array) -> Array:
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        shape_DxOx4 = c.width, 2 * c.reach + c.bases_per_code, 4
        x_BxLxD = embedding_BxLxD.astype(dtype)
        x_BxLxD += mlp_of_norm(x_BxLxD, c.expansion * c.width, dtype)
        init = variance_scaling(1.0, "fan_in", "truncated_normal", in_axis=0, out_axis=(1, 2))
        kernel_DxOx4 = self.param("kernel", sharded(init, "embed", None, None), shape_DxOx4)
        bias_Ox4 = self.param("bias", sharded(nn.initializers.zeros, None, None), shape_DxOx4[1:])
        kernel_DxOx4 = gathered(kernel_DxOx4, "embed", None, None).astype(dtype)
        logits_BxLxOx4 = jnp.einsum("bld,dox->blox", LayerNorm(dtype, name="last_norm")(x_BxLxD), kernel_DxOx4)
        return logits_BxLxOx4.astype(jnp.float32) + bias_Ox4[None, None]


def decoder_of(config: TokenizerConfig) -> nn.Module:
    """The decoder that the config asks for, whose parameters `init` of an embedding [B, L, D] gives."""
    return ContextDecoder(config) if config.reach else Decoder(config)


def rebuild(config: TokenizerConfig, params: Params, embedding_BxLxD: Array, valid_BxL: Array | None = None) -> Array:
    """Scores [B, S, 4] of the bases, highest for the likeliest; of the paper's decoder they are logits."""
    if not config.reach:
        return apply(Decoder(config), params, embedding_BxLxD, valid_BxL)
    return joined(config, apply(ContextDecoder(config), params, embedding_BxLxD), valid_BxL)


def joined(config: TokenizerConfig, logits_BxLxOx4: Array, valid_BxL: Array | None = None) -> Array:
    """For each base [B, S, 4] the sum of the log probabilities that the codes around give it."""
    log_p_BxLxOx4 = jax.nn.log_softmax(logits_BxLxOx4)
    if valid_BxL is not None:
        log_p_BxLxOx4 *= valid_BxL[..., None, None].astype(jnp.float32)
    batch, length, r = *log_p_BxLxOx4.shape[:2], config.bases_per_code
    before = config.reach // r
    shape = batch, length, 2 * before + 1, 4 * r
    parts = jnp.reshape(log_p_BxLxOx4, shape, out_sharding=spec("batch", "length", None, None))
    total = cast(Array, sum(shift(parts[:, :, k], before - k) for k in range(2 * before + 1)))
    return jnp.reshape(total, (batch, length * r, 4), out_sharding=spec("batch", "length", None))


def around(config: TokenizerConfig, bases_BxS: Array) -> Array:
    """The bases around each code [B, L, O], N beyond the ends."""
    r, before = config.bases_per_code, config.reach // config.bases_per_code
    length = bases_BxS.shape[1] // r
    bases_BxLxR = jnp.reshape(bases_BxS, (len(bases_BxS), length, r), out_sharding=spec("batch", None, None))
    padded = jnp.pad(bases_BxLxR, ((0, 0), (before, before), (0, 0)), constant_values=N)
    parts = [padded[:, k : k + length] for k in range(2 * before + 1)]
    return jnp.concatenate(parts, axis=-1)
