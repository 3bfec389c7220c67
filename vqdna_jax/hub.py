"""The saved tokenizer: a directory of config.json, model.safetensors and README.md, and the `Model` read from it.

Legend: K codebook size, D width.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

import vqdna_jax
from vqdna_jax import model_card, partition
from vqdna_jax.atomic import replace_directory
from vqdna_jax.errors import InputError
from vqdna_jax.models.quantize import Codebook
from vqdna_jax.models.tokenizer import Decoder, Encoder, TokenizerConfig
from vqdna_jax.trained_model import Model

SCHEMA = "vqdna-tokenizer/1"
CONFIG, TENSORS, CARD = "config.json", "model.safetensors", "README.md"


def save(
    directory: str | os.PathLike,
    config: TokenizerConfig,
    params: Mapping[str, Any],
    codebooks: Sequence[Codebook],
    card: Mapping[str, Any],
) -> str:
    """Writes a tokenizer so that `load` gives it back bit by bit, and returns its digest.

    The directory appears whole or not at all; an export that is already there is replaced, other files in it are kept.
    Call it on one process; arrays that span processes must be replicated.

    Args:
        params: {"encoder": ..., "decoder": ...} as in the train state; `codebooks`: one a level.
        card: what the model card tells, every key optional: result (flat metrics), config (of the run), species
            ({name: training bases}), steps, date, command, throughput (bases a second).

    Raises:
        InputError: the directory holds something else. StorageError: it cannot be written.
    """
    directory = pathlib.Path(directory)
    _refuse_foreign(directory)
    tensors = _tensors(params, codebooks)
    model = dataclasses.asdict(config)
    digest = _digest(model, tensors)
    described = {
        "schema": SCHEMA,
        "tokenizer_digest": digest,
        "model": model,
        "codebook_sizes": list(config.codebook_sizes),
        "receptive_codes": config.receptive_codes,
        "window_bp": (card.get("config") or {}).get("data", {}).get("window_bp"),
        "steps": card.get("steps"),
        "versions": versions(),
    }
    files = {
        CONFIG: (json.dumps(described, indent=2) + "\n").encode(),
        TENSORS: safetensors.numpy.save(tensors),
        CARD: model_card.write(config, digest, card).encode(),
    }
    replace_directory(directory, files)
    return digest


def load(directory: str | os.PathLike) -> Model:
    """Reads a tokenizer that `save` wrote, onto the first local device.

    Raises:
        InputError: a file is missing or damaged, the schema is another one, a tensor is missing or has another shape.
    """
    directory = pathlib.Path(directory)
    described = _read_config(directory / CONFIG)
    config = _tokenizer_config(directory / CONFIG, described["model"])
    tensors = _read_tensors(directory / TENSORS)
    mesh = partition.make_mesh(devices=jax.local_devices()[:1])
    expected = _expected_tensors(config, mesh)
    _check_tensors(directory / TENSORS, tensors, expected)
    digest = _digest(described["model"], tensors)
    if digest != described["tokenizer_digest"]:
        raise InputError(
            f"{directory / TENSORS}: the digest is {digest[:12]}, {CONFIG} says {described['tokenizer_digest'][:12]};"
            " the files are damaged or do not belong together, copy the directory again"
        )
    placed = {name: jax.device_put(tensors[name], leaf.sharding) for name, leaf in expected.items()}
    codes_KxD = tuple(placed.pop(f"codebook_{n}/codes") for n in range(1, len(config.codebook_sizes) + 1))
    counts_K = tuple(np.asarray(placed.pop(f"codebook_{n}/counts")) for n in range(1, len(codes_KxD) + 1))
    return Model(config, digest, described["window_bp"], unflatten_dict(placed, sep="/"), codes_KxD, counts_K, mesh)


def _tensors(params: Mapping[str, Any], codebooks: Sequence[Codebook]) -> dict[str, np.ndarray]:
    """Flat names to arrays on the host."""
    params, codebooks = jax.device_get((dict(params), tuple(codebooks)))
    tensors = dict(flatten_dict(params, sep="/"))
    for n, codebook in enumerate(codebooks, start=1):
        tensors[f"codebook_{n}/codes"] = codebook.sums_KxD / np.maximum(codebook.counts_K, 1e-12)[:, None]
        tensors[f"codebook_{n}/counts"] = codebook.counts_K
    return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}


def _digest(model: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str:
    """sha256 of what decides the codes: the network's config and every tensor by name. Other facts do not count."""
    digest = hashlib.sha256(json.dumps(model, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tensor.shape}\n".encode())
        digest.update(tensor.data)
    return digest.hexdigest()


def _expected_tensors(config: TokenizerConfig, mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape, dtype and sharding of every tensor of such a model."""

    def init():
        key = jax.random.key(0)
        bases = jnp.zeros((1, config.bases_per_code), jnp.uint8)
        features = jnp.zeros((1, 1, config.width), config.dtype)
        levels = {
            f"codebook_{n}": {"codes": jnp.zeros((size, config.width)), "counts": jnp.zeros(size)}
            for n, size in enumerate(config.codebook_sizes, start=1)
        }
        encoder, decoder = Encoder(config).init(key, bases), Decoder(config).init(key, features)
        return {"encoder": encoder["params"], "decoder": decoder["params"], **levels}

    return flatten_dict(partition.abstract_state(init, mesh), sep="/")


def _check_tensors(path: pathlib.Path, tensors: Mapping[str, np.ndarray], expected: Mapping[str, Any]) -> None:
    for name in sorted(tensors.keys() | expected.keys()):
        found = f"{tensors[name].dtype}{list(tensors[name].shape)}" if name in tensors else "missing"
        wanted = f"{expected[name].dtype}{list(expected[name].shape)}" if name in expected else "no such tensor"
        if found != wanted:
            raise InputError(f"{path}: tensor {name} is {found}, {CONFIG} asks for {wanted}; export the model again")


def _read_config(path: pathlib.Path) -> dict[str, Any]:
    try:
        described = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected the export directory of a run") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); copy the export directory again") from error
    schema = described.get("schema") if isinstance(described, dict) else None
    if schema != SCHEMA:
        raise InputError(f"{path}: schema is {schema!r}, expected {SCHEMA!r}; name the export directory of a run")
    missing = {"model", "tokenizer_digest", "window_bp"} - described.keys()
    if missing:
        raise InputError(f"{path}: no key {sorted(missing)[0]!r}; copy the export directory again")
    return described


def _tokenizer_config(path: pathlib.Path, model: Mapping[str, Any]) -> TokenizerConfig:
    names = {field.name for field in dataclasses.fields(TokenizerConfig)}
    odd = sorted(names ^ set(model))
    if odd:
        state = "missing" if odd[0] in names else "unknown"
        raise InputError(f"{path}: key model.{odd[0]} is {state}; this is vqdna_jax {vqdna_jax.__version__}")
    for name, value in dataclasses.asdict(TokenizerConfig()).items():
        if type(model[name]) is not type(value):
            raise InputError(f"{path}: key model.{name} is {model[name]!r}, expected {type(value).__name__}")
    return TokenizerConfig(**model)


def _read_tensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; copy the export directory again") from error
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{path}: damaged ({error}); copy the export directory again") from error


def versions() -> dict[str, str]:
    """Of Python, this package and those that decide the numbers, for exports and checkpoints."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "safetensors")
    own = {"python": platform.python_version(), "vqdna-jax": vqdna_jax.__version__}
    return own | {name: importlib.metadata.version(name) for name in packages}


def _refuse_foreign(directory: pathlib.Path) -> None:
    if directory.is_dir() and not any(directory.iterdir()):
        return
    if directory.exists():
        try:
            _read_config(directory / CONFIG)
        except (InputError, NotADirectoryError) as error:
            raise InputError(f"{directory}: exists and is not an exported model; name a new directory") from error
