"""Outputs of a task for any number of rows, on a mesh of any number of processes."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vqdna_jax.partition import batch_to_devices
from vqdna_jax.tasks.base import Frozen, Task
from vqdna_jax.training.step import TrainState, final_params

Outputs = dict[str, np.ndarray]


def make_predict(
    task: Task[Any, Frozen],
    mesh: Mesh,
    batch_size: int,
    frozen: Frozen,
    before_batch: Callable[[], None] = lambda: None,
) -> Callable[[TrainState, Any], Outputs]:
    """(state, batch of numpy arrays [B, ...]) -> `task.predict` as numpy arrays for any B, `batch_size` rows at a time.

    `before_batch` is called before each of them, as often on every process.
    """

    @jax.jit
    def predict_batch(params, codebooks, frozen, batch):
        return task.predict(params, codebooks, frozen, batch)

    def predict(state: TrainState, batch) -> Outputs:
        outputs, share, count = [], batch_size // jax.process_count(), len(jax.tree.leaves(batch)[0])
        for start in range(0, count, batch_size):
            before_batch()
            rows = np.arange(start, start + batch_size)[jax.process_index() * share :][:share]
            rows = np.minimum(rows, count - 1)  # the last row again, beyond the end
            mine = jax.tree.map(lambda x, rows=rows: x[rows], batch)
            on_devices = batch_to_devices(mine, mesh, batch_size)
            got = jax.device_get(predict_batch(final_params(state), state.codebooks, frozen, on_devices))
            outputs.append(jax.tree.map(lambda x, stop=count - start: x[:stop], got))
        return jax.tree.map(lambda *parts: np.concatenate(parts), *outputs)

    return predict
