"""What a run of stage 1 or 2 begins with where config.init_from names an export: it goes on from a trained model."""

import dataclasses
from typing import Any

import jax

from vqdna_jax.errors import InputError
from vqdna_jax.inference import load
from vqdna_jax.inference.pretrained import Pretrained
from vqdna_jax.inference.saved import pretrained
from vqdna_jax.models.hyena_encoder import HyenaEncoderConfig
from vqdna_jax.models.layers import Params
from vqdna_jax.models.networks import NetworkConfig, name_of
from vqdna_jax.models.quantize import Codebook
from vqdna_jax.models.tokenizer import TokenizerConfig
from vqdna_jax.partition import AnyArray
from vqdna_jax.runtime import exports, shipped
from vqdna_jax.tasks.base import Codebooks
from vqdna_jax.tokenizers.base import Tokenizer
from vqdna_jax.tokenizers.learned import LearnedTokenizer
from vqdna_jax.training.settings import MaskedCodesSettings, VocabularySettings
from vqdna_jax.training.step import TrainState, begun_with

_FREE = {"dtype"}  # of computing; parameters are float32 whatever it is


@dataclasses.dataclass(frozen=True, eq=False)
class Start:
    """Trained parameters, on the host.

    Attributes:
        name: what config.init_from says. digest: of what was read: in the run's checkpoints, results and export.
    """

    name: str
    digest: str
    params: Params
    codebooks: Codebooks = ()

    def state(self, random: TrainState) -> TrainState:
        """Before the first step: `random`, with these parameters and codebooks in it."""
        return begun_with(random, self.params, self.codebooks)

    @property
    def lines(self) -> list[str]:
        """Of the plan."""
        what = "parameters and codebooks" if self.codebooks else "parameters"
        return [f"start      {self.name} ({self.digest[:12]}): its {what}, the optimizer afresh"]


def of_vocabulary(settings: VocabularySettings) -> Start | None:
    """Raises InputError: no export with a learned tokenizer, or one of another network than the config's."""
    name = settings.init_from
    if not name:
        return None
    exports.read_config(shipped.find(name) / exports.CONFIG, (exports.TOKENIZER, exports.PRETRAINED))
    tokenizer = load.load(name).tokenizer
    assert isinstance(tokenizer, LearnedTokenizer), "both schemas have one"
    _check_network(name, tokenizer.config, settings.model)
    params, codes = jax.device_get((tokenizer.params, tokenizer.codes_KxD))
    return Start(name, tokenizer.digest, params, tuple(map(_codebook, codes, tokenizer.counts_K)))


def of_masked(settings: MaskedCodesSettings, tokenizer: Tokenizer, schema: str) -> Start | None:
    """Raises InputError: no export of the `schema`, one over another tokenizer than the run's, or of another network
    than the config's."""
    name = settings.init_from
    if not name:
        return None
    exports.read_config(shipped.find(name) / exports.CONFIG, (schema,))
    model = pretrained.load(name)
    if model.tokenizer.digest != tokenizer.digest:
        raise InputError(
            f"config key init_from: {name} is over the tokenizer {model.tokenizer.digest[:12]}, and"
            f" tokenizer={settings.tokenizer} is {tokenizer.digest[:12]}; set --config.tokenizer={name}"
        )
    slots = _check_kind(name, model, settings)
    _check_network(name, model.transformer, settings.model.network(slots))
    return Start(name, model.digest, jax.device_get(model.weights))


def _check_kind(name: str, model: Pretrained, settings: MaskedCodesSettings) -> int:
    """Codes of the export's windows. Raises InputError: another kind of network, or filters for other windows."""
    kind, window_bp = name_of(model.transformer), model.window_bp
    if kind != settings.model.kind:
        found = f"{name} has another network: its model.kind is {kind}, the config's {settings.model.kind}"
        raise InputError(f"config key init_from: {found}; set --config.model.kind={kind}")
    if isinstance(model.transformer, HyenaEncoderConfig) and window_bp != settings.data.window_bp:
        found = f"{name} has filters for windows of {window_bp} bases, the config's are of {settings.data.window_bp}"
        raise InputError(f"config key init_from: {found}; set --config.data.window_bp={window_bp}")
    return model.context


def digests(start: Start | None) -> dict[str, str]:
    """As a stage gives them to its checkpoints."""
    return {"init_from_digest": start.digest} if start else {}


def plan_lines(start: Start | None) -> list[str]:
    return start.lines if start else []


def _codebook(codes_KxD: AnyArray, counts_K: AnyArray) -> Codebook:
    return Codebook(counts_K, codes_KxD * counts_K[:, None])


def _check_network(name: str, found: TokenizerConfig | NetworkConfig, wanted: Any) -> None:
    """Raises InputError that names every key in which the config's network is another than the export's."""
    has, asked = (dataclasses.asdict(config) for config in (found, wanted))
    other = [key for key in has if key not in _FREE and has[key] != asked[key]]
    if other:
        differ = ", ".join(f"model.{key} is {has[key]}, the config's {asked[key]}" for key in other)
        keys = " ".join(f"--config.model.{key}={has[key]}" for key in other)
        raise InputError(f"config key init_from: {name} has another network: its {differ}; set {keys}")
