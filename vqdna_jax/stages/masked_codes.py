"""Stages 1 and 2, which read windows of a corpus: what differs between them around the one training loop."""

import pathlib
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

from vqdna_jax import partition
from vqdna_jax.errors import InputError
from vqdna_jax.evaluation import masked_bases
from vqdna_jax.inference.pretrained import Pretrained
from vqdna_jax.inference.saved import pretrained
from vqdna_jax.models.attention import best_kernel
from vqdna_jax.models.tokenizer import TokenizerConfig
from vqdna_jax.models.transformer import Compute, TransformerConfig
from vqdna_jax.stages import base
from vqdna_jax.stages.base import WindowStage, _say
from vqdna_jax.tasks import masking as tasks_masking
from vqdna_jax.tasks.masked_codes import TOKENIZER, MaskedCodes
from vqdna_jax.tasks.masking import Masking


def say_masked_codes(result: dict, workdir: pathlib.Path) -> None:
    _say(result, [name for name in result if name.startswith("code_") or name.startswith("probe_mean")])
    print("bits a hidden base (hidden before the tokenizer), and how often the best guess is right:")
    for name in ("masked_base", "order0", "markov11", "context55"):
        print(f"  {name:26} {result[f'{name}_bits']:.4f}  {100 * result[f'{name}_accuracy']:.1f} %")
    print(f"results, curves.png, metrics.jsonl in {workdir}; the model in {workdir / 'export'}")


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
    tasks_masking.validate_masking(masking, window_bp // r - model.cls, r)
    if compute["attention"] == "auto":
        compute["attention"] = best_kernel(platform, window_bp // r, model.window, model.dtype)
    train = config.train
    return MaskedCodes(
        tokenizer, model, Compute(**compute), masking, config.base_weight, train.microbatches, train.params_ema_decay
    )


class MaskedCodesStage(WindowStage):
    """Stage 2, on top of the tokenizer that config.tokenizer names."""

    def __init__(self, config, mesh: Mesh):
        if not config.tokenizer:
            raise InputError(
                "config key tokenizer: is empty, expected the export directory of a stage 1 run;"
                " for example --config.tokenizer=runs/hrq/export"
            )
        self._config = config
        self.tokenizer = pretrained.load(config.tokenizer, mesh)
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
        hidden = masked_bases.hidden_bases(self.task, predict, bases_BxS)
        return masked_bases.masked_codes(self.task, predict, bases_BxS) | hidden.values(), hidden

    def finish(self, run: base.Run) -> None:
        """The full evaluation, baselines, probe and the export; every process evaluates, the first one writes."""
        result, hidden = self._scores(run.predict, run.data.held_out["bases"])
        facts, evaluation_config = run.facts(), self._config.eval
        result |= {"held_out_windows": len(run.data.held_out["bases"])}
        result |= {"codes_seen": facts["bases_seen"] // self.task.tokenizer.bases_per_code} | facts
        params = partition.whole(run.state.final_params())
        # A second state is made only where it is asked for: a large model may not fit twice.
        untrained = partition.whole(run.initial().final_params()) if evaluation_config.probe else None
        if jax.process_index():
            return
        result |= masked_bases.baselines(run.data.corpus, run.data.held_out, hidden)
        if evaluation_config.probe:
            models = (self._model(weights) for weights in (params, untrained))
            result |= masked_bases.probe(*models, evaluation_config.probe, evaluation_config.probe_rows)
        window_bp = self._config.data.window_bp
        pretrained.save_pretrained(
            run.workdir / "export", self.tokenizer, self.task.model, params, window_bp, run.card(result)
        )
        run.close(result)
        say_masked_codes(result, run.workdir)

    def _model(self, weights) -> Pretrained:
        return pretrained.in_memory(self.tokenizer, self.task.model, weights, self._config.data.window_bp)
