"""Saved models: a directory of config.json, model.safetensors and README.md, and the `Model` read from it.

A pretrained model's directory holds its tokenizer too: one directory is all that a user needs.

Legend: K codebook size, D width.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh

from vqdna_jax import partition
from vqdna_jax.inference.pretrained import Pretrained
from vqdna_jax.inference.saved import cards
from vqdna_jax.models.heads import Heads
from vqdna_jax.models.quantize import Codebook
from vqdna_jax.models.tokenizer import Decoder, Encoder, TokenizerConfig
from vqdna_jax.models.transformer import Transformer, TransformerConfig
from vqdna_jax.runtime import exports
from vqdna_jax.runtime.exports import CONFIG, TENSORS
from vqdna_jax.tokenizers.learned import Model
from vqdna_jax.version import versions

TOKENIZER, PRETRAINED = "vqdna-tokenizer/1", "vqdna-pretrained/1"
SCHEMAS = {
    TOKENIZER: {"model", "tokenizer_digest", "window_bp"},
    PRETRAINED: {"model", "tokenizer_digest", "window_bp", "transformer", "pretrained_digest"},
}
_TRANSFORMER, _HEADS = "transformer/", "heads/"


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
    params, codebooks = jax.device_get((dict(params), tuple(codebooks)))
    codes = [codebook.sums_KxD / np.maximum(codebook.counts_K, 1e-12)[:, None] for codebook in codebooks]
    tensors = _tokenizer_tensors(params, codes, [codebook.counts_K for codebook in codebooks])
    model = dataclasses.asdict(config)
    digest = exports.digest(model, tensors)
    run = card.get("config") or {}
    described = {
        "schema": TOKENIZER,
        "tokenizer_digest": digest,
        "model": model,
        "codebook_sizes": list(config.codebook_sizes),
        "receptive_codes": config.receptive_codes,
        "window_bp": run.get("data", {}).get("window_bp"),
        "hidden_share": run.get("hidden_share"),
        "steps": card.get("steps"),
        "versions": versions(),
    }
    exports.write(directory, SCHEMAS, described, tensors, cards.write(config, digest, card))
    return digest


def save_pretrained(
    directory: str | os.PathLike,
    tokenizer: Model,
    transformer: TransformerConfig,
    weights: Mapping[str, Any],
    window_bp: int,
    card: Mapping[str, Any],
) -> str:
    """Writes a transformer, {"transformer": params, "heads": params}, with its tokenizer, as `save` does.

    `window_bp`: bases of a training window, the longest context that it knows.
    """
    transformer_tensors = dict(flatten_dict(jax.device_get(dict(weights)), sep="/"))
    tensors = _tokenizer_tensors(*jax.device_get((tokenizer.params, tokenizer.codes_KxD, tokenizer.counts_K)))
    digest = _pretrained_digest(tokenizer.digest, transformer, window_bp, transformer_tensors)
    described = {
        "schema": PRETRAINED,
        "pretrained_digest": digest,
        "tokenizer_digest": tokenizer.digest,
        "model": dataclasses.asdict(tokenizer.config),
        "transformer": dataclasses.asdict(transformer),
        "window_bp": window_bp,
        "steps": card.get("steps"),
        "versions": versions(),
    }
    text = cards.write_pretrained(tokenizer.config, transformer, digest, card)
    exports.write(directory, SCHEMAS, described, tensors | transformer_tensors, text)
    return digest


def load(directory: str | os.PathLike, mesh: Mesh | None = None) -> Model:
    """Reads a tokenizer, or a pretrained model, that was saved here.

    Args:
        mesh: the devices to put it on, whole on each; the first local one by default.

    Raises:
        InputError: a file is missing or damaged, the schema is another one, a tensor is missing or has another shape.
    """
    path = pathlib.Path(directory)
    described = exports.read_config(path / CONFIG, SCHEMAS)
    config = exports.typed(path / CONFIG, "model", described["model"], TokenizerConfig)
    tensors = exports.read_tensors(path / TENSORS)
    mesh = mesh or partition.make_mesh(devices=jax.local_devices()[:1])
    expected = _expected_tokenizer(config)
    transformer = None
    if described["schema"] == PRETRAINED:
        transformer = exports.typed(path / CONFIG, "transformer", described["transformer"], TransformerConfig)
        expected |= _expected_transformer(config, transformer)
    exports.check_tensors(path / TENSORS, tensors, expected)
    rest = {name: tensors.pop(name) for name in list(tensors) if name.startswith((_TRANSFORMER, _HEADS))}
    digest = exports.digest(described["model"], tensors)
    exports.check_digest(path / TENSORS, digest, described["tokenizer_digest"])
    if transformer is None:
        return Model(**_model_parts(config, digest, described, tensors, mesh))
    model = _pretrained(config, digest, described, tensors, transformer, rest, mesh)
    exports.check_digest(path / TENSORS, model.pretrained_digest, described["pretrained_digest"])
    return model


def in_memory(
    tokenizer: Model, transformer: TransformerConfig, weights: Mapping[str, Any], window_bp: int
) -> Pretrained:
    """The model that `save_pretrained` would write and `load` read, on the first local device."""
    mesh = partition.make_mesh(devices=jax.local_devices()[:1])
    tensors = _tokenizer_tensors(*jax.device_get((tokenizer.params, tokenizer.codes_KxD, tokenizer.counts_K)))
    rest = dict(flatten_dict(jax.device_get(dict(weights)), sep="/"))
    described = {"window_bp": window_bp, "hidden_share": tokenizer.hidden_share}
    return _pretrained(tokenizer.config, tokenizer.digest, described, tensors, transformer, rest, mesh)


def _pretrained(config, digest: str, described, tensors: dict, transformer, rest: dict, mesh: Mesh) -> Pretrained:
    """`tensors` of the tokenizer and the `rest`, by flat names on the host."""
    return Pretrained(
        **_model_parts(config, digest, described, tensors, mesh),
        transformer=transformer,
        pretrained_digest=_pretrained_digest(digest, transformer, described["window_bp"], rest),
        weights=unflatten_dict(partition.whole_on(mesh, rest), sep="/"),
    )


def _model_parts(config: TokenizerConfig, digest: str, described: Mapping[str, Any], tensors: dict, mesh: Mesh) -> dict:
    levels, placed = range(1, len(config.codebook_sizes) + 1), partition.whole_on(mesh, tensors)
    return {
        "config": config,
        "digest": digest,
        "window_bp": described["window_bp"],
        "hidden_share": described.get("hidden_share"),
        "codes_KxD": tuple(placed.pop(f"codebook_{n}/codes") for n in levels),
        "counts_K": tuple(np.asarray(placed.pop(f"codebook_{n}/counts")) for n in levels),
        "params": unflatten_dict(placed, sep="/"),
        "mesh": mesh,
    }


def _tokenizer_tensors(params: Mapping[str, Any], codes_KxD: Sequence, counts_K: Sequence) -> dict[str, np.ndarray]:
    """Flat names to contiguous arrays on the host."""
    tensors = dict(flatten_dict(dict(params), sep="/"))
    for n, (codes, counts) in enumerate(zip(codes_KxD, counts_K), start=1):
        tensors |= {f"codebook_{n}/codes": codes, f"codebook_{n}/counts": counts}
    return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}


def _pretrained_digest(
    tokenizer_digest: str, transformer: TransformerConfig, window_bp: int, tensors: Mapping[str, np.ndarray]
) -> str:
    decides = {"tokenizer": tokenizer_digest, "window_bp": window_bp} | dataclasses.asdict(transformer)
    return exports.digest(decides, {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()})


def _expected_tokenizer(config: TokenizerConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and dtype of every tensor of such a tokenizer."""

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

    return _shapes(init)


def _expected_transformer(config: TokenizerConfig, transformer: TransformerConfig) -> dict[str, jax.ShapeDtypeStruct]:
    def init():
        key, sizes = jax.random.key(0), config.codebook_sizes
        vectors = jnp.zeros((1, 1, len(sizes), config.width))
        network = Transformer(transformer).init(key, vectors, jnp.zeros((1, 1), bool), jnp.zeros(1, bool))
        codes = tuple(jnp.zeros((size, config.width)) for size in sizes)
        h = jnp.zeros((1, 1, transformer.width))
        heads = Heads(config.bases_per_code, transformer.dtype).init(key, h, codes)
        return {"transformer": network["params"], "heads": heads["params"]}

    return _shapes(init)


def _shapes(init) -> dict[str, jax.ShapeDtypeStruct]:
    mesh = partition.make_mesh(devices=jax.local_devices()[:1])
    return flatten_dict(partition.abstract_state(init, mesh), sep="/")
