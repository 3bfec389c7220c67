"""The stages by the name in `config.task`: the only place that branches on it."""

import pathlib
from typing import Any

from jax.sharding import Mesh

from vqdna_jax.inference.saved import pretrained
from vqdna_jax.runtime import exports
from vqdna_jax.stages.masked_codes import MaskedCodesStage
from vqdna_jax.stages.masked_tokens import MaskedTokensStage
from vqdna_jax.stages.vocabulary import VocabularyStage
from vqdna_jax.tokenizers import fixed


def make_stage(config, mesh: Mesh) -> Any:
    """Raises InputError: what the config names cannot be read, or does not fit."""
    stage: Any = {"vocabulary": VocabularyStage, "mcm": MaskedCodesStage}.get(config.task)
    if config.task == "finetune":
        from vqdna_jax.stages.finetune import FinetuneStage as stage  # with SciPy and scikit-learn: two seconds
    if config.task == "mcm" and config.tokenizer:
        path = pathlib.Path(config.tokenizer) / exports.CONFIG
        schema = exports.read_config(path, pretrained.SCHEMAS | fixed.SCHEMAS)["schema"]
        stage = MaskedTokensStage if schema in fixed.SCHEMAS else stage
    return stage(config, mesh)
