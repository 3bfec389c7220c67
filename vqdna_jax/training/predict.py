"""Outputs of a task for any number of rows, on a mesh of any number of processes."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vqdna_jax.partition import batch_to_devices
from vqdna_jax.tasks.base import Frozen, Task
from vqdna_jax.tokenizers.stitch import in_flight
from vqdna_jax.training.step import TrainState, final_params

Outputs = dict[str, np.ndarray]


def make_predict(
    task: Task[Any, Frozen],
    mesh: Mesh,
    batch_size: int,
    frozen: Frozen,
    before_batch: Callable[[], None] = lambda: None,
) -> Callable[..., Outputs]:
    """(state, batch of numpy arrays [B, ...], only=()) -> `task.predict` as numpy arrays for any B, `batch_size` rows
    at a time.

    `only` names the outputs that are wanted, all by default: what none of them needs is not computed. `before_batch` is
    called before each of the batches, as often on every process.
    """

    predict_batch = _jitted(task)

    def calls(only: tuple[str, ...], state: TrainState, batch) -> Iterator[Any]:
        share, count, params = batch_size // jax.process_count(), len(jax.tree.leaves(batch)[0]), final_params(state)
        for start in range(0, count, batch_size):
            before_batch()
            rows = np.arange(start, start + batch_size)[jax.process_index() * share :][:share]
            rows = np.minimum(rows, count - 1)  # the last row again, beyond the end
            mine = jax.tree.map(lambda x, rows=rows: x[rows], batch)
            on_devices = batch_to_devices(mine, mesh, batch_size)
            yield count - start, predict_batch(only, params, state.codebooks, frozen, on_devices)

    def predict(state: TrainState, batch, only: Sequence[str] = ()) -> Outputs:
        begun = in_flight(calls(tuple(only), state, batch))
        outputs = [jax.tree.map(lambda x, stop=stop: np.asarray(x)[:stop], got) for stop, got in begun]
        return jax.tree.map(lambda *parts: np.concatenate(parts), *outputs)

    return predict


@functools.lru_cache(maxsize=4)
def _jitted(task: Task[Any, Any]) -> Callable[..., dict[str, jax.Array]]:
    """Traced and compiled once for all runs of a process that have the task."""

    @functools.partial(jax.jit, static_argnums=0)
    def predict_batch(only: tuple[str, ...], params, codebooks, frozen, batch):
        outputs = task.predict(params, codebooks, frozen, batch)
        return {name: outputs[name] for name in only or outputs}

    return predict_batch
