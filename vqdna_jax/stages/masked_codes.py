"""Stage 2: masked code modelling over the codes of a learned tokenizer."""

import dataclasses
import functools

import jax
from jax.sharding import Mesh

from vqdna_jax.errors import InputError
from vqdna_jax.evaluation import masked_bases
from vqdna_jax.evaluation.masked_bases import HiddenBases
from vqdna_jax.genome.corpus import Corpus
from vqdna_jax.genome.windows import Windows
from vqdna_jax.inference import load
from vqdna_jax.inference.model import Model
from vqdna_jax.inference.saved import pretrained
from vqdna_jax.models.attention import best_kernel
from vqdna_jax.models.networks import TrainedConfig
from vqdna_jax.models.tokenizer import TokenizerConfig
from vqdna_jax.partition import replicated
from vqdna_jax.runtime.exports import PRETRAINED
from vqdna_jax.stages import start
from vqdna_jax.stages.base import Finished, Predict, Result, RunData, WindowStage, open_windows, say_scores
from vqdna_jax.stages.start import Start
from vqdna_jax.tasks.base import Params
from vqdna_jax.tasks.masked_codes import FrozenTokenizer, MaskedCodes
from vqdna_jax.tasks.masking import validate_masking
from vqdna_jax.tokenizers.learned import LearnedTokenizer
from vqdna_jax.training.settings import MaskedCodesSettings
from vqdna_jax.training.step import TrainState, final_params


@dataclasses.dataclass(frozen=True)
class MaskedCodesStage(WindowStage):
    """A transformer on top of the tokenizer that config.tokenizer names; see `Stage`."""

    settings: MaskedCodesSettings
    tokenizer: LearnedTokenizer
    task: MaskedCodes
    frozen: FrozenTokenizer
    corpus: Corpus
    data: RunData[Windows, Windows]
    digests: dict[str, str]
    start: Start | None

    @classmethod
    def open(cls, settings: MaskedCodesSettings, mesh: Mesh) -> "MaskedCodesStage":
        if not settings.tokenizer:
            raise InputError(
                "config key tokenizer: is empty, expected the export directory of a stage 1 run;"
                " for example --config.tokenizer=runs/hrq/export"
            )
        tokenizer = load.load(settings.tokenizer, mesh).tokenizer
        assert isinstance(tokenizer, LearnedTokenizer), "make_stage has looked"
        begin = start.of_masked(settings, tokenizer, PRETRAINED)
        task = masked_codes_task(settings, tokenizer.config, mesh.devices.flat[0].platform)
        frozen = FrozenTokenizer(tokenizer.params["encoder"], tokenizer.codes_KxD)
        corpus, _, data = open_windows(settings)
        digests = {"corpus_digest": corpus.digest, "tokenizer_digest": tokenizer.digest} | start.digests(begin)
        return cls(settings, tokenizer, task, frozen, corpus, data, digests, begin)

    def plan_lines(self, state: TrainState) -> list[str]:
        task, model = self.task, self.tokenizer
        lines = [
            f"tokenizer  {self.settings.tokenizer} ({model.digest[:12]}), {model.description}",
            f"masking    {task.masking.kind}, {task.masking.rate:.0%} of the codes; attention {task.compute.attention}",
            *start.plan_lines(self.start),
        ]
        if task.masking.hides_bases and not model.hidden_share:
            lines.append("warning    this tokenizer never saw a hidden base: train it with --config.hidden_share=0.15")
        return lines

    def evaluate(self, predict: Predict) -> dict[str, float]:
        return self._as_trained(predict) | self._hidden_bases(predict).values()

    def _as_trained(self, predict: Predict) -> dict[str, float]:
        return masked_bases.masked_codes(self.task, predict, self.data.held_out.bases_BxS)

    def _hidden_bases(self, predict: Predict) -> HiddenBases:
        return masked_bases.hidden_bases(self.task, predict, self.data.held_out.bases_BxS)

    def finish(self, run: Finished) -> None:
        with run.part("masked windows"):
            result: Result = self._as_trained(run.predict)
        with run.part("hidden bases"):
            hidden = self._hidden_bases(run.predict)
        facts, probe = run.facts(), self.settings.eval.probe
        result |= hidden.values() | {"held_out_windows": len(self.data.held_out.bases_BxS)}
        result |= {"codes_seen": facts["bases_seen"] // self.task.tokenizer.bases_per_code} | facts
        params = replicated(final_params(run.state))
        save = functools.partial(pretrained.save, run.workdir / "export", *self._parts(params))
        run.export(save, result)
        # A second state is made only where it is asked for: a large model may not fit twice.
        probed = [params, replicated(final_params(run.random()))] if probe else []
        if jax.process_index():
            return
        with run.part("context tables"):
            result |= masked_bases.baselines(self.corpus, self.data.held_out, hidden)
        if probed:
            with run.part("probes"):
                trained, untrained = map(self._model, probed)
                result |= masked_bases.probe(trained, untrained, probe, self.settings.eval.probe_rows)
        save(run.card(result))
        run.close(result)
        _say(result, run.name)

    def _parts(self, weights: Params) -> tuple[LearnedTokenizer, TrainedConfig, Params, int, int]:
        """What a pretrained model is saved, or made, of."""
        tokenizer, model, window_bp = self.tokenizer, self.task.model, self.settings.data.window_bp
        return tokenizer, model, weights, window_bp, window_bp // tokenizer.bases_per_code - model.cls

    def _model(self, weights: Params) -> Model:
        model = pretrained.in_memory(*self._parts(weights))
        return Model("the model in training", model.tokenizer, model)


def masked_codes_task(settings: MaskedCodesSettings, tokenizer: TokenizerConfig, platform: str) -> MaskedCodes:
    """`platform` ("cpu", "gpu", "tpu") decides the attention kernel where the config leaves it open.

    Raises InputError: the window or the masking does not fit the tokenizer's codes.
    """
    r, window_bp = tokenizer.bases_per_code, settings.data.window_bp
    if window_bp % r or window_bp // r < 8:
        raise InputError(
            f"config key data.window_bp: found {window_bp}, expected a multiple of the tokenizer's {r} bases per code,"
            f" at least {8 * r}"
        )
    settings.check_length("codes of a window", window_bp // r)
    model, masking, compute = settings.model.network(window_bp // r), settings.masking, settings.compute
    validate_masking(masking, window_bp // r - model.cls, r)
    if compute.attention == "auto":
        kernel = best_kernel(platform, window_bp // r // settings.mesh.context, model.window, model.dtype)
        compute = dataclasses.replace(compute, attention=kernel)
    train = settings.train
    return MaskedCodes(
        tokenizer, model, compute, masking, settings.base_weight, train.microbatches, train.params_ema_decay
    )


def _say(result: Result, workdir: str) -> None:
    say_scores(result, [name for name in result if name.startswith(("code_", "probe_mean"))])
    print("bits per hidden base (hidden before the tokenizer), and how often the best guess is right:")
    for name in ("masked_base", "order0", "markov11", "context55"):
        print(f"  {name:26} {result[f'{name}_bits']:.4f}  {100 * result[f'{name}_accuracy']:.1f} %")
    print(f"results, curves.png, metrics.jsonl in {workdir}; the model in {workdir}/export")
