"""What a training run reads: batches that are a function of the step, and what is held out."""

import dataclasses
from typing import Any

import jax

from vqdna_jax.genome.corpus import Corpus, bundled_corpus, open_corpus
from vqdna_jax.genome.windows import WindowBatches, evaluation_windows


@dataclasses.dataclass(frozen=True)
class RunData:
    """Attributes:
    batches: `batches[step]` is this process's rows, a dict of numpy arrays [B, ...]; steps_per_epoch.
    held_out: what the stage evaluates on.
    digests: into every checkpoint's meta.
    lines: of the plan that is printed before the first step.
    bases_per_step: over all processes.
    """

    batches: Any
    held_out: Any
    digests: dict[str, str]
    lines: list[str]
    bases_per_step: float
    corpus: Corpus | None = None


def open_windows(config) -> RunData:
    """Windows of a corpus. Raises InputError: there is no such corpus, or no window fits."""
    data = config.data
    corpus = open_corpus(data.corpus or bundled_corpus())
    mixing = data.species_weights.to_dict() or (data.temperature if data.temperature != 1 else None)
    batches = WindowBatches(
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
    held_out = evaluation_windows(corpus, "validation", data.window_bp, config.eval.windows, data.max_n_share)
    bundled = "" if data.corpus else " (bundled genomes: no config.data.corpus was named)"
    lines = [
        f"corpus     {corpus.path}{bundled}",
        f"           {batches.summary()}",
        f"           validation: {len(held_out['bases']):,} windows held out, of {config.eval.windows:,} asked for",
    ]
    digests = {"corpus_digest": corpus.digest}
    return RunData(batches, held_out, digests, lines, data.global_batch * data.window_bp, corpus)
