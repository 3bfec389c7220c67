"""The training state and the pure functions over it. `state, metrics = train_step(task, tx, state, batch, key)`."""

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array


@flax.struct.dataclass
class TrainState:
    """Data only; random keys are derived from (seed, step), never stored."""

    step: Array
    params: dict
    opt_state: optax.OptState
    codebooks: tuple


def init_state(task, tx: optax.GradientTransformation, key: Array, batch: dict[str, Array]) -> TrainState:
    """Step 0: parameters from `key`, codebooks from the first global batch."""
    params_key, codebooks_key = jax.random.split(key)
    params = task.init_params(params_key, batch)
    codebooks = task.init_codebooks(params, codebooks_key, batch)
    return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), codebooks)


def train_step(task, tx: optax.GradientTransformation, state: TrainState, batch: dict[str, Array], key: Array):
    """One update. A non-finite loss or gradient never reaches the state: it comes out unchanged but for its step."""
    key = jax.random.fold_in(key, state.step)
    loss_and_grads = jax.value_and_grad(task.loss, has_aux=True)
    (loss, (codebooks, metrics)), grads = loss_and_grads(state.params, state.codebooks, batch, key)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    gradient_norm = optax.tree.norm(grads)
    proposed = state.replace(
        params=optax.apply_updates(state.params, updates), opt_state=opt_state, codebooks=codebooks
    )
    finite = jnp.isfinite(loss) & jnp.isfinite(gradient_norm)
    kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), proposed, state)
    return kept.replace(step=state.step + 1), metrics | {"gradient_norm": gradient_norm}
