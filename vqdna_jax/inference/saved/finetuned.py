"""Saved fine-tuned models: one small directory of what was trained, which knows its base and refuses another.

config.json, model.safetensors (head, and LoRA factors or, after full fine-tuning, the transformer) and README.md.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh

from vqdna_jax import partition, version
from vqdna_jax.errors import InputError
from vqdna_jax.inference.finetuned import FineTuned
from vqdna_jax.inference.pretrained import Pretrained
from vqdna_jax.inference.saved import cards
from vqdna_jax.inference.saved.formats import Expected
from vqdna_jax.labels.batches import Strands
from vqdna_jax.labels.sets import Kind
from vqdna_jax.models import lora
from vqdna_jax.models.attention import kernel_of_padded
from vqdna_jax.models.classifier import METHODS, READOUTS, Alignment, Classifier, Method, init
from vqdna_jax.models.layers import Params
from vqdna_jax.models.lora import LoraConfig
from vqdna_jax.models.transformer import Compute
from vqdna_jax.runtime import exports, shipped
from vqdna_jax.runtime.exports import CONFIG, FINETUNED, FINETUNED_1, TENSORS
from vqdna_jax.runtime.remote import places

BOTH = (FINETUNED, FINETUNED_1)
Tensors = Mapping[str, np.ndarray]
STRANDS = "strands"  # a key of config.json, if it is not one


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What was tuned, and for which labels; with the base it tells every parameter. Attributes of the last five but
    `strands`, which is `FineTuned`'s, are those of `Classifier`."""

    kind: Kind
    method: Method
    lora: LoraConfig
    pool: str
    hidden: int = 0
    places: int = 0
    align: Alignment = "start"
    form: int = 2
    strands: Strands = "one"

    def network(self, base: Pretrained, outputs: int) -> Classifier:
        platform, model = base.mesh.devices.flat[0].platform, base.transformer
        compute = Compute(attention=kernel_of_padded(platform, model.window, model.dtype))
        readout = {name: getattr(self, name) for name in ("pool", "hidden", "places", "align", "form")}
        return Classifier(model, compute, outputs, base.sizes, **readout)


def assemble(
    base: Pretrained,
    recipe: Recipe,
    params: Params,
    label_names: tuple[str, ...],
    target: tuple[float, float],
    long: str,
) -> FineTuned:
    """The model that `save` writes and `load` reads. `params`: what was trained, on the host."""
    weights = frozen = base.weights["transformer"]
    if recipe.method == "full":
        weights = partition.whole_on(base.mesh, params["transformer"])
    elif recipe.method == "lora":
        weights = partition.whole_on(base.mesh, lora.merge(recipe.lora, jax.device_get(frozen), params["lora"]))
    network = recipe.network(base, len(label_names))
    on_device = {"weights": weights, "head": partition.whole_on(base.mesh, params["head"])}
    digest = exports.digest(_described(base, recipe, label_names, target, long), exports.flat(params))
    said = label_names, target, long, digest, recipe.strands
    return FineTuned(base, network, recipe.kind, on_device["weights"], on_device["head"], *said)


def save(
    directory: str | os.PathLike, model: FineTuned, recipe: Recipe, params: Params, base: str, card: Mapping[str, Any]
) -> str:
    """Writes what was trained, whole or not at all, and returns the digest.

    Args:
        model: `assemble`d of `recipe` and `params`.
        base: the pretrained model, as `shipped.find` takes it; one that ships is kept by its name, one in an object
            store by its address, a directory relative to `directory`.
        card: as in `tokenizer.save`.
    """
    described = _described(model.base, recipe, model.label_names, model.target, model.long)
    text = cards.of_finetuned(described, model.digest, card)
    schema = FINETUNED if recipe.form == 2 else FINETUNED_1
    described = {"schema": schema, "finetuned_digest": model.digest} | described
    described |= {
        "base": base if places.is_remote(base) else _kept(shipped.find(base), directory),
        "steps": card.get("steps"),
        "versions": version.versions(),
    }
    exports.write(directory, BOTH, described, exports.flat(params), text)
    return model.digest


def _kept(base: pathlib.Path, directory: str | os.PathLike) -> str:
    return shipped.name_of(base) or os.path.relpath(base, directory)


def load(directory: str | os.PathLike, base: Pretrained) -> FineTuned:
    """Raises InputError: another base or tokenizer than it was trained on; a file is missing, damaged or changed."""
    path = pathlib.Path(directory)
    described = exports.read_config(path / CONFIG, BOTH)
    tensors = _read_tensors(path, described)
    for key, found in (("tokenizer_digest", base.tokenizer.digest), ("pretrained_digest", base.digest)):
        if found != described[key]:
            raise InputError(
                f"{path / CONFIG}: trained on a base whose {key} is {described[key][:12]}, this one's is {found[:12]};"
                " name the base model it was trained on"
            )
    recipe = _recipe(path / CONFIG, described)
    names, target = tuple(described["label_names"]), tuple(described["target"])
    exports.check_tensors(path / TENSORS, tensors, _expected(recipe, base, len(names)))
    return assemble(base, recipe, unflatten_dict(tensors, sep="/"), names, target, described["long"])


def changed(
    path: pathlib.Path, described: Mapping[str, Any], change: Callable[[Tensors], Tensors]
) -> tuple[dict[str, Any], Tensors]:
    """What config.json, which is `described`, has other than before, and the tensors, of what `change` makes of the
    model in `path`; its base is the same. Raises InputError: a file is missing, damaged or changed."""
    tensors = change(_read_tensors(path, described))
    return {"base": str(base_of(path)), "finetuned_digest": _digest(described, tensors)}, tensors


def _read_tensors(path: pathlib.Path, described: Mapping[str, Any]) -> Tensors:
    """Before anything is made of them: a file that was changed is told by its digest."""
    tensors = exports.read_tensors(path / TENSORS)
    exports.check_digest(path / TENSORS, _digest(described, tensors), str(described["finetuned_digest"]))
    return tensors


def _digest(described: Mapping[str, Any], tensors: Tensors) -> str:
    decides = exports.SCHEMAS[described["schema"]].keys - {"base", "finetuned_digest"} | {STRANDS}
    return exports.digest({key: value for key, value in described.items() if key in decides}, tensors)


def base_of(directory: str | os.PathLike) -> pathlib.Path:
    """Where a fine-tuned model's base lay when it was saved, or lies here if it ships. Raises InputError."""
    path = pathlib.Path(directory)
    base = exports.read_config(path / CONFIG, BOTH)["base"]
    if not isinstance(base, str):
        raise InputError(f"{path / CONFIG}: key base is {base!r}, expected a path; copy the directory again")
    if places.is_remote(base):  # whatever a model says, it is not what decides where to connect
        raise InputError(f"{path}: its base model is at {base}; name it (--base={base}), if that is a place you trust")
    place = pathlib.Path(os.path.normpath(path / base))
    return shipped.find(base) if base in shipped.names() and not place.exists() else place


def _described(
    base: Pretrained, recipe: Recipe, label_names: Sequence[str], target: tuple[float, float], long: str
) -> dict[str, Any]:
    readout: dict[str, Any] = {"places": recipe.places, "align": recipe.align} if recipe.form == 2 else {}
    if recipe.strands != "one":  # left out, an export is what it was, bitwise, and older versions read it
        readout[STRANDS] = recipe.strands
    return readout | {
        "kind": recipe.kind,
        "label_names": list(label_names),
        "method": recipe.method,
        "lora": dataclasses.asdict(recipe.lora),
        "pool": recipe.pool,
        "hidden": recipe.hidden,
        "target": list(target),
        "long": long,
        "pretrained_digest": base.digest,
        "tokenizer_digest": base.tokenizer.digest,
    }


def _recipe(path: pathlib.Path, described: Mapping[str, Any]) -> Recipe:
    if described["method"] not in METHODS:
        raise InputError(f"{path}: key method is {described['method']!r}, expected one of {', '.join(METHODS)}")
    unknown = [name for name in str(described["pool"]).split("+") if name not in READOUTS]
    if unknown:
        raise InputError(f"{path}: key pool has {unknown[0]!r}, expected some of {', '.join(READOUTS)}")
    factors = exports.typed(path, "lora", described["lora"], LoraConfig)
    if (strands := described.get(STRANDS, "one")) not in get_args(Strands):
        raise InputError(f"{path}: key {STRANDS} is {strands!r}, expected one of {', '.join(get_args(Strands))}")
    said = described["kind"], described["method"], factors, described["pool"], described["hidden"]
    if described["schema"] == FINETUNED_1:
        return Recipe(*said, form=1)
    return Recipe(*said, described["places"], described["align"], strands=strands)


def _expected(recipe: Recipe, base: Pretrained, outputs: int) -> Expected:
    tensors = flatten_dict(base.weights["transformer"], sep="/").items()
    shapes = tuple((name, jax.ShapeDtypeStruct(tensor.shape, tensor.dtype)) for name, tensor in tensors)
    return _trained(recipe.network(base, outputs), recipe.method, recipe.lora, shapes, base.mesh)


@functools.lru_cache(maxsize=64)
def _trained(
    network: Classifier,
    method: Method,
    factors: LoraConfig,
    transformer: tuple[tuple[str, jax.ShapeDtypeStruct], ...],
    mesh: Mesh,
) -> Expected:
    """Shape and dtype of every tensor."""

    def initial(transformer: Params) -> Params:
        return init(network, method, factors, transformer, 1, jax.random.key(0))

    return flatten_dict(partition.abstract_state(initial, mesh, unflatten_dict(dict(transformer), sep="/")), sep="/")
