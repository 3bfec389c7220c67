"""A pretrained transformer with its tokenizer in memory: DNA to context vectors.

A sequence that fits the training window is padded to the smallest bucket that holds it: powers of two from
SHORTEST_BUCKET, then the training window. A longer one goes through training windows that overlap by half, and every
code's vector comes from the window whose middle is nearest. A sequence's length alone decides that, and a bucket is one
compiled program with a fixed number of rows: neighbours and batches change nothing. A bucket's slots are its codes and
CLS.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Self, TypeVar

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from vqdna_jax import partition
from vqdna_jax.errors import InputError
from vqdna_jax.inference import footprint
from vqdna_jax.inference.calls import Call, call_vectors, read
from vqdna_jax.models import pooling
from vqdna_jax.models.attention import Kernel, best_kernel, kernel_of_padded
from vqdna_jax.models.classifier import AUTO, TRAINED
from vqdna_jax.models.layers import Params
from vqdna_jax.models.networks import NetworkConfig
from vqdna_jax.models.pooling import POOLS, UNPOOLED
from vqdna_jax.tokenizers.base import Advance, Tokenizer, most_codes, no_advance
from vqdna_jax.tokenizers.stitch import batched, in_flight, neighbours

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
class Pretrained:
    """A transformer that was pretrained on the codes of a tokenizer.

    Attributes:
        weights: {"transformer", "heads"}, and "table" f32 [K, E] where the tokenizer's codes have no vectors.
        window_bp: bases of a training window. length: its codes without CLS, the longest context that it knows.
        digest: sha256 of the transformer, its tensors and the tokenizer's digest.
        mesh: of the devices that have all of it.
        codes_per_call: how many codes, CLS among them, a call computes, about; 0: SLOTS_PER_CALL says it.
    """

    tokenizer: Tokenizer
    transformer: NetworkConfig
    weights: Params = dataclasses.field(repr=False)
    window_bp: int
    length: int
    digest: str
    mesh: Mesh
    codes_per_call: int = 0

    def with_batch(self, codes: int) -> Self:
        """The same, which computes about so many codes at once; vectors agree to rounding."""
        return dataclasses.replace(self, tokenizer=self.tokenizer.with_batch(codes), codes_per_call=codes)

    def with_window(self, bases: int) -> Self:
        """The same, which reads windows of so many bases. Raises InputError: too few, more than in training, or no
        whole codes."""
        r, least = self.tokenizer.bases_per_code or 1, SHORTEST_BUCKET // 2
        if bases % r or not least * r <= bases <= self.window_bp:
            wanted = f"a multiple of {r}" if r > 1 else "bases"
            raise InputError(f"window: {bases}; expected {wanted} from {least * r} to {self.window_bp}, as in training")
        cls = self.transformer.cls and self._standardises  # it takes the place of a learned code
        return dataclasses.replace(
            self, window_bp=bases, length=min(self.length, most_codes(self.tokenizer, bases) - cls)
        )

    @property
    def context(self) -> int:
        """Codes of a training window, CLS included."""
        return self.length + self.transformer.cls

    @property
    def codes_KxE(self) -> tuple[Array, ...]:
        """The vector of each code, level by level: the tokenizer's, or the table that was trained in their place."""
        return self.tokenizer.codes_KxD or (self.weights["table"],)

    def vectors_KxE(self) -> tuple[Array, ...]:
        """The code vectors of each level as the transformer reads them."""
        return read(self.codes_KxE, self._standardises)

    @property
    def _standardises(self) -> bool:
        return bool(self.tokenizer.codes_KxD)

    def embed(self, bases: Iterable[np.ndarray], pool: str = "mean", layer: int = -1) -> list[np.ndarray]:
        """f32 [P] of each sequence of uint8 bases [S], or [L, D] of "none", as if alone; see `Model.embed`."""
        self.check(pool, layer)
        return [v for group in self.grouped(bases, len, pool) for v in self.embed_group(group, pool, layer)]

    def embed_group(
        self, bases: Sequence[np.ndarray], pool: str, layer: int, advance: Advance = no_advance
    ) -> list[np.ndarray]:
        """`embed` of sequences that are in memory at once."""
        self.check_room(max((most_codes(self.tokenizer, len(of)) for of in bases), default=0))
        codes, width = self.tokenizer.encode(bases), self.transformer.width
        if pool == UNPOOLED:
            outputs = [np.empty((len(codes_LxN), width), np.float32) for codes_LxN in codes]
            for window, vectors_LxD in self.context_vectors(codes, pool, layer, advance):
                outputs[window.sequence][window.first : window.last] = vectors_LxD
            return outputs
        parts, joined_BxP = self._parts(pool), np.empty((len(codes), self.width(pool)))
        for how, at in parts:
            joined_BxP[:, at] = how.start
        for window, vector_P in self.context_vectors(codes, pool, layer, advance):
            for how, at in parts:
                so_far = joined_BxP[window.sequence, at]
                getattr(np, how.join)(so_far, vector_P[at], out=so_far)
        lengths = list(map(len, codes))
        counts = ((length, len(self._starts(length))) for length in lengths)
        return [_finished(parts, joined_P, *count) for joined_P, count in zip(joined_BxP, counts)]

    def width(self, pool: str) -> int:
        """Of the vectors that `embed` gives."""
        return self.transformer.width if pool == UNPOOLED else self._parts(pool)[-1].at.stop

    def _parts(self, pool: str) -> list[pooling.Part]:
        return pooling.parts(pool, self.transformer.width, self.sizes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Codes of each level."""
        return tuple(map(len, self.codes_KxE))

    def context_vectors(
        self, codes: Sequence[np.ndarray], pool: str, layer: int, advance: Advance = no_advance
    ) -> Iterator[tuple[Window, np.ndarray]]:
        """Every window of good codes [L, N] and what is kept of it, f32: for "none" the vectors of its codes [first,
        last), else what the pooling makes of these, [D]. The windows of one sequence come in order."""
        programs = [self._program(len(codes_LxN)) for codes_LxN in codes]
        for slots, cut in sorted(set(programs)):
            chosen = (i for i, program in enumerate(programs) if program == (slots, cut))
            windows = itertools.chain.from_iterable(self.windows_of(len(codes[i]), i) for i in chosen)
            rows, size = max(1, self.slots_per_call // slots), self._codes_in(slots)
            calls = (
                (batch, self._apply(pool, layer, cut, _cut(codes, batch, rows, size)))
                for batch in batched(windows, rows)
            )
            for batch, y_Bx in in_flight(calls):
                yield from _kept(batch, np.asarray(y_Bx), pool, advance)

    def windows_of(self, length: int, sequence: int = 0) -> Iterator[Window]:
        """The windows of a sequence of `length` codes. A code that is as near to two middles is of the first."""
        size, first = self.length, 0
        starts = self._starts(length).tolist()
        for start, following in itertools.zip_longest(starts, starts[1:]):
            last = length if following is None else (start + following + size - 1) // 2 + 1
            yield Window(sequence, start, min(start + size, length), first, last)
            first = last

    def grouped(self, items: Iterable[Item], bases: Callable[[Item], int], pool: str) -> Iterator[list[Item]]:
        """Neighbours that fill CALLS_A_GROUP calls, of "none" fewer if their vectors are over BYTES_A_GROUP. An item
        that is more than that is alone."""
        limit = CALLS_A_GROUP * self.slots_per_call
        if pool == UNPOOLED:
            limit = min(limit, BYTES_A_GROUP // (4 * self.transformer.width))
        return neighbours(items, lambda item: self._slots(most_codes(self.tokenizer, bases(item))), limit)

    def check(self, pool: str, layer: int) -> None:
        """Raises InputError for a pool or a layer that this network does not have."""
        given = [name for name in POOLS if self.transformer.cls or not pooling.without_cls(name)]
        expected = f'expected {", ".join(given)}, some of these joined by "+", or {UNPOOLED}'
        if pool != UNPOOLED and (unknown := [name for name in str(pool).split("+") if name not in POOLS]):
            raise InputError(f"pool: {pool!r}{_of_finetuning(unknown[0])}; {expected}")
        if not self.transformer.cls and pooling.without_cls(pool):
            raise InputError(f"pool: {pool!r}, but this model was trained without CLS; {expected}")
        last = self.transformer.layers
        if not isinstance(layer, int | np.integer) or not -last - 1 <= layer <= last:
            raise InputError(f"layer: {layer!r}; expected {-last - 1} to {last} for this model of {last} layers")

    def check_room(self, codes: int) -> None:
        """Raises InputError: what so many codes go into takes more memory than there is."""
        if problem := self.problem_of_room(self._codes_in(self.slots_of(codes)), codes > self.length):
            raise InputError(problem)

    def problem_of_room(self, codes: int, full: bool = False, windows: int = 1) -> str:
        """What is wrong with a call for windows of so many codes, as it is made; empty if nothing is."""
        network, kernel = self.transformer, self.padded_kernel
        if full:
            kernel = best_kernel(self._platform, codes + network.cls, network.window, network.dtype)

        def needs(codes: int) -> int:
            if (codes, full, windows) not in self._bytes:
                rows = windows * max(1, self.slots_per_call // (windows * (codes + network.cls)))
                of = network, kernel, self.weights["transformer"], self.codes_KxE, rows, codes
                self._bytes[codes, full, windows] = footprint.of_call(*of, self.mesh, self._platform, full)
            return self._bytes[codes, full, windows]

        rows = max(windows, self.slots_per_call // (codes + network.cls))
        if footprint.surely_fits(network, rows, codes, self.device):
            return ""
        return footprint.problem(needs, codes, self.device, f"{windows * codes:,} codes", self.tokenizer.bases_per_code)

    @functools.cached_property
    def _bytes(self) -> dict[tuple[int, bool, int], int]:
        """Of calls that were asked for."""
        return {}

    @property
    def device(self) -> jax.Device:
        """The first that it is on."""
        return self.mesh.devices.flat[0]

    @property
    def slots_per_call(self) -> int:
        return self.codes_per_call or SLOTS_PER_CALL.get(self._platform, SLOTS_PER_CALL["elsewhere"])

    @property
    def padded_kernel(self) -> Kernel:
        """Of the attention, where sequences may end before their window does."""
        return kernel_of_padded(self._platform, self.transformer.window, self.transformer.dtype)

    @property
    def _platform(self) -> str:
        return self.device.platform

    def _codes_in(self, slots: int) -> int:
        return slots - self.transformer.cls

    def _program(self, length: int) -> tuple[int, bool]:
        """(slots of a window, is the sequence cut into several) for `length` codes."""
        return self.slots_of(length), length > self.length

    def slots_of(self, length: int) -> int:
        """Slots of the window that `length` codes go into, or of the windows if they are more than one holds."""
        slots = SHORTEST_BUCKET
        while self._codes_in(slots) < length and slots < self.context:
            slots *= 2
        return min(slots, self.context)

    def _starts(self, length: int) -> np.ndarray:
        """First codes of the windows of `length` codes: half a window apart, the last one at the end."""
        size = self.length
        return np.append(np.arange(0, length - size, max(1, size // 2)), max(0, length - size))

    def _slots(self, length: int) -> int:
        return self._program(length)[0] * len(self._starts(length))

    def _apply(self, pool: str, layer: int, cut: bool, call: Call) -> Array:
        config, (rows, length, _) = self.transformer, call.codes_BxLxN.shape
        if cut:  # the windows of a sequence that is cut are full
            call = dataclasses.replace(call, lengths_B=None)
            kernel = best_kernel(self._platform, length + config.cls, config.window, config.dtype)
        else:
            kernel = self.padded_kernel
        depth = None if layer == -1 else layer if layer >= 0 else config.layers + 1 + layer
        with jax.set_mesh(self.mesh):
            on_device = partition.batch_to_devices(call, self.mesh, rows)
            static = config, kernel, pool, depth, self._standardises
            return call_vectors(*static, self.weights["transformer"], self.codes_KxE, on_device)


def _finished(parts: Sequence[pooling.Part], joined_P: np.ndarray, codes: int, windows: int) -> np.ndarray:
    return np.concatenate([how.finish(joined_P[at], codes, windows) for how, at in parts]).astype(np.float32)


def _of_finetuning(name: str) -> str:
    """Why readouts that there are elsewhere are none here."""
    if name == AUTO:
        return ", which is chosen by the labels that configs/finetune.py learns"
    return ", whose weights configs/finetune.py trains" if name in TRAINED else ""


def _cut(codes: Sequence[np.ndarray], batch: list[Window], rows: int, size: int) -> Call:
    """The windows of a batch; rows without a window have one code, so that softmax has something to sum over."""
    like = codes[batch[0].sequence]
    codes_BxLxN = np.zeros((rows, size, like.shape[1]), like.dtype)
    lengths_B, kept_Bx2 = np.ones(rows, np.int32), np.zeros((rows, 2), np.int32)
    place_Bx2 = np.tile(np.array([0, 1], np.int32), (rows, 1))
    for row, (sequence, start, stop, first, last) in enumerate(batch):
        codes_BxLxN[row, : stop - start] = codes[sequence][start:stop]
        lengths_B[row] = stop - start
        kept_Bx2[row] = first - start, last - start
        place_Bx2[row] = start, len(codes[sequence])
    return Call(codes_BxLxN, lengths_B, kept_Bx2, place_Bx2)


def _kept(batch: list[Window], y_Bx: np.ndarray, pool: str, advance: Advance) -> Iterator[tuple[Window, np.ndarray]]:
    for window, y in zip(batch, y_Bx):
        yield window, y[window.first - window.start : window.last - window.start] if pool == UNPOOLED else y
        advance(window.last - window.first)
