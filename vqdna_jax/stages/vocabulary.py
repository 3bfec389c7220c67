"""Stage 1: a vocabulary is learned from windows of a corpus."""

import pathlib
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

from vqdna_jax import partition
from vqdna_jax.evaluation import plots, vocabulary
from vqdna_jax.genome.windows import evaluation_windows
from vqdna_jax.inference.saved import pretrained
from vqdna_jax.models.tokenizer import TokenizerConfig
from vqdna_jax.stages import base
from vqdna_jax.stages.base import WindowStage, _say
from vqdna_jax.tasks.vocabulary import Vocabulary


def say_vocabulary(result: dict, codebook_sizes: tuple[int, ...], workdir: pathlib.Path) -> None:
    _say(result, ("reconstruction_accuracy", "window_exact_rate", "code_bits_per_base", "hidden_base_accuracy"))
    for n, size in enumerate(codebook_sizes, start=1):
        of = {
            key: result[f"codebook_{n}_{key}"]
            for key in ("used", "perplexity", "busiest_share", "best_kmer_k", "best_kmer_explained_share")
        }
        print(
            f"codebook {n}: {of['used']} of {size} codes used ({100 * of['used'] / size:.1f} %), perplexity"
            f" {of['perplexity']:.1f}, busiest {100 * of['busiest_share']:.2f} %; {of['best_kmer_k']}-mers explain"
            f" {100 * of['best_kmer_explained_share']:.0f} % of its information"
        )
    print(f"results, curves.png, codebooks.png, metrics.jsonl in {workdir}; the model in {workdir / 'export'}")


def vocabulary_task(config) -> Vocabulary:
    return Vocabulary(TokenizerConfig(**config.model), hidden_share=config.hidden_share, **config.codebook)


class VocabularyStage(WindowStage):
    """Stage 1."""

    def __init__(self, config, mesh: Mesh):
        self._config, self.task = config, vocabulary_task(config)

    def plan(self, state) -> list[str]:
        codes = sum(x.sums_KxD.size for x in state.codebooks) / 1e6
        return [f"codebooks  {codes:.2f} M, of {' + '.join(map(str, self.task.model.codebook_sizes))} codes"]

    def evaluate(self, predict: Callable, held_out) -> dict[str, float]:
        return self._reconstruction(predict, held_out["bases"])[0]

    def _reconstruction(self, predict: Callable, bases_BxS: np.ndarray):
        return vocabulary.reconstruction(_of_bases(predict), bases_BxS, self.task.model)

    def finish(self, run: base.Run) -> None:
        """The full evaluation, its pictures and the export; every process evaluates, the first one writes."""
        bases_BxS = run.data.held_out["bases"]
        predict, untrained = _of_bases(run.predict), _of_bases(run.untrained())
        result, counts = self._reconstruction(run.predict, bases_BxS)
        result |= vocabulary.vocabulary(predict, bases_BxS, self.task.model)
        data = self._config.data
        seen = evaluation_windows(run.data.corpus, "train", data.window_bp, len(bases_BxS), data.max_n_share)
        result |= vocabulary.species_probe(predict, untrained, seen, run.data.held_out)
        result |= {"held_out_windows": len(bases_BxS)} | run.facts()
        params = partition.whole(run.state.final_params())
        if jax.process_index():
            return
        plots.plot_codebook_usage(counts, run.workdir / "codebooks.png")
        pretrained.save(run.workdir / "export", self.task.model, params, run.state.codebooks, run.card(result))
        run.close(result)
        say_vocabulary(result, self.task.model.codebook_sizes, run.workdir)


def _of_bases(predict: Callable) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    return lambda bases_BxS: predict({"bases": bases_BxS})
