"""`vqdna_jax.load`: any saved model by its directory, or by its name."""

import dataclasses
import os
import pathlib

from jax.sharding import Mesh

from vqdna_jax.errors import InputError, plainly
from vqdna_jax.inference.model import Model
from vqdna_jax.inference.saved import finetuned, pretrained
from vqdna_jax.runtime import shipped
from vqdna_jax.runtime.exports import CONFIG, FINETUNED, FINETUNED_1, read_config
from vqdna_jax.tokenizers import load as saved_tokenizers


@plainly
def load(
    model: str | os.PathLike,
    mesh: Mesh | None = None,
    base: str | os.PathLike | None = None,
    batch: int | None = None,
) -> Model:
    """Reads a tokenizer, a pretrained model or a fine-tuned one, over learned codes or fixed tokens.

    Args:
        model: its directory; or the name of one that comes with the package, "mini", unless there is such a directory.
        mesh: the devices to put it on, whole on each; the first local one by default.
        base: of a fine-tuned model, its pretrained model, in the same way; where it lay by default.
        batch: codes that are computed at once, see `Model.with_batch`; by default as many as suit the device.

    Raises:
        InputError: there is no such model, a file is missing or damaged, the schema is another one or of a newer
            version, the base is not the one it was trained on.
    """
    found = dataclasses.replace(_load(shipped.find(model), mesh, base), name=os.fspath(model))
    return found if batch is None else found.with_batch(batch)


def _load(path: pathlib.Path, mesh: Mesh | None, base: str | os.PathLike | None) -> Model:
    schema = read_config(path / CONFIG)["schema"]
    if schema in (FINETUNED, FINETUNED_1):
        return _finetuned(path, mesh, base)
    if base is not None:
        raise InputError(f"{path}: is not a fine-tuned model, so it has no base; leave the base out")
    if schema in pretrained.FORMATS:
        model = pretrained.load(path, mesh)
        return Model(str(path), model.tokenizer, model)
    return Model(str(path), saved_tokenizers.load(path, mesh))


def _finetuned(path: pathlib.Path, mesh: Mesh | None, base: str | os.PathLike | None) -> Model:
    where = shipped.find(base) if base is not None else finetuned.base_of(path)
    if not where.exists():
        raise InputError(f"{path}: its base model is not in {where}; name its directory (--base=DIR)")
    model = finetuned.load(path, pretrained.load(where, mesh))
    return Model(str(path), model.base.tokenizer, model.base, model)
