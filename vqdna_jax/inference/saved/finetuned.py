"""Saved fine-tuned models: one small directory of what was trained, which knows its base and refuses another.

config.json, model.safetensors (head, and LoRA factors or, after full fine-tuning, the transformer) and README.md.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from vqdna_jax import partition, version
from vqdna_jax.errors import InputError
from vqdna_jax.inference.finetuned import FineTuned
from vqdna_jax.inference.pretrained import Pretrained
from vqdna_jax.inference.saved import cards
from vqdna_jax.labels.batches import LabelledCodes
from vqdna_jax.models import lora
from vqdna_jax.models.attention import kernel_of_padded
from vqdna_jax.models.lora import LoraConfig
from vqdna_jax.models.transformer import Compute
from vqdna_jax.runtime import exports
from vqdna_jax.runtime.exports import CONFIG, FINETUNED, TENSORS
from vqdna_jax.tasks.base import Params
from vqdna_jax.tasks.finetune import METHODS, Finetune, FrozenBase

_DECIDES = exports.SCHEMAS[FINETUNED].keys - {"base", "finetuned_digest"}


def assemble(
    base: Pretrained,
    task: Finetune,
    params: Params,
    label_names: tuple[str, ...],
    target: tuple[float, float],
    long: str,
) -> FineTuned:
    """The model that `save` writes and `load` reads. `params`: what was trained, on the host."""
    weights = params.get("transformer", base.weights["transformer"])
    if task.method == "lora":
        weights = lora.merge(task.lora, jax.device_get(weights), params["lora"])
    kernel = kernel_of_padded(base.mesh.devices.flat[0].platform, task.model.window, task.model.dtype)
    merged = dataclasses.replace(task, method="head", compute=Compute(attention=kernel), dropout=0.0)
    on_device = partition.whole_on(base.mesh, {"weights": weights, "head": params["head"]})
    described = _described(base, task, label_names, target, long)
    digest = exports.digest(described, exports.flat(params))
    return FineTuned(base, merged, **on_device, label_names=label_names, target=target, long=long, digest=digest)


def save(
    directory: str | os.PathLike, model: FineTuned, task: Finetune, params: Params, base: str, card: Mapping[str, Any]
) -> str:
    """Writes what was trained, whole or not at all, and returns the digest.

    Args:
        model: `assemble`d of `task` and `params`. base: where the pretrained model lies; kept relative to `directory`.
        card: as in `tokenizer.save`.
    """
    described = _described(model.base, task, model.label_names, model.target, model.long)
    text = cards.of_finetuned(described, model.digest, card)
    described = {"schema": FINETUNED, "finetuned_digest": model.digest} | described
    described |= {"base": os.path.relpath(base, directory), "steps": card.get("steps"), "versions": version.versions()}
    exports.write(directory, [FINETUNED], described, exports.flat(params), text)
    return model.digest


def load(directory: str | os.PathLike, base: Pretrained) -> FineTuned:
    """Raises InputError: another base or tokenizer than it was trained on; a file is missing, damaged or changed."""
    path = pathlib.Path(directory)
    described = exports.read_config(path / CONFIG, [FINETUNED])
    tensors = exports.read_tensors(path / TENSORS)
    # Before anything is made of them: a file that was changed is told by its digest.
    digest = exports.digest({key: described[key] for key in _DECIDES}, tensors)
    exports.check_digest(path / TENSORS, digest, str(described["finetuned_digest"]))
    for key, found in (("tokenizer_digest", base.tokenizer.digest), ("pretrained_digest", base.digest)):
        if found != described[key]:
            raise InputError(
                f"{path / CONFIG}: trained on a base whose {key} is {described[key][:12]}, this one's is {found[:12]};"
                " name the base model it was trained on"
            )
    task = _task(path / CONFIG, described, base)
    exports.check_tensors(path / TENSORS, tensors, _expected(task, base))
    params = unflatten_dict(tensors, sep="/")
    names, target = tuple(described["label_names"]), tuple(described["target"])
    return assemble(base, task, params, names, target, described["long"])


def base_of(directory: str | os.PathLike) -> pathlib.Path:
    """Where a fine-tuned model's base lay when it was saved. Raises InputError."""
    path = pathlib.Path(directory)
    base = exports.read_config(path / CONFIG, [FINETUNED])["base"]
    if not isinstance(base, str):
        raise InputError(f"{path / CONFIG}: key base is {base!r}, expected a path; copy the directory again")
    return pathlib.Path(os.path.normpath(path / base))


def _described(
    base: Pretrained, task: Finetune, label_names: Sequence[str], target: tuple[float, float], long: str
) -> dict[str, Any]:
    return {
        "kind": task.kind,
        "label_names": list(label_names),
        "method": task.method,
        "lora": dataclasses.asdict(task.lora),
        "pool": task.pool,
        "hidden": task.hidden,
        "target": list(target),
        "long": long,
        "pretrained_digest": base.digest,
        "tokenizer_digest": base.tokenizer.digest,
    }


def _task(path: pathlib.Path, described: Mapping[str, Any], base: Pretrained) -> Finetune:
    if described["method"] not in METHODS:
        raise InputError(f"{path}: key method is {described['method']!r}, expected one of {', '.join(METHODS)}")
    factors = exports.typed(path, "lora", described["lora"], LoraConfig)
    return Finetune(
        base.transformer,
        Compute(),
        described["kind"],
        len(described["label_names"]),
        described["method"],
        factors,
        described["pool"],
        described["hidden"],
    )


def _expected(task: Finetune, base: Pretrained) -> dict[str, jax.ShapeDtypeStruct]:
    frozen = FrozenBase(base.vectors_KxE(), base.weights["transformer"])

    def init():
        codes, lengths = jnp.zeros((1, 1, 1, len(frozen.vectors_KxE)), jnp.int32), jnp.zeros((1, 1), jnp.int32)
        return task.init_params(frozen, LabelledCodes(codes, None, lengths), jax.random.key(0))

    return flatten_dict(partition.abstract_state(init, base.mesh), sep="/")
