"""A run of seconds on the bundled genomes, and what tests ask of runs."""

import contextlib
import json
import os
import pathlib
import signal
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
from ml_collections import ConfigDict
from small_mesh import mesh_of

from configs import hrq
from vqdna_jax import partition, stages, train
from vqdna_jax.runtime.watchdog import Watchdog
from vqdna_jax.stages.base import Stage
from vqdna_jax.training import predict
from vqdna_jax.training.step import TrainState

STEPS = 8


def small_config():
    c = hrq.get_config("tiny")
    c.data.update(window_bp=64, global_batch=8)
    c.model.update(code_size=8, width=16, blocks=2, stem_channels=8)
    c.optimizer.warmup_steps = 2
    c.train.update(total_steps=STEPS, log_every_steps=1, checkpoint_every_steps=3)
    c.eval.update(every_steps=5, windows=64, batch=32)
    return c


def run(config, workdir: pathlib.Path, devices: int = 1, watchdog: Watchdog | None = None) -> int:
    """`train` on so many devices."""
    return train.train(config, workdir, watchdog=watchdog, devices=jax.devices()[:devices])


class Steps(NamedTuple):
    """The functions of a run, those that `train` compiled if it had them, without the loop around them."""

    stage: Stage
    init: Callable[..., TrainState]  # of a batch
    step: Callable[..., tuple]  # of a state, which is lost, and a batch
    put: Callable  # a batch on the mesh


@contextlib.contextmanager
def steps_on(config: ConfigDict, *sizes: int) -> Iterator[Steps]:
    """On a mesh of these sizes, which is set."""
    settings, mesh = stages.read_settings(config), mesh_of(*sizes)
    with jax.set_mesh(mesh):
        stage, key = stages.make_stage(settings, mesh), jax.random.key(settings.seed)
        jitted = train._jitted(stage.task, settings.optimizer, settings.train.total_steps)
        yield Steps(
            stage,
            lambda batch: jitted.init(key, stage.frozen, batch),
            lambda state, batch: jitted.step(state, stage.frozen, batch, key),
            lambda batch: partition.batch_to_devices(batch, mesh, settings.data.global_batch),
        )


def losses_on(config: ConfigDict, *sizes: int) -> tuple[list[float], TrainState]:
    """(of each step, the last state) of the config on a mesh."""
    losses = []
    with steps_on(config, *sizes) as on:
        state = on.init(on.put(on.stage.data.batches[0]))
        for t in range(config.train.total_steps):
            state, metrics = on.step(state, on.put(on.stage.data.batches[t]))
            losses.append(float(metrics["loss"]))
    return losses, state


def rows_of(workdir: pathlib.Path, name: str = "loss") -> list[tuple[int, float]]:
    """(step, value) of one metric."""
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [(row["step"], row[name]) for row in rows if name in row]


def stop_at(monkeypatch, step: int) -> None:
    """SIGTERM to this process while the batch of `step` is read."""
    original = train.train_iterator

    def interrupted(batches, first_step):
        for index, batch in enumerate(original(batches, first_step), start=first_step):
            if index == step:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    monkeypatch.setattr(train, "train_iterator", interrupted)


class Recorder(Watchdog):
    """Watches nobody and remembers what it last allowed."""

    seconds = 0.0

    def allow(self, seconds: float, step: int) -> None:
        self.seconds = seconds

    def by_thread(self):
        return contextlib.nullcontext()


def recorded(patch, watchdog: Recorder, holder, name: str, seen: list) -> None:
    """Every call of `holder.name` adds its name and the seconds that it has; what is compiled already is forgotten."""
    train._jitted.cache_clear()
    predict._jitted.cache_clear()
    original = getattr(holder, name)

    def call(*arguments, **options):
        seen.append((name, watchdog.seconds))
        return original(*arguments, **options)

    patch.setattr(holder, name, call)
