"""The stages by the name in `config.task`: the only place that knows it."""

from jax.sharding import Mesh
from ml_collections import ConfigDict

from vqdna_jax.errors import InputError
from vqdna_jax.runtime import exports, shipped
from vqdna_jax.stages.base import Stage
from vqdna_jax.stages.masked_codes import MaskedCodesStage
from vqdna_jax.stages.masked_tokens import MaskedTokensStage
from vqdna_jax.stages.vocabulary import VocabularyStage
from vqdna_jax.training.settings import (
    FinetuneSettings,
    MaskedCodesSettings,
    Settings,
    StageSettings,
    VocabularySettings,
    read,
)

SETTINGS: dict[str, type[StageSettings]] = {
    "vocabulary": VocabularySettings,
    "mcm": MaskedCodesSettings,
    "finetune": FinetuneSettings,
}

LEARNED, FIXED = (exports.TOKENIZER, exports.PRETRAINED), (exports.FIXED_TOKENIZER, exports.FIXED_PRETRAINED)


def read_settings(config: ConfigDict) -> StageSettings:
    """A config as the settings of its stage. Raises InputError naming the first key whose value cannot work."""
    return read(kind_of(config), config.to_dict())


def kind_of(config: ConfigDict) -> type[StageSettings]:
    """The settings of the stage that a config names. Raises InputError: there is no such stage."""
    task = config.get("task")
    if task not in SETTINGS:
        raise InputError(f"config key task: found {task!r}, expected one of {', '.join(SETTINGS)}")
    return SETTINGS[task]


def make_stage(settings: Settings, mesh: Mesh) -> Stage:
    """The stage, opened. Raises InputError: what the settings name cannot be read, or does not fit."""
    if isinstance(settings, VocabularySettings):
        return VocabularyStage.open(settings, mesh)
    if isinstance(settings, FinetuneSettings):
        from vqdna_jax.stages.finetune import FinetuneStage  # with SciPy and scikit-learn: two seconds

        return FinetuneStage.open(settings, mesh)
    assert isinstance(settings, MaskedCodesSettings)
    if settings.tokenizer:
        path = shipped.find(settings.tokenizer) / exports.CONFIG
        schema = exports.read_config(path, (*LEARNED, *FIXED))["schema"]
        if schema in FIXED:
            return MaskedTokensStage.open(settings, mesh)
    return MaskedCodesStage.open(settings, mesh)
