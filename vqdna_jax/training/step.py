"""The training state and the pure functions over it. `state, metrics = train_step(task, tx, state, batch, key)`."""

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array

from vqdna_jax.partition import split_rows
from vqdna_jax.training.digest import tree_digest

NORM_DECAY = 0.99  # of the running mean that a gradient norm is compared with
SETTLE_STEPS = 100  # no spike is called one before so many steps


@flax.struct.dataclass
class Guard:
    """What is remembered to tell a spike: the running mean of the gradient norm, and how many steps were skipped."""

    norm: Array
    skipped: Array


@flax.struct.dataclass
class Best:
    """The parameters of the lowest held-out loss so far, and how many evaluations have passed since.

    `seen` is the step of the last evaluation: none counts twice.
    """

    params: dict
    loss: Array
    step: Array
    since: Array
    seen: Array


@flax.struct.dataclass
class TrainState:
    """Data only; random keys are derived from (seed, step), never stored.

    `ema_params` is () unless the task averages its parameters, `best` unless it keeps the best ones.
    """

    step: Array
    params: dict
    opt_state: optax.OptState
    codebooks: tuple
    ema_params: dict | tuple
    guard: Guard
    best: Best | tuple = ()

    def final_params(self) -> dict:
        """What is evaluated and exported: the averaged parameters where there are any."""
        return self.ema_params or self.params

    def judged(self, loss: float | None) -> "TrainState":
        """After an evaluation: its parameters are the best if its loss is lower than all before."""
        if int(self.best.seen) == int(self.step):
            return self
        # Copies: the step that follows takes the memory of the originals.
        seen = jnp.copy(self.step)
        if loss is None or not loss < float(self.best.loss):  # NaN, None in metrics.jsonl, is no best
            return self.replace(best=self.best.replace(since=self.best.since + 1, seen=seen))
        params, step = jax.tree.map(jnp.copy, (self.final_params(), self.step))
        best = Best(params, jnp.full_like(self.best.loss, loss), step, jnp.zeros_like(step), seen)
        return self.replace(best=best)


def init_state(task, tx: optax.GradientTransformation, key: Array, batch: dict[str, Array]) -> TrainState:
    """Step 0: parameters from `key`, codebooks from the first global batch."""
    params_key, codebooks_key = jax.random.split(key)
    params = task.init_params(params_key, batch)
    codebooks = task.init_codebooks(params, codebooks_key, batch)
    ema_params = params if task.params_ema_decay else ()
    guard = Guard(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32))
    zero = jnp.zeros((), jnp.int32)
    best = Best(params, jnp.full((), jnp.inf), zero, zero, zero) if task.keeps_best else ()
    return TrainState(zero, params, tx.init(params), codebooks, ema_params, guard, best)


def train_step(
    task, tx: optax.GradientTransformation, state: TrainState, batch: dict[str, Array], key: Array, skip_above=0.0
):
    """One update. A non-finite loss or gradient never reaches the state, nor, after the first steps, one whose norm is
    over `skip_above` times the running mean (0: any may): the state comes out unchanged but for step and guard.

    `batch_digest` among the metrics tells batches apart on any mesh: a run that goes on shows that it saw the same."""
    drawn, _ = split_rows(batch, 1)  # without the frozen weights, which are no part of the data
    key = jax.random.fold_in(key, state.step)
    grads, codebooks, metrics = mean_gradient(task, state, task.prepare(batch, key), key)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    norm = optax.tree.norm(grads)
    ema_params = average(state.ema_params, params, task.params_ema_decay)
    proposed = state.replace(params=params, opt_state=opt_state, codebooks=codebooks, ema_params=ema_params)
    finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm)
    spike, guard = judge(state.guard, state.step, norm, finite, skip_above)
    kept = jax.tree.map(lambda new, old: jnp.where(finite & ~spike, new, old), proposed, state)
    metrics |= {"gradient_norm": norm, "skipped_steps": guard.skipped, "batch_digest": tree_digest(drawn)}
    return kept.replace(step=state.step + 1, guard=guard), metrics


def average(ema_params: dict | tuple, params: dict, decay: float) -> dict | tuple:
    """The exponential moving average of parameters, one step on; () stays ()."""
    return jax.tree.map(lambda ema, p: ema + (1 - decay) * (p - ema), ema_params, params) if decay else ema_params


def mean_gradient(task, state: TrainState, batch: dict[str, Array], key: Array):
    """(gradient, new codebooks, metrics) of the global batch, in `task.microbatches` parts that are averaged."""

    def gradient(part: dict[str, Array]):
        (_, (codebooks, metrics)), grads = jax.value_and_grad(task.loss, has_aux=True)(
            state.params, state.codebooks, part, key
        )
        return grads, codebooks, metrics

    if task.microbatches == 1:
        return gradient(batch)
    parts, whole = split_rows(batch, task.microbatches)
    first = jax.tree.map(lambda x: x[0], parts)
    shapes = jax.eval_shape(gradient, first | whole)
    total = jax.tree.map(lambda x: jax.reshard(jnp.zeros(x.shape, x.dtype), x.sharding.spec), shapes)
    add = jax.tree.map
    total, _ = jax.lax.scan(lambda total, part: (add(jnp.add, total, gradient(part | whole)), None), total, parts)
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
