"""Likelihood ratios of a change by a model over tokens, one window at a time, as docs/variants.md says."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from slow_scores import other

from vqdna_jax.inference.pretrained import Pretrained
from vqdna_jax.models.heads import TokenHead
from vqdna_jax.models.layers import apply
from vqdna_jax.models.transformer import Compute
from vqdna_jax.partition import batch_to_devices


@functools.partial(jax.jit, static_argnums=0)
def _logits(config, weights, vectors_1xLx1xE, masked_1xL):
    of = weights["transformer"], vectors_1xLx1xE, masked_1xL, jnp.ones_like(masked_1xL[:, 0])
    h_1xLxD, _ = apply(config.module(Compute()), *of)
    head = config.language_head() if hasattr(config, "language_head") else TokenHead(config.dtype)
    return apply(head, weights["heads"], h_1xLxD, weights["table"])


def log_probabilities(model: Pretrained, ids_L: np.ndarray, hidden: list[int]) -> np.ndarray:
    """ln p [L, V] that the vector of each token gives to all words."""
    masked_1xL = np.isin(np.arange(len(ids_L)), hidden)[None]
    vectors_1xLx1xE = np.asarray(model.weights["table"])[ids_L][None, :, None]
    with jax.set_mesh(model.mesh):
        inputs = batch_to_devices((vectors_1xLx1xE, masked_1xL), model.mesh, 1)
        logits_LxV = np.asarray(_logits(model.transformer, dict(model.weights), *inputs)[0], float)
    return logits_LxV - np.log(np.exp(logits_LxV).sum(axis=1, keepdims=True))


def likelihood(model: Pretrained, bases: np.ndarray, ids_L: np.ndarray, scored: list[int], causal: bool) -> float:
    """The sum over tokens without an N of ln p, and of ln 4 for each of their bases; of the tokens around the scored
    ones as many are read as the model knows positions."""
    first = min(max(0, (scored[0] + scored[-1] + 1 - model.length) // 2), max(0, len(ids_L) - model.length))
    ids_L, spans_Lx2 = ids_L[first:][: model.length], model.tokenizer.spans(bases)[first:]
    scored = [i - first for i in scored]
    log_LxV = log_probabilities(model, ids_L, [] if causal else scored)
    kept = [i for i in scored if (bases[slice(*spans_Lx2[i])] < 4).all()]
    total = sum(log_LxV[i - causal, ids_L[i]] + math.log(4) * np.ptp(spans_Lx2[i]) for i in kept)
    return total / max(1, min(model.tokenizer.masked_together, len(kept)))


def scored_tokens(model: Pretrained, windows, ids, touched, causal: bool) -> list[list[int]]:
    """Of both windows."""
    before = next((i for i, pair in enumerate(zip(*ids)) if pair[0] != pair[1]), min(map(len, ids)))
    if causal:
        return [list(range(max(1, before), len(ids_L))) for ids_L in ids]
    chosen = []
    for bases, (first, stop) in zip(windows, touched):
        chosen.append([i for i, (a, b) in enumerate(model.tokenizer.spans(bases)) if a < stop and b > first])
    if model.tokenizer.k:
        return chosen
    shorter = min(map(len, ids)) - before
    reverse = zip(*(ids_L[::-1][:shorter] for ids_L in ids))
    behind = next((i for i, pair in enumerate(reverse) if pair[0] != pair[1]), shorter)
    firsts = [min(before, of[0]) for of in chosen]
    stops = [max(len(ids_L) - behind, of[-1] + 1) for ids_L, of in zip(ids, chosen)]
    return [list(range(*of)) for of in zip(firsts, stops)]


def log_ratio(model: Pretrained, reference, alternative, start: int, stop: int, alternative_stop: int) -> np.ndarray:
    """[R], the mean of both strands."""
    beside = 0 if stop - start == alternative_stop - start == 1 else 1
    causal, more, found = model.transformer.__class__.__name__ == "HyenaConfig", alternative_stop - stop, []
    for strand in range(2):
        pair, at, ends = (reference, alternative), start, (stop, alternative_stop)
        if strand:
            pair, at = (other(reference), other(alternative)), len(reference) - stop
            ends = len(reference) - start, len(alternative) - start
        size, lowest = model.window_bp - max(0, more), max(0, at - beside)
        for phase in range(model.tokenizer.phases):
            begin = min(max(0, (at + ends[0]) // 2 - size // 2), max(0, len(reference) - size))
            begin = min(begin + phase, lowest)
            windows = pair[0][begin : begin + size], pair[1][begin : begin + size + more]
            touched = [(lowest - begin, min(len(x), end + beside) - begin) for x, end in zip(pair, ends)]
            ids = [codes_Lx1[:, 0] for codes_Lx1 in model.tokenizer.encode(list(windows))]
            scored = scored_tokens(model, windows, ids, touched, causal)
            sums = [likelihood(model, *of, causal) for of in zip(windows, ids, scored)]
            found.append(sums[1] - sums[0])
    return np.reshape(found, (2, -1)).mean(axis=0)
