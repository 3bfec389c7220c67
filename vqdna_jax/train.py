"""The training loop of every stage, top to bottom."""

import contextlib
import dataclasses
import functools
import math
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from vqdna_jax.errors import EXIT_STOPPED
from vqdna_jax.genome.windows import train_iterator
from vqdna_jax.partition import abstract_state, batch_shards, batch_to_devices, make_mesh
from vqdna_jax.runtime.files import write_json
from vqdna_jax.runtime.processes import FOREVER_S, first_does, refuse_differences, say
from vqdna_jax.runtime.stopping import Stopped, StopRequest
from vqdna_jax.runtime.watchdog import Watchdog, after
from vqdna_jax.stages import make_stage, read_settings
from vqdna_jax.stages.announce import differences, plan_lines
from vqdna_jax.stages.base import Finished, Stage
from vqdna_jax.tasks.base import Metrics, Task
from vqdna_jax.training import goodput
from vqdna_jax.training.checkpoint import Checkpoints
from vqdna_jax.training.metrics import StepLog, Throughput, read_evaluated
from vqdna_jax.training.optimizer import learning_rate_schedule, make_optimizer
from vqdna_jax.training.phases import Phases
from vqdna_jax.training.predict import make_predict
from vqdna_jax.training.settings import OptimizerSettings, Settings, refuse_changes, shared
from vqdna_jax.training.step import Best, TrainState, better_of, final_params, init_state, jit_step, train_step
from vqdna_jax.training.workdir import Workdir, check_shared, make_room, open_workdir
from vqdna_jax.version import versions

NO_STEP = np.uint32(2**32 - 1)  # every step folds its own number into the key


def train(
    config: ConfigDict,
    workdir: str | os.PathLike,
    stop: StopRequest | None = None,
    watchdog: Watchdog | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> int:
    """Runs `config` to its end or to a signal, going on from what `workdir` holds. Returns the exit code.

    With several processes, each calls this with the same arguments.

    Args:
        stop, watchdog: those of a caller that needs them before.
        devices: to run on; all there are by default.

    Raises:
        InputError, NumericsError, StorageError, PeerError: each with its exit code, see errors.py.
    """
    with contextlib.ExitStack() as stack:
        stop = stop or stack.enter_context(StopRequest())
        stack.enter_context(stop.noted())
        stack.enter_context(stop.agreed(jax.process_count()))
        settings = read_settings(config)
        watchdog = watchdog or stack.enter_context(Watchdog(settings.train.timeout_s))
        clock = stack.enter_context(goodput.Goodput())
        try:
            _train(settings, workdir, Phases(watchdog, clock, stop), devices)
        except Stopped as stopped:
            say(f"stopped by {stop.name}{stopped}, all saved; run the same command to go on", file=sys.stderr)
            return EXIT_STOPPED
    return 0


def _train(settings: Settings, place: str | os.PathLike, run: Phases, devices: Sequence[jax.Device] | None) -> None:
    """Order of a turn: evaluate the state as it is, save it, take the batch of this step, step, log the step before."""
    with run.stop.nothing_to_lose():
        with run.phase("devices"):
            mesh = make_mesh(**dataclasses.asdict(settings.mesh), devices=devices)
        with run.phase("prepare"):
            check_shared(place)
            stage, meta = _open(settings, mesh)
            settings = stage.settings
    with contextlib.ExitStack() as opened, jax.set_mesh(mesh), contextlib.ExitStack() as stack:
        with run.stop.nothing_to_lose(), run.phase("prepare"):
            workdir = opened.enter_context(open_workdir(place))
            total_steps = settings.train.steps(stage.data.batches.steps_per_epoch)
            program = _program(settings, stage, mesh, total_steps, run)
            keep, timeout_s = settings.train.keep_checkpoints, settings.train.timeout_s
            checkpoints = Checkpoints(workdir.path / "checkpoints", keep, workdir.run_id, timeout_s, workdir.copy_save)
            with run.phase("restore"):
                state = resume(checkpoints, program.abstract_state, meta, type(settings))
            if state is None:
                state = program.init()
            first_step, enough = int(state.step), stage.enough(state.best)
            finished = first_does("finished", (workdir.path / "result.json").exists)
            if (first_step == total_steps or enough) and finished:
                say(f"{workdir.name}: this run is finished; its results are in result.json")
                return
            make_room(workdir.path, sum(leaf.nbytes for leaf in jax.tree.leaves(state)))
            say(*plan_lines(stage, state, mesh, total_steps))
            data = stage.data
            throughput = Throughput(data.bases_per_step, stage.flops_per_step(), mesh.size, data.warmup_steps)
            log = _open_log(settings, workdir.path, first_step, total_steps, throughput)
            stack.callback(log.abandon)
            if jax.process_index() == 0:
                write_json(workdir.path / "config.json", meta["config"])
                run.clock.record(workdir.path, first_step)
            evaluated = read_evaluated(workdir.path)
            iterator, done, stopped = train_iterator(data.batches, first_step), first_step, ""
            new, length = first_step, ""
        run.pause = log.pause
        try:
            with run.phase("step", done, settled=False):
                while True:
                    run.stop.check()
                    due = done % settings.eval.every_steps == 0 or (stage.task.keeps_best and done == total_steps)
                    due &= done > 0 or stage.task.keeps_best or stage.start is not None  # parameters that are trained
                    if due and done not in evaluated:
                        with run.phase("evaluate", done):
                            scores = stage.evaluate(functools.partial(program.predict, state))
                            log.evaluation(done, scores)
                            evaluated[done] = scores.get("choice", scores.get("loss"))
                    if due and stage.task.keeps_best:
                        state = dataclasses.replace(state, best=program.judge(state, evaluated[done]))
                        enough = stage.enough(state.best)
                    if done == total_steps or enough:
                        break
                    if done > first_step and done % settings.train.checkpoint_every_steps == 0:
                        with run.phase("save", done):  # waits for the save before
                            checkpoints.save(done, state, meta)
                    if (now := data.said_of(done)) != length:
                        new, length = done, now
                        log.length(done, length)
                    settled = done >= new + 2
                    with run.phase("read", done, settled):
                        batch = program.to_devices(next(iterator))
                    with run.phase("step" if done > new else "compile", done, settled):
                        state, metrics = program.step(state, batch)
                        log.step(done, metrics)
                    done += 1
        except Stopped:
            stopped = f" {after(done)}"
        with run.phase("save", done):
            log.close()
            checkpoints.save_whole(done, state, meta)
            checkpoints.close()
        if stopped:
            raise Stopped(stopped)
        with run.phase("finish", done), run.watchdog.by_thread(), run.stop.nothing_to_lose():
            say("evaluating on held-out data ...")
            stage.finish(_finished(workdir, stage, state, program, meta["config"], throughput.bases_per_s()))
            first_does("finish", lambda: None, timeout_s=FOREVER_S)
        run.clock.close()
        say(*goodput.describe(goodput.summary(workdir.path)))


class Program(NamedTuple):
    """The functions of a run that are compiled, and what they need. `random` makes the state that `init` does, unless
    the run goes on from an export."""

    random: Callable[[], TrainState]
    init: Callable[[], TrainState]
    abstract_state: Callable[[], TrainState]
    step: Callable[[TrainState, Any], tuple[TrainState, Metrics]]
    judge: Callable[[TrainState, float | None], Best]
    predict: Callable[..., dict[str, np.ndarray]]
    to_devices: Callable[[Any], Any]


def _program(settings: Settings, stage: Stage, mesh: Mesh, total_steps: int, run: Phases) -> Program:
    task, frozen, key = stage.task, stage.frozen, jax.random.key(settings.seed)
    jitted = _jitted(task, settings.optimizer, total_steps)

    def to_devices(batch):
        return batch_to_devices(batch, mesh, settings.data.global_batch)

    arguments = jax.random.fold_in(key, NO_STEP), frozen, to_devices(stage.data.batches[0])

    def random() -> TrainState:
        return jitted.init(*arguments)

    def judge(state: TrainState, loss: float | None) -> Best:
        at_hand = jnp.float32(math.nan if loss is None else loss)  # metrics.jsonl has None for what is not finite
        return jitted.better(state.best, final_params(state), state.step, at_hand)

    return Program(
        random=random,
        init=lambda: stage.start.state(random()) if stage.start else random(),
        abstract_state=lambda: abstract_state(jitted.init, mesh, *arguments),
        step=lambda state, batch: jitted.step(state, frozen, batch, key),
        judge=judge,
        predict=make_predict(task, mesh, settings.eval.batch, frozen, run.between_batches),
        to_devices=to_devices,
    )


class _Jitted(NamedTuple):
    init: Callable[..., TrainState]
    step: Callable[..., tuple[TrainState, Metrics]]
    better: Callable[..., Best]


@functools.lru_cache(maxsize=4)
def _jitted(task: Task, optimizer: OptimizerSettings, total_steps: int) -> _Jitted:
    """The functions of a run. Runs of one process that are alike but for data and seed, as those of a benchmark are,
    trace and compile them once."""
    tx = make_optimizer(optimizer, total_steps)
    one_step = functools.partial(train_step, task, tx, skip_above=optimizer.skip_above)
    init = functools.partial(init_state, task, tx)
    return _Jitted(jax.jit(init), jit_step(one_step), jax.jit(better_of))


def _open(settings: Settings, mesh: Mesh) -> tuple[Stage, dict[str, Any]]:
    """The stage, and the meta of its checkpoints: all that a run which goes on must have alike, and some that is told.

    Raises InputError: something named by the config cannot be read, or the processes differ.
    """
    settings.check(batch_shards(mesh))
    refuse_differences(shared(settings.recorded) | versions())
    stage = make_stage(settings, mesh)
    refuse_differences(stage.digests)
    topology = {"processes": jax.process_count(), "devices": mesh.size, "mesh": dict(mesh.shape)}
    return stage, {"config": settings.recorded, "versions": versions(), "topology": topology} | stage.digests


def _open_log(
    settings: Settings, workdir: pathlib.Path, first_step: int, total_steps: int, throughput: Throughput
) -> StepLog:
    return StepLog(
        workdir,
        first_step,
        total_steps,
        settings.train.log_every_steps,
        learning_rate_schedule(settings.optimizer, total_steps),
        throughput,
        stop_below_utilisation=settings.train.stop_below_utilisation,
    )


def resume(
    checkpoints: Checkpoints, abstract: Callable[[], TrainState], meta: dict[str, Any], kind: type[Settings]
) -> TrainState | None:
    """The newest whole state of the workdir, or None in a fresh one. Raises InputError when the config, of this `kind`,
    differs."""
    saved = checkpoints.newest_meta()
    if saved is None:
        return None
    refuse_changes(saved, meta, kind)
    say(*differences(saved, meta), file=sys.stderr)
    restored = checkpoints.restore(abstract())
    return restored[0] if restored else None


def _finished(
    workdir: Workdir, stage: Stage, state: TrainState, program: Program, config: dict, bases_per_s: float
) -> Finished:
    return Finished(
        config=config,
        name=workdir.name,
        workdir=workdir.path,
        data=stage.data,
        state=state,
        start=stage.start,
        random=program.random,
        predict=functools.partial(program.predict, state),
        untrained=lambda: functools.partial(program.predict, program.random()),
        bases_per_s=bases_per_s,
    )
