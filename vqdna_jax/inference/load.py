"""`vqdna_jax.load`: any saved model by its directory."""

import os
import pathlib

from jax.sharding import Mesh

from vqdna_jax.errors import InputError
from vqdna_jax.inference.finetuned import FineTuned
from vqdna_jax.inference.pretrained import Pretrained
from vqdna_jax.inference.saved import finetuned, fixed_pretrained
from vqdna_jax.inference.saved import pretrained as saved_pretrained
from vqdna_jax.inference.saved.fixed_pretrained import FixedPretrained
from vqdna_jax.runtime import exports
from vqdna_jax.tokenizers.learned import Model

SCHEMAS = saved_pretrained.SCHEMAS | finetuned.SCHEMAS | fixed_pretrained.SCHEMAS


def load(
    directory: str | os.PathLike, mesh: Mesh | None = None, base: str | os.PathLike | None = None
) -> Model | FineTuned | FixedPretrained:
    """Reads a tokenizer, a pretrained model (also a baseline's) or a fine-tuned one.

    Args:
        mesh: the devices to put it on, whole on each; the first local one by default.
        base: of a fine-tuned model, the directory of its pretrained model; where it lay by default.

    Raises:
        InputError: a file is missing or damaged, the schema is another one, the base is not the one it was trained on.
    """
    path = pathlib.Path(directory)
    schema = exports.read_config(path / exports.CONFIG, SCHEMAS)["schema"]
    if schema not in finetuned.SCHEMAS:
        if base is not None:
            raise InputError(f"{path}: is not a fine-tuned model, so it has no base; leave the base out")
        return (
            fixed_pretrained.load(path, mesh)
            if schema in fixed_pretrained.SCHEMAS
            else saved_pretrained.load(path, mesh)
        )
    where = pathlib.Path(base) if base is not None else finetuned.base_of(path)
    if not where.exists():
        raise InputError(f"{path}: its base model is not in {where}; name its directory (--base=DIR)")
    return finetuned.load(path, pretrained(where, mesh))


def pretrained(directory: str | os.PathLike, mesh: Mesh | None = None) -> Pretrained | FixedPretrained:
    """A model to fine-tune. Raises InputError: as `load`; a tokenizer alone, or a model that is fine-tuned already."""
    model = load(directory, mesh)
    if not isinstance(model, Pretrained | FixedPretrained):
        raise InputError(f"{directory}: expected a pretrained model, the export directory of a stage 2 run")
    return model
