"""What is trained: the interface of a task, and what tasks share (strands, masked positions, cross-entropies)."""

from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from vqdna_jax.models.forms import argmax
from vqdna_jax.models.layers import Params
from vqdna_jax.models.quantize import Codebook
from vqdna_jax.partition import spec

UNKNOWN = 4  # N, and a base hidden from the encoder
Codebooks = tuple[Codebook, ...]
Metrics = dict[str, Array]
Batch = TypeVar("Batch")
Frozen = TypeVar("Frozen")
Batch_contra = TypeVar("Batch_contra", contravariant=True)
Frozen_contra = TypeVar("Frozen_contra", contravariant=True)


class Task(Protocol[Batch_contra, Frozen_contra]):
    """What a stage trains, as pure functions: hashable, static under jit.

    A batch is a dataclass of arrays which all have the rows of the batch; frozen are the weights that are read and
    never trained, () where there are none.

    Attributes:
        microbatches: the global batch goes through in so many parts, whose gradients are averaged.
        params_ema_decay: of the averaged parameters that are evaluated and exported; 0: none.
        keeps_best: whether the parameters of the lowest held-out loss are what is exported.
    """

    def __hash__(self) -> int: ...

    @property
    def microbatches(self) -> int: ...

    @property
    def params_ema_decay(self) -> float: ...

    @property
    def keeps_best(self) -> bool: ...

    def init_params(self, frozen: Frozen_contra, batch: Batch_contra, key: Array, /) -> Params:
        """Parameters before the first step; of the batch only shapes count."""

    def init_codebooks(self, params: Params, batch: Batch_contra, key: Array, /) -> Codebooks:
        """Codebooks before the first step, () where none are learned."""

    def prepare(self, batch: Batch_contra, key: Array, /) -> Any:
        """What `loss` takes: the global batch with what is drawn for it, the same on every mesh."""

    def loss(
        self, params: Params, codebooks: Codebooks, frozen: Frozen_contra, prepared: Any, key: Array, /
    ) -> tuple[Array, tuple[Codebooks, Metrics]]:
        """(loss, (codebooks one step on, metrics)) of a prepared batch, or of a part of its rows."""

    def predict(
        self, params: Params, codebooks: Codebooks, frozen: Frozen_contra, prepared: Any, /
    ) -> dict[str, Array]:
        """What evaluations read, by name, each with the rows of the batch and whole on every device."""


def random_strand(bases_BxS: Array, key: Array) -> Array:
    """Each window as it is or as its reverse complement, with even odds."""
    reverse_B = jax.random.bernoulli(key, 0.5, bases_BxS.shape[:1], out_sharding=spec("batch"))
    return jnp.where(reverse_B[:, None], reverse_complement(bases_BxS), bases_BxS)


def reverse_complement(bases_BxS: Array) -> Array:
    return jnp.where(bases_BxS < UNKNOWN, 3 - bases_BxS, bases_BxS)[:, ::-1]


def cross_entropy(logits: Array, labels: Array) -> tuple[Array, Array]:
    """(nats, whether the likeliest class is the label), both f32 and of the shape of `labels`."""
    logits = logits.astype(jnp.float32)
    # Of the label by a sum: the gradient of a lookup is a scatter, in a pass of its own over all logits.
    is_label = jax.lax.broadcasted_iota(labels.dtype, logits.shape, logits.ndim - 1) == labels[..., None]
    of_label = jnp.sum(jnp.where(is_label, logits, 0), axis=-1)
    return jax.nn.logsumexp(logits, axis=-1) - of_label, (argmax(logits) == labels).astype(jnp.float32)


def mean_of(values: Array, counted: Array, axis=None) -> Array:
    """Mean of the counted values; 0 where none counts."""
    weights = jnp.broadcast_to(counted, values.shape).astype(jnp.float32)
    return jnp.sum(values * weights, axis=axis) / jnp.maximum(jnp.sum(weights, axis=axis), 1)
