"""How likely a model over tokens finds tokens of a window: those that are hidden from it together, or, of a model that
predicts the next token, each by all before it."""

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vqdna_jax import partition
from vqdna_jax.errors import InputError
from vqdna_jax.inference.pretrained import Pretrained
from vqdna_jax.models.attention import Kernel
from vqdna_jax.models.heads import TokenHead
from vqdna_jax.models.layers import Params, apply
from vqdna_jax.models.networks import NetworkConfig, PublishedConfig
from vqdna_jax.models.quantize import code_vectors
from vqdna_jax.models.transformer import Compute
from vqdna_jax.partition import AnyArray, take
from vqdna_jax.tokenizers.stitch import batched, in_flight

_FEWEST = 8  # places that a call has room for
_NOWHERE = -1


class Asked(NamedTuple):
    """Tokens int32 [L, 1] of a window, the places [M] that are hidden, or from the first on predicted, and two tokens
    of each whose probabilities are asked for [M, 2]."""

    tokens_Lx1: np.ndarray
    at_M: np.ndarray
    targets_Mx2: np.ndarray


class _Call(flax.struct.PyTreeNode):
    """Windows as one call computes them: tokens, how many are there [B], places whose vectors name tokens [B, M]."""

    tokens_BxLx1: AnyArray
    lengths_B: AnyArray
    at_BxM: AnyArray
    targets_BxMx2: AnyArray


def predicts_next(model: Pretrained) -> bool:
    """Does the vector of a token name the one behind it, and not itself?"""
    return isinstance(model.transformer, PublishedConfig) and model.transformer.predicts_next


def check(model: Pretrained, name: str) -> None:
    """Raises InputError where there is no head that names tokens; `name`: of the model."""
    if _head(model.transformer) is None:
        raise InputError(
            f"{name}: was imported without the head of its language model, and score needs one; import a directory"
            " whose tensors have it"
        )


def log_probabilities(model: Pretrained, asked: Sequence[Asked]) -> Iterator[tuple[int, np.ndarray]]:
    """The number of every item, in any order, and ln p f32 [M, 2] of its targets, among all words of the vocabulary."""
    shapes = [(model.slots_of(len(a.tokens_Lx1)), _room(len(a.at_M))) for a in asked]
    for slots, count in sorted(set(shapes)):
        chosen = (i for i, shape in enumerate(shapes) if shape == (slots, count))
        rows = max(1, model.slots_per_call // slots)
        shape = rows, slots - model.transformer.cls, count
        calls = ((batch, _apply(model, _call([asked[i] for i in batch], shape))) for batch in batched(chosen, rows))
        for batch, log_BxMx2 in in_flight(calls):
            for i, log_Mx2 in zip(batch, np.asarray(log_BxMx2)):
                yield i, log_Mx2[: len(asked[i].at_M)]


def _room(count: int) -> int:
    return max(_FEWEST, 1 << (count - 1).bit_length())


def _call(batch: Sequence[Asked], shape: tuple[int, int, int]) -> _Call:
    """Rows without a window have one token, so that softmax has something to sum over."""
    rows, length, count = shape
    call = _Call(
        np.zeros((rows, length, 1), np.int32),
        np.ones(rows, np.int32),
        np.full((rows, count), _NOWHERE, np.int32),
        np.zeros((rows, count, 2), np.int32),
    )
    for row, (tokens_Lx1, at_M, targets_Mx2) in enumerate(batch):
        call.tokens_BxLx1[row, : len(tokens_Lx1)] = tokens_Lx1
        call.lengths_B[row] = len(tokens_Lx1)
        call.at_BxM[row, : len(at_M)], call.targets_BxMx2[row, : len(at_M)] = at_M, targets_Mx2
    return call


def _apply(model: Pretrained, call: _Call) -> Array:
    static = model.transformer, model.padded_kernel, predicts_next(model)
    with jax.set_mesh(model.mesh):
        on_device = partition.batch_to_devices(call, model.mesh, len(call.lengths_B))
        return _log_probabilities(*static, dict(model.weights), on_device)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _log_probabilities(config: NetworkConfig, kernel: Kernel, next_one: bool, weights: Params, call: _Call) -> Array:
    """ln p of the targets, f32 [B, M, 2]."""
    tokens_BxLx1, at_BxM, table = jnp.asarray(call.tokens_BxLx1), jnp.asarray(call.at_BxM), (weights["table"],)
    masked_BxL = jnp.zeros_like(tokens_BxLx1[..., 0], bool)
    if not next_one:
        at_1xLx1 = jnp.arange(tokens_BxLx1.shape[1])[None, :, None]
        masked_BxL = jnp.any(at_1xLx1 == at_BxM[:, None, :], axis=2)
    always_B, lengths_B = jnp.ones_like(masked_BxL[:, 0]), call.lengths_B + config.cls
    network, inputs = config.module(Compute(attention=kernel)), code_vectors(table, tokens_BxLx1)
    h_BxLxD, _ = apply(network, weights["transformer"], inputs, masked_BxL, always_B, lengths_B)
    h_BxMxD, head = take(h_BxLxD, jnp.maximum(at_BxM - next_one, 0)), _head(config)
    assert head is not None, "check has looked"
    log_BxMxV = jax.nn.log_softmax(apply(head, weights["heads"], h_BxMxD, *table), axis=-1)
    words_1x1x1xV = jnp.arange(log_BxMxV.shape[-1])[None, None, None]
    is_target_BxMx2xV = words_1x1x1xV == jnp.asarray(call.targets_BxMx2)[..., None]
    return jnp.sum(jnp.where(is_target_BxMx2xV, log_BxMxV[:, :, None], 0), axis=-1)


def _head(config: NetworkConfig) -> nn.Module | None:
    return config.language_head() if isinstance(config, PublishedConfig) else TokenHead(config.dtype)
