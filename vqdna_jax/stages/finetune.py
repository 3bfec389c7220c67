"""Stage 3: fine-tuning of a pretrained model on labelled sequences."""

import csv
import dataclasses
import io
import math
import operator
import pathlib
import sys
from collections.abc import Sequence
from typing import ClassVar

import jax
import numpy as np
from jax.sharding import Mesh

from vqdna_jax import partition
from vqdna_jax.errors import InputError, NumericsError
from vqdna_jax.evaluation import scores
from vqdna_jax.evaluation.linear import METRICS
from vqdna_jax.genome.windows import Batches
from vqdna_jax.inference.finetuned import FineTuned, Predictions, read_strands
from vqdna_jax.inference.jobs import predict as predictions
from vqdna_jax.inference.pretrained import Pretrained
from vqdna_jax.inference.saved import finetuned, pretrained
from vqdna_jax.labels import sets
from vqdna_jax.labels.batches import (
    Encoded,
    FeatureBatches,
    LabelledBatches,
    check_lengths,
    drawn,
    outputs_of,
)
from vqdna_jax.labels.sets import Kind, LabelledSet, Split
from vqdna_jax.models.attention import kernel_of_padded
from vqdna_jax.models.classifier import Classifier
from vqdna_jax.runtime.files import replacing
from vqdna_jax.runtime.processes import refuse_differences
from vqdna_jax.stages import room
from vqdna_jax.stages.base import Finished, Predict, Result, RunData, Stretches
from vqdna_jax.stages.readout import Probe, dropout, probe
from vqdna_jax.tasks.finetune import Finetune, FrozenBase, Labelled
from vqdna_jax.tokenizers.base import most_codes
from vqdna_jax.training.settings import FinetuneSettings, LabelledData
from vqdna_jax.training.step import Best, TrainState

TIES = 1e-6  # of the loss, in what the best is chosen by
DRAW_SEED = 0  # of subsets: every seed of a run, and every model, gets the same rows


@dataclasses.dataclass(frozen=True)
class FinetuneStage:
    """A head, and what is tuned below it, on top of the pretrained model that config.pretrained names; see `Stage`.

    Attributes:
        base: on one device, to encode and to predict.
        encoded: the codes and labels of each split of the set.
        target: mean and standard deviation of a regression's training values.
        probe: what training starts from.
    """

    settings: FinetuneSettings
    set: LabelledSet
    base: Pretrained
    task: Finetune
    encoded: dict[str, Encoded]
    target: tuple[float, float]
    probe: Probe
    frozen: FrozenBase
    data: RunData[Labelled, Encoded]
    digests: dict[str, str]
    start: ClassVar[None] = None

    @classmethod
    def open(cls, settings: FinetuneSettings, mesh: Mesh) -> "FinetuneStage":
        """Reads and checks all labelled data first."""
        for key, example in (("pretrained", "runs/mcm/export"), ("data.labelled", "GUE/tf/0")):
            if not operator.attrgetter(key)(settings):
                raise InputError(
                    f"config key {key}: is empty, expected a directory; for example --config.{key}={example}"
                )
        labelled_set = read_labelled(settings.data)
        base = pretrained.load(settings.pretrained)
        settings.check_base(base.transformer, base.context)
        settings = settings.with_rate(base.transformer.width)
        codes_B = np.array([most_codes(base.tokenizer, len(bases)) for bases in labelled_set.splits["train"].bases])
        warmup = settings.warmup_codes(base.tokenizer.bases_per_code, codes_B)
        target = target_of(labelled_set)
        readout = Classifier(base.transformer, settings.compute, labelled_set.classes, base.sizes)
        platform = mesh.devices.flat[0].platform
        room.check(settings, base, finetune_task(settings, readout, labelled_set.kind, platform), labelled_set, mesh)
        encoded = {
            name: encode(base, split, labelled_set.kind, target, settings.data)
            for name, split in labelled_set.splits.items()
        }
        start = probe(settings, base, labelled_set, encoded, target)
        settings = settings.with_dropout(dropout(settings.head.dropout, start.spread))
        if start.model.strands == "one":
            encoded = {name: of._replace(other=()) for name, of in encoded.items()}
        task = finetune_task(settings, start.model.network, labelled_set.kind, platform)
        weights = class_weights(labelled_set, settings.data.class_weights)
        on_host = jax.device_get(FrozenBase(base.vectors_KxE(), base.weights["transformer"], weights, start.head))
        frozen = partition.whole_on(mesh, on_host)
        data = run_data(settings, base, labelled_set, encoded, start, warmup)
        digests = {"pretrained_digest": base.digest, "labelled_digest": labelled_set.digest}
        refuse_differences({"linear probe": start.model.digest})
        return cls(settings, labelled_set, base, task, encoded, target, start, frozen, data, digests)

    def plan_lines(self, state: TrainState) -> list[str]:
        frozen = sum(x.size for x in jax.tree.leaves(self.base.weights["transformer"])) / 1e6
        task, method = self.task, str(self.task.method)
        if method == "lora":
            method = f"LoRA rank {task.lora.rank}, alpha {task.lora.alpha:g}, on {', '.join(task.lora.names)}"
        return [
            f"base       {self.settings.pretrained} ({self.base.digest[:12]}), {frozen:.2f} M",
            *self.probe.lines,
            f"tuning     {method}, from the probe{' and an MLP beside it' if task.network.hidden else ''};"
            f" learning rate {self.settings.optimizer.learning_rate:.2g}, dropout {self.settings.head.dropout:.2g}",
        ]

    def flops_per_step(self) -> float:
        batches = self.data.batches
        if not isinstance(batches, LabelledBatches):
            return 0.0
        first = self.data.warmup_steps
        shapes = [batches.shape_of(step)[0] for step in range(first, first + batches.steps_per_epoch)]
        slots = np.mean([shape.windows * self.task.flops_per_code(shape.codes + 1) * shape.codes for shape in shapes])
        return float(slots) * self.settings.data.global_batch

    def enough(self, best: Best | tuple[()]) -> bool:
        patience = self.settings.train.patience
        return bool(patience) and isinstance(best, Best) and int(best.since) >= patience

    def evaluate(self, predict: Predict) -> dict[str, float]:
        held_out, base = self.data.held_out, self.base
        if self.task.method == "head":
            outputs = predict(self.probe.features["dev"])
        else:
            outputs = outputs_of(predict, held_out, base.length, base.transformer.cls)
        values = scores.score(self.set.kind, held_out.labels, outputs["logits"], self.set.classes)
        loss, metric = float(outputs["loss"].mean()), values[METRICS[self.set.kind]]
        defined = {name: value for name, value in values.items() if value is not None}
        # Lower is better; of equal scores the one of the lower loss. No number at all is never the best.
        choice = math.nan if metric is None or not math.isfinite(loss) else -metric + TIES * min(loss, 1.0)
        return {"loss": loss, "choice": choice} | defined

    def finish(self, run: Finished) -> None:
        """The best parameters on dev, scored once on test as `vqdna predict` would, and exported with predictions.

        Raises NumericsError: no evaluation had a finite loss.
        """
        best = run.state.best
        assert isinstance(best, Best), "the task keeps its best parameters"
        if not math.isfinite(best.loss):
            raise NumericsError(
                "no evaluation on dev had a finite loss, so there are no best parameters to export; look for labels out"
                " of all proportion, or name a new --workdir and lower config.optimizer.learning_rate"
            )
        params = jax.device_get(partition.replicated(best.params))
        if jax.process_index():
            return
        names, long = self.set.label_names, self.settings.data.long
        task = self.task
        network = task.network
        readout, strands = (network.pool, network.hidden, network.places, network.align), self.probe.model.strands
        recipe = finetuned.Recipe(task.kind, task.method, task.lora, *readout, strands=strands)
        model = finetuned.assemble(self.base, recipe, params, names, self.target, long)
        rate = self.settings.optimizer.learning_rate
        result: Result = {
            "best_step": int(best.step),
            "readout": network.pool,
            "strands": strands,
            "learning_rate": rate,
        }
        for name in ("dev", "test"):
            if name in self.set.splits:
                result |= self._score(model, name, run.workdir)
                result |= {f"probe_{name}_{key}": value for key, value in self.probe.scores[name].items()}
        result |= {f"{name}_rows": len(split.bases) for name, split in self.set.splits.items()}
        result |= {"kind": self.set.kind, "classes": self.set.classes, "seed": self.settings.seed} | run.facts()
        export, card = run.workdir / "export", run.card(result)
        finetuned.save(export, model, recipe, params, self.settings.pretrained, card)
        run.close(result)
        _say(result, run.name)

    def _score(self, model: FineTuned, name: str, workdir: pathlib.Path) -> Result:
        split, encoded = self.set.splits[name], self.encoded[name]
        logits = model.logits(encoded)
        write_predictions(workdir / f"predictions_{name}.csv", split, model.predictions(logits), model)
        values = scores.score(self.set.kind, encoded.labels, logits, self.set.classes)
        result = {f"{name}_{key}": value for key, value in values.items()}
        return result | {f"{name}_collapsed": scores.collapsed(self.set.kind, logits)}


def encode(base: Pretrained, split: Split, kind: str, target: tuple[float, float], data: LabelledData) -> Encoded:
    """Codes, of both strands unless the config says one, and training targets of a split.

    Raises InputError: a sequence is too long, unless data.long is "window".
    """
    known = (base.tokenizer.codes_of(len(bases)) for bases in split.bases)  # before anything is compiled
    check_lengths(split, [codes or 0 for codes in known], base.length, data.long)
    targets = standardised(split.labels, kind, target)
    encoded = read_strands(base.tokenizer, split.bases, data.given_strands or "both", targets)
    check_lengths(split, encoded.lengths, base.length, data.long)
    return encoded


def run_data(
    settings: FinetuneSettings,
    base: Pretrained,
    labelled_set: LabelledSet,
    encoded: dict[str, Encoded],
    start: Probe,
    warmup: Sequence[int],
) -> RunData[Labelled, Encoded]:
    """`warmup`: codes that sequences are cut to in each of the first epochs."""
    batch, seed, train = settings.data.global_batch, settings.seed, encoded["train"]
    processes = {"process": jax.process_index(), "processes": jax.process_count()}
    batches: Batches[Labelled]
    if settings.tuning.method == "head":
        everyone = range(len(train.codes))
        cut = [start.model.features(drawn(train, everyone, seed, *of)) for of in enumerate(warmup)]
        batches, shapes = FeatureBatches(start.features["train"], batch, seed, warmup=cut, **processes), ""
    else:
        window = base.length, base.transformer.cls
        batches = LabelledBatches(train, batch, seed, *window, warmup=warmup, **processes)
        shapes = "; windows x codes " + ", ".join(f"{shape.windows} x {shape.codes}" for shape in batches.shapes)
    rows = ", ".join(f"{name} {len(split.bases):,}" for name, split in labelled_set.splits.items())
    lines = [
        f"labelled   {settings.data.labelled}: {rows}",
        f"           {labelled_set.kind}, labels {', '.join(labelled_set.label_names)[:80]}{shapes}",
        *(f"           {note}" for note in labelled_set.notes),
    ]
    bases_B = np.array([len(bases) for bases in labelled_set.splits["train"].bases])
    lengths = [codes * (base.tokenizer.bases_per_code or 1) for codes in warmup]
    stretches = [
        Stretches(batches.steps_per_epoch, batch * float(np.minimum(bases_B, length).mean()), f"{length:,} bases")
        for length in lengths
    ]
    if lengths:
        listed = ", ".join(f"{length:,}" for length in lengths)
        lines.append(f"lengths    {listed} bases, {batches.steps_per_epoch:,} steps each; then whole sequences")
    return RunData(batches, encoded["dev"], batch * float(bases_B.mean()), lines, warmup=stretches)


def finetune_task(settings: FinetuneSettings, readout: Classifier, kind: Kind, platform: str) -> Finetune:
    """`readout` is the probe's network; `platform` decides the attention kernel where the config leaves it open."""
    tuning, head, compute, model = settings.tuning, settings.head, settings.compute, readout.model
    if compute.attention == "auto":
        compute = dataclasses.replace(compute, attention=kernel_of_padded(platform, model.window, model.dtype))
    hidden = model.width if head.mlp else 0
    network = dataclasses.replace(readout, compute=compute, hidden=hidden, dropout=head.dropout)
    return Finetune(network, kind, tuning.method, tuning.lora, settings.train.params_ema_decay)


def read_labelled(data: LabelledData) -> LabelledSet:
    """The set that config.data names, cut down to the rows it asks for.

    Raises InputError as `sets.read_set`, and where there would be fewer training rows than classes.
    """
    whole = sets.read_set(data.labelled, data.kind, data.names or sets.label_names(data.labelled))
    if whole.kind == "classification" and 0 < data.train_rows < whole.classes:
        raise InputError(
            f"config key data.train_rows: found {data.train_rows}, expected at least {whole.classes}, one for each"
            " class; or 0 for all rows"
        )
    return sets.subset(whole, {"train": data.train_rows, "dev": data.dev_rows, "test": data.test_rows}, DRAW_SEED)


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
    kind, text = model.kind, io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["place", *predictions.columns(kind, model.label_names)])
    for place, cells in zip(split.places, predictions.cells_of(kind, predicted)):
        writer.writerow([place, *cells])
    with replacing(path) as new:
        new.write_text(text.getvalue())


def _say(result: Result, workdir: str) -> None:
    for name, value in result.items():
        if name.startswith(("dev_", "test_", "best_")) and isinstance(value, float):
            print(f"{name:28} {value:.4f}")
    if result.get("dev_collapsed"):
        print("warning: it predicts one class (or value) for all of dev: this run learnt nothing", file=sys.stderr)
    print(f"results, predictions, curves.png, metrics.jsonl in {workdir}; the model in {workdir}/export")
