"""How likely a pretrained model finds the bases of DNA, each as if it had never been read.

A base is hidden before the tokenizer, for the codes beside a masked code hold its base (docs/pretraining.md); what the
heads then make of its place is its likelihood. Many bases of a stretch are hidden at once, far apart, so each sees all
its neighbours, as in `evaluation.masked_bases`.

Every stretch is read on both strands, and where a code stands for R bases in all R phases of the codes: a window begins
0 to R - 1 bases earlier. At the ends of a sequence windows are shifted; what they lack of a code is N. Nothing depends
on where in a longer sequence a stretch lies, and the other strand gives the same.
"""

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jax import Array

from vqdna_jax import partition
from vqdna_jax.errors import InputError
from vqdna_jax.genome.alphabet import N, reverse_complement
from vqdna_jax.inference.pretrained import CALLS_A_GROUP, Pretrained
from vqdna_jax.models.attention import Kernel
from vqdna_jax.models.heads import Heads
from vqdna_jax.models.layers import Params, apply
from vqdna_jax.models.networks import NetworkConfig
from vqdna_jax.models.quantize import code_vectors, standardised
from vqdna_jax.models.transformer import Compute
from vqdna_jax.partition import AnyArray, take
from vqdna_jax.tokenizers.learned import LearnedTokenizer
from vqdna_jax.tokenizers.stitch import batched, in_flight, neighbours

STRANDS = 2
_SPACING = 16  # bases from one hidden base to the next, at least
_NOWHERE = -1  # in the place of a hidden base, where a window has fewer than others


class Stretch(NamedTuple):
    """Bases [start, stop) of a sequence of uint8 bases [S]. Of a long one `reach` bases on both sides are enough."""

    bases: np.ndarray
    start: int
    stop: int


class _Window(NamedTuple):
    """Bases uint8 [S] of one window of a stretch, those at `hidden` [M] being N, and where their likelihoods go."""

    bases: np.ndarray
    hidden: np.ndarray
    stretch: int
    strand: int
    phase: int
    bases_of_stretch: np.ndarray


class _Call(flax.struct.PyTreeNode):
    """Windows as one call computes them: codes, how many are there [B], hidden bases [B, M]."""

    codes_BxLxN: AnyArray
    lengths_B: AnyArray
    hidden_BxM: AnyArray


def spacing(bases_per_code: int) -> int:
    """Bases from one hidden base to the next, where several are hidden."""
    return max(_SPACING, 4 * bases_per_code)


def window_bases(model: Pretrained) -> int:
    """Bases of a full window, whose codes the transformer sees all."""
    return model.length * phases(model)


def phases(model: Pretrained) -> int:
    """R, in how many ways codes can be laid over a sequence."""
    return model.tokenizer.phases


def longest(model: Pretrained) -> int:
    """Bases that a stretch can have at most: each has a quarter of a window on both sides, if there are so many."""
    return window_bases(model) // 2


def reach(model: Pretrained) -> int:
    """Bases on both sides of a stretch that its likelihoods depend on, at most."""
    return window_bases(model)


def check(model: Pretrained, name: str, what: str) -> None:
    """Raises InputError where there are no heads that name bases; `name`: of the model, `what` needs them."""
    if not isinstance(model.tokenizer, LearnedTokenizer):
        raise InputError(
            f"{name}: reads {model.tokenizer.description}, and {what} needs a model over learned codes, whose heads"
            " name bases; name the export of a run with configs/mcm.py and a tokenizer of configs/hrq.py or vqvae.py"
        )


def log_probabilities(model: Pretrained, stretches: Iterable[Stretch]) -> Iterator[np.ndarray]:
    """ln p of A C G T at each of the M bases of every stretch, f32 [M, 4], averaged over strands and phases: a
    distribution again, whose log odds are the means of theirs."""
    for phases_RxMx4 in phase_log_probabilities(model, stretches):
        yield averaged(phases_RxMx4)


def averaged(phases_RxMx4: np.ndarray) -> np.ndarray:
    """[M, 4] of what `phase_log_probabilities` gives."""
    return scipy.special.log_softmax(phases_RxMx4.mean(axis=0), axis=1)


def phase_log_probabilities(model: Pretrained, stretches: Iterable[Stretch]) -> Iterator[np.ndarray]:
    """The same phase by phase, f32 [R, M, 4] of each stretch: the mean of ln p over both strands.

    `model` has passed `check`; a stretch has 1 to `longest` bases. Stretches come in order, and neighbours change
    nothing.
    """
    limit = CALLS_A_GROUP * model.slots_per_call
    for group in neighbours(stretches, functools.partial(_cost, model), limit):
        sums = [np.zeros((phases(model), s.stop - s.start, 4), np.float32) for s in group]
        windows = [window for i, stretch in enumerate(group) for window in _windows(model, i, stretch)]
        for window, log_Mx4 in _read(model, windows):
            sums[window.stretch][window.phase, window.bases_of_stretch] += log_Mx4[:, :: -1 if window.strand else 1]
        yield from (total_RxMx4 / STRANDS for total_RxMx4 in sums)


def _cost(model: Pretrained, stretch: Stretch) -> int:
    """Slots of all its windows."""
    return STRANDS * phases(model) * len(_hidden_together(model, stretch)) * model.context


def starts(model: Pretrained, total: int, start: int, stop: int) -> np.ndarray:
    """First base of the window around [start, stop) of `total` bases in each phase, int64 [R].

    The stretch is in the middle, if the sequence goes on so far. A window begins before the sequence, or ends behind
    it, by less than a code.
    """
    size, by = window_bases(model), np.arange(phases(model))
    middle, last = (start + stop) // 2 - size // 2, max(0, total - size)
    return last + by if middle > last else max(0, middle) - by


def cut(bases: np.ndarray, start: int, size: int) -> np.ndarray:
    """A copy of bases [start, start + size), as far as there are any behind; before the first they are N."""
    return np.concatenate([np.full(max(0, -start), N, np.uint8), bases[max(0, start) : start + size]])


def _hidden_together(model: Pretrained, stretch: Stretch) -> list[np.ndarray]:
    """Places in the stretch, from its first base on, that are hidden in one window."""
    count, apart = stretch.stop - stretch.start, spacing(phases(model))
    return [np.arange(first, count, apart) for first in range(min(apart, count))]


def _windows(model: Pretrained, number: int, stretch: Stretch) -> Iterator[_Window]:
    total, count = len(stretch.bases), stretch.stop - stretch.start
    strands = (stretch.bases, stretch.start), (reverse_complement(stretch.bases), total - stretch.stop)
    for strand, (bases, first) in enumerate(strands):
        for phase, start in enumerate(starts(model, total, first, first + count)):
            window = cut(bases, start, model.context * phases(model))  # as in training, CLS takes the last code's place
            for places in _hidden_together(model, stretch):
                hidden, seen = first + places - start, window.copy()
                seen[hidden] = N
                yield _Window(seen, hidden, number, strand, phase, count - 1 - places if strand else places)


def _read(model: Pretrained, windows: Sequence[_Window]) -> Iterator[tuple[_Window, np.ndarray]]:
    """Every window, and ln p f32 [M, 4] of its hidden bases."""
    codes = [codes_LxN[: model.length] for codes_LxN in model.tokenizer.encode([window.bases for window in windows])]
    most = -(-longest(model) // spacing(phases(model)))
    shapes = [(model.slots_of(len(c)), 1 if len(w.hidden) == 1 else most) for c, w in zip(codes, windows)]
    for slots, count in sorted(set(shapes)):
        chosen = (i for i, shape in enumerate(shapes) if shape == (slots, count))
        rows = max(1, model.slots_per_call // slots)
        calls = (
            (batch, _apply(model, _call(codes, windows, batch, (rows, slots - model.transformer.cls, count))))
            for batch in batched(chosen, rows)
        )
        for batch, log_BxMx4 in in_flight(calls):
            for i, log_Mx4 in zip(batch, np.asarray(log_BxMx4)):
                yield windows[i], log_Mx4[: len(windows[i].hidden)]


def _call(
    codes: Sequence[np.ndarray], windows: Sequence[_Window], batch: Sequence[int], shape: tuple[int, int, int]
) -> _Call:
    """The windows of a batch; rows without a window have one code, so that softmax has something to sum over."""
    rows, length, count = shape
    like = codes[batch[0]]
    call = _Call(
        np.zeros((rows, length, like.shape[1]), like.dtype),
        np.ones(rows, np.int32),
        np.full((rows, count), _NOWHERE, np.int32),
    )
    for row, i in enumerate(batch):
        call.codes_BxLxN[row, : len(codes[i])] = codes[i]
        call.lengths_B[row] = len(codes[i])
        call.hidden_BxM[row, : len(windows[i].hidden)] = windows[i].hidden
    return call


def _apply(model: Pretrained, call: _Call) -> Array:
    static = model.transformer, model.padded_kernel, phases(model)
    with jax.set_mesh(model.mesh):
        on_device = partition.batch_to_devices(call, model.mesh, len(call.lengths_B))
        return _hidden_log_probabilities(*static, model.weights, model.codes_KxE, on_device)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _hidden_log_probabilities(
    config: NetworkConfig,
    kernel: Kernel,
    bases_per_code: int,
    weights: Params,
    codes_KxE: tuple[Array, ...],
    call: _Call,
) -> Array:
    """ln p of A C G T at the hidden bases, f32 [B, M, 4]."""
    vectors_KxE = tuple(map(standardised, codes_KxE))
    codes_BxLxN, at_BxM = jnp.asarray(call.codes_BxLxN, jnp.int32), jnp.asarray(call.hidden_BxM) // bases_per_code
    at_1xLx1 = jnp.arange(codes_BxLxN.shape[1])[None, :, None]
    masked_BxL = jnp.any(at_1xLx1 == at_BxM[:, None, :], axis=2)
    plain_B, lengths_B = jnp.zeros_like(masked_BxL[:, 0]), call.lengths_B + config.cls
    network, inputs = config.module(Compute(attention=kernel)), code_vectors(vectors_KxE, codes_BxLxN)
    h_BxLxD, _ = apply(network, weights["transformer"], inputs, masked_BxL, plain_B, lengths_B)
    h_BxMxD = take(h_BxLxD, jnp.maximum(at_BxM, 0))
    _, logits_BxMxRx4 = apply(Heads(bases_per_code, config.dtype), weights["heads"], h_BxMxD, vectors_KxE)
    of_code_1x1xR = jnp.arange(bases_per_code)[None, None]
    here_BxMxR = of_code_1x1xR == (jnp.asarray(call.hidden_BxM) % bases_per_code)[..., None]
    return jax.nn.log_softmax(jnp.sum(jnp.where(here_BxMxR[..., None], logits_BxMxRx4, 0), axis=2), axis=-1)
