"""All of orbax: save a state with its meta, find the newest one that is whole, restore it onto any mesh.

Orbax does not notice a flipped bit. So every checkpoint carries the sha256 of its files, checked before it is read, and
meta a digest per leaf, the same for every sharding, checked after. Processes decide together which one they take.

Nor can its list of steps be believed: it has a step from the moment that its save begins, also when that fails, and
loses an older one for it. So a save counts when its seal is in place, and after one that failed the list is read anew.
"""

import contextlib
import functools
import logging as log
import pathlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging

from vqdna_jax.errors import StorageError, first_line
from vqdna_jax.runtime import files
from vqdna_jax.runtime.processes import exchange, first_does, peer_error, say
from vqdna_jax.training.digest import leaf_digests

# Orbax writes these after the seal; they say when it did, and nothing here reads them.
_UNSEALED = ("_CHECKPOINT_METADATA", "commit_success.txt")
FAILURES = 3  # so many saves in a row that fail end a run
_PARTS = 5  # of orbax's manager: two stores of metadata, the writer, the thread that waits for them, the remover


class Checkpoints:
    """The checkpoints of one run, named by the number of steps done.

    Saves are asynchronous: how one went is known when the next begins, or `close` waits for it, at most `timeout_s`.
    Those of another run (`run_id`) are as good as damaged. Where `copy_save` makes a copy (of a sealed directory, of a
    step, as one of `keep`), that is a part of the save: it may fail as the rest may.

    A write that fails is told, and the next save is made: StorageError ends the run after `FAILURES` in a row, at
    `close`, and with several processes, which then wait for each other in vain, at the first. The checkpoints before
    it stay.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        keep: int,
        run_id: str,
        timeout_s: float = 300,
        copy_save: Callable[[pathlib.Path, int, int], None] | None = None,
    ):
        _quieten()
        self._copy_save = copy_save
        self._directory, self._run_id = directory, run_id
        self._keep, self._timeout_s = keep, max(1, int(timeout_s))
        self._manager = self._open(clean=True)
        self._saving: int | None = None
        self._whole: int | None = None
        self._failures = 0

    def _open(self, clean: bool) -> ocp.CheckpointManager:
        """Of what is on the disk; `clean` removes what saves that did not end have left, and can fail a save."""
        cm = ocp.checkpoint_managers
        options = ocp.CheckpointManagerOptions(
            preservation_policy=cm.LatestN(self._keep),
            cleanup_tmp_directories=clean,
            enable_async_checkpointing=True,
            async_options=ocp.options.AsyncOptions(timeout_secs=self._timeout_s, post_finalization_callback=self._seal),
        )
        handlers = {"state": ocp.StandardCheckpointHandler(), "meta": ocp.JsonCheckpointHandler()}
        return ocp.CheckpointManager(self._directory, options=options, item_handlers=handlers)

    def save(self, steps_done: int, state: Any, meta: dict[str, Any]) -> None:
        """Begins to save; a step that is already there is left alone, and that is said."""
        self._settle(FAILURES)
        if steps_done in self._manager.all_steps():
            say(f"checkpoint {steps_done} is there already: not saved again", file=sys.stderr)
            self._whole = steps_done
            return
        meta = meta | {"run_id": self._run_id, "next_step": steps_done, "digests": leaf_digests(state)}
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        self._saving = steps_done
        try:
            self._manager.save(steps_done, args=items, force=True)
        except _UNWRITTEN as error:
            self._failed(error, FAILURES)

    def save_whole(self, steps_done: int, state: Any, meta: dict[str, Any]) -> None:
        """Saves and waits until the checkpoint is whole, again if that fails: for the last one of a run."""
        self.save(steps_done, state, meta)
        self._settle(FAILURES)
        if self._whole != steps_done:
            self.save_whole(steps_done, state, meta)

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
                if self._copy_save and self._saving is not None:
                    self._copy_save(path, self._saving, self._keep)

    def close(self) -> None:
        try:
            self._settle(1)
        finally:
            self._shut()

    def _settle(self, failures: int) -> None:
        """Waits for the save that was begun, and looks whether it is there, whatever orbax says of it."""
        if self._saving is None:
            return
        path = self._directory / str(self._saving) / files.SEAL
        try:
            self._manager.wait_until_finished()
            if not first_does("saved", path.exists):
                raise OSError("orbax has left it out")
        except _UNWRITTEN as error:
            self._failed(error, failures)
        else:
            if self._failures:
                self._remove_unfinished()  # what was still being written when they failed
            self._whole, self._saving, self._failures = self._saving, None, 0

    def _failed(self, error: Exception, failures: int) -> None:
        """Says that the save that was begun failed, and makes room for the next; raises after so many in a row."""
        step, self._saving, self._failures = self._saving, None, self._failures + 1
        assert step is not None  # one was begun
        told = _told(f"{self._directory}: checkpoint {step}", error)
        if not isinstance(told, StorageError):
            raise told from error
        if jax.process_count() > 1 or self._failures >= failures:
            raise StorageError(f"{told}; make room or mend the disk, then run the same command again") from error
        self._start_anew()
        said = f"{self._failures} of {FAILURES} failures in a row that end the run"
        say(f"warning: {told}; the next save is made as usual ({said})", file=sys.stderr)

    def _start_anew(self) -> None:
        self._shut()
        self._remove_unfinished()
        try:
            self._manager = self._open(clean=False)
        except OSError as error:
            raise StorageError(f"{self._directory}: cannot be read after a save that failed ({error})") from error

    def _remove_unfinished(self) -> None:
        for left in self._directory.glob("*.*-tmp*"):
            shutil.rmtree(left, ignore_errors=True)

    def _shut(self) -> None:
        """Orbax keeps errors of one save in several of its parts, where each would fail one later save."""
        for _ in range(_PARTS):
            with contextlib.suppress(*_UNWRITTEN):
                return self._manager.close()

    def _none_is_whole(self, steps: list[int]) -> StorageError:
        return StorageError(
            f"{self._directory}: none of the checkpoints {steps} is whole; restore a copy, or name a new --workdir"
        )

    def _newest_first(self) -> list[int]:
        return sorted(self._manager.all_steps(), reverse=True)


_UNWRITTEN = (OSError, ValueError, StorageError, jax.errors.JaxRuntimeError)
# What reading a damaged checkpoint raises, from a missing file to a wrong length.
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError)


@functools.cache
def _quieten() -> None:
    """For one write that fails orbax logs ten tracebacks, asyncio some more, and tensorstore tells of each array that
    nobody waits for it any more; `Checkpoints` has one line for it."""
    logging.get_absl_logger().addFilter(lambda record: "/orbax/" not in record.pathname)
    log.getLogger("asyncio").addFilter(lambda record: "was never retrieved" not in record.getMessage())
    shown = sys.unraisablehook

    def but_that(found: "sys.UnraisableHookArgs") -> None:
        if str(found.exc_value) != "Event loop is closed":
            shown(found)

    sys.unraisablehook = but_that


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those behind it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _told(checkpoint: str, error: Exception) -> Exception:
    """A process whose write failed waits for the others in vain, and that is what orbax raises at last; of one that
    waited for a process that is gone it raises a TimeoutError, which has nothing to do with a disk."""
    peer = None
    for cause in _chain(error):
        if told := peer_error(cause):
            peer = told
        elif not any(isinstance(e, jax.errors.JaxRuntimeError) for e in (cause, cause.__cause__)):
            return StorageError(f"{checkpoint} could not be written: {first_line(cause)}")
    return peer or error


def _damaged_leaves(state: Any, expected: dict[str, int]) -> list[str]:
    found = leaf_digests(state)
    return [
        f"{name}: digest {found.get(name)}, saved {digest}"
        for name, digest in expected.items()
        if found.get(name) != digest
    ]
