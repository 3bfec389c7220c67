"""Saved pretrained models: a directory of config.json, model.safetensors and README.md, its tokenizer in it too;
`formats` has what lies in them."""

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from flax.traverse_util import unflatten_dict
from jax.sharding import Mesh

from vqdna_jax import partition
from vqdna_jax.inference.pretrained import Pretrained
from vqdna_jax.inference.saved import cards
from vqdna_jax.inference.saved.formats import FORMATS, Saved, Tensors, laid_out
from vqdna_jax.models.layers import Params
from vqdna_jax.models.networks import NetworkConfig, TrainedConfig
from vqdna_jax.runtime import exports, shipped
from vqdna_jax.runtime.exports import CONFIG, TENSORS
from vqdna_jax.tokenizers.base import Tokenizer
from vqdna_jax.tokenizers.learned import LearnedTokenizer
from vqdna_jax.version import versions


def save(
    directory: str | os.PathLike,
    tokenizer: Tokenizer,
    transformer: NetworkConfig,
    weights: Params,
    window_bp: int,
    length: int,
    card: Mapping[str, Any],
) -> str:
    """Writes a pretrained model so that `load` gives it back bit by bit, and returns its digest; see `tokenizer.save`.

    Args:
        weights: {"transformer", "heads"}, and "table" over a fixed tokenizer; replicated where arrays span processes.
        window_bp: bases of a training window. length: its codes without CLS, the longest context that it knows.
        card: as in `tokenizer.save`.
    """
    model = laid_out(tokenizer, transformer, weights, window_bp, length)
    described = {"schema": model.schema, "pretrained_digest": model.digest} | model.described()
    described |= cards.facts(card) | {"versions": versions()}
    exports.write(directory, model.replaces, described, model.tensors(), model.card(card))
    return model.digest


def load(directory: str | os.PathLike, mesh: Mesh | None = None) -> Pretrained:
    """Reads what `save` wrote, whole on every device of `mesh`, the first local one by default.

    Args:
        directory: or the name of a model that ships, as `shipped.find` takes it.

    Raises InputError: there is no such model, a file is missing, damaged or changed, the schema is another one, a
    tensor has another shape.
    """
    path, mesh = shipped.find(directory), mesh or partition.local_mesh()
    return _on_devices(_read(path, exports.read_config(path / CONFIG, FORMATS), mesh), mesh)


def changed(
    path: pathlib.Path, described: Mapping[str, Any], change: Callable[[Tensors], Tensors]
) -> tuple[dict[str, Any], Tensors]:
    """What config.json, which is `described`, has other than before, and the tensors, of what `change` makes of the
    model in `path`. Raises InputError as `load`."""
    model = _read(path, described, partition.local_mesh()).changed(change)
    return model.described() | {"pretrained_digest": model.digest}, model.tensors()


def _read(path: pathlib.Path, described: Mapping[str, Any], mesh: Mesh) -> Saved:
    model = FORMATS[described["schema"]].read(path, described, mesh)
    exports.check_digest(path / TENSORS, model.digest, described["pretrained_digest"])
    return model


def in_memory(
    tokenizer: LearnedTokenizer, transformer: TrainedConfig, weights: Params, window_bp: int, length: int
) -> Pretrained:
    """The model that `save` would write and `load` read, on the first local device."""
    mesh = partition.local_mesh()
    here = LearnedTokenizer.from_tensors(tokenizer.config, tokenizer.tensors, mesh)
    return _on_devices(laid_out(here, transformer, weights, window_bp, length), mesh)


def _on_devices(model: Saved, mesh: Mesh) -> Pretrained:
    return Pretrained(
        tokenizer=model.tokenizer,
        transformer=model.transformer,
        weights=unflatten_dict(partition.whole_on(mesh, dict(model.weights)), sep="/"),
        window_bp=model.window_bp,
        length=model.length,
        digest=model.digest,
        mesh=mesh,
    )
