"""Stage 2 over a fixed tokenizer (k-mers, byte pairs): the baselines, in the same loop as learned codes."""

import dataclasses

import jax
from jax.sharding import Mesh

from vqdna_jax.errors import InputError
from vqdna_jax.evaluation import masked_tokens
from vqdna_jax.inference import load
from vqdna_jax.inference.saved import pretrained
from vqdna_jax.models.attention import best_kernel, kernel_of_padded
from vqdna_jax.partition import replicated
from vqdna_jax.runtime.exports import FIXED_PRETRAINED
from vqdna_jax.stages import start
from vqdna_jax.stages.base import Finished, Predict, Result, RunData, WindowStage, open_windows, say_scores
from vqdna_jax.stages.start import Start
from vqdna_jax.tasks.masked_tokens import MaskedTokens, masking_of
from vqdna_jax.tokenizers.batches import Layout, TokenBatches, Tokens, layout, tokens_batch
from vqdna_jax.tokenizers.fixed import FixedTokenizer
from vqdna_jax.training.settings import MaskedCodesSettings
from vqdna_jax.training.step import TrainState, final_params


@dataclasses.dataclass(frozen=True)
class MaskedTokensStage(WindowStage):
    """A transformer on top of the fixed tokenizer that config.tokenizer names; see `Stage`.

    masking.rate counts; what is masked is the tokenizer's own way (`masked_tokens.masking_of`), and there is no head
    for bases.
    """

    settings: MaskedCodesSettings
    tokenizer: FixedTokenizer
    task: MaskedTokens
    data: RunData[Tokens, Tokens]
    digests: dict[str, str]
    start: Start | None
    frozen: tuple[()] = ()

    @classmethod
    def open(cls, settings: MaskedCodesSettings, mesh: Mesh) -> "MaskedTokensStage":
        if settings.eval.probe:
            raise InputError("config key eval.probe: probes are of learned tokenizers; leave it empty for a fixed one")
        tokenizer = load.load(settings.tokenizer).tokenizer
        assert isinstance(tokenizer, FixedTokenizer), "make_stage has looked"
        begin = start.of_masked(settings, tokenizer, FIXED_PRETRAINED)
        corpus, windows, data = open_windows(settings)
        laid_out = layout(tokenizer, settings.data.window_bp, settings.model.cls, corpus)
        batches = TokenBatches(
            windows,
            tokenizer,
            laid_out.length,
            settings.data.global_batch,
            settings.seed,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        held_out = tokens_batch(tokenizer, data.held_out.bases_BxS, laid_out.length)
        tokens = RunData(batches, held_out, data.bases_per_step, data.lines, corpus)
        task = masked_tokens_task(settings, tokenizer, laid_out, mesh.devices.flat[0].platform)
        digests = {"corpus_digest": corpus.digest, "tokenizer_digest": tokenizer.digest} | start.digests(begin)
        return cls(settings, tokenizer, task, tokens, digests, begin)

    def plan_lines(self, state: TrainState) -> list[str]:
        tokenizer, laid_out = self.tokenizer, self.task.layout
        return [
            f"tokenizer  {self.settings.tokenizer} ({tokenizer.digest[:12]}), {tokenizer.description},"
            f" {tokenizer.vocabulary:,} tokens,"
            f" {laid_out.bases_per_token:.2f} bases per token, {laid_out.length} tokens per window",
            f"masking    {self.task.masking.kind}, {self.task.masking.rate:.0%} of the tokens, the tokenizer's own way"
            " (masking.kind, masking.span and base_weight are for learned ones)",
            *start.plan_lines(self.start),
        ]

    def evaluate(self, predict: Predict) -> dict[str, float]:
        return masked_tokens.evaluate(self.task, predict, self.data.held_out)

    def finish(self, run: Finished) -> None:
        result: Result = self.evaluate(run.predict)
        result |= {"held_out_windows": len(self.data.held_out.tokens_BxL)} | run.facts()
        params = replicated(final_params(run.state))
        if jax.process_index():
            return
        parts = self.tokenizer, self.task.model, params, self.task.layout.window_bp, self.task.layout.length
        pretrained.save(run.workdir / "export", *parts, run.card(result))
        run.close(result)
        _say(result, run.name)


def masked_tokens_task(
    settings: MaskedCodesSettings, tokenizer: FixedTokenizer, laid_out: Layout, platform: str
) -> MaskedTokens:
    """`platform` ("cpu", "gpu", "tpu") decides the attention kernel where the config leaves it open."""
    slots = laid_out.length + settings.model.cls
    settings.check_length("tokens of a window, CLS included", slots)
    model, compute = settings.model.network(slots), settings.compute
    if compute.attention == "auto":
        padded = kernel_of_padded(platform, model.window, model.dtype)
        whole = best_kernel(platform, slots // settings.mesh.context, model.window, model.dtype)
        compute = dataclasses.replace(compute, attention=padded if laid_out.padded else whole)
    return MaskedTokens(
        model,
        compute,
        tokenizer.vocabulary,
        model.width,
        masking_of(tokenizer, settings.masking.rate),
        laid_out,
        settings.train.microbatches,
        settings.train.params_ema_decay,
    )


def _say(result: Result, workdir: str) -> None:
    say_scores(result, ("token_accuracy", "token_perplexity", "bits_per_base"))
    print(f"results, curves.png, metrics.jsonl in {workdir}; the model in {workdir}/export")
