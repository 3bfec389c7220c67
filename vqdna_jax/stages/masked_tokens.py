"""Stage 2 over a fixed tokenizer (k-mers, byte pairs): the baselines, in the same loop as learned codes."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vqdna_jax import partition
from vqdna_jax.errors import InputError
from vqdna_jax.evaluation import masked_tokens
from vqdna_jax.inference.saved import fixed_pretrained
from vqdna_jax.models.attention import best_kernel, kernel_of_padded
from vqdna_jax.models.transformer import Compute, TransformerConfig
from vqdna_jax.stages import base
from vqdna_jax.stages.base import RunData, WindowStage, _say, open_windows
from vqdna_jax.tasks.masked_tokens import MaskedTokens, masking_of
from vqdna_jax.tokenizers import fixed
from vqdna_jax.tokenizers.batches import Layout, TokenBatches, layout, tokens_batch


def say_masked_tokens(result: dict, workdir: pathlib.Path) -> None:
    _say(result, ("token_accuracy", "token_perplexity", "bits_per_base"))
    print(f"results, curves.png, metrics.jsonl in {workdir}; the model in {workdir / 'export'}")


class MaskedTokensStage(WindowStage):
    """On top of the fixed tokenizer that config.tokenizer names. masking.rate counts; what is masked is the tokenizer's
    own way (`masked_tokens.masking_of`), and there is no head for bases."""

    task: MaskedTokens

    def __init__(self, config, mesh: Mesh):
        if config.eval.probe:
            raise InputError("config key eval.probe: probes are of learned tokenizers; leave it empty for a fixed one")
        self._config, self._platform = config, mesh.devices.flat[0].platform
        self.tokenizer = fixed.load(config.tokenizer)
        self.digests = {"tokenizer_digest": self.tokenizer.digest}

    def open_data(self) -> RunData:
        config, data = self._config, open_windows(self._config)
        laid_out = layout(self.tokenizer, config.data.window_bp, config.model.cls, data.corpus)
        self.task = self._task(laid_out)
        batches = TokenBatches(
            data.batches, self.tokenizer, laid_out.length, config.data.global_batch, config.seed,
            process_index=jax.process_index(), process_count=jax.process_count(),
        )  # fmt: skip
        held_out = tokens_batch(self.tokenizer, data.held_out["bases"], laid_out.length)
        return dataclasses.replace(data, batches=batches, held_out=held_out)

    def _task(self, laid_out: Layout) -> MaskedTokens:
        config, compute = self._config, dict(self._config.compute)
        model = TransformerConfig(**config.model)
        if compute["attention"] == "auto":
            whole = best_kernel(self._platform, laid_out.length + model.cls, model.window, model.dtype)
            compute["attention"] = (
                kernel_of_padded(self._platform, model.window, model.dtype) if laid_out.padded else whole
            )
        return MaskedTokens(
            model, Compute(**compute), self.tokenizer.vocabulary, model.width,
            masking_of(self.tokenizer, config.masking.rate), laid_out, config.train.microbatches,
            config.train.params_ema_decay,
        )  # fmt: skip

    def inputs(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return batch

    def plan(self, state) -> list[str]:
        tokenizer, laid_out = self.tokenizer, self.task.layout
        kind = tokenizer.kind if tokenizer.kind in ("bpe", "one_hot") else f"{tokenizer.kind} {tokenizer.k}-mers"
        return [
            f"tokenizer  {self._config.tokenizer} ({tokenizer.digest[:12]}), {kind}, {tokenizer.vocabulary:,} tokens,"
            f" {laid_out.bases_per_token:.2f} bases a token, {laid_out.length} tokens a window",
            f"masking    {self.task.masking.kind}, {self.task.masking.rate:.0%} of the tokens, the tokenizer's own way"
            " (masking.kind, masking.span and base_weight are for learned ones)",
        ]

    def evaluate(self, predict: Callable, held_out: dict[str, np.ndarray]) -> dict[str, float]:
        return masked_tokens.evaluate(self.task, predict, held_out)

    def finish(self, run: base.Run) -> None:
        """The full evaluation and the export; every process evaluates, the first one writes."""
        result: dict[str, Any] = self.evaluate(run.predict, run.data.held_out)
        result |= {"held_out_windows": len(run.data.held_out["tokens"])} | run.facts()
        params = partition.whole(run.state.final_params())
        if jax.process_index():
            return
        card = run.card(result)
        fixed_pretrained.save(run.workdir / "export", self.tokenizer, self.task.model, params, self.task.layout, card)
        run.close(result)
        say_masked_tokens(result, run.workdir)
