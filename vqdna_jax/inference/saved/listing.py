"""What ships with the package, for `vqdna models`: read from the headers of its files."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import safetensors

from vqdna_jax.runtime import exports, shipped
from vqdna_jax.runtime.exports import CONFIG, TENSORS


def shipped_models() -> list[dict[str, Any]]:
    """Of each: name, kind, parameters, bytes, stored, bases_per_code, window_bp, steps, bases (all that it was trained
    on), species {name: bases}, corpus_digest, digest, tokenizer_digest, path. What is not recorded is None.

    Raises InputError: the installation is damaged.
    """
    return [_described(name, shipped.find(shipped.SHIPPED / name)) for name in shipped.names()]


def _described(name: str, path: pathlib.Path) -> dict[str, Any]:
    config = exports.read_config(path / CONFIG)
    species = config.get("species")
    return {
        "name": name,
        "kind": exports.SCHEMAS[config["schema"]].title,
        "parameters": parameters(path / TENSORS),
        "bytes": sum(file.stat().st_size for file in path.iterdir()),
        "stored": config.get("stored", "float32"),
        "bases_per_code": config.get("model", {}).get("bases_per_code"),
        **{key: config.get(key) for key in ("window_bp", "steps")},
        "bases": sum(species.values()) if species else None,
        "species": species,
        "corpus_digest": config.get("corpus_digest"),
        "digest": exports.last_digest(config),
        "tokenizer_digest": config.get("tokenizer_digest"),
        "path": str(path),
    }


def parameters(tensors: pathlib.Path) -> int:
    """How many numbers were learned: counts of codes are none of them."""
    with safetensors.safe_open(tensors, "numpy") as file:
        shapes = (file.get_slice(name).get_shape() for name in file.keys() if not name.endswith("/counts"))  # noqa: SIM118
        return sum(map(math.prod, shapes))


def describe(models: Sequence[Mapping[str, Any]]) -> str:
    """The list in words."""
    if not models:
        return "no model comes with this installation"
    return "\n".join(map(_words, models)) + (
        "\nA name does wherever a model's directory does: --model=NAME, config.pretrained, config.tokenizer,"
        " config.init_from, vqdna_jax.load(NAME).\nA directory of that name comes first. This is all that ships;"
        " nothing is downloaded."
    )


def _words(model: Mapping[str, Any]) -> str:
    r, species = model["bases_per_code"], model["species"]
    trained = "on data that is not recorded"
    if species:
        trained = f"on {model['bases'] / 1e6:.1f} Mb of {len(species)} genomes: {', '.join(species)}"
    codes = f", {r} base{'s' if r > 1 else ''} a code" if r else ""
    size = f"{model['parameters'] / 1e6:.2f} M parameters, {model['bytes'] / 1e6:.1f} MB in {model['stored']}"
    return (
        f"{model['name']:10} {model['kind']}, {size}{codes}, windows of {model['window_bp']} bases\n"
        f"{'':10} trained {trained}\n"
        f"{'':10} digest {model['digest']:.12}, tokenizer {model['tokenizer_digest'] or 'none':.12}, in {model['path']}"
    )
