"""Whether a step of fine-tuning fits the memory that there is, before anything is compiled."""

import functools

import numpy as np
from jax.sharding import Mesh

from vqdna_jax.errors import InputError
from vqdna_jax.inference import footprint
from vqdna_jax.inference.pretrained import Pretrained
from vqdna_jax.labels.batches import Shape, shapes_of
from vqdna_jax.labels.sets import LabelledSet
from vqdna_jax.partition import batch_shards
from vqdna_jax.runtime.live import peak_bytes
from vqdna_jax.stages.abstract import Planned, Tokens, trace_predict, trace_step
from vqdna_jax.tasks.finetune import Finetune
from vqdna_jax.tokenizers.base import most_codes
from vqdna_jax.training.settings import FinetuneSettings


def check(settings: FinetuneSettings, base: Pretrained, task: Finetune, of: LabelledSet, mesh: Mesh) -> None:
    """Raises InputError: a batch of the longest sequences takes more than there is, in training, in an evaluation, or
    where the features are computed that a run begins with."""
    longest = max(most_codes(base.tokenizer, len(bases)) for split in of.splits.values() for bases in split.bases)
    longest = longest if settings.data.long == "window" else min(longest, base.length)
    windows, codes = _shape(base, longest)
    problem = "" if task.method == "head" else _problem_of_steps(settings, base, task, longest, mesh)
    if problem := problem or base.problem_of_room(codes, windows=windows):
        raise InputError(problem)


def _shape(base: Pretrained, codes: int) -> Shape:
    """Of a sequence."""
    return shapes_of(np.array([codes]), base.length, base.transformer.cls)[-1]


def _problem_of_steps(settings: FinetuneSettings, base: Pretrained, task: Finetune, longest: int, mesh: Mesh) -> str:
    """What a step or a batch of an evaluation is too large for; empty if nothing is."""
    device = mesh.local_devices[0]
    beside = len(mesh.local_devices) if device.platform == "cpu" else 1  # which share one memory

    def needs(codes: int, evaluated: int = 0) -> int:
        """Bytes of a step, or of so many rows of an evaluation."""
        windows, length = _shape(base, codes)
        planned = Planned(task, Tokens(base.sizes, base.codes_KxE[0].shape[1], length), base.window_bp, windows)
        state, step = trace_step(settings, planned, mesh)
        traced = trace_predict(planned, state, evaluated, mesh) if evaluated else step
        return beside * peak_bytes(traced, device.platform)

    windows, length = _shape(base, longest)
    step, evaluation = settings.data.global_batch, settings.eval.batch
    for name, rows, evaluated in (("", step, 0), (" of an evaluation", evaluation, evaluation)):
        on_device = beside * windows * rows // batch_shards(mesh)
        if footprint.surely_fits(base.transformer, on_device, length, device):
            continue
        of = functools.partial(needs, evaluated=evaluated)
        what = f"{rows:,} sequences of {longest:,} codes{name}"
        if problem := footprint.problem(of, longest, device, what, base.tokenizer.bases_per_code):
            return problem
    return ""
