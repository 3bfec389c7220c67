"""The training loop of every stage, top to bottom."""

import contextlib
import copy
import functools
import json
import math
import pathlib
import sys

import jax
import numpy as np

from vqdna_jax import version
from vqdna_jax.errors import EXIT_STOPPED
from vqdna_jax.genome.windows import train_iterator
from vqdna_jax.partition import abstract_state, batch_shards, batch_to_devices, make_mesh
from vqdna_jax.runtime import files
from vqdna_jax.runtime import processes as runtime_processes
from vqdna_jax.runtime.stopping import Stopped, StopRequest
from vqdna_jax.runtime.watchdog import COMPILE_LIMITS, Watchdog
from vqdna_jax.stages import base, make_stage
from vqdna_jax.training import goodput, settings
from vqdna_jax.training.announce import _differences, say_plan
from vqdna_jax.training.checkpoint import Checkpoints
from vqdna_jax.training.metrics import StepLog, Throughput
from vqdna_jax.training.optimizer import learning_rate_schedule, make_optimizer
from vqdna_jax.training.predict import make_predict
from vqdna_jax.training.step import init_state, train_step
from vqdna_jax.training.workdir import make_room, open_workdir

RETRY_SEEDS = 1000  # from the seed of one attempt to that of the next
NO_STEP = np.uint32(2**32 - 1)  # every step folds its own number into the key


def train(config, workdir: pathlib.Path, stop: StopRequest | None = None, watchdog: Watchdog | None = None) -> int:
    """Runs `config` to its end or to a signal, going on from what `workdir` holds. Returns the exit code.

    With several processes, each calls this with the same arguments. `stop` and `watchdog` are those of a caller that
    needs them before.

    Raises:
        InputError, NumericsError, StorageError, PeerError: each with its exit code, see errors.py.
    """
    try:
        with contextlib.ExitStack() as stack:
            stop = stop or stack.enter_context(StopRequest())
            stack.enter_context(stop.noted())
            stack.enter_context(stop.agreed(jax.process_count()))
            settings.validate(config)
            watchdog = watchdog or stack.enter_context(Watchdog(config.train.timeout_s))
            clock = stack.enter_context(goodput.Goodput())
            _train(config, workdir.resolve(), stop, watchdog, clock, stack)  # orbax wants whole paths
    except Stopped as stopped:
        if jax.process_index() == 0:
            print(f"stopped by {stop.name}{stopped}, all saved; run the same command to go on", file=sys.stderr)
        return EXIT_STOPPED
    return 0


def _train(
    config, workdir: pathlib.Path, stop: StopRequest, watchdog: Watchdog, clock: goodput.Goodput,
    stack: contextlib.ExitStack,
) -> None:  # fmt: skip
    """Order of a turn: evaluate the state as it is, save it, take the batch of this step, step, log the step before."""
    with stop.nothing_to_lose():
        watchdog.beat(0, COMPILE_LIMITS)
        mesh = make_mesh(**config.mesh)
        settings.validate_mesh(config, batch_shards(mesh))
        versions = version.versions()
        runtime_processes.refuse_differences(settings.shared(config.to_dict()) | versions)
        clock.switch("training_prep")
        stage = make_stage(config, mesh)
        data = stage.open_data()
        runtime_processes.refuse_differences(data.digests | stage.digests)
        batches, held_out = data.batches, data.held_out
        total_steps = config.train.total_steps or math.ceil(config.train.total_epochs * batches.steps_per_epoch)
        task, tx = stage.task, make_optimizer(config.optimizer, total_steps)

        run_id = stack.enter_context(open_workdir(workdir))
        stack.enter_context(jax.set_mesh(mesh))
        key = jax.random.key(config.seed)

        def to_devices(batch):
            return batch_to_devices(stage.inputs(batch), mesh, config.data.global_batch) | stage.frozen

        init = jax.jit(functools.partial(init_state, task, tx))
        init_arguments = (jax.random.fold_in(key, NO_STEP), to_devices(batches[0]))
        checkpoints = Checkpoints(
            workdir / "checkpoints", config.train.keep_checkpoints, run_id, config.train.timeout_s
        )
        topology = {"processes": jax.process_count(), "devices": mesh.size, "mesh": dict(mesh.shape)}
        meta = {"config": config.to_dict(), "versions": versions, "topology": topology} | data.digests | stage.digests
        clock.switch("unproductive_checkpoint_restore_time")
        state = resume(checkpoints, lambda: abstract_state(init, mesh, *init_arguments), meta)
        clock.switch("training_prep")
        if state is None:
            state = init(*init_arguments)
        first_step = int(state.step)
        finished = runtime_processes.first_does("finished", (workdir / "result.json").exists)
        if (first_step == total_steps or stage.enough(state)) and finished:
            print(f"{workdir}: this run is finished; its results are in result.json")
            return
        if jax.process_index() == 0:
            files.write_json(workdir / "config.json", meta["config"])
        make_room(workdir, sum(leaf.nbytes for leaf in jax.tree.leaves(state)))
        flops_per_step = stage.flops_per_step(data)
        say_plan(data, mesh, stage, state, flops_per_step, first_step, total_steps)

        one_step = functools.partial(train_step, task, tx, skip_above=config.optimizer.skip_above)
        step_fn = jax.jit(one_step, donate_argnums=0)
        schedule = learning_rate_schedule(config.optimizer, total_steps)
        throughput = Throughput(data.bases_per_step, flops_per_step)
        log = StepLog(
            workdir, first_step, total_steps, config.train.log_every_steps, schedule, throughput,
            stop_below_utilisation=config.train.get("stop_below_utilisation", 0.0),
        )  # fmt: skip
        if jax.process_index() == 0:
            clock.record(workdir, first_step)
        iterator, done, stopped = train_iterator(batches, first_step), first_step, ""
    finishing = False

    def before_batch():
        stop.check()
        if not finishing:
            watchdog.beat(done, COMPILE_LIMITS)

    predict = make_predict(task, mesh, config.eval.batch, stage.frozen, before_batch)
    try:
        while True:
            stop.check()
            due = done % config.eval.every_steps == 0 or (task.keeps_best and done == total_steps)
            if done and due and done not in log.evaluated:
                log.pause()
                clock.switch("custom_badput_events", done)
                watchdog.beat(done, COMPILE_LIMITS)
                log.evaluation(done, stage.evaluate(functools.partial(predict, state), held_out))
            if done and due and task.keeps_best:
                state = state.judged(log.evaluated[done])
            if done == total_steps or stage.enough(state):
                break
            if done > first_step and done % config.train.checkpoint_every_steps == 0:
                log.pause()
                clock.switch("unproductive_checkpoint_save_time", done)
                # It waits for the save before, and one that failed waits for the other processes.
                watchdog.beat(done, COMPILE_LIMITS)
                checkpoints.save(done, state, meta)
            watchdog.beat(done, COMPILE_LIMITS if done < first_step + 2 else 1)
            clock.switch("data_loading_sync", done)
            batch = to_devices(next(iterator))
            clock.switch("step" if done > first_step else "program_startup")
            state, metrics = step_fn(state, batch, key)
            log.step(done, metrics)
            done += 1
    except Stopped:
        stopped = f" after {done} steps"
    watchdog.beat(done, COMPILE_LIMITS)
    log.close()
    clock.switch("unproductive_checkpoint_save_time", done)
    checkpoints.save(done, state, meta)
    checkpoints.close()
    if stopped:
        raise Stopped(stopped)
    clock.switch("custom_badput_events")
    finishing = True
    with watchdog.by_thread(), stop.nothing_to_lose():
        if jax.process_index() == 0:
            print("evaluating on held-out data ...", flush=True)
        initial = functools.partial(init, *init_arguments)
        trained, untrained = functools.partial(predict, state), lambda: functools.partial(predict, initial())
        stage.finish(base.Run(config, workdir, data, state, initial, trained, untrained, throughput.bases_per_s()))
        runtime_processes.first_does("finish", lambda: None, timeout_s=runtime_processes.FOREVER_S)
    clock.close()
    for line in goodput.describe(goodput.summary(workdir)) if jax.process_index() == 0 else ():
        print(line)


def train_again(
    config, workdir: pathlib.Path, stop: StopRequest | None = None, watchdog: Watchdog | None = None
) -> tuple[int, pathlib.Path]:
    """`train`, and up to `config.train.retries` times more with another seed, in workdir/retry_N, while a finished run
    predicts one class (or value) only. Returns the exit code and the directory of the last run; all are kept."""
    for attempt in range(1 + config.train.get("retries", 0)):
        directory = workdir / f"retry_{attempt}" if attempt else workdir
        changed = copy.deepcopy(config)
        changed.seed = config.seed + RETRY_SEEDS * attempt
        code = train(changed, directory, stop, watchdog)
        if code or jax.process_count() > 1 or not _collapsed(directory):
            break
    return code, directory


def _collapsed(workdir: pathlib.Path) -> bool:
    return json.loads((workdir / "result.json").read_text()).get("dev_collapsed", False)


def resume(checkpoints: Checkpoints, abstract, meta: dict):
    """The newest whole state of the workdir, or None in a fresh one. Raises InputError when the config differs."""
    saved = checkpoints.newest_meta()
    if saved is None:
        return None
    settings.refuse_changes(saved, meta)
    for line in _differences(saved, meta) if jax.process_index() == 0 else ():
        print(line, file=sys.stderr)
    restored = checkpoints.restore(abstract())
    return restored and restored[0]
