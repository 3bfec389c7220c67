"""All of orbax: save a state with its meta, find the newest one that is whole, restore it onto any mesh.

Orbax does not notice a flipped bit, so meta carries a digest a leaf, the same for every sharding, checked on restore.
"""

import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging
from jax import Array

from vqdna_jax.errors import StorageError


class Checkpoints:
    """The checkpoints of one workdir, named by the number of steps done.

    Saves are asynchronous; `close` waits for the last one. Raises StorageError when a write fails.
    """

    def __init__(self, directory: pathlib.Path, keep: int):
        cm = ocp.checkpoint_managers
        options = ocp.CheckpointManagerOptions(
            preservation_policy=cm.LatestN(keep),
            cleanup_tmp_directories=True,
            enable_async_checkpointing=True,
            async_options=ocp.options.AsyncOptions(timeout_secs=300),
        )
        handlers = {"state": ocp.StandardCheckpointHandler(), "meta": ocp.JsonCheckpointHandler()}
        self._manager = ocp.CheckpointManager(directory, options=options, item_handlers=handlers)

    def save(self, steps_done: int, state: Any, meta: dict[str, Any]) -> None:
        """Saves once; a step that is already there is left alone."""
        if steps_done in self._manager.all_steps():
            return
        meta = meta | {"next_step": steps_done, "digests": leaf_digests(state)}
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        try:
            self._manager.save(steps_done, args=items, force=True)
        except (OSError, ValueError) as error:
            raise StorageError(
                f"{self._manager.directory}: checkpoint {steps_done} could not be saved: {error}"
            ) from error

    def newest_meta(self) -> dict[str, Any] | None:
        """Meta of the newest step that has one, without reading its state; None in a fresh workdir.

        Raises StorageError when there are checkpoints and none has a readable meta.
        """
        steps = self._newest_first()
        for step in steps:
            try:
                return self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
            except (OSError, ValueError, KeyError) as error:
                logging.error("checkpoint %d has no readable meta (%s): trying the one before", step, error)
        if steps:
            raise self._none_is_whole(steps)
        return None

    def restore(self, abstract_state: Any) -> tuple[Any, dict[str, Any]] | None:
        """(state, meta) of the newest whole checkpoint, with `abstract_state`'s shardings; None in a fresh workdir.

        Damaged checkpoints newer than it are renamed, so that the run can save these steps again.

        Raises:
            StorageError: there are checkpoints and none is whole. A run never starts afresh silently.
        """
        steps = self._newest_first()
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state), meta=ocp.args.JsonRestore())
        for tried, step in enumerate(steps):
            try:
                restored = self._manager.restore(step, args=items)
                damaged = _damaged_leaves(restored["state"], restored["meta"]["digests"])
            except (OSError, ValueError, KeyError) as error:
                damaged = [str(error).splitlines()[0]]
            if not damaged:
                self._set_aside(steps[:tried])
                return restored["state"], restored["meta"]
            logging.error("checkpoint %d is damaged (%s): trying the one before", step, "; ".join(damaged[:3]))
        if steps:
            raise self._none_is_whole(steps)
        return None

    def _set_aside(self, steps: list[int]) -> None:
        for step in steps if jax.process_index() == 0 else ():
            path = pathlib.Path(self._manager.directory) / str(step)
            path.rename(path.with_name(f"damaged-{step}-{time.time_ns()}"))
        if steps:
            self._manager.reload()

    def _none_is_whole(self, steps: list[int]) -> StorageError:
        return StorageError(
            f"{self._manager.directory}: none of the checkpoints {steps} is whole;"
            " restore a copy, or name a new --workdir"
        )

    def close(self) -> None:
        try:
            self._manager.wait_until_finished()
        except (OSError, ValueError) as error:
            raise StorageError(
                f"{self._manager.directory}: the last checkpoint could not be written: {error}"
            ) from error
        finally:
            self._manager.close()

    def _newest_first(self) -> list[int]:
        return sorted(self._manager.all_steps(), reverse=True)


def leaf_digests(state: Any) -> dict[str, int]:
    """32-bit digest of every leaf by name; integer sums, so the same on any mesh."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    digests = jax.device_get(_digests([leaf for _, leaf in leaves]))
    return {jax.tree_util.keystr(path): int(digest) for (path, _), digest in zip(leaves, digests, strict=True)}


@jax.jit
def _digests(leaves: list[Array]) -> list[Array]:
    return [_digest(leaf) for leaf in leaves]


def _digest(x: Array) -> Array:
    """sum of bits times an odd weight of the position, modulo 2^32: any single changed element changes it."""
    bits = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * x.dtype.itemsize}")).astype(jnp.uint32)
    position = jnp.zeros(x.shape, jnp.uint32)
    for axis, size in enumerate(x.shape):
        position = position * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    weight = 2 * (position * jnp.uint32(2654435761) ^ (position >> 15)) + 1
    return jnp.sum(bits * weight, dtype=jnp.uint32)


def _damaged_leaves(state: Any, expected: dict[str, int]) -> list[str]:
    found = leaf_digests(state)
    return [
        f"{name}: digest {found.get(name)}, saved {digest}"
        for name, digest in expected.items()
        if found.get(name) != digest
    ]
