"""The Hyena network that is trained here, in the transformer's place: same input, same heads, layers of `hyena`.

For masked modelling a code sees both sides: a filter for each, made by one network of the distance, and a short
convolution around it. Two filters, for with one, mirrored, the long convolution would not know left from right. Causal,
the layers are those that are published. What is behind a sequence is kept from both convolutions, of causal ones too:
transforms round, and what they round would depend on it.
"""

import dataclasses
import functools

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from vqdna_jax.models import lora
from vqdna_jax.models.hyena import KEPT, HyenaLayers, fixed_of, initial, last_norm, layer, weights_of
from vqdna_jax.models.transformer import Compute, embedded, matrices_of, run_layers
from vqdna_jax.partition import sharded, split_length, whole_length


@dataclasses.dataclass(frozen=True)
class HyenaEncoderConfig(HyenaLayers):
    """As `HyenaLayers`; `slots` is the codes of a training window.

    Attributes:
        causal: a code sees none behind it, as published.
    """

    causal: bool = False

    def module(self, compute: Compute) -> "HyenaEncoder":
        return HyenaEncoder(self, compute)


class HyenaEncoder(nn.Module):
    """(code vectors [B, L, N, E], masked [B, L], replaced [B]) -> (context vectors [B, L, D], None), as `Transformer`
    without CLS."""

    config: HyenaEncoderConfig
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
        """`lengths_B`: codes of each sequence; `layers`: how many to run, without the last norm then."""
        c, valid_BxLx1 = self.config, None
        x_BxLxD = split_length(embedded(self, c.width, c.dtype, vectors_BxLxNxE, masked_BxL, replaced_B))
        if lengths_B is not None:
            valid_BxLx1 = jnp.arange(masked_BxL.shape[1])[None, :, None] < lengths_B[:, None, None]
        weights = {name: self._weight(name) for name in weights_of(c) if name not in KEPT}
        body = functools.partial(_layer, c, valid_BxLx1, fixed_of(c, masked_BxL.shape[1]))
        x_BxLxD = run_layers(body, c.layers, self.compute, weights, x_BxLxD, layers, adapter)
        return whole_length(last_norm(self, c, x_BxLxD, layers)), None

    def _weight(self, name: str) -> Array:
        c = self.config
        shape, axes = weights_of(c)[name]
        init = matrices_of(c.layers).get(name) or initial(name, shape)
        return self.param(name, sharded(init, "layer", *axes), (c.layers, *shape))


def _layer(
    c: HyenaEncoderConfig,
    valid_BxLx1: Array | None,
    fixed: dict[str, Array],
    x_BxLxD: Array,
    w: dict[str, Array],
    adapter: lora.Adapter | None = None,
) -> Array:
    return layer(c, valid_BxLx1, x_BxLxD, w | fixed, adapter)
