"""A fine-tuning run of seconds: a pretrained model of random weights, and genome windows labelled by an easy rule."""

import functools
import pathlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from ml_collections import ConfigDict
from refusals import refusal
from small_run import run
from tiny_pretrained import save_tiny_pretrained

from configs import finetune
from vqdna_jax.genome.alphabet import to_text
from vqdna_jax.genome.build.bundled import bundled_corpus
from vqdna_jax.genome.corpus import open_corpus
from vqdna_jax.genome.windows import evaluation_windows
from vqdna_jax.inference.pretrained import Pretrained
from vqdna_jax.inference.saved import pretrained
from vqdna_jax.labels.batches import Encoded
from vqdna_jax.stages import finetune as stage
from vqdna_jax.stages import read_settings, readout

STEPS = 16
CONTEXT = 32  # codes of the base, CLS included
LENGTHS = (15, 31)  # bases, one per code: two shapes, each without padding
ROWS = {"train": 192, "dev": 64, "test": 64}


@functools.cache
def genome_rows(count: int, bases: int = LENGTHS[1]) -> list[np.ndarray]:
    """uint8 [bases] each: windows that do not overlap, half of them richer in G and C than the other half."""
    windows = evaluation_windows(open_corpus(bundled_corpus()), "train", bases, 4 * count).bases_BxS
    order = np.argsort(list(map(gc, windows)), kind="stable")
    return list(np.random.default_rng(0).permutation(windows[np.append(order[: count // 2], order[-count // 2 :])]))


def gc(bases: np.ndarray) -> float:
    """Share of G and C."""
    return float(np.isin(bases, (1, 2)).mean())


def gc_rich(bases: np.ndarray) -> int:
    return int(gc(bases) > 0.5)


def write_rows(path: pathlib.Path, rows: Iterable[np.ndarray], labels: Iterable, header: str = "label") -> None:
    lines = [f"{to_text(bases)},{label}" for bases, label in zip(rows, labels)]
    path.write_text("\n".join([f"sequence,{header}", *lines, ""]))


def write_set(
    directory: pathlib.Path,
    rule: Callable = gc_rich,
    header: str = "label",
    lengths: Sequence[int] = LENGTHS,
    base_bases: int = LENGTHS[1],
) -> pathlib.Path:
    """train.csv, dev.csv, test.csv of ROWS; a row's label is `rule` of its bases, its length one of `lengths`."""
    directory.mkdir(parents=True)
    rows = iter(genome_rows(sum(ROWS.values()), base_bases))
    for name, count in ROWS.items():
        cut = [next(rows)[: lengths[i % len(lengths)]] for i in range(count)]
        write_rows(directory / f"{name}.csv", cut, map(rule, cut), header)
    return directory


def small_config(place: pathlib.Path):
    """`place` gets the base model and the labelled rows, unless it has them."""
    if not (place / "base").exists():
        save_tiny_pretrained(place / "base", context=CONTEXT)
    if not (place / "gc").exists():
        write_set(place / "gc")
    c = finetune.get_config("tiny")
    c.pretrained, c.data.labelled = str(place / "base"), str(place / "gc")
    c.head.pool, c.data.strands = "mean+words", "both"  # what "auto" finds for these rows, without its many probes
    c.tuning.update(rank=4, targets="q|out")
    c.optimizer.update(learning_rate=2e-2, warmup_steps=2)
    c.train.update(total_epochs=0.0, total_steps=STEPS, log_every_steps=1, checkpoint_every_steps=7, retries=0)
    c.eval.update(every_steps=5, batch=64)
    return c


def changed(place: pathlib.Path, **settings):
    """The small config with other values, keys written a__b."""
    config = small_config(place)
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in settings.items()})
    return config


def refused(config, workdir: pathlib.Path, devices: int = 1) -> str:
    """The message of a run that must be refused, in one line, before there is a workdir."""
    fresh = not workdir.exists()
    message = refusal(run, config, workdir, devices)
    assert not (fresh and workdir.exists())
    return message


def probe_of(config: ConfigDict) -> tuple[readout.Probe, dict[str, Encoded], Pretrained]:
    """The probe of a config's set, the encoded set, the pretrained model."""
    settings = read_settings(config)
    labelled_set, base = stage.read_labelled(settings.data), pretrained.load(settings.pretrained)
    target = stage.target_of(labelled_set)
    encoded = {
        name: stage.encode(base, split, labelled_set.kind, target, settings.data)
        for name, split in labelled_set.splits.items()
    }
    return readout.probe(settings, base, labelled_set, encoded, target), encoded, base
