"""The files of an export, config.json and model.safetensors, read and checked: every complaint is one line.

No code is in them: JSON and safetensors, whose names, shapes and dtypes must be those that config.json asks for.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict

from vqdna_jax.errors import InputError
from vqdna_jax.runtime import shipped
from vqdna_jax.runtime.files import read_json, read_whole, replace_directory
from vqdna_jax.runtime.typed import BadField, Fields, read
from vqdna_jax.version import __version__

CONFIG, TENSORS, CARD = "config.json", "model.safetensors", "README.md"
MERGES, VOCABULARY = "tokenizer.json", "vocabulary.json"  # of byte pairs; of tokens that a vocabulary fixes


class Schema(NamedTuple):
    """What an export is, in words, and the keys that its config.json must have."""

    title: str
    keys: frozenset[str]


def _schema(title: str, *keys: str) -> Schema:
    return Schema(title, frozenset(keys))


TOKENIZER, FIXED_TOKENIZER = "vqdna-tokenizer/1", "vqdna-fixed-tokenizer/1"
PRETRAINED, FIXED_PRETRAINED = "vqdna-pretrained/1", "vqdna-fixed-pretrained/1"
IMPORTED = "vqdna-imported/1"
FINETUNED, FINETUNED_1 = "vqdna-finetuned/2", "vqdna-finetuned/1"
_OF_FINETUNED = (
    *("kind", "label_names", "method", "lora", "pool", "hidden", "target", "long", "base"),
    *("pretrained_digest", "tokenizer_digest", "finetuned_digest"),
)
_POSITIVE = {"window_bp", "length", "table_width"}
_LATER = {"model": {"reach": 0}}  # what is meant where a key is not there that came after the schema
_PARTS = {"layers", "blocks"}  # of which each has tensors of its own, or a row of those that all share
LARGEST = 1 << 40  # of sizes, more than any is
# All that was ever written. A change that older versions cannot read gets a new number, and a line here.
SCHEMAS = {
    TOKENIZER: _schema("a tokenizer", "model", "tokenizer_digest", "window_bp"),
    FIXED_TOKENIZER: _schema("a fixed tokenizer", "kind", "k", "vocabulary", "digest"),
    PRETRAINED: _schema(
        "a pretrained model", "model", "tokenizer_digest", "window_bp", "transformer", "pretrained_digest"
    ),
    FIXED_PRETRAINED: _schema(
        "a pretrained model over a fixed tokenizer",
        *("tokenizer", "tokenizer_digest", "transformer", "pretrained_digest", "window_bp", "length", "table_width"),
    ),
    IMPORTED: _schema(
        "an imported model",
        *("tokenizer", "tokenizer_digest", "network", "transformer", "pretrained_digest", "window_bp", "length"),
    ),
    FINETUNED: _schema("a fine-tuned model", *_OF_FINETUNED, "places", "align"),
    FINETUNED_1: _schema("a fine-tuned model", *_OF_FINETUNED),
}
# The same with matrices in float16, which versions that do not know these numbers would take for damaged. For the rest
# of the program it is the schema above: `read_config` says that.
_HALF = {
    TOKENIZER: "vqdna-tokenizer/2",
    PRETRAINED: "vqdna-pretrained/2",
    FIXED_PRETRAINED: "vqdna-fixed-pretrained/2",
    IMPORTED: "vqdna-imported/2",
    FINETUNED: "vqdna-finetuned/3",
    FINETUNED_1: "vqdna-finetuned/4",
}
_WHOLE = {half: whole for whole, half in _HALF.items()}


def schema_on_disk(schema: str, stored: str) -> str:
    """What config.json says where matrices are stored in this dtype."""
    return _HALF[schema] if stored == "float16" else schema


def write(
    directory: str | os.PathLike,
    replaces: Collection[str],
    described: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    card: str,
) -> None:
    """The three files in the place of an export of a schema that it `replaces`, or of nothing; whole or not at all."""
    directory = pathlib.Path(directory)
    refuse_foreign(directory, replaces, "an exported model")
    files = {CONFIG: as_json(described), TENSORS: safetensors.numpy.save(dict(tensors)), CARD: card.encode()}
    replace_directory(directory, files)


def files_of(model: str | os.PathLike) -> list[pathlib.Path]:
    """What a model may be read from. Raises InputError as `shipped.find`."""
    return [shipped.find(model) / name for name in (CONFIG, TENSORS, CARD, MERGES, VOCABULARY)]


def as_json(described: Mapping[str, Any]) -> bytes:
    return (json.dumps(described, indent=2) + "\n").encode()


def flat(tree: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of a tree of parameters, contiguous on the host, by their paths: "encoder/stem/bias"."""
    return {name: np.ascontiguousarray(x) for name, x in flatten_dict(jax.device_get(dict(tree)), sep="/").items()}


def refuse_foreign(directory: pathlib.Path, schemas: Collection[str], what: str) -> None:
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


def last_digest(described: Mapping[str, Any]) -> str:
    """Of those in config.json the one of what was trained last, which covers the others."""
    keys = (f"{of}digest" for of in ("finetuned_", "pretrained_", "tokenizer_", ""))
    return next(described[key] for key in keys if key in described)


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


def read_config(path: pathlib.Path, schemas: Collection[str] = SCHEMAS.keys()) -> dict[str, Any]:
    """config.json of one of the `schemas`, with the keys that it must have; the schema is that of float32 in any case.

    Raises InputError: no such file, damaged, of a newer version, of a run instead of its export, of another schema.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise InputError(f"{path}: is no file; copy the export directory again")
    described = read_json(path, "the export directory of a run; if it is one, copy it again")
    schema = described.get("schema")
    schema = _WHOLE.get(schema, schema) if isinstance(schema, str) else schema
    if not isinstance(schema, str) or schema not in schemas:
        raise InputError(_unexpected(path, schema, schemas))
    described["schema"] = schema
    missing = SCHEMAS[schema].keys - described.keys()
    if missing:
        raise InputError(f"{path}: no key {sorted(missing)[0]!r}; copy the export directory again")
    for key, value in described.items():
        recorded = value is not None or schema != TOKENIZER  # it may be unknown what a tokenizer was trained on
        if key in _POSITIVE and recorded and not (type(value) is int and 0 < value <= LARGEST):
            raise InputError(f"{path}: key {key} is {value!r}, expected a positive integer; copy the directory again")
        if key.endswith("digest") and not isinstance(value, str):
            raise InputError(f"{path}: key {key} is {value!r}, expected a text; copy the export directory again")
    return {key: _LATER.get(key, {}) | value if isinstance(value, dict) else value for key, value in described.items()}


def _unexpected(path: pathlib.Path, schema: object, expected: Collection[str]) -> str:
    """What is wrong with a config.json of such a schema, and what to do."""
    if schema is None and (path.parent / "export" / CONFIG).exists():
        return f"{path.parent}: is the workdir of a run; name its export, {path.parent / 'export'}"
    if isinstance(schema, str) and schema not in SCHEMAS:
        name, _, number = schema.rpartition("/")
        known = [int(known.rpartition("/")[2]) for known in (*SCHEMAS, *_WHOLE) if known.rpartition("/")[0] == name]
        if known and number.isdigit() and int(number) > max(known):
            return (
                f"{path}: schema is {schema!r}, newer than the {name}/{max(known)} that vqdna_jax {__version__} reads;"
                " upgrade it (pip install -U vqdna_jax)"
            )
    found = f", {SCHEMAS[schema].title}" if isinstance(schema, str) and schema in SCHEMAS else ""
    wanted = " or ".join(f"{SCHEMAS[name].title} ({name})" for name in expected)
    return f"{path}: schema is {schema!r}{found}; expected {wanted}; name the export directory of a run"


def typed(
    path: pathlib.Path, key: str, values: object, kind: type[Fields], tensors: Mapping[str, np.ndarray] | None = None
) -> Fields:
    """The dataclass `kind` from what config.json holds under `key`: every field, as its type asks, and nothing else.

    Nothing of it may be more than there is of the `tensors`: a network of such a size would be laid out, to compare.
    """
    try:
        found = read(kind, values, f"{key}.", complete=True)
    except BadField as error:
        raise InputError(f"{path}: {error}; this is vqdna_jax {__version__}") from error
    if tensors is not None:
        _check_sizes(path, key, vars(found), tensors)
    return found


def _check_sizes(path: pathlib.Path, key: str, fields: Mapping[str, object], tensors: Mapping[str, np.ndarray]) -> None:
    elements = sum(tensor.size for tensor in tensors.values())
    parts = max([len(tensors), *(len(tensor) for tensor in tensors.values() if tensor.ndim > 3)])
    for name, value in fields.items():
        most = parts if name in _PARTS else elements
        if isinstance(value, int) and value > most:
            told = (
                f"key {key}.{name} is {value}, and {TENSORS} has {most:,} {'tensors' if name in _PARTS else 'weights'}"
            )
            raise InputError(f"{path}: {told}; copy the export directory again")


def in_half(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same with matrices in float16, for a file of half the size; `read_tensors` gives float32 again.

    Vectors stay as they are: norms, biases and counts of codes are few, and a count may be more than float16 holds.

    Raises InputError: so is a number of a matrix.
    """
    with np.errstate(over="ignore"):
        halves = {name: tensor.astype(np.float16) for name, tensor in tensors.items() if tensor.ndim > 1}
    for name, half in halves.items():
        if not np.isfinite(half).all():
            raise InputError(
                f"tensor {name}: holds a number that float16 does not, over 65,504; copy it with --dtype=float32"
            )
    return {**tensors, **halves}


def in_full(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same numbers in float32 where they are in float16."""
    return {name: t.astype(np.float32) if t.dtype == np.float16 else t for name, t in tensors.items()}


def read_tensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Those in float16 on the disk come as float32, which digests are of."""
    try:
        return in_full(safetensors.numpy.load(read_whole(path)))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; copy the export directory again") from error
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{path}: damaged ({error}); copy the export directory again") from error
