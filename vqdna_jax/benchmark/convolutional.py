"""Trains the control that is a small convolutional network: on the training rows alone, from nothing.

Dev says when to stop and which epoch is kept; test is scored once. The same seed gives the same scores on one machine.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from vqdna_jax.evaluation import scores
from vqdna_jax.evaluation.probes import padded
from vqdna_jax.labels.sets import Kind, LabelledSet
from vqdna_jax.models.convolutional import Convolutional
from vqdna_jax.models.layers import Params, apply
from vqdna_jax.stages.finetune import standardised, target_of
from vqdna_jax.tasks.finetune import row_loss
from vqdna_jax.training.step import average

BATCH, EVALUATED = 64, 256  # rows at once
MOST_EPOCHS, MOST_STEPS = 30, 6000
PATIENCE = 6  # epochs without a better score on dev
LEARNING_RATE, WARMUP_STEPS, WEIGHT_DECAY = 1e-3, 30, 0.05
AVERAGED = 0.98  # of the weights that are evaluated, a running mean, what is kept of it each step


class _State(NamedTuple):
    params: Params
    averaged: Params
    optimizer: Any
    step: Array


def run(
    labelled_set: LabelledSet, metric: str, seed: int, network_of: Callable[[int], Convolutional] = Convolutional
) -> dict[str, scores.Scores]:
    """{"dev": scores, "test": scores} of the epoch with the best `metric` on dev, the first of equals.

    `network_of` makes the network of so many outputs."""
    kind, classes, splits = labelled_set.kind, labelled_set.classes, labelled_set.splits
    rows = padded([bases for split in splits.values() for bases in split.bases])
    ends = np.cumsum([len(split.bases) for split in splits.values()])[:-1]
    bases = dict(zip(splits, np.split(rows, ends)))
    mean, deviation = target = target_of(labelled_set)
    labels = standardised(splits["train"].labels, kind, target)
    network = network_of(classes)
    predict = jax.jit(functools.partial(apply, network))

    def scored(name: str, params: Params) -> scores.Scores:
        outputs_BxV = _outputs(functools.partial(predict, params), bases[name]) * deviation + mean
        return scores.score(kind, splits[name].labels, outputs_BxV, classes)

    best, highest, vain = None, -math.inf, 0
    for params in _epochs(network, kind, bases["train"], labels, seed):
        dev = scored("dev", params)
        value = dev[metric]
        if best is None or (value is not None and value > highest):
            best, highest, vain = (params, dev), -math.inf if value is None else value, 0
        else:
            vain += 1
        if vain == PATIENCE:
            break
    assert best is not None  # there is an epoch
    return {"dev": best[1], "test": scored("test", best[0])}


def _epochs(
    network: Convolutional, kind: Kind, bases_BxS: np.ndarray, labels: np.ndarray, seed: int
) -> Iterator[Params]:
    """The averaged weights after each epoch. Rows beyond whole batches wait for another order, that of the next."""
    batch = min(BATCH, len(bases_BxS))
    steps = len(bases_BxS) // batch
    epochs = min(MOST_EPOCHS, max(1, MOST_STEPS // steps))
    rates = optax.warmup_cosine_decay_schedule(0.0, LEARNING_RATE, WARMUP_STEPS, max(epochs * steps, WARMUP_STEPS + 1))
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rates, weight_decay=WEIGHT_DECAY))
    step = jax.jit(functools.partial(_step, network, kind, optimizer, seed), donate_argnums=0)
    params = jax.jit(network.init)(jax.random.key(seed), bases_BxS[:1])["params"]
    state = _State(params, jax.tree.map(jnp.copy, params), optimizer.init(params), jnp.zeros((), jnp.int32))
    for epoch in range(epochs):
        order = np.random.default_rng([seed, epoch]).permutation(len(bases_BxS))
        for some in order[: steps * batch].reshape(steps, batch):
            state = step(state, bases_BxS[some], labels[some])
        yield jax.tree.map(jnp.copy, state.averaged)  # the next step takes the state's own


def _step(
    network: Convolutional,
    kind: Kind,
    optimizer: optax.GradientTransformation,
    seed: int,
    state: _State,
    bases_BxS: Array,
    labels: Array,
) -> _State:
    key = jax.random.fold_in(jax.random.key(seed), state.step)

    def loss(params: Params) -> Array:
        return jnp.mean(row_loss(kind, apply(network, params, bases_BxS, key), labels))

    updates, of_optimizer = optimizer.update(jax.grad(loss)(state.params), state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    averaged = average(state.averaged, params, AVERAGED, state.step)
    return _State(params, averaged, of_optimizer, state.step + 1)


def _outputs(predict: Callable[[np.ndarray], Array], bases_BxS: np.ndarray) -> np.ndarray:
    """[B, V], by batches of one shape."""
    rows = len(bases_BxS)
    filled = np.pad(bases_BxS, ((0, -rows % EVALUATED), (0, 0)), mode="edge")
    parts = [np.asarray(predict(filled[at : at + EVALUATED])) for at in range(0, rows, EVALUATED)]
    return np.concatenate(parts)[:rows]
