"""A pretrained transformer with its tokenizer in memory: DNA to context vectors.

A sequence that fits the training window is padded to the smallest bucket that holds it: powers of two from
SHORTEST_BUCKET, then the training window. A longer one goes through training windows that overlap by half, and every
code's vector comes from the window whose middle is nearest. A sequence's length alone decides that, and a bucket is one
compiled program with a fixed number of rows: neighbours and batches change nothing.

Legend: B windows a call, W slots of a window (its codes and CLS), L codes, N levels, E width of a code vector, D width,
R bases a code.
"""

import collections
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vqdna_jax import partition
from vqdna_jax.errors import InputError
from vqdna_jax.models import quantize
from vqdna_jax.models.attention import best_kernel
from vqdna_jax.models.quantize import code_vectors
from vqdna_jax.models.transformer import Compute, Transformer, TransformerConfig
from vqdna_jax.tokenizers.base import DNA, Advance, as_bases
from vqdna_jax.tokenizers.learned import Model
from vqdna_jax.tokenizers.stitch import CALLS_IN_FLIGHT, neighbours

Pool = Literal["mean", "max", "cls", "none"]
Item = TypeVar("Item")
# A call computes this many slots whether it has codes for them or not: few on a CPU, where a read would wait for them.
SLOTS_PER_CALL = {"cpu": 1024, "elsewhere": 32768}
SHORTEST_BUCKET = 64
CALLS_A_GROUP = 32  # what is in memory at once; with fewer, calls that are not full would weigh more
BYTES_A_GROUP = 1 << 30  # of vectors, where every code's are kept


class Window(NamedTuple):
    """Codes [start, stop) of one sequence, of which the vectors of [first, last) are kept."""

    sequence: int
    start: int
    stop: int
    first: int
    last: int


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Pretrained(Model):
    """A tokenizer and the transformer pretrained on its codes; `vqdna_jax.load(directory)` makes it.

    Attributes, beside the tokenizer's:
        transformer: the network. pretrained_digest: sha256 of it, its tensors and the tokenizer's digest.
        weights: {"transformer", "heads"}.
    """

    transformer: TransformerConfig
    pretrained_digest: str
    weights: dict[str, Any]

    @property
    def context(self) -> int:
        """Codes of a window that it was trained on, CLS included."""
        return self.window_bp // self.config.bases_per_code

    def vectors_KxE(self) -> tuple[Array, ...]:
        """The code vectors of each level as the transformer reads them."""
        return tuple(map(quantize.standardised, self.codes_KxD))

    def embed(
        self, sequences: DNA | Iterable[DNA], pool: Pool = "mean", layer: int = -1
    ) -> np.ndarray | list[np.ndarray]:
        """Context vectors of a sequence, float32 [D], or [n, D] for many.

        Sequences are as for `encode`, and each is embedded as if alone, whatever else is in the list.

        Args:
            pool: over the sequence's codes "mean" or "max"; "cls": CLS, of a sequence longer than the training window
                the mean of its windows' CLS; "none": no pooling, [L, D] for a sequence and a list of them for many.
                Vector l stands for bases [l R, (l + 1) R); np.repeat(vectors, R, axis=0)[:bases] is one a base.
            layer: -1: after the last norm. 0 to layers: what the residual stream holds after so many layers, 0: the
                network's input. -2, -3, ...: after layers - 1, layers - 2, ... layers.

        Raises:
            InputError: as `encode`; an unknown pool, "cls" of a network without CLS, a layer that there is not.
        """
        self.check(pool, layer)
        numbers = isinstance(sequences, np.ndarray) and sequences.dtype.kind in "iufb"
        single = numbers or isinstance(sequences, str | bytes)
        bases = (as_bases(i, sequence) for i, sequence in enumerate([sequences] if single else sequences))
        vectors = [v for group in self.grouped(bases, len, pool) for v in self.embed_bases(group, pool, layer)]
        if single or pool == "none":
            return vectors[0] if single else vectors
        return np.stack(vectors) if vectors else np.zeros((0, self.transformer.width), np.float32)

    def embed_bases(
        self, bases: Sequence[np.ndarray], pool: Pool, layer: int, advance: Advance = lambda codes: None
    ) -> list[np.ndarray]:
        """`embed` of uint8 bases [S] that are known to be good, all in memory at once."""
        codes, width = self.encode_bases(bases), self.transformer.width
        if pool == "none":
            outputs = [np.empty((len(codes_LxN), width), np.float32) for codes_LxN in codes]
        else:
            outputs = list(np.full((len(codes), width), -np.inf if pool == "max" else 0.0))
        for window, vectors in self.context_vectors(codes, pool, layer, advance):
            output = outputs[window.sequence]
            if pool == "none":
                output[window.first : window.last] = vectors
            elif pool == "max":
                np.maximum(output, vectors, out=output)
            else:
                output += vectors
        if pool == "none":
            return outputs
        summed = {"mean": len, "cls": lambda codes_LxN: len(self._starts(len(codes_LxN)))}.get(pool, lambda _: 1)
        return [(output / summed(codes_LxN)).astype(np.float32) for output, codes_LxN in zip(outputs, codes)]

    def context_vectors(
        self, codes: Sequence[np.ndarray], pool: Pool, layer: int, advance: Advance = lambda codes: None
    ) -> Iterator[tuple[Window, np.ndarray]]:
        """Every window of good codes [L, N] and what is kept of it, f32: for "none" the vectors of its codes [first,
        last), for others their sum, their maximum or its CLS, [D]. The windows of one sequence come in order."""
        programs = [self._program(len(codes_LxN)) for codes_LxN in codes]
        for slots, cut in sorted(set(programs)):
            chosen = (i for i, program in enumerate(programs) if program == (slots, cut))
            windows = itertools.chain.from_iterable(self.windows_of(len(codes[i]), i) for i in chosen)
            rows = max(1, self.slots_per_call // slots)
            in_flight: collections.deque = collections.deque()
            for batch in _batched(windows, rows):
                cells = _cut(codes, batch, rows, self._codes_in(slots))
                in_flight.append((batch, self._apply(pool, layer, cut, *cells)))
                if len(in_flight) == CALLS_IN_FLIGHT:
                    yield from _kept(*in_flight.popleft(), pool, advance)
            while in_flight:
                yield from _kept(*in_flight.popleft(), pool, advance)

    def windows_of(self, length: int, sequence: int = 0) -> Iterator[Window]:
        """The windows of a sequence of `length` codes. A code that is as near to two middles is of the first."""
        size, first = self._codes_in(self.context), 0
        starts = self._starts(length).tolist()
        for start, following in itertools.zip_longest(starts, starts[1:]):
            last = length if following is None else (start + following + size - 1) // 2 + 1
            yield Window(sequence, start, min(start + size, length), first, last)
            first = last

    def grouped(self, items: Iterable[Item], bases: Callable[[Item], int], pool: Pool) -> Iterator[list[Item]]:
        """Neighbours that fill CALLS_A_GROUP calls, of "none" fewer if their vectors are over BYTES_A_GROUP. An item
        that is more than that is alone."""
        limit = CALLS_A_GROUP * self.slots_per_call
        if pool == "none":
            limit = min(limit, BYTES_A_GROUP // (4 * self.transformer.width))
        return neighbours(items, lambda item: self._slots(-(-bases(item) // self.config.bases_per_code)), limit)

    def check(self, pool: str, layer: int) -> None:
        """Raises InputError for a pool or a layer that this network does not have."""
        if pool not in get_args(Pool):
            raise InputError(f"pool: {pool!r}; expected one of {', '.join(get_args(Pool))}")
        if pool == "cls" and not self.transformer.cls:
            raise InputError("pool: 'cls', but this model was trained without CLS; use mean, max or none")
        last = self.transformer.layers
        if not isinstance(layer, int | np.integer) or not -last - 1 <= layer <= last:
            raise InputError(f"layer: {layer!r}; expected {-last - 1} to {last} for this model of {last} layers")

    @property
    def slots_per_call(self) -> int:
        return SLOTS_PER_CALL.get(self.mesh.devices.flat[0].platform, SLOTS_PER_CALL["elsewhere"])

    def _codes_in(self, slots: int) -> int:
        return slots - self.transformer.cls

    def _program(self, length: int) -> tuple[int, bool]:
        """(slots of a window, is the sequence cut into several) for `length` codes."""
        slots = SHORTEST_BUCKET
        while self._codes_in(slots) < length and slots < self.context:
            slots *= 2
        return min(slots, self.context), length > self._codes_in(self.context)

    def _starts(self, length: int) -> np.ndarray:
        """First codes of the windows of `length` codes: half a window apart, the last one at the end."""
        size = self._codes_in(self.context)
        return np.append(np.arange(0, length - size, max(1, size // 2)), max(0, length - size))

    def _slots(self, length: int) -> int:
        return self._program(length)[0] * len(self._starts(length))

    def _apply(self, pool: Pool, layer: int, cut: bool, codes_BxLxN, lengths_B, kept_Bx2) -> Array:
        config, rows = self.transformer, len(codes_BxLxN)
        batch = {"codes": codes_BxLxN, "kept": kept_Bx2}
        platform, slots = self.mesh.devices.flat[0].platform, codes_BxLxN.shape[1] + config.cls
        kernel = best_kernel(platform, slots, config.window, config.dtype)
        if not cut:  # the windows of a sequence that is cut are full
            batch["lengths"] = lengths_B + np.int32(config.cls)
            kernel = "xla" if kernel == "splash" else kernel
        depth = None if layer == -1 else layer if layer >= 0 else config.layers + 1 + layer
        with jax.set_mesh(self.mesh):
            on_device = partition.batch_to_devices(batch, self.mesh, rows)
            return _vectors(config, kernel, pool, depth, self.weights["transformer"], self.codes_KxD, on_device)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _vectors(
    config: TransformerConfig, kernel: str, pool: Pool, depth: int | None, params, codes_KxE, batch: dict[str, Array]
) -> Array:
    """f32 [B, L, D] for "none", else [B, D]: the sum or the maximum of the kept codes, or CLS."""
    vectors_BxLxNxE = code_vectors(tuple(map(quantize.standardised, codes_KxE)), batch["codes"].astype(jnp.int32))
    masked_BxL = batch["codes"][..., 0] != batch["codes"][..., 0]
    transformer = Transformer(config, Compute("unrolled", "none", kernel))
    h_BxLxD, cls_BxD = transformer.apply(
        {"params": params}, vectors_BxLxNxE, masked_BxL, masked_BxL[:, 0], batch.get("lengths"), depth
    )
    if pool in ("none", "cls"):
        return (h_BxLxD if pool == "none" else cls_BxD).astype(jnp.float32)
    at_1xL, kept_Bx2 = jnp.arange(h_BxLxD.shape[1])[None], batch["kept"]
    kept_BxLx1 = ((at_1xL >= kept_Bx2[:, :1]) & (at_1xL < kept_Bx2[:, 1:]))[..., None]
    reduce, nothing = (jnp.sum, 0.0) if pool == "mean" else (jnp.max, -jnp.inf)
    return reduce(jnp.where(kept_BxLx1, h_BxLxD.astype(jnp.float32), nothing), axis=1)


def _batched(windows: Iterator[Window], rows: int) -> Iterator[list[Window]]:
    return iter(lambda: list(itertools.islice(windows, rows)), [])


def _cut(codes: Sequence[np.ndarray], batch: list[Window], rows: int, size: int) -> tuple[np.ndarray, ...]:
    """(codes [B, L, N], how many there are [B], which are kept [B, 2]) of a batch; rows without a window have one code,
    so that softmax has something to sum over."""
    like = codes[batch[0].sequence]
    codes_BxLxN = np.zeros((rows, size, like.shape[1]), like.dtype)
    lengths_B, kept_Bx2 = np.ones(rows, np.int32), np.zeros((rows, 2), np.int32)
    for row, (sequence, start, stop, first, last) in enumerate(batch):
        codes_BxLxN[row, : stop - start] = codes[sequence][start:stop]
        lengths_B[row] = stop - start
        kept_Bx2[row] = first - start, last - start
    return codes_BxLxN, lengths_B, kept_Bx2


def _kept(batch: list[Window], y_Bx, pool: Pool, advance: Advance) -> Iterator[tuple[Window, np.ndarray]]:
    y_Bx = np.asarray(y_Bx)
    for window, y in zip(batch, y_Bx):
        yield window, y[window.first - window.start : window.last - window.start] if pool == "none" else y
        advance(window.last - window.first)
