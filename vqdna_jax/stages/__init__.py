"""The stages by the name in `config.task`: the only place that knows it."""

import pathlib

from jax.sharding import Mesh

from vqdna_jax.inference.saved import pretrained
from vqdna_jax.runtime import exports
from vqdna_jax.stages.base import Stage
from vqdna_jax.stages.masked_codes import MaskedCodesStage
from vqdna_jax.stages.masked_tokens import MaskedTokensStage
from vqdna_jax.stages.vocabulary import VocabularyStage
from vqdna_jax.tokenizers import fixed


def make_stage(config, mesh: Mesh) -> Stage:
    """The stage, opened. Raises InputError: what the config names cannot be read, or does not fit."""
    if config.task == "vocabulary":
        return VocabularyStage.open(config, mesh)
    if config.task == "finetune":
        from vqdna_jax.stages.finetune import FinetuneStage  # with SciPy and scikit-learn: two seconds

        return FinetuneStage.open(config, mesh)
    if config.tokenizer:
        path = pathlib.Path(config.tokenizer) / exports.CONFIG
        schema = exports.read_config(path, pretrained.SCHEMAS | fixed.SCHEMAS)["schema"]
        if schema in fixed.SCHEMAS:
            return MaskedTokensStage.open(config, mesh)
    return MaskedCodesStage.open(config, mesh)
