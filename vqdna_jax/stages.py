"""The stages by the name in `config.task`: the only place that branches on it."""

import pathlib
from typing import Any

from jax.sharding import Mesh

from vqdna_jax import export_files, fixed_tokenizer, hub
from vqdna_jax.tokens_stage import MaskedTokensStage
from vqdna_jax.window_stages import MaskedCodesStage, VocabularyStage


def make_stage(config, mesh: Mesh) -> Any:
    """Raises InputError: what the config names cannot be read, or does not fit."""
    stage: Any = {"vocabulary": VocabularyStage, "mcm": MaskedCodesStage}.get(config.task)
    if config.task == "finetune":
        from vqdna_jax.finetune_stage import FinetuneStage as stage  # with SciPy and scikit-learn: two seconds
    if config.task == "mcm" and config.tokenizer:
        path = pathlib.Path(config.tokenizer) / export_files.CONFIG
        schema = export_files.read_config(path, hub.SCHEMAS | fixed_tokenizer.SCHEMAS)["schema"]
        stage = MaskedTokensStage if schema in fixed_tokenizer.SCHEMAS else stage
    return stage(config, mesh)
