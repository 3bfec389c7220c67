"""The step's guard and averages, on a task of one parameter: gradients of any size, by hand."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vqdna_jax import partition
from vqdna_jax.training.step import SETTLE_STEPS, better_of, final_params, init_state, train_step

pytestmark = pytest.mark.usefixtures("one_device")


@dataclasses.dataclass(frozen=True)
class Scaled:
    """Its gradient is the batch."""

    params_ema_decay: float = 0.0
    microbatches: int = 1
    keeps_best: bool = False

    def init_params(self, frozen, batch, key):
        return {"w": jnp.zeros(())}

    def init_codebooks(self, params, batch, key):
        return ()

    def prepare(self, batch, key):
        return batch

    def loss(self, params, codebooks, frozen, batch, key):
        loss = params["w"] * jnp.mean(batch["x"])
        return loss, (codebooks, {"loss": loss})


def run(gradients, task=None, skip_above=10.0):
    """(w after each step, steps skipped) under SGD of rate 1: w goes down by each gradient that is taken."""
    task, tx, key = task or Scaled(), optax.sgd(1.0), jax.random.key(0)
    batch = {"x": jnp.zeros(4)}
    state, path = init_state(task, tx, key, (), batch), []
    step = jax.jit(functools.partial(train_step, task, tx, skip_above=skip_above))
    for gradient in gradients:
        state, metrics = step(state, (), {"x": jnp.full(4, gradient)}, key)
        path.append(float(state.params["w"]))
    return path, int(metrics["skipped_steps"]), state


def test_a_spike_is_skipped_and_counted_and_training_goes_on():
    calm = [1.0] * (SETTLE_STEPS + 10)
    path, skipped, state = run([*calm, 1e4, 1.0])
    assert skipped == 1 and path[-2] == path[-3] and path[-1] == path[-2] - 1
    assert int(state.step) == len(calm) + 2


def test_a_large_gradient_below_the_limit_is_taken():
    path, skipped, _ = run([*[1.0] * (SETTLE_STEPS + 10), 9.0])
    assert skipped == 0 and path[-1] == path[-2] - 9


def test_early_steps_are_never_skipped_and_zero_turns_it_off():
    assert run([1.0, 1.0, 1e4])[1] == 0
    assert run([*[1.0] * (SETTLE_STEPS + 10), 1e4], skip_above=0.0)[1] == 0


def test_gradients_that_grew_for_good_are_followed():
    """Twenty times the norm, for ever: the mean rises with every skipped step until they pass."""
    path, skipped, _ = run([*[1.0] * (SETTLE_STEPS + 10), *[20.0] * 40])
    assert 0 < skipped < 20 and path[-1] < path[-2]


def test_a_gradient_that_is_not_finite_is_skipped_and_counted_and_does_not_move_the_mean():
    path, skipped, state = run([1.0, 1.0, np.nan])
    assert path[-1] == path[-2] and skipped == 1 and np.isfinite(state.guard.norm)


def test_averaged_parameters_follow_the_recurrence_and_skip_with_the_step():
    gradients = [*[1.0] * (SETTLE_STEPS + 10), 1e4, 1.0]
    path, _, state = run(gradients, Scaled(params_ema_decay=0.9))
    ema = 0.0
    for step, (previous, w) in enumerate(zip([0.0, *path], path)):
        kept = min(0.9, (1 + step) / (10 + step))
        ema = ema if w == previous else kept * ema + (1 - kept) * w
    assert float(state.ema_params["w"]) == pytest.approx(ema, rel=1e-5)
    assert final_params(state) is state.ema_params


def test_microbatches_average_the_gradient_of_their_rows():
    task, tx, key = Scaled(microbatches=4), optax.sgd(1.0), jax.random.key(0)
    x = jax.reshard(jnp.arange(8.0), partition.spec("batch"))
    state = init_state(task, tx, key, (), {"x": x})
    state, metrics = jax.jit(functools.partial(train_step, task, tx))(state, (), {"x": x}, key)
    assert float(state.params["w"]) == -3.5 and float(metrics["gradient_norm"]) == 3.5


def test_the_best_parameters_are_those_of_the_lowest_loss_and_nan_is_none():
    """Each evaluation is judged twice, as by a run that goes on from where it was evaluated: it counts once."""
    state = init_state(Scaled(keeps_best=True), optax.sgd(1.0), jax.random.key(0), (), {"x": jnp.zeros(4)})
    judged, kept, best, since = jax.jit(better_of), state.best, [], []
    for step, loss in enumerate([np.nan, 0.7, 0.7, np.nan, 0.5, 0.6], start=1):
        for _ in range(2):
            kept = judged(kept, {"w": jnp.float32(step)}, jnp.int32(step), jnp.float32(loss))
        best.append(int(kept.step))
        since.append(int(kept.since))
        assert float(kept.params["w"]) == best[-1] and int(kept.seen) == step
    assert best == [0, 2, 2, 2, 5, 5] and since == [1, 0, 1, 2, 0, 1]
    assert float(kept.loss) == 0.5
