"""Outputs of a task for any number of rows, on a mesh of any number of processes."""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

from vqdna_jax.partition import batch_to_devices


def make_predict(task, mesh: Mesh, batch_size: int, frozen, before_batch: Callable[[], None] = lambda: None):
    """(state, batch of numpy arrays [B, ...]) -> numpy outputs for any B, computed `batch_size` windows at a time.

    `before_batch` is called before each of them, as often on every process.
    """

    @jax.jit
    def predict_batch(params, codebooks, batch):
        return task.predict(params, codebooks, batch)

    def predict(state, batch) -> dict[str, np.ndarray]:
        outputs, share, count = [], batch_size // jax.process_count(), len(jax.tree.leaves(batch)[0])
        for start in range(0, count, batch_size):
            before_batch()
            rows = np.arange(start, start + batch_size)[jax.process_index() * share :][:share]
            rows = np.minimum(rows, count - 1)  # the last window again, beyond the end
            mine = jax.tree.map(lambda x, rows=rows: x[rows], batch)
            on_devices = batch_to_devices(mine, mesh, batch_size) | frozen
            got = jax.device_get(predict_batch(state.final_params(), state.codebooks, on_devices))
            outputs.append(jax.tree.map(lambda x, stop=count - start: x[:stop], got))
        return jax.tree.map(lambda *parts: np.concatenate(parts), *outputs)

    return predict
