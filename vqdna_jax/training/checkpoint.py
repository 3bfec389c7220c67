"""All of orbax: save a state with its meta, find the newest one that is whole, restore it onto any mesh.

Orbax does not notice a flipped bit. So every checkpoint carries the sha256 of its files, checked before it is read, and
meta a digest per leaf, the same for every sharding, checked after. Processes decide together which one they take.
"""

import pathlib
import time
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging

from vqdna_jax.errors import StorageError, first_line
from vqdna_jax.runtime import files
from vqdna_jax.runtime.processes import exchange, first_does, peer_error
from vqdna_jax.training.digest import leaf_digests

# Orbax writes these after the seal; they say when it did, and nothing here reads them.
_UNSEALED = ("_CHECKPOINT_METADATA", "commit_success.txt")


class Checkpoints:
    """The checkpoints of one run, named by the number of steps done.

    Saves are asynchronous; `close` waits for the last one, at most `timeout_s`. Those of another run (`run_id`) are as
    good as damaged. Raises StorageError when a write fails; the checkpoints before it stay.
    """

    def __init__(self, directory: pathlib.Path, keep: int, run_id: str, timeout_s: float = 300):
        self._directory, self._run_id = directory, run_id
        cm = ocp.checkpoint_managers
        options = ocp.CheckpointManagerOptions(
            preservation_policy=cm.LatestN(keep),
            cleanup_tmp_directories=True,
            enable_async_checkpointing=True,
            async_options=ocp.options.AsyncOptions(
                timeout_secs=max(1, int(timeout_s)), post_finalization_callback=self._seal
            ),
        )
        handlers = {"state": ocp.StandardCheckpointHandler(), "meta": ocp.JsonCheckpointHandler()}
        self._manager = ocp.CheckpointManager(directory, options=options, item_handlers=handlers)
        self._saving = 0

    def save(self, steps_done: int, state: Any, meta: dict[str, Any]) -> None:
        """Saves once; a step that is already there is left alone."""
        if steps_done in self._manager.all_steps():
            return
        meta = meta | {"run_id": self._run_id, "next_step": steps_done, "digests": leaf_digests(state)}
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        self._wait(f"the checkpoint before {steps_done}")
        self._saving = steps_done
        try:
            self._manager.save(steps_done, args=items, force=True)
        except _UNWRITTEN as error:
            raise self._failed(f"checkpoint {steps_done}", error) from error

    def newest_meta(self) -> dict[str, Any] | None:
        """Meta of the newest step that has one, without reading its state; None in a fresh workdir.

        Raises StorageError when there are checkpoints and none has a readable meta.
        """

        def read() -> dict[str, Any] | None:
            steps = self._newest_first()
            for step in steps:
                try:
                    return self._read_meta(step)
                except _UNREADABLE as error:
                    logging.error("checkpoint %d is left out (%s)", step, first_line(error))
            if steps:
                raise self._none_is_whole(steps)
            return None

        return first_does("newest meta", read)

    def restore(self, abstract_state: Any) -> tuple[Any, dict[str, Any]] | None:
        """(state, meta) of the newest whole checkpoint, with `abstract_state`'s shardings; None in a fresh workdir.

        Damaged checkpoints newer than it are renamed, so that the run can save these steps again.

        Raises:
            StorageError: there are checkpoints and none is whole. A run never starts afresh silently.
        """
        steps = first_does("steps", self._newest_first)
        for tried, step in enumerate(steps):
            whole = self._read(step, abstract_state)
            if whole is not None:
                self._set_aside(steps[:tried])
                return whole
        if steps:
            raise self._none_is_whole(steps)
        return None

    def _read(self, step: int, abstract_state: Any) -> tuple[Any, dict[str, Any]] | None:
        """None, with a line in the log, if any process finds it damaged."""
        problem, state, meta = "", None, None
        sums = first_does("sums", lambda: files.broken(self._directory / str(step)))
        try:
            meta = self._read_meta(step)
            if not sums:
                # The handler itself: the manager's restore has barriers, where others would wait for one that failed.
                state = ocp.StandardCheckpointHandler().restore(
                    self._directory / str(step) / "state", args=ocp.args.StandardRestore(abstract_state)
                )
        except _UNREADABLE as error:
            problem = first_line(error) or type(error).__name__
        problems = [*sums, *filter(None, exchange("restored", problem))]
        if not problems and state is not None and meta is not None:
            problems = _damaged_leaves(state, meta["digests"])
        if problems:
            logging.error("checkpoint %d is damaged (%s): trying the one before", step, "; ".join(problems[:3]))
            return None
        assert meta is not None  # else there was a problem
        return state, meta

    def _read_meta(self, step: int) -> dict[str, Any]:
        meta = ocp.JsonCheckpointHandler().restore(self._directory / str(step) / "meta")
        if meta.get("run_id", self._run_id) != self._run_id:
            raise ValueError(f"it is of another run, {meta['run_id']}")
        return meta

    def _set_aside(self, steps: list[int]) -> None:
        def rename() -> None:
            for step in steps:
                path = self._directory / str(step)
                path.rename(path.with_name(f"damaged-{step}-{time.time_ns()}"))

        if steps:
            first_does("set aside", rename)
            self._manager.reload()

    def _seal(self) -> None:
        """Called when all of a checkpoint is written, just before it gets its final name."""
        if jax.process_index() == 0:
            for path in self._directory.glob(f"{self._saving}.*-tmp*"):
                files.seal(path, leave_out=_UNSEALED)

    def close(self) -> None:
        try:
            self._wait("the last checkpoint")
        finally:
            self._manager.close()

    def _wait(self, what: str) -> None:
        try:
            self._manager.wait_until_finished()
        except _UNWRITTEN as error:
            raise self._failed(what, error) from error

    def _failed(self, what: str, error: Exception) -> Exception:
        """A process whose write failed waits for the others in vain, and that is what orbax raises at last; of one that
        waited for a process that is gone it raises a TimeoutError, which has nothing to do with a disk."""
        peer = None
        for cause in _chain(error):
            if told := peer_error(cause):
                peer = told
            elif not any(isinstance(e, jax.errors.JaxRuntimeError) for e in (cause, cause.__cause__)):
                return StorageError(f"{self._directory}: {what} could not be written: {first_line(cause)}")
        return peer or error

    def _none_is_whole(self, steps: list[int]) -> StorageError:
        return StorageError(
            f"{self._directory}: none of the checkpoints {steps} is whole; restore a copy, or name a new --workdir"
        )

    def _newest_first(self) -> list[int]:
        return sorted(self._manager.all_steps(), reverse=True)


_UNWRITTEN = (OSError, ValueError, jax.errors.JaxRuntimeError)
# What reading a damaged checkpoint raises, from a missing file to a wrong length.
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those behind it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _damaged_leaves(state: Any, expected: dict[str, int]) -> list[str]:
    found = leaf_digests(state)
    return [
        f"{name}: digest {found.get(name)}, saved {digest}"
        for name, digest in expected.items()
        if found.get(name) != digest
    ]
