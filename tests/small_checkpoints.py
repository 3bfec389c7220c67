"""Checkpoints of a few small arrays, each of other values, and what tests ask of them."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from small_mesh import mesh_of

from vqdna_jax.training.checkpoint import FAILURES, Checkpoints


def state_on(mesh):
    rng = np.random.default_rng(0)
    arrays = {"w": rng.normal(size=(8, 12)).astype(np.float32), "step": np.int32(7)}
    arrays["half"] = jnp.asarray(rng.normal(size=(16,)), jnp.bfloat16)
    specs = {"w": jax.P(("data", "fsdp"), None), "step": jax.P(), "half": jax.P("fsdp")}
    return {name: jax.device_put(value, jax.NamedSharding(mesh, specs[name])) for name, value in arrays.items()}


def abstract(state):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


def scaled(factor: int):
    """What `restored_step` expects of the checkpoint with this number."""
    return jax.tree.map(lambda x: factor * x, state_on(mesh_of(1, 1)))


def settled(checkpoints: Checkpoints, step: int) -> None:
    """A save, until it is known how it went."""
    checkpoints.save(step, scaled(step), {"config": {}})
    checkpoints._settle(FAILURES)


def steps_in(directory: pathlib.Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def restored_step(directory) -> int:
    again = Checkpoints(directory, keep=2, run_id="this")
    state, meta = again.restore(abstract(state_on(mesh_of(1, 1))))
    again.close()
    factor = meta["next_step"]  # checkpoint 2 holds twice the values of 1
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, factor * np.asarray(y)), state, state_on(mesh_of(1, 1)))
    return meta["next_step"]
