"""A fine-tuned model in memory: DNA to labels.

A sequence's length alone decides the shape in which it is computed, and every shape is one compiled program with a
fixed number of rows: neighbours and batches change nothing.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jax import Array

from vqdna_jax import partition
from vqdna_jax.genome.alphabet import reverse_complement
from vqdna_jax.inference.pretrained import Pretrained
from vqdna_jax.labels.batches import Encoded, LabelledCodes, Shape, Strands, fill
from vqdna_jax.labels.sets import Kind
from vqdna_jax.models.classifier import Classifier
from vqdna_jax.models.layers import Params
from vqdna_jax.tokenizers.base import Advance, Tokenizer, no_advance

_SLOTS = (16, 24, 32, 48, 64, 96, 128, 192)  # of a window, before powers of two; each wastes a third at most


class Predictions(NamedTuple):
    """Of n sequences in their order.

    values: f32 [n, V], probabilities of the label names (multi-label: of each on its own); regression [n, 1], values.
    labels: the likeliest name of each; multi-label: names over a half, joined by ";"; regression: the value as text.
    errors: what is wrong with each, "" where nothing is; what has one has values of nan and the label "".
    """

    values: np.ndarray
    labels: list[str]
    errors: Sequence[str] = ()

    def among(self, errors: Sequence[str]) -> "Predictions":
        """With rows for those that have errors; these predictions are, in their order, of those that have none."""
        good = [i for i, error in enumerate(errors) if not error]
        values = np.full((len(errors), self.values.shape[1]), np.nan, np.float32)
        values[good], found = self.values, dict(zip(good, self.labels))
        return Predictions(values, [found.get(i, "") for i in range(len(errors))], list(errors))


@dataclasses.dataclass(frozen=True, eq=False)
class FineTuned:
    """A pretrained model with a head for labels, and what was tuned below it.

    Attributes:
        base: the pretrained model under it. digest: sha256 of what was trained and of the base's digest.
        network: with what was tuned merged into `weights`, the transformer's parameters; `head`: the head's.
        kind: of the labels.
        target: mean and standard deviation of a regression's training values.
        long: "refuse" sequences beyond the context, or "window" them.
        strands: whether a sequence alone is read, or its reverse complement too: the mean of both strands' logits.
    """

    base: Pretrained
    network: Classifier
    kind: Kind
    weights: Params = dataclasses.field(repr=False)
    head: Params = dataclasses.field(repr=False)
    label_names: tuple[str, ...]
    target: tuple[float, float]
    long: str
    digest: str
    strands: Strands = "one"

    def problem(self, length: int) -> str:
        """What is wrong with a sequence of so many codes; empty if nothing is."""
        if length <= self.size or self.long == "window":
            shape = self._shape(int(length))
            return self.base.problem_of_room(shape.codes, windows=shape.windows)
        found = (
            f"{length:,} codes, longer than the {self.size:,} of the model's context, which was trained to refuse them"
        )
        return f"{found}; cut it, or fine-tune with --config.data.long=window"

    def encode(self, bases: Sequence[np.ndarray]) -> Encoded:
        """Sequences of uint8 bases [S] as `logits` reads them."""
        return read_strands(self.base.tokenizer, bases, self.strands)

    def logits(self, encoded: Encoded, advance: Advance = no_advance) -> np.ndarray:
        """f32 [n, V] of good codes."""
        assert bool(encoded.other) == (self.strands == "both" and len(encoded.codes) > 0), "encode gives what is read"
        logits_BxV = self._rows(_logits, encoded.codes, self.network.outputs, advance)
        if not encoded.other:
            return logits_BxV
        return (logits_BxV + self._rows(_logits, encoded.other, self.network.outputs, no_advance)) / 2

    def features(self, codes: Sequence[np.ndarray], advance: Advance = no_advance) -> np.ndarray:
        """f32 [n, P], what the head reads of good codes [L, N]."""
        return self._rows(_features, codes, self.network.width, advance)

    def _rows(self, function: Callable, codes: Sequence[np.ndarray], width: int, advance: Advance) -> np.ndarray:
        outputs = np.empty((len(codes), width), np.float32)
        shapes = np.array([self._shape(len(codes_LxN)) for codes_LxN in codes], np.int64).reshape(-1, 2)
        for shape in np.unique(shapes, axis=0):
            chosen, windows = np.flatnonzero((shapes == shape).all(axis=1)), Shape(*map(int, shape))
            rows = max(1, self.base.slots_per_call // (windows.windows * (windows.codes + self.network.model.cls)))
            for start in range(0, len(chosen), rows):
                part = chosen[start : start + rows]
                padded = np.resize(part, rows)  # the first ones again
                batch = fill([codes[int(i)] for i in padded], windows, self.size)
                outputs[part] = self._apply(function, batch)[: len(part)]
                advance(len(part))
        return outputs

    def predictions(self, logits_BxV: np.ndarray) -> Predictions:
        kind, names = self.kind, self.label_names
        if kind == "regression":
            values = logits_BxV * np.float32(self.target[1]) + np.float32(self.target[0])
            return Predictions(values, [f"{value:.6g}" for value in values[:, 0].tolist()])
        if kind == "multilabel":
            values = scipy.special.expit(logits_BxV)
            return Predictions(values, [";".join(n for n, p in zip(names, row) if p > 0.5) for row in values])
        values = scipy.special.softmax(logits_BxV, axis=1)
        return Predictions(values, [names[i] for i in values.argmax(axis=1)])

    @property
    def size(self) -> int:
        """Codes of a full window."""
        return self.base.length

    @property
    def tuned(self) -> Pretrained:
        """The base with the transformer as it was tuned, to embed with; its digest is the base's."""
        return dataclasses.replace(self.base, weights={**self.base.weights, "transformer": self.weights})

    def _shape(self, length: int) -> Shape:
        if length > self.size:
            return Shape(1 << (-(-length // self.size) - 1).bit_length(), self.size)
        needed = length + self.network.model.cls
        slots = next((slots for slots in _SLOTS if slots >= needed), 1 << (needed - 1).bit_length())
        return Shape(1, min(slots, self.base.context) - self.network.model.cls)

    @functools.cached_property
    def _vectors_KxE(self) -> tuple[Array, ...]:
        return self.base.vectors_KxE()

    def _apply(self, function: Callable, batch: LabelledCodes) -> np.ndarray:
        with jax.set_mesh(self.base.mesh):
            on_device = partition.batch_to_devices(batch, self.base.mesh, len(batch.codes_BxWxLxN))
            return np.asarray(function(self.network, self.head, self.weights, self._vectors_KxE, on_device))


def read_strands(tokenizer: Tokenizer, bases: Sequence[np.ndarray], strands: Strands, labels: Any = None) -> Encoded:
    """Codes of sequences of uint8 bases [S], and of "both" those of their reverse complements: a tokenizer makes other
    codes of these, not the same in another order."""
    if strands == "one":
        return Encoded(tokenizer.encode(bases), labels)
    codes = tokenizer.encode([*bases, *map(reverse_complement, bases)])
    return Encoded(codes[: len(bases)], labels, codes[len(bases) :])


@functools.partial(jax.jit, static_argnums=0)
def _features(
    network: Classifier, head: Params, weights: Params, vectors_KxE: tuple[Array, ...], batch: LabelledCodes
) -> Array:
    of = jnp.asarray(batch.codes_BxWxLxN), jnp.asarray(batch.lengths_BxW), jnp.asarray(batch.total_B)
    return network.features(weights, head, vectors_KxE, *of)


@functools.partial(jax.jit, static_argnums=0)
def _logits(
    network: Classifier, head: Params, weights: Params, vectors_KxE: tuple[Array, ...], batch: LabelledCodes
) -> Array:
    return network.logits(head, _features(network, head, weights, vectors_KxE, batch))
