"""The training loop of every stage, top to bottom."""

import functools
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
from vqdna_jax.genome.corpus import Corpus, bundled_corpus, open_corpus
from vqdna_jax.genome.windows import WindowBatches, evaluation_windows, train_iterator
from vqdna_jax.metrics import StepLog, Throughput
from vqdna_jax.optimizer import learning_rate_schedule, make_optimizer
from vqdna_jax.partition import abstract_state, batch_shards, batch_to_devices, make_mesh
from vqdna_jax.stages import make_stage
from vqdna_jax.step import init_state, train_step

NO_STEP = np.uint32(2**32 - 1)  # every step folds its own number into the key


def train(config, workdir: pathlib.Path) -> int:
    """Runs `config` to its end or to a signal, going on from what `workdir` holds. Returns the exit code.

    Order of a turn: evaluate the state as it is, save it, take the batch of this step, step, log the step before.

    Raises:
        InputError, NumericsError, StorageError: each with its exit code, see errors.py.
    """
    settings.validate(config)
    mesh = make_mesh(**config.mesh)
    settings.validate_mesh(config, batch_shards(mesh))
    stage = make_stage(config, mesh)
    corpus = open_corpus(config.data.corpus or bundled_corpus())
    batches = open_batches(config, corpus)
    held_out = evaluation_windows(
        corpus, "validation", config.data.window_bp, config.eval.windows, config.data.max_n_share
    )
    total_steps = config.train.total_steps or math.ceil(config.train.total_epochs * batches.steps_per_epoch)
    task, tx = stage.task, make_optimizer(config.optimizer, total_steps)
    make_workdir(workdir)

    with jax.set_mesh(mesh), StopRequest() as stop:
        key = jax.random.key(config.seed)

        def to_devices(batch):
            return batch_to_devices({"bases": batch["bases"]}, mesh, config.data.global_batch) | stage.frozen

        init = jax.jit(functools.partial(init_state, task, tx))
        init_key = jax.random.fold_in(key, NO_STEP)
        init_arguments = (init_key, to_devices(batches[0]))
        checkpoints = Checkpoints(workdir / "checkpoints", config.train.keep_checkpoints)
        meta = {"config": config.to_dict(), "corpus_digest": corpus.digest, "versions": hub.versions()} | stage.digests
        state = resume(checkpoints, lambda: abstract_state(init, mesh, *init_arguments), meta)
        if state is None:
            state = init(*init_arguments)
        first_step = int(state.step)
        if first_step == total_steps and (workdir / "result.json").exists():
            print(f"{workdir}: this run is finished; its results are in result.json")
            return 0
        if jax.process_index() == 0:
            results.write_json(workdir / "config.json", meta["config"])
        found = f"validation: {len(held_out['bases']):,} windows held out, of {config.eval.windows:,} asked for"
        say_plan(config, corpus, batches, found, mesh, stage, state, first_step, total_steps)

        one_step = functools.partial(train_step, task, tx, skip_above=config.optimizer.skip_above)
        step_fn = jax.jit(one_step, donate_argnums=0)
        predict = make_predict(task, mesh, config.eval.batch, stage.frozen)
        schedule = learning_rate_schedule(config.optimizer, total_steps)
        bases_per_step = config.data.global_batch * config.data.window_bp
        throughput = Throughput(bases_per_step, bases_per_step * task.flops_per_base(config.data.window_bp))
        log = StepLog(workdir, first_step, total_steps, config.train.log_every_steps, schedule, throughput)
        iterator, done = train_iterator(batches, first_step), first_step
        while done < total_steps and not stop.requested:
            if done and done % config.eval.every_steps == 0 and done not in log.evaluated:
                log.pause()
                log.evaluation(done, stage.evaluate(functools.partial(predict, state), held_out))
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
        print("evaluating on held-out windows ...", flush=True)
        initial = functools.partial(init, *init_arguments)
        trained, untrained = functools.partial(predict, state), lambda: functools.partial(predict, initial())
        speed = throughput.bases_per_s()
        stage.finish(results.Run(config, workdir, corpus, held_out, state, initial, trained, untrained, speed))
    return 0


def open_batches(config, corpus: Corpus) -> WindowBatches:
    data = config.data
    mixing = data.species_weights.to_dict() or (data.temperature if data.temperature != 1 else None)
    return WindowBatches(
        corpus,
        "train",
        data.window_bp,
        data.global_batch,
        config.seed,
        max_n_share=data.max_n_share,
        mixing=mixing,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


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


def say_plan(config, corpus, batches, held_out, mesh: Mesh, stage, state, first_step: int, total_steps: int) -> None:
    """Before the first step: what runs where, on what, and how much it is."""
    if jax.process_index():
        return
    bundled = "" if config.data.corpus else " (bundled genomes: no config.data.corpus was named)"
    parameters = sum(x.size for x in jax.tree.leaves(state.params)) / 1e6
    flops = stage.task.flops_per_base(config.data.window_bp) * config.data.global_batch * config.data.window_bp
    shape = " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    print(f"corpus     {corpus.path}{bundled}")
    print(f"           {batches.summary()}")
    print(f"           {held_out}")
    print(f"devices    {mesh.size} x {jax.devices()[0].device_kind}, mesh {shape}")
    print(f"parameters {parameters:.2f} M")
    for line in stage.plan(state):
        print(line)
    print(f"step       {flops / 1e9:.1f} GFLOP; steps {first_step} to {total_steps}", flush=True)


def make_predict(task, mesh: Mesh, batch_size: int, frozen):
    """(state, batch of numpy arrays [B, ...]) -> numpy outputs for any B, computed `batch_size` windows at a time."""

    @jax.jit
    def predict_batch(params, codebooks, batch):
        return task.predict(params, codebooks, batch)

    def predict(state, batch) -> dict[str, np.ndarray]:
        outputs, share, count = [], batch_size // jax.process_count(), len(batch["bases"])
        for start in range(0, count, batch_size):
            rows = np.arange(start, start + batch_size)[jax.process_index() * share :][:share]
            rows = np.minimum(rows, count - 1)  # the last window again, beyond the end
            mine = jax.tree.map(lambda x, rows=rows: x[rows], batch)
            on_devices = batch_to_devices(mine, mesh, batch_size) | frozen
            got = jax.device_get(predict_batch(state.best_params(), state.codebooks, on_devices))
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
