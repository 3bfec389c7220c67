"""A run of seconds on the bundled genomes, and what tests ask of it."""

import contextlib
import json
import os
import pathlib
import signal

import jax

from configs import hrq
from vqdna_jax import train
from vqdna_jax.runtime.watchdog import Watchdog

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
    """Every call of `holder.name` adds its name and the seconds that it has."""
    original = getattr(holder, name)

    def call(*arguments, **options):
        seen.append((name, watchdog.seconds))
        return original(*arguments, **options)

    patch.setattr(holder, name, call)
