"""Batches of labelled code sequences: by length, padded, every row once per epoch, a pure function of (seed, step)."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import flax.struct
import numpy as np

from vqdna_jax.errors import InputError
from vqdna_jax.labels.sets import Split
from vqdna_jax.partition import AnyArray

_ENDLESS = 1 << 48  # steps; grain asks for a length
SLOTS = 8  # a window's codes and CLS are a multiple of this
_QUANTILES = (0.25, 0.5, 0.75, 1.0)  # of the lengths, where padding stops growing

Strands = Literal["one", "both"]  # of a sequence, that are read


class Shape(NamedTuple):
    """What a batch is padded to: windows per sequence, and codes per window."""

    windows: int
    codes: int


class Encoded(NamedTuple):
    """Codes [L, N] of each sequence, and labels: int32 [B], f32 [B] (standardised), or f32 [B, V].

    Attributes:
        labels: None of sequences whose labels are asked for.
        other: codes of each sequence's reverse complement, where both strands are read, else none.
    """

    codes: Sequence[np.ndarray]
    labels: AnyArray = None
    other: Sequence[np.ndarray] = ()

    @property
    def lengths(self) -> np.ndarray:
        """How many codes each has, int64 [B]; on the strand that has more."""
        lengths_B = np.array([len(codes_LxN) for codes_LxN in self.codes], np.int64)
        return np.maximum(lengths_B, [len(codes_LxN) for codes_LxN in self.other]) if self.other else lengths_B

    def take(self, rows: Sequence[int] | np.ndarray) -> "Encoded":
        codes, other = ([of[row] for row in rows] if of else () for of in (self.codes, self.other))
        return Encoded(codes, None if self.labels is None else self.labels[rows], other)


def check_lengths(split: Split, lengths: Sequence[int] | np.ndarray, limit: int, long: str) -> None:
    """Raises InputError for the first sequence of more codes than the context, unless `long` is "window"."""
    for place, length in zip(split.places, lengths):
        if length > limit and long == "refuse":
            raise InputError(
                f"{place}: {length:,} codes, but the model's context has {limit:,}; expected shorter sequences;"
                " --config.data.long=window cuts them into windows that are read as one"
            )


def window_starts(length: int, size: int) -> np.ndarray:
    """First codes of the windows of `size` that cover `length` codes; the last one ends where the sequence ends."""
    return np.minimum(np.arange(0, length, size), max(0, length - size))


class LabelledCodes(flax.struct.PyTreeNode):
    """Codes [B, W, L, N] of the windows of sequences, of which the first `lengths_BxW` count.

    The order of the fields is that of the digest of a batch.

    Attributes:
        labels: int32 [B], f32 [B] (standardised), or f32 [B, V]; None of sequences whose labels are asked for.
        total_B: codes of each sequence.
        weights_B: f32, 0 of rows that only fill the batch.
        other: the same of the reverse complements, where what is said of both strands is averaged.
    """

    codes_BxWxLxN: AnyArray
    labels: AnyArray
    lengths_BxW: AnyArray
    total_B: AnyArray
    weights_B: AnyArray = None
    other: "LabelledCodes | None" = None


class LabelledFeatures(flax.struct.PyTreeNode):
    """What `LabelledCodes` says of sequences whose features [B, P] are known and stay: only a head is trained."""

    features_BxP: AnyArray
    labels: AnyArray
    weights_B: AnyArray = None
    other: "LabelledFeatures | None" = None

    @property
    def strands(self) -> "list[AnyArray]":
        """The features of one, or of both."""
        return [self.features_BxP] if self.other is None else [self.features_BxP, self.other.features_BxP]


def on_other_strand(seed: int, epoch: int, rows: int) -> np.ndarray:
    """bool [rows]: which of all rows an epoch has as their reverse complements, with even odds."""
    return np.random.default_rng((seed, epoch, 1)).integers(0, 2, rows).astype(bool)


def warmup_lengths(first: int, longest: int) -> tuple[int, ...]:
    """Codes of the stretches of each epoch of a warm-up: `first`, and twice as many in every epoch, while some sequence
    is longer; HyenaDNA's schedule (arXiv 2306.15794)."""
    return tuple(first << epoch for epoch in range((-(-longest // first) - 1).bit_length()))


def drawn(encoded: Encoded, rows: Sequence[int] | np.ndarray, seed: int, epoch: int, length: int) -> list[np.ndarray]:
    """Codes of some of the rows as an epoch has them: each on its strand or the other, and of a sequence with more than
    `length` codes so many in a row, from a place that is drawn anew every epoch; 0: whole."""
    reverse_B = on_other_strand(seed, epoch, len(encoded.codes)) if encoded.other else None
    whole = [(encoded.codes if reverse_B is None or not reverse_B[row] else encoded.other)[row] for row in rows]
    if not length:
        return whole
    place_B = np.random.default_rng((seed, epoch, 2)).random(len(encoded.codes))
    starts = (int(place_B[row] * (max(0, len(codes) - length) + 1)) for row, codes in zip(rows, whole))
    return [codes_LxN[start : start + length] for start, codes_LxN in zip(starts, whole)]


def share_of(global_batch: int, process: int, processes: int) -> slice:
    """A process's rows of every global batch."""
    return slice(*(global_batch * i // processes for i in (process, process + 1)))


def fill(codes: Sequence[np.ndarray], shape: Shape, size: int, labels: np.ndarray | None = None) -> LabelledCodes:
    """Sequences as windows of one shape; windows that a sequence does not have are of length 0."""
    first = codes[0]
    codes_BxWxLxN = np.zeros((len(codes), *shape, first.shape[1]), first.dtype)
    lengths_BxW = np.zeros((len(codes), shape.windows), np.int32)
    for row, codes_LxN in enumerate(codes):
        for window, start in enumerate(window_starts(len(codes_LxN), size)):
            part = codes_LxN[start : start + size]
            codes_BxWxLxN[row, window, : len(part)] = part
            lengths_BxW[row, window] = len(part)
    return LabelledCodes(codes_BxWxLxN, labels, lengths_BxW, np.array(list(map(len, codes)), np.int32))


def shapes_of(lengths: np.ndarray, size: int, cls: bool) -> list[Shape]:
    """The shapes that hold sequences of these lengths with little padding, smallest first: at most four of a single
    window, and of several windows powers of two. Of lengths spread evenly up to `size`, a fifth of the slots is empty.
    """
    short = lengths[lengths <= size]
    limits = set(np.quantile(short, _QUANTILES, method="higher").tolist() if short.size else ())
    slots = {min(-(-(limit + cls) // SLOTS) * SLOTS, size + cls) for limit in limits}
    windows = {1 << (-(-int(n) // size) - 1).bit_length() for n in np.unique(lengths[lengths > size])}
    return [Shape(1, s - cls) for s in sorted(slots)] + [Shape(w, size) for w in sorted(windows)]


def shape_index(lengths: np.ndarray, shapes: Sequence[Shape], size: int) -> np.ndarray:
    """The first shape that holds each sequence."""

    def holds(shape: Shape) -> np.ndarray:
        return (-(-lengths // size) <= shape.windows) & ((lengths <= shape.codes) | (shape.windows > 1))

    return np.argmax([holds(shape) for shape in shapes], axis=0)


class LabelledBatches:
    """`batches[step]`: this process's rows of every global batch, for grain or by hand; each row on a strand that is
    drawn anew every epoch, where both are known.

    A batch has one shape. What is left over of a shape when an epoch ends goes into batches of the next larger shape,
    and the last batch is filled up with rows of weight 0, so every sequence counts once per epoch. In a warm-up a
    sequence is there as a stretch of the epoch's length, which is the shape of all its batches.
    """

    def __init__(
        self,
        encoded: Encoded,
        global_batch: int,
        seed: int,
        size: int,
        cls: bool,
        *,
        warmup: Sequence[int] = (),
        process: int = 0,
        processes: int = 1,
    ):
        """`size`: codes of a full window; `warmup`: of the stretches of the first epochs."""
        self._encoded, self._batch, self._seed, self._size = encoded, global_batch, seed, size
        self._warmup = [(length, shapes_of(np.array([length]), size, cls)) for length in warmup]
        lengths = encoded.lengths
        self.shapes = shapes_of(lengths, size, cls)
        self._shape = shape_index(lengths, self.shapes, size)
        self.steps_per_epoch = -(-len(lengths) // global_batch)
        self._rows = share_of(global_batch, process, processes)
        self._epoch: tuple[int, list] = (-1, [])

    def __len__(self) -> int:
        return _ENDLESS

    def __getitem__(self, step: int) -> LabelledCodes:
        shape, rows = self.shape_of(step)
        there = np.arange(self._batch) < len(rows)
        rows, there = (x[self._rows] for x in (np.resize(rows, self._batch), there))
        epoch = int(step) // self.steps_per_epoch
        length = self._warmup[epoch][0] if epoch < len(self._warmup) else 0
        codes = drawn(self._encoded, rows, self._seed, epoch, length)
        filled = fill(codes, shape, self._size, self._encoded.labels[rows])
        return dataclasses.replace(filled, weights_B=there.astype(np.float32))

    def shape_of(self, step: int) -> tuple[Shape, np.ndarray]:
        """The shape of the global batch of a step, and its rows."""
        epoch, step = divmod(int(step), self.steps_per_epoch)
        planned = self._epoch
        if planned[0] != epoch:
            planned = self._epoch = epoch, self._plan(epoch)
        return planned[1][step]

    def _plan(self, epoch: int) -> list[tuple[Shape, np.ndarray]]:
        rng = np.random.default_rng((self._seed, epoch))
        order = rng.permutation(len(self._shape))
        shapes, of_row = self.shapes, self._shape
        if epoch < len(self._warmup):
            shapes, of_row = self._warmup[epoch][1], np.zeros_like(of_row)
        plan, left = [], order[:0]
        for i, shape in enumerate(shapes):
            rows = np.concatenate([left, order[of_row[order] == i]])
            last = i == len(shapes) - 1
            whole = len(rows) if last else len(rows) // self._batch * self._batch
            plan += [(shape, rows[start : start + self._batch]) for start in range(0, whole, self._batch)]
            left = rows[whole:]
        return [plan[i] for i in rng.permutation(len(plan))]


class FeatureBatches:
    """As `LabelledBatches`, of features [n, P] that are known; `warmup`: of the stretches of the first epochs."""

    def __init__(
        self,
        known: LabelledFeatures,
        global_batch: int,
        seed: int,
        *,
        warmup: Sequence[np.ndarray] = (),
        process: int = 0,
        processes: int = 1,
    ):
        self._known, self._batch, self._seed, self._warmup = known, global_batch, seed, warmup
        self.steps_per_epoch = -(-len(known.labels) // global_batch)
        self._rows = share_of(global_batch, process, processes)

    def __len__(self) -> int:
        return _ENDLESS

    def __getitem__(self, step: int) -> LabelledFeatures:
        epoch, step = divmod(int(step), self.steps_per_epoch)
        order = np.random.default_rng((self._seed, epoch)).permutation(len(self._known.labels))
        rows = order[step * self._batch : (step + 1) * self._batch]
        there = (np.arange(self._batch) < len(rows)).astype(np.float32)
        rows, there = np.resize(rows, self._batch)[self._rows], there[self._rows]
        features_BxP = (self._warmup[epoch] if epoch < len(self._warmup) else self._known.features_BxP)[rows]
        if self._known.other is not None and epoch >= len(self._warmup):
            reverse_B = on_other_strand(self._seed, epoch, len(order))[rows]
            features_BxP = np.where(reverse_B[:, None], self._known.other.features_BxP[rows], features_BxP)
        return LabelledFeatures(features_BxP, self._known.labels[rows], there)


def by_shape(encoded: Encoded, shapes: Sequence[Shape], size: int) -> Iterator[tuple[np.ndarray, LabelledCodes]]:
    """(rows, their batch without weights) for each shape that occurs."""
    of_row = shape_index(encoded.lengths, shapes, size)
    for i, shape in enumerate(shapes):
        rows = np.flatnonzero(of_row == i)
        if rows.size:
            codes, labels, other = encoded.take(rows)
            reverse = fill(other, shape, size, labels) if other else None
            yield rows, dataclasses.replace(fill(codes, shape, size, labels), other=reverse)


def outputs_of(
    predict: Callable[[LabelledCodes], dict[str, np.ndarray]], encoded: Encoded, size: int, cls: bool
) -> dict[str, np.ndarray]:
    """`predict`'s outputs for all sequences, in their order."""
    lengths = encoded.lengths
    outputs: dict[str, np.ndarray] = {}
    for rows, batch in by_shape(encoded, shapes_of(lengths, size, cls), size):
        for name, values in predict(batch).items():
            outputs.setdefault(name, np.empty((len(lengths), *values.shape[1:]), values.dtype))[rows] = values
    return outputs
