"""The training state and the pure functions over it. `state, metrics = train_step(task, tx, state, batch, key)`."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array

from vqdna_jax.partition import placed_as, split_rows
from vqdna_jax.tasks.base import Batch, Codebooks, Frozen, Metrics, Params, Task
from vqdna_jax.training.digest import tree_digest

Averaged = TypeVar("Averaged")  # parameters, or () where none are averaged
NORM_DECAY = 0.99  # of the running mean that a gradient norm is compared with
SETTLE_STEPS = 100  # no spike is called one before so many steps
# Of a GPU's products XLA takes the fastest, each by itself: often one of its own, which takes in nothing that follows.
# cuBLAS's take in GELU and sums, and the step is faster (docs/results.md).
GPU_OPTIONS = {"xla_gpu_enable_triton_gemm": False}


class Guard(flax.struct.PyTreeNode):
    """What is remembered to tell a spike: the running mean of the gradient norm, and how many steps were skipped."""

    norm: Array
    skipped: Array


class Best(flax.struct.PyTreeNode):
    """The parameters of the best evaluation so far, that of the lowest loss, and how many have passed since.

    `loss` is what the stage chooses by. `seen` is the step of the last evaluation, -1 before the first: none counts
    twice.
    """

    params: Params
    loss: Array
    step: Array
    since: Array
    seen: Array


class TrainState(flax.struct.PyTreeNode):
    """Data only; random keys are derived from (seed, step), never stored.

    `ema_params` is () unless the task averages its parameters, `best` unless it keeps the best ones.
    """

    step: Array
    params: Params
    opt_state: optax.OptState
    codebooks: Codebooks
    ema_params: Params | tuple[()]
    guard: Guard
    best: Best | tuple[()] = ()


def final_params(state: TrainState) -> Params:
    """What is evaluated and exported: the averaged parameters where there are any."""
    return state.ema_params or state.params


def better_of(best: Best, params: Params, step: Array, loss: Array) -> Best:
    """After an evaluation of `params` at `step`: they are the best if their held-out loss is lower than all before,
    which NaN never is. No evaluation counts twice."""
    new = step != best.seen
    better = new & (loss < best.loss)
    here = Best(params, loss, step, jnp.zeros_like(step), step)
    still = dataclasses.replace(best, since=best.since + new, seen=jnp.where(new, step, best.seen))
    return jax.tree.map(lambda x, y: jnp.where(better, x, y), here, still)


def init_state(
    task: Task[Batch, Frozen], tx: optax.GradientTransformation, key: Array, frozen: Frozen, batch: Batch
) -> TrainState:
    """Step 0: parameters from `key`, codebooks from the first global batch."""
    params_key, codebooks_key = jax.random.split(key)
    params = task.init_params(frozen, batch, params_key)
    codebooks = task.init_codebooks(params, batch, codebooks_key)
    ema_params = params if task.params_ema_decay else ()
    guard = Guard(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32))
    zero = jnp.zeros((), jnp.int32)
    best = Best(params, jnp.full((), jnp.inf), zero, zero, zero - 1) if task.keeps_best else ()
    return TrainState(zero, params, tx.init(params), codebooks, ema_params, guard, best)


def begun_with(state: TrainState, params: Params, codebooks: Codebooks) -> TrainState:
    """The state before the first step with these parameters, host arrays, in the place of random ones; its optimizer
    has seen none."""
    ema_params = placed_as(state.ema_params, params) if state.ema_params else ()
    placed = placed_as(state.params, params), placed_as(state.codebooks, codebooks)
    return dataclasses.replace(state, params=placed[0], codebooks=placed[1], ema_params=ema_params)


def train_step(
    task: Task[Batch, Frozen],
    tx: optax.GradientTransformation,
    state: TrainState,
    frozen: Frozen,
    batch: Batch,
    key: Array,
    skip_above: float = 0.0,
) -> tuple[TrainState, Metrics]:
    """One update. A non-finite loss or gradient never reaches the state, nor, after the first steps, one whose norm is
    over `skip_above` times the running mean (0: any may): the state comes out unchanged but for step and guard.

    `batch_digest` among the metrics tells batches apart on any mesh: a run that goes on shows that it saw the same."""
    digest = tree_digest(batch)
    key = jax.random.fold_in(key, state.step)
    grads, codebooks, metrics = mean_gradient(task, state, frozen, task.prepare(batch, key), key)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    norm = optax.tree.norm(grads)
    ema_params = average(state.ema_params, params, task.params_ema_decay, state.step)
    proposed = dataclasses.replace(
        state, params=params, opt_state=opt_state, codebooks=codebooks, ema_params=ema_params
    )
    finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm)
    spike, guard = judge(state.guard, state.step, norm, finite, skip_above)
    kept = jax.tree.map(lambda new, old: jnp.where(finite & ~spike, new, old), proposed, state)
    metrics |= {"gradient_norm": norm, "skipped_steps": guard.skipped, "batch_digest": digest}
    return kept.replace(step=state.step + 1, guard=guard), metrics


def jit_step(one_step: Callable[..., tuple[TrainState, Metrics]]) -> Callable[..., tuple[TrainState, Metrics]]:
    """`one_step`, a function of the state and more, compiled for the devices of this process; the state is donated."""
    options = GPU_OPTIONS if jax.default_backend() == "gpu" else None
    return jax.jit(one_step, donate_argnums=0, compiler_options=options)


def average(ema_params: Averaged, params: Params, decay: float, step: Array) -> Averaged:
    """The exponential moving average of parameters, one step on; () stays ().

    Early steps decay faster, by (1 + step) / (10 + step): a short run is not for the most part its first parameters.
    """
    if not decay:
        return ema_params
    new = 1 - jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda ema, p: ema + new.astype(p.dtype) * (p - ema), ema_params, params)


def mean_gradient(
    task: Task[Batch, Frozen], state: TrainState, frozen: Frozen, prepared: Any, key: Array
) -> tuple[Params, Codebooks, Metrics]:
    """(gradient, new codebooks, metrics) of the global batch, in `task.microbatches` parts that are averaged."""

    def gradient(part: Any) -> tuple[Params, Codebooks, Metrics]:
        loss = jax.value_and_grad(task.loss, has_aux=True)
        (_, (codebooks, metrics)), grads = loss(state.params, state.codebooks, frozen, part, key)
        return grads, codebooks, metrics

    def add(total, part: Any):
        return jax.tree.map(jnp.add, total, gradient(part)), None

    if task.microbatches == 1:
        return gradient(prepared)
    parts = split_rows(prepared, task.microbatches)
    shapes = jax.eval_shape(gradient, jax.tree.map(lambda x: x[0], parts))
    nothing = jax.tree.map(lambda x: jax.reshard(jnp.zeros(x.shape, x.dtype), x.sharding.spec), shapes)
    total, _ = jax.lax.scan(add, nothing, parts)
    return jax.tree.map(lambda x: x / task.microbatches, total)


def judge(guard: Guard, step: Array, norm: Array, finite: Array, skip_above: float) -> tuple[Array, Guard]:
    """(is this gradient a spike, the guard after it).

    A spike moves the mean too, as the largest norm that would have passed: if gradients have grown for good, the mean
    follows within tens of steps and training goes on.
    """
    limit = skip_above * guard.norm
    spike = finite & (step >= SETTLE_STEPS) & (norm > limit) if skip_above else jnp.zeros((), bool)
    seen = jnp.where(spike, limit, norm)
    mean = jnp.where(step == 0, seen, NORM_DECAY * guard.norm + (1 - NORM_DECAY) * seen)
    return spike, Guard(jnp.where(finite, mean, guard.norm), guard.skipped + (spike | ~finite))
