"""Whether a step of fine-tuning fits the memory that there is, before anything is compiled."""

import numpy as np
from jax.sharding import Mesh

from vqdna_jax.errors import InputError
from vqdna_jax.inference import footprint
from vqdna_jax.inference.pretrained import Pretrained
from vqdna_jax.labels.batches import Shape, shapes_of
from vqdna_jax.labels.sets import LabelledSet
from vqdna_jax.partition import batch_shards
from vqdna_jax.runtime.live import peak_bytes
from vqdna_jax.stages.abstract import Planned, Tokens, trace_step
from vqdna_jax.tasks.finetune import Finetune
from vqdna_jax.tokenizers.base import most_codes
from vqdna_jax.training.settings import FinetuneSettings


def check(settings: FinetuneSettings, base: Pretrained, task: Finetune, of: LabelledSet, mesh: Mesh) -> None:
    """Raises InputError: a batch of the longest sequences takes more than there is. Where layers are split it is not
    told, nor where features are computed once."""
    if task.method == "head" or mesh.shape["fsdp"] * mesh.shape["tensor"] > 1:
        return
    longest = max(most_codes(base.tokenizer, len(bases)) for split in of.splits.values() for bases in split.bases)
    longest = longest if settings.data.long == "window" else min(longest, base.length)
    device, rows = mesh.local_devices[0], settings.data.global_batch // batch_shards(mesh)
    beside = len(mesh.local_devices) if device.platform == "cpu" else 1  # which share one memory

    def shape(codes: int) -> Shape:
        return shapes_of(np.array([codes]), base.length, base.transformer.cls)[-1]

    def needs(codes: int) -> int:
        windows, length = shape(codes)
        tokens = Tokens(base.sizes, base.codes_KxE[0].shape[1], length)
        planned = Planned(task, tokens, base.window_bp, windows)
        return beside * peak_bytes(trace_step(settings, planned, mesh)[1], device.platform)

    windows, length = shape(longest)
    if footprint.surely_fits(base.transformer, beside * rows * windows, length, device):
        return
    what = f"{settings.data.global_batch:,} sequences of {longest:,} codes"
    if problem := footprint.problem(needs, longest, device, what, base.tokenizer.bases_per_code):
        raise InputError(problem)
