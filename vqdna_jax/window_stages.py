"""Stages 1 and 2, which read windows of a corpus: what differs between them around the one training loop."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vqdna_jax import evaluation, hub, masked_evaluation, plots, results, settings
from vqdna_jax.errors import InputError
from vqdna_jax.genome.windows import evaluation_windows
from vqdna_jax.masked_codes import TOKENIZER, MaskedCodes
from vqdna_jax.masking import Masking
from vqdna_jax.models.attention import best_kernel
from vqdna_jax.models.tokenizer import TokenizerConfig
from vqdna_jax.models.transformer import Compute, TransformerConfig
from vqdna_jax.pretrained import Pretrained
from vqdna_jax.run_data import RunData, open_windows
from vqdna_jax.tasks import Vocabulary


def vocabulary_task(config) -> Vocabulary:
    return Vocabulary(TokenizerConfig(**config.model), hidden_share=config.hidden_share, **config.codebook)


def masked_codes_task(config, tokenizer: TokenizerConfig, platform: str) -> MaskedCodes:
    """`platform` ("cpu", "gpu", "tpu") decides the attention kernel where the config leaves it open.

    Raises InputError: the window or the masking does not fit the tokenizer's codes.
    """
    r, window_bp = tokenizer.bases_per_code, config.data.window_bp
    if window_bp % r or window_bp // r < 8:
        raise InputError(
            f"config key data.window_bp: found {window_bp}, expected a multiple of the tokenizer's {r} bases a code,"
            f" at least {8 * r}"
        )
    model, masking, compute = TransformerConfig(**config.model), Masking(**config.masking), dict(config.compute)
    settings.validate_masking(masking, window_bp // r - model.cls, r)
    if compute["attention"] == "auto":
        compute["attention"] = best_kernel(platform, window_bp // r, model.window, model.dtype)
    train = config.train
    return MaskedCodes(
        tokenizer, model, Compute(**compute), masking, config.base_weight, train.microbatches, train.params_ema_decay
    )


class WindowStage:
    """`frozen` goes into every batch; `digests` into every checkpoint's meta."""

    frozen: dict[str, Any] = {}
    digests: dict[str, str] = {}
    task: Vocabulary | MaskedCodes

    def open_data(self) -> RunData:
        return open_windows(self._config)

    def inputs(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"bases": batch["bases"]}

    def flops_per_step(self, data: RunData) -> float:
        return data.bases_per_step * self.task.flops_per_base(self._config.data.window_bp)

    def enough(self, state) -> bool:
        return False


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
        return evaluation.reconstruction(_of_bases(predict), bases_BxS, self.task.model)

    def finish(self, run: results.Run) -> None:
        """The full evaluation, its pictures and the export; every process evaluates, the first one writes."""
        bases_BxS = run.data.held_out["bases"]
        predict, untrained = _of_bases(run.predict), _of_bases(run.untrained())
        result, counts = self._reconstruction(run.predict, bases_BxS)
        result |= evaluation.vocabulary(predict, bases_BxS, self.task.model)
        data = self._config.data
        seen = evaluation_windows(run.data.corpus, "train", data.window_bp, len(bases_BxS), data.max_n_share)
        result |= evaluation.species_probe(predict, untrained, seen, run.data.held_out)
        result |= {"held_out_windows": len(bases_BxS)} | run.facts()
        params = results.whole(run.state.final_params())
        if jax.process_index():
            return
        plots.plot_codebook_usage(counts, run.workdir / "codebooks.png")
        hub.save(run.workdir / "export", self.task.model, params, run.state.codebooks, run.card(result))
        run.close(result)
        results.say_vocabulary(result, self.task.model.codebook_sizes, run.workdir)


class MaskedCodesStage(WindowStage):
    """Stage 2, on top of the tokenizer that config.tokenizer names."""

    def __init__(self, config, mesh: Mesh):
        if not config.tokenizer:
            raise InputError(
                "config key tokenizer: is empty, expected the export directory of a stage 1 run;"
                " for example --config.tokenizer=runs/hrq/export"
            )
        self._config = config
        self.tokenizer = hub.load(config.tokenizer, mesh)
        self.task = masked_codes_task(config, self.tokenizer.config, mesh.devices.flat[0].platform)
        self.frozen = {TOKENIZER: {"encoder": self.tokenizer.params["encoder"], "codes": self.tokenizer.codes_KxD}}
        self.digests = {"tokenizer_digest": self.tokenizer.digest}

    def plan(self, state) -> list[str]:
        task, model = self.task, self.tokenizer
        hidden = model.hidden_share or 0
        lines = [
            f"tokenizer  {self._config.tokenizer} ({model.digest[:12]}), {model.config.quantizer}, codes"
            f" {' + '.join(map(str, model.codebook_sizes))}, bases a code {model.config.bases_per_code}",
            f"masking    {task.masking.kind}, {task.masking.rate:.0%} of the codes; attention {task.compute.attention}",
        ]
        if task.masking.hides_bases and not hidden:
            lines.append("warning    this tokenizer never saw a hidden base: train it with --config.hidden_share=0.15")
        return lines

    def evaluate(self, predict: Callable, held_out) -> dict[str, float]:
        return self._scores(predict, held_out["bases"])[0]

    def _scores(self, predict: Callable, bases_BxS: np.ndarray):
        hidden = masked_evaluation.hidden_bases(self.task, predict, bases_BxS)
        return masked_evaluation.masked_codes(self.task, predict, bases_BxS) | hidden.values(), hidden

    def finish(self, run: results.Run) -> None:
        """The full evaluation, baselines, probe and the export; every process evaluates, the first one writes."""
        result, hidden = self._scores(run.predict, run.data.held_out["bases"])
        facts, evaluation_config = run.facts(), self._config.eval
        result |= {"held_out_windows": len(run.data.held_out["bases"])}
        result |= {"codes_seen": facts["bases_seen"] // self.task.tokenizer.bases_per_code} | facts
        params = results.whole(run.state.final_params())
        # A second state is made only where it is asked for: a large model may not fit twice.
        untrained = results.whole(run.initial().final_params()) if evaluation_config.probe else None
        if jax.process_index():
            return
        result |= masked_evaluation.baselines(run.data.corpus, run.data.held_out, hidden)
        if evaluation_config.probe:
            models = (self._model(weights) for weights in (params, untrained))
            result |= masked_evaluation.probe(*models, evaluation_config.probe, evaluation_config.probe_rows)
        window_bp = self._config.data.window_bp
        hub.save_pretrained(
            run.workdir / "export", self.tokenizer, self.task.model, params, window_bp, run.card(result)
        )
        run.close(result)
        results.say_masked_codes(result, run.workdir)

    def _model(self, weights) -> Pretrained:
        return hub.in_memory(self.tokenizer, self.task.model, weights, self._config.data.window_bp)


def _of_bases(predict: Callable) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    return lambda bases_BxS: predict({"bases": bases_BxS})
