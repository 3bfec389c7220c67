"""Stage 3: fine-tuning of a pretrained model on labelled sequences."""

import csv
import io
import operator
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vqdna_jax import partition
from vqdna_jax.errors import InputError
from vqdna_jax.evaluation import scores
from vqdna_jax.inference import load
from vqdna_jax.inference.finetuned import FineTuned, Predictions
from vqdna_jax.inference.jobs import predict as jobs_predict
from vqdna_jax.inference.pretrained import Pretrained
from vqdna_jax.inference.saved import finetuned
from vqdna_jax.labels import sets
from vqdna_jax.labels.batches import Encoded, LabelledBatches, check_lengths, outputs_of
from vqdna_jax.labels.sets import LabelledSet, Split
from vqdna_jax.models.attention import kernel_of_padded
from vqdna_jax.models.lora import LoraConfig
from vqdna_jax.models.transformer import Compute
from vqdna_jax.runtime.files import replacing
from vqdna_jax.stages import base as stages_base
from vqdna_jax.stages.base import RunData
from vqdna_jax.tasks.finetune import BASE, Finetune


def say_finetuned(result: dict, workdir: pathlib.Path) -> None:
    for name, value in result.items():
        if name.startswith(("dev_", "test_", "best_")) and isinstance(value, float):
            print(f"{name:28} {value:.4f}")
    if result.get("dev_collapsed"):
        print("warning: it predicts one class (or value) for all of dev: this run learnt nothing", file=sys.stderr)
    print(f"results, predictions, curves.png, metrics.jsonl in {workdir}; the model in {workdir / 'export'}")


DRAW_SEED = 0  # of subsets: every seed of a run, and every model, gets the same rows


class FinetuneStage:
    """On top of the pretrained model that config.pretrained names. Reads and checks all labelled data first."""

    def __init__(self, config, mesh: Mesh):
        for key, example in (("pretrained", "runs/mcm/export"), ("data.labelled", "GUE/tf/0")):
            if not operator.attrgetter(key)(config):
                raise InputError(
                    f"config key {key}: is empty, expected a directory; for example --config.{key}={example}"
                )
        data = config.data
        self._config = config
        self.set = read_labelled(data)
        self.base = load.pretrained(config.pretrained)  # on one device, to encode and to predict
        for axis, sizes in (("tensor", ("heads", "hidden")), ("fsdp", ("width",))):
            for size in sizes:
                if getattr(self.base.transformer, size) % config.mesh[axis]:
                    raise InputError(
                        f"config key mesh.{axis}: found {config.mesh[axis]}, expected a divisor of the base's"
                        f" {size}={getattr(self.base.transformer, size)}"
                    )
        self.task = finetune_task(config, self.base, self.set, mesh.devices.flat[0].platform)
        self.target = target_of(self.set)
        self._encoded = {name: self._encode(split) for name, split in self.set.splits.items()}
        base = {"vectors": self.base.vectors_KxE(), "transformer": self.base.weights["transformer"]}
        base["class_weights"] = class_weights(self.set, data.class_weights)
        self.frozen = {BASE: partition.whole_on(mesh, jax.device_get(base))}
        self.digests = {"pretrained_digest": self.base.pretrained_digest, "labelled_digest": self.set.digest}

    @property
    def size(self) -> int:
        """Codes of a full window."""
        return self.base.context - self.base.transformer.cls

    def open_data(self) -> RunData:
        config, size, cls = self._config, self.size, self.base.transformer.cls
        train = self._encoded["train"]
        batch = config.data.global_batch
        batches = LabelledBatches(
            train, batch, config.seed, size, cls, process=jax.process_index(), processes=jax.process_count()
        )
        rows = {name: len(split.bases) for name, split in self.set.splits.items()}
        bases = np.mean([len(bases) for bases in self.set.splits["train"].bases])
        shapes = ", ".join(f"{s.windows} x {s.codes}" for s in batches.shapes)
        lines = [
            f"labelled   {config.data.labelled}: " + ", ".join(f"{name} {count:,}" for name, count in rows.items()),
            f"           {self.set.kind}, labels {', '.join(self.set.label_names)[:80]}; windows x codes {shapes}",
        ]
        return RunData(batches, self._encoded["dev"], {}, lines, float(bases) * batch)

    def inputs(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return batch

    def flops_per_step(self, data: RunData) -> float:
        shapes = [shape for shape, _ in (data.batches.shape_of(step) for step in range(data.batches.steps_per_epoch))]
        slots = np.mean([shape.windows * self.task.flops_per_code(shape.codes + 1) * shape.codes for shape in shapes])
        return float(slots) * self._config.data.global_batch

    def plan(self, state) -> list[str]:
        frozen = sum(x.size for x in jax.tree.leaves(self.base.weights["transformer"])) / 1e6
        task, method = self.task, self.task.method
        if method == "lora":
            method = f"LoRA rank {task.lora.rank}, alpha {task.lora.alpha:g}, on {', '.join(task.lora.names)}"
        return [
            f"base       {self._config.pretrained} ({self.base.pretrained_digest[:12]}), {frozen:.2f} M",
            f"tuning     {method}; {task.pool} pooling, {'an MLP' if task.hidden else 'a linear'} head",
        ]

    def enough(self, state) -> bool:
        patience = self._config.train.patience
        return bool(patience) and int(state.best.since) >= patience

    def evaluate(self, predict: Callable, held_out: Encoded) -> dict[str, float]:
        outputs = outputs_of(predict, held_out, self.size, self.base.transformer.cls)
        values = scores.score(self.set.kind, held_out.labels, outputs["logits"], self.set.classes)
        return {"loss": float(outputs["loss"].mean())} | values

    def finish(self, run: stages_base.Run) -> None:
        """The best parameters on dev, scored once on test as `vqdna predict` would, and exported with predictions."""
        params = jax.device_get(partition.whole(run.state.best.params))
        if jax.process_index():
            return
        model = finetuned.assemble(
            self.base, self.task, params, self.set.label_names, self.target, self._config.data.long
        )
        result: dict[str, Any] = {"best_step": int(run.state.best.step), "best_dev_loss": float(run.state.best.loss)}
        for name in ("dev", "test"):
            if name in self.set.splits:
                result |= self._score(model, name, run.workdir)
        result |= {f"{name}_rows": len(split.bases) for name, split in self.set.splits.items()}
        result |= {"kind": self.set.kind, "classes": self.set.classes, "seed": self._config.seed} | run.facts()
        finetuned.save(run.workdir / "export", model, self.task, params, self._config.pretrained, run.card(result))
        run.close(result)
        say_finetuned(result, run.workdir)

    def _score(self, model: FineTuned, name: str, workdir: pathlib.Path) -> dict[str, Any]:
        split = self.set.splits[name]
        logits = model.logits(self._encoded[name].codes)
        write_predictions(workdir / f"predictions_{name}.csv", split, model.predictions(logits), model)
        values = scores.score(self.set.kind, self._encoded[name].labels, logits, self.set.classes)
        result = {f"{name}_{key}": value for key, value in values.items()}
        return result | {f"{name}_collapsed": scores.collapsed(self.set.kind, logits)}

    def _encode(self, split: Split) -> Encoded:
        long = self._config.data.long
        if hasattr(self.base.config, "bases_per_code"):  # lengths are known before anything is compiled
            check_lengths(split, [-(-len(b) // self.base.config.bases_per_code) for b in split.bases], self.size, long)
        codes = self.base.encode_bases(split.bases)
        check_lengths(split, [len(codes_LxN) for codes_LxN in codes], self.size, long)
        return Encoded(codes, standardised(split.labels, self.set.kind, self.target))


def finetune_task(config, base: Pretrained, labelled_set: LabelledSet, platform: str) -> Finetune:
    tuning, head, compute = config.tuning, config.head, dict(config.compute)
    if compute["attention"] == "auto":
        compute["attention"] = kernel_of_padded(platform, base.transformer.window, base.transformer.dtype)
    if "cls" in head.pool.split("+") and not base.transformer.cls:
        raise InputError("config key head.pool: found cls, but this base was trained without CLS; use mean or max")
    factors = LoraConfig(tuning.rank, tuning.alpha, tuning.dropout, tuning.targets)
    return Finetune(
        base.transformer, Compute(**compute), labelled_set.kind, labelled_set.classes, tuning.method, factors,
        head.pool, base.transformer.width if head.mlp else 0, head.dropout,
    )  # fmt: skip


def read_labelled(data) -> LabelledSet:
    """The set that config.data names, cut down to the rows it asks for. Raises InputError as `labelled.read_set`."""
    names = tuple(data.label_names) or sets.label_names(data.labelled)
    whole = sets.read_set(data.labelled, data.kind, names)
    return subset(whole, {"train": data.train_rows, "dev": data.dev_rows, "test": data.test_rows})


def subset(whole: LabelledSet, rows: dict[str, int]) -> LabelledSet:
    """At most so many rows of each split (0: all), each label with its share."""
    splits = {}
    for name, split in whole.splits.items():
        wanted = rows[name] or len(split.bases)
        drawn = sets.draw(split.labels, wanted, DRAW_SEED) if wanted < len(split.bases) else range(len(split.bases))
        chosen = [[values[i] for i in drawn] for values in (split.places, split.bases)]
        splits[name] = Split(*chosen, split.labels[np.asarray(drawn)])
    return LabelledSet(whole.kind, whole.label_names, splits, whole.digest)


def target_of(labelled_set: LabelledSet) -> tuple[float, float]:
    """Mean and standard deviation of a regression's training values; (0, 1) otherwise."""
    if labelled_set.kind != "regression":
        return 0.0, 1.0
    values = labelled_set.splits["train"].labels
    return float(values.mean()), float(values.std()) or 1.0


def standardised(labels: np.ndarray, kind: str, target: tuple[float, float]) -> np.ndarray:
    if kind == "classification":
        return labels.astype(np.int32)
    return ((labels - target[0]) / target[1]).astype(np.float32) if kind == "regression" else labels.astype(np.float32)


def class_weights(labelled_set: LabelledSet, wanted: str) -> np.ndarray:
    """f32 [V], mean 1 over the training rows; "balanced": each class weighs the same in sum."""
    if labelled_set.kind != "classification" or wanted == "none":
        return np.ones(labelled_set.classes, np.float32)
    counts = np.bincount(labelled_set.splits["train"].labels, minlength=labelled_set.classes)
    return (counts.sum() / (len(counts) * np.maximum(counts, 1))).astype(np.float32)


def write_predictions(path: pathlib.Path, split: Split, predicted: Predictions, model: FineTuned) -> None:
    """place (file:line of the row) and what `vqdna predict` would write of it."""
    kind, text = model.task.kind, io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["place", *jobs_predict.columns(kind, model.label_names)])
    for place, cells in zip(split.places, jobs_predict.cells_of(kind, predicted)):
        writer.writerow([place, *cells])
    with replacing(path) as new:
        new.write_text(text.getvalue())
