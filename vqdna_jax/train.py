"""The training loop of every stage, top to bottom."""

import copy
import functools
import json
import math
import pathlib
import signal
import sys

import jax
import numpy as np
from jax.sharding import Mesh

from vqdna_jax import hub, results, settings
from vqdna_jax.checkpoint import Checkpoints
from vqdna_jax.errors import EXIT_STOPPED, cannot_write
from vqdna_jax.genome.windows import train_iterator
from vqdna_jax.metrics import StepLog, Throughput
from vqdna_jax.optimizer import learning_rate_schedule, make_optimizer
from vqdna_jax.partition import abstract_state, batch_shards, batch_to_devices, make_mesh
from vqdna_jax.stages import make_stage
from vqdna_jax.step import init_state, train_step

RETRY_SEEDS = 1000  # from the seed of one attempt to that of the next
NO_STEP = np.uint32(2**32 - 1)  # every step folds its own number into the key


def train(config, workdir: pathlib.Path) -> int:
    """Runs `config` to its end or to a signal, going on from what `workdir` holds. Returns the exit code.

    Order of a turn: evaluate the state as it is, save it, take the batch of this step, step, log the step before.

    Raises:
        InputError, NumericsError, StorageError: each with its exit code, see errors.py.
    """
    workdir = workdir.resolve()  # orbax wants whole paths
    settings.validate(config)
    mesh = make_mesh(**config.mesh)
    settings.validate_mesh(config, batch_shards(mesh))
    stage = make_stage(config, mesh)
    data = stage.open_data()
    batches, held_out = data.batches, data.held_out
    total_steps = config.train.total_steps or math.ceil(config.train.total_epochs * batches.steps_per_epoch)
    task, tx = stage.task, make_optimizer(config.optimizer, total_steps)
    make_workdir(workdir)

    with jax.set_mesh(mesh), StopRequest() as stop:
        key = jax.random.key(config.seed)

        def to_devices(batch):
            return batch_to_devices(stage.inputs(batch), mesh, config.data.global_batch) | stage.frozen

        init = jax.jit(functools.partial(init_state, task, tx))
        init_key = jax.random.fold_in(key, NO_STEP)
        init_arguments = (init_key, to_devices(batches[0]))
        checkpoints = Checkpoints(workdir / "checkpoints", config.train.keep_checkpoints)
        meta = {"config": config.to_dict(), "versions": hub.versions()} | data.digests | stage.digests
        state = resume(checkpoints, lambda: abstract_state(init, mesh, *init_arguments), meta)
        if state is None:
            state = init(*init_arguments)
        first_step = int(state.step)
        if (first_step == total_steps or stage.enough(state)) and (workdir / "result.json").exists():
            print(f"{workdir}: this run is finished; its results are in result.json")
            return 0
        if jax.process_index() == 0:
            results.write_json(workdir / "config.json", meta["config"])
        flops_per_step = stage.flops_per_step(data)
        say_plan(data, mesh, stage, state, flops_per_step, first_step, total_steps)

        one_step = functools.partial(train_step, task, tx, skip_above=config.optimizer.skip_above)
        step_fn = jax.jit(one_step, donate_argnums=0)
        predict = make_predict(task, mesh, config.eval.batch, stage.frozen)
        schedule = learning_rate_schedule(config.optimizer, total_steps)
        throughput = Throughput(data.bases_per_step, flops_per_step)
        log = StepLog(workdir, first_step, total_steps, config.train.log_every_steps, schedule, throughput)
        iterator, done = train_iterator(batches, first_step), first_step
        while not stop.requested:
            due = done % config.eval.every_steps == 0 or (task.keeps_best and done == total_steps)
            if done and due and done not in log.evaluated:
                log.pause()
                log.evaluation(done, stage.evaluate(functools.partial(predict, state), held_out))
            if done and due and task.keeps_best:
                state = state.judged(log.evaluated[done])
            if done == total_steps or stage.enough(state):
                break
            if done > first_step and done % config.train.checkpoint_every_steps == 0:
                log.pause()
                checkpoints.save(done, state, meta)
            batch = to_devices(next(iterator))
            state, metrics = step_fn(state, batch, key)
            log.step(done, metrics)
            done += 1
        log.close()
        checkpoints.save(done, state, meta)
        checkpoints.close()
        if stop.requested:
            print(
                f"stopped by {stop.name} after {done} steps, all saved; run the same command to go on", file=sys.stderr
            )
            return EXIT_STOPPED
        print("evaluating on held-out data ...", flush=True)
        initial = functools.partial(init, *init_arguments)
        trained, untrained = functools.partial(predict, state), lambda: functools.partial(predict, initial())
        stage.finish(results.Run(config, workdir, data, state, initial, trained, untrained, throughput.bases_per_s()))
    return 0


def train_again(config, workdir: pathlib.Path) -> tuple[int, pathlib.Path]:
    """`train`, and up to `config.train.retries` times more with another seed, in workdir/retry_N, while a finished run
    predicts one class (or value) only. Returns the exit code and the directory of the last run; all are kept."""
    for attempt in range(1 + config.train.get("retries", 0)):
        directory = workdir / f"retry_{attempt}" if attempt else workdir
        changed = copy.deepcopy(config)
        changed.seed = config.seed + RETRY_SEEDS * attempt
        code = train(changed, directory)
        if code or jax.process_count() > 1 or not _collapsed(directory):
            break
    return code, directory


def _collapsed(workdir: pathlib.Path) -> bool:
    return json.loads((workdir / "result.json").read_text()).get("dev_collapsed", False)


def make_workdir(workdir: pathlib.Path) -> None:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        (workdir / "metrics.jsonl").touch()
    except OSError as error:
        raise cannot_write(f"--workdir={workdir}", error) from error


def resume(checkpoints: Checkpoints, abstract, meta: dict):
    """The newest whole state of the workdir, or None in a fresh one. Raises InputError when the config differs."""
    saved = checkpoints.newest_meta()
    if saved is None:
        return None
    settings.refuse_changes(saved, meta)
    was = saved["versions"]
    changed = [f"{name} {was.get(name)} -> {now}" for name, now in meta["versions"].items() if was.get(name) != now]
    if changed:
        print(f"warning: versions changed since the checkpoint, results may too: {', '.join(changed)}", file=sys.stderr)
    restored = checkpoints.restore(abstract())
    return restored and restored[0]


def say_plan(data, mesh: Mesh, stage, state, flops_per_step: float, first_step: int, total_steps: int) -> None:
    """Before the first step: what runs where, on what, and how much it is."""
    if jax.process_index():
        return
    parameters = sum(x.size for x in jax.tree.leaves(state.params)) / 1e6
    shape = " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    for line in data.lines:
        print(line)
    print(f"devices    {mesh.size} x {jax.devices()[0].device_kind}, mesh {shape}")
    print(f"parameters {parameters:.{2 if parameters >= 0.1 else 4}f} M")
    for line in stage.plan(state):
        print(line)
    print(f"step       {flops_per_step / 1e9:.1f} GFLOP; steps {first_step} to {total_steps}", flush=True)


def make_predict(task, mesh: Mesh, batch_size: int, frozen):
    """(state, batch of numpy arrays [B, ...]) -> numpy outputs for any B, computed `batch_size` windows at a time."""

    @jax.jit
    def predict_batch(params, codebooks, batch):
        return task.predict(params, codebooks, batch)

    def predict(state, batch) -> dict[str, np.ndarray]:
        outputs, share, count = [], batch_size // jax.process_count(), len(jax.tree.leaves(batch)[0])
        for start in range(0, count, batch_size):
            rows = np.arange(start, start + batch_size)[jax.process_index() * share :][:share]
            rows = np.minimum(rows, count - 1)  # the last window again, beyond the end
            mine = jax.tree.map(lambda x, rows=rows: x[rows], batch)
            on_devices = batch_to_devices(mine, mesh, batch_size) | frozen
            got = jax.device_get(predict_batch(state.final_params(), state.codebooks, on_devices))
            outputs.append(jax.tree.map(lambda x, stop=count - start: x[:stop], got))
        return jax.tree.map(lambda *parts: np.concatenate(parts), *outputs)

    return predict


class StopRequest:
    """Turns the first SIGTERM or SIGINT into a flag that the loop reads; a second one is left to Python."""

    requested, name = False, ""

    def __enter__(self):
        self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def _note(self, number: int, _frame) -> None:
        self.requested, self.name = True, signal.Signals(number).name
        self.__exit__()

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
