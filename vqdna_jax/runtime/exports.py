"""The files of an export, config.json and model.safetensors, read and checked: every complaint is one line.

No code is in them: JSON and safetensors, whose names, shapes and dtypes must be those that config.json asks for.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from vqdna_jax.errors import InputError
from vqdna_jax.runtime.files import replace_directory
from vqdna_jax.runtime.typed import BadField, Fields, read
from vqdna_jax.version import __version__

CONFIG, TENSORS, CARD = "config.json", "model.safetensors", "README.md"


def write(
    directory: str | os.PathLike,
    schemas: Mapping[str, set[str]],
    described: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    card: str,
) -> None:
    """The three files in the place of an export of one of the `schemas`, or of nothing; whole or not at all."""
    directory = pathlib.Path(directory)
    refuse_foreign(directory, schemas, "an exported model")
    files = {
        CONFIG: (json.dumps(described, indent=2) + "\n").encode(),
        TENSORS: safetensors.numpy.save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}),
        CARD: card.encode(),
    }
    replace_directory(directory, files)


def refuse_foreign(directory: pathlib.Path, schemas: Mapping[str, set[str]], what: str) -> None:
    """Raises InputError where `directory` is there, not empty and not `what`, which one of the `schemas` tells."""
    if directory.is_dir() and not any(directory.iterdir()):
        return
    if directory.exists():
        try:
            read_config(directory / CONFIG, schemas)
        except (InputError, NotADirectoryError) as error:
            raise InputError(f"{directory}: exists and is not {what}; name a new directory") from error


def digest(described: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str:
    """sha256 of what decides results: what is `described` and every tensor by name."""
    sha = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        sha.update(f"\n{name} {tensor.dtype} {tensor.shape}\n".encode())
        sha.update(tensor.data)
    return sha.hexdigest()


def check_digest(path: pathlib.Path, found: str, expected: str) -> None:
    if found != expected:
        raise InputError(
            f"{path}: the digest is {found[:12]}, {CONFIG} says {expected[:12]};"
            " the files are damaged or do not belong together, copy the directory again"
        )


def check_tensors(path: pathlib.Path, tensors: Mapping[str, np.ndarray], expected: Mapping[str, Any]) -> None:
    for name in sorted(tensors.keys() | expected.keys()):
        found = f"{tensors[name].dtype}{list(tensors[name].shape)}" if name in tensors else "missing"
        wanted = f"{expected[name].dtype}{list(expected[name].shape)}" if name in expected else "no such tensor"
        if found != wanted:
            raise InputError(f"{path}: tensor {name} is {found}, {CONFIG} asks for {wanted}; export the model again")


def read_config(path: pathlib.Path, schemas: Mapping[str, set[str]]) -> dict[str, Any]:
    """config.json of one of the `schemas`, each with the keys it must have."""
    try:
        described = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected the export directory of a run") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); copy the export directory again") from error
    schema = described.get("schema") if isinstance(described, dict) else None
    if schema not in schemas:
        expected = " or ".join(map(repr, schemas))
        raise InputError(f"{path}: schema is {schema!r}, expected {expected}; name the export directory of a run")
    missing = schemas[schema] - described.keys()
    if missing:
        raise InputError(f"{path}: no key {sorted(missing)[0]!r}; copy the export directory again")
    return described


def typed(path: pathlib.Path, key: str, values: object, kind: type[Fields]) -> Fields:
    """The dataclass `kind` from what config.json holds under `key`: every field, as its type asks, and nothing else."""
    try:
        return read(kind, values, f"{key}.", complete=True)
    except BadField as error:
        raise InputError(f"{path}: {error}; this is vqdna_jax {__version__}") from error


def read_tensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; copy the export directory again") from error
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{path}: damaged ({error}); copy the export directory again") from error
