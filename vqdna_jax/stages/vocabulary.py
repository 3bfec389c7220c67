"""Stage 1: a vocabulary is learned from windows of a corpus."""

import dataclasses
import functools

import jax
import numpy as np
from jax.sharding import Mesh

from vqdna_jax.evaluation import plots, vocabulary
from vqdna_jax.genome.corpus import Corpus
from vqdna_jax.genome.windows import Windows, evaluation_windows
from vqdna_jax.inference.saved import tokenizer
from vqdna_jax.partition import replicated
from vqdna_jax.stages import start
from vqdna_jax.stages.base import Finished, Predict, Result, RunData, WindowStage, open_windows, say_scores
from vqdna_jax.stages.start import Start
from vqdna_jax.tasks.vocabulary import Vocabulary
from vqdna_jax.training.settings import VocabularySettings
from vqdna_jax.training.step import TrainState, final_params


@dataclasses.dataclass(frozen=True)
class VocabularyStage(WindowStage):
    """A tokenizer learns to rebuild windows; see `Stage`."""

    settings: VocabularySettings
    task: Vocabulary
    corpus: Corpus
    data: RunData[Windows, Windows]
    digests: dict[str, str]
    start: Start | None
    frozen: tuple[()] = ()

    @classmethod
    def open(cls, settings: VocabularySettings, mesh: Mesh) -> "VocabularyStage":
        begin = start.of_vocabulary(settings)
        corpus, _, data = open_windows(settings)
        digests = {"corpus_digest": corpus.digest} | start.digests(begin)
        return cls(settings, vocabulary_task(settings), corpus, data, digests, begin)

    def plan_lines(self, state: TrainState) -> list[str]:
        codes = sum(x.sums_KxD.size for x in state.codebooks) / 1e6
        sizes = " + ".join(map(str, self.task.model.codebook_sizes))
        return [f"codebooks  {codes:.2f} M, of {sizes} codes", *start.plan_lines(self.start)]

    def evaluate(self, predict: Predict) -> dict[str, float]:
        return self._reconstruction(_of_bases(predict)(self.data.held_out.bases_BxS))[0]

    def _reconstruction(self, outputs: vocabulary.Outputs) -> tuple[dict[str, float], list[np.ndarray]]:
        return vocabulary.reconstruction(outputs, self.data.held_out.bases_BxS, self.task.model)

    def finish(self, run: Finished) -> None:
        with run.part("held-out windows"):
            outputs = _of_bases(run.predict)(self.data.held_out.bases_BxS)
        result: Result
        result, counts = self._reconstruction(outputs)
        result |= {"held_out_windows": len(outputs["codes"])} | run.facts()
        params = replicated(final_params(run.state))
        save = functools.partial(tokenizer.save, run.workdir / "export", self.task.model, params, run.state.codebooks)
        run.export(save, result)
        result |= self._content(run, outputs)
        if jax.process_index():
            return
        plots.plot_codebook_usage(counts, run.workdir / "codebooks.png")
        save(run.card(result))
        run.close(result)
        _say(result, self.task.model.codebook_sizes, run.name)

    def _content(self, run: Finished, outputs: vocabulary.Outputs) -> Result:
        """What the codes are: k-mers or more, strand-consistent or not, how far one base reaches, what they denoise."""
        model, data, held_out, codes_BxLxN = self.task.model, self.settings.data, self.data.held_out, outputs["codes"]
        predict, bases_BxS, result = _of_bases(run.predict), held_out.bases_BxS, Result()
        with run.part("k-mers"):
            result |= vocabulary.kmer_content(codes_BxLxN, bases_BxS, model)
        with run.part("strands"):
            result |= vocabulary.strands(predict, codes_BxLxN, bases_BxS, model)
        with run.part("substitutions"):
            result |= vocabulary.substitutions(predict, codes_BxLxN, bases_BxS, model)
        with run.part("hidden bases"):
            result |= vocabulary.hidden_bases(predict, bases_BxS)
        with run.part("species probe"):
            seen = evaluation_windows(self.corpus, "train", data.window_bp, len(bases_BxS), data.max_n_share)
            untrained = _of_bases(run.untrained())
            result |= vocabulary.species_probe(predict, untrained, outputs["embedding"], seen, held_out)
        return result


def vocabulary_task(settings: VocabularySettings) -> Vocabulary:
    codebook = settings.codebook
    return Vocabulary(
        settings.model,
        codebook.commitment_weight,
        codebook.ema_decay,
        codebook.revive_below,
        codebook.revive_to,
        settings.hidden_share,
    )


def _of_bases(predict: Predict) -> vocabulary.Predict:
    return lambda bases_BxS, only=(): predict(Windows(bases_BxS), only)


def _say(result: Result, codebook_sizes: tuple[int, ...], workdir: str) -> None:
    say_scores(result, ("reconstruction_accuracy", "window_exact_rate", "code_bits_per_base", "hidden_base_accuracy"))
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
    print(f"results, curves.png, codebooks.png, metrics.jsonl in {workdir}; the model in {workdir}/export")
