"""A copy of any saved model, perhaps in half the room (`vqdna export`)."""

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from vqdna_jax.errors import InputError
from vqdna_jax.inference.saved import cards, finetuned, pretrained
from vqdna_jax.runtime import exports, shipped
from vqdna_jax.runtime.exports import CARD, CONFIG, TOKENIZER
from vqdna_jax.runtime.files import behind_links, check_directory, read_whole
from vqdna_jax.tokenizers.learned import LearnedTokenizer

Dtype = Literal["float16", "float32"]
Tensors = Mapping[str, np.ndarray]
_STORES: dict[Dtype, Callable[[Tensors], Tensors]] = {"float16": exports.in_half, "float32": exports.in_full}
_ROUNDED = """
## Stored in {dtype}
Made by `vqdna export` of a model in float32. Matrices are rounded to float16 on the disk and read as float32. A rounded
model is another one: it has digests of its own, and a share of its codes differs from those of the original.
"""


def copy_model(
    model: str | os.PathLike,
    out: str | os.PathLike,
    dtype: Dtype = "float16",
    sections: str = "",
    facts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes a tokenizer, a pretrained model or a fine-tuned one to the directory `out`, whole or not at all.

    Args:
        model: its directory, or the name of one that ships.
        dtype: of the matrices on the disk; `load` gives float32 in any case. Rounding changes the digests, so what was
            trained or encoded with the original refuses the copy.
        sections: Markdown under "## TITLE" lines for the card: in the place of those of the same title, or new.
        facts: more keys for config.json.

    Returns: model, out, dtype, bytes, digest.

    Raises:
        InputError: no such model, damaged, or with tokens that have no tensors; `out` is the model, or something else
            than a model of its kind. StorageError: `out` cannot be written.
    """
    path = shipped.find(model)
    described = exports.read_config(path / CONFIG)
    if behind_links(out) == behind_links(path):
        raise InputError(f"{out}: is the model that is copied; name another directory")
    exports.refuse_foreign(pathlib.Path(out), [described["schema"]], "such a model")
    check_directory(out)
    store = _STORES[dtype]
    changes, tensors = _changed(path, described, lambda tensors: exports.in_full(store(tensors)))
    if "base" in changes:
        changes["base"] = shipped.name_of(changes["base"]) or os.path.relpath(changes["base"], out)
    digests = {described[key]: value for key, value in changes.items() if key.endswith("digest")}
    text = cards.copied(_card(path), digests, (_ROUNDED.format(dtype=dtype) if dtype == "float16" else "") + sections)
    schema = described["schema"]
    described |= changes | dict(facts or {}) | {"stored": dtype, "schema": exports.schema_on_disk(schema, dtype)}
    exports.write(out, [schema], described, store(tensors), text)
    size = sum(file.stat().st_size for file in pathlib.Path(out).iterdir())
    return {
        "model": os.fspath(model),
        "out": os.fspath(out),
        "dtype": dtype,
        "bytes": size,
        "digest": exports.last_digest(described),
    }


def read_sections(file: pathlib.Path) -> str:
    """Markdown for `copy_model`. Raises InputError: it cannot be read, or does not begin with a section."""
    try:
        text = file.read_text()
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read ({error}); expected Markdown in UTF-8") from error
    if not text.startswith("## "):
        raise InputError(f"{file}: begins with {text[:20]!r}; expected sections, each under a line '## TITLE'")
    return text


def _changed(
    path: pathlib.Path, described: Mapping[str, Any], change: Callable[[Tensors], Tensors]
) -> tuple[dict[str, Any], Tensors]:
    schema = described["schema"]
    if schema in finetuned.BOTH:
        return finetuned.changed(path, described, change)
    if schema in pretrained.FORMATS:
        return pretrained.changed(path, described, change)
    if schema == TOKENIZER:
        tokenizer = LearnedTokenizer.load(path, described).changed(change)
        return tokenizer.described(), tokenizer.tensors
    raise InputError(f"{path}: is {exports.SCHEMAS[schema].title}, which has no tensors; copy the directory")


def _card(path: pathlib.Path) -> str:
    try:
        return read_whole(path / CARD).decode()
    except (OSError, ValueError) as error:
        raise InputError(f"{path / CARD}: cannot be read ({error}); copy the export directory again") from error
