"""Saved pretrained models: a directory of config.json, model.safetensors and README.md, its tokenizer in it too.

There are two formats: over a learned tokenizer, whose tensors lie beside the transformer's, and over a fixed one, which
config.json describes whole, with the table of its tokens.
"""

import abc
import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, Self, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array
from jax.sharding import Mesh

from vqdna_jax import partition
from vqdna_jax.inference.pretrained import Pretrained
from vqdna_jax.inference.saved import cards
from vqdna_jax.models.heads import Heads, TokenHead
from vqdna_jax.models.layers import Params
from vqdna_jax.models.tokenizer import TokenizerConfig
from vqdna_jax.models.transformer import Transformer, TransformerConfig
from vqdna_jax.runtime import exports, shipped
from vqdna_jax.runtime.exports import CONFIG, FIXED_PRETRAINED, PRETRAINED, TENSORS, TOKENIZER
from vqdna_jax.tokenizers import learned
from vqdna_jax.tokenizers import load as tokenizers
from vqdna_jax.tokenizers.base import Tokenizer
from vqdna_jax.tokenizers.fixed import FixedTokenizer
from vqdna_jax.tokenizers.learned import LearnedTokenizer
from vqdna_jax.version import versions

OfTokenizer = TypeVar("OfTokenizer", LearnedTokenizer, FixedTokenizer)
Tensors = Mapping[str, np.ndarray]
Expected = dict[str, jax.ShapeDtypeStruct]


@dataclasses.dataclass(frozen=True)
class _Format(abc.ABC, Generic[OfTokenizer]):
    """A model as one format lays it out; `weights` by flat names, contiguous on the host."""

    tokenizer: OfTokenizer
    transformer: TransformerConfig
    weights: Tensors
    window_bp: int
    length: int

    schema: ClassVar[str]
    replaces: ClassVar[tuple[str, ...]]

    @functools.cached_property
    def digest(self) -> str:
        """sha256 of everything here, the tokenizer's digest included."""
        return exports.digest(self._decides(), self.weights)

    @abc.abstractmethod
    def _decides(self) -> dict[str, Any]:
        """What the digest covers beside the weights."""

    @abc.abstractmethod
    def tensors(self) -> Tensors:
        """What goes into model.safetensors."""

    @abc.abstractmethod
    def described(self) -> dict[str, Any]:
        """What goes into config.json, beside schema, digest and facts of the run."""

    def changed(self, change: Callable[[Tensors], Tensors]) -> Self:
        """The same network with what `change` makes of its tensors."""
        return dataclasses.replace(self, weights=change(self.weights))

    @abc.abstractmethod
    def card(self, told: Mapping[str, Any]) -> str:
        """README.md."""

    @classmethod
    @abc.abstractmethod
    def read(cls, path: pathlib.Path, described: Mapping[str, Any], mesh: Mesh) -> Self:
        """From the directory `path` and its config.json. Raises InputError: tensors that do not fit, another digest."""


@dataclasses.dataclass(frozen=True)
class _OverLearned(_Format[LearnedTokenizer]):
    schema: ClassVar[str] = PRETRAINED
    replaces: ClassVar[tuple[str, ...]] = (TOKENIZER, PRETRAINED)

    def _decides(self) -> dict[str, Any]:
        of_tokenizer = {"tokenizer": self.tokenizer.digest, "window_bp": self.window_bp}
        return of_tokenizer | dataclasses.asdict(self.transformer)

    def tensors(self) -> Tensors:
        return {**self.tokenizer.tensors, **self.weights}

    def described(self) -> dict[str, Any]:
        return {
            "tokenizer_digest": self.tokenizer.digest,
            "model": self.tokenizer.config.described(),
            "transformer": dataclasses.asdict(self.transformer),
            "window_bp": self.window_bp,
            "hidden_share": self.tokenizer.hidden_share,
        }

    def changed(self, change: Callable[[Tensors], Tensors]) -> Self:
        return dataclasses.replace(super().changed(change), tokenizer=self.tokenizer.changed(change))

    def card(self, told: Mapping[str, Any]) -> str:
        return cards.of_pretrained(self.tokenizer.config, self.transformer, self.digest, told)

    @classmethod
    def read(cls, path: pathlib.Path, described: Mapping[str, Any], mesh: Mesh) -> Self:
        tensors = exports.read_tensors(path / TENSORS)
        config = exports.typed(path / CONFIG, "model", described["model"], TokenizerConfig, tensors)
        transformer = exports.typed(path / CONFIG, "transformer", described["transformer"], TransformerConfig, tensors)
        codes = [(size, config.width) for size in config.codebook_sizes]
        weights = _expected(transformer, codes, Heads(config.bases_per_code, transformer.dtype).init)
        exports.check_tensors(path / TENSORS, tensors, learned.expected(config) | weights)
        of_tokenizer = {name: tensor for name, tensor in tensors.items() if name not in weights}
        share = described.get("hidden_share")
        tokenizer = LearnedTokenizer.from_tensors(config, of_tokenizer, mesh, hidden_share=share)
        exports.check_digest(path / TENSORS, tokenizer.digest, described["tokenizer_digest"])
        length = described["window_bp"] // config.bases_per_code - transformer.cls
        rest = {name: tensors[name] for name in weights}
        return cls(tokenizer, transformer, rest, described["window_bp"], length)


@dataclasses.dataclass(frozen=True)
class _OverFixed(_Format[FixedTokenizer]):
    schema: ClassVar[str] = FIXED_PRETRAINED
    replaces: ClassVar[tuple[str, ...]] = (FIXED_PRETRAINED,)

    def _decides(self) -> dict[str, Any]:
        return {key: value for key, value in self.described().items() if key != "tokenizer"}

    def tensors(self) -> Tensors:
        return self.weights

    def described(self) -> dict[str, Any]:
        return {
            "tokenizer": self.tokenizer.described(),
            "tokenizer_digest": self.tokenizer.digest,
            "transformer": dataclasses.asdict(self.transformer),
            "table_width": self.weights["table"].shape[1],
            "window_bp": self.window_bp,
            "length": self.length,
        }

    def card(self, told: Mapping[str, Any]) -> str:
        tokens = self.tokenizer.description, self.tokenizer.vocabulary
        return cards.of_fixed_pretrained(*tokens, self.transformer, self.window_bp, self.length, self.digest, told)

    @classmethod
    def read(cls, path: pathlib.Path, described: Mapping[str, Any], mesh: Mesh) -> Self:
        tokenizer = tokenizers.from_described(described["tokenizer"], f"{path / CONFIG}: key tokenizer")
        exports.check_digest(path / CONFIG, tokenizer.digest, described["tokenizer_digest"])
        tensors = exports.read_tensors(path / TENSORS)
        transformer = exports.typed(path / CONFIG, "transformer", described["transformer"], TransformerConfig, tensors)
        table, head = (tokenizer.vocabulary, described["table_width"]), TokenHead(transformer.dtype)
        expected = _expected(transformer, [table], lambda key, h, tables: head.init(key, h, *tables))
        expected["table"] = jax.ShapeDtypeStruct(table, jnp.float32)
        exports.check_tensors(path / TENSORS, tensors, expected)
        return cls(tokenizer, transformer, tensors, described["window_bp"], described["length"])


FORMATS: dict[str, type[_OverLearned] | type[_OverFixed]] = {of.schema: of for of in (_OverLearned, _OverFixed)}


def save(
    directory: str | os.PathLike,
    tokenizer: Tokenizer,
    transformer: TransformerConfig,
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
    model = _laid_out(tokenizer, transformer, weights, window_bp, length)
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


def _read(path: pathlib.Path, described: Mapping[str, Any], mesh: Mesh) -> _OverLearned | _OverFixed:
    model = FORMATS[described["schema"]].read(path, described, mesh)
    exports.check_digest(path / TENSORS, model.digest, described["pretrained_digest"])
    return model


def in_memory(
    tokenizer: LearnedTokenizer, transformer: TransformerConfig, weights: Params, window_bp: int, length: int
) -> Pretrained:
    """The model that `save` would write and `load` read, on the first local device."""
    mesh = partition.local_mesh()
    here = LearnedTokenizer.from_tensors(tokenizer.config, tokenizer.tensors, mesh)
    return _on_devices(_laid_out(here, transformer, weights, window_bp, length), mesh)


def _laid_out(
    tokenizer: Tokenizer, transformer: TransformerConfig, weights: Params, window_bp: int, length: int
) -> _OverLearned | _OverFixed:
    if isinstance(tokenizer, FixedTokenizer):
        return _OverFixed(tokenizer, transformer, exports.flat(weights), window_bp, length)
    assert isinstance(tokenizer, LearnedTokenizer), "there are formats for these two"
    return _OverLearned(tokenizer, transformer, exports.flat(weights), window_bp, length)


def _on_devices(model: _OverLearned | _OverFixed, mesh: Mesh) -> Pretrained:
    return Pretrained(
        tokenizer=model.tokenizer,
        transformer=model.transformer,
        weights=unflatten_dict(partition.whole_on(mesh, dict(model.weights)), sep="/"),
        window_bp=model.window_bp,
        length=model.length,
        digest=model.digest,
        mesh=mesh,
    )


def _expected(
    transformer: TransformerConfig,
    codes: Sequence[tuple[int, int]],
    init_heads: Callable[[Array, Array, tuple[Array, ...]], Params],
) -> Expected:
    """Shape and dtype of every tensor of a transformer over codes with vectors of such shapes, and of its heads."""

    def init() -> Params:
        key, plain = jax.random.key(0), jnp.zeros((1, 1), bool)
        vectors = jnp.zeros((1, 1, len(codes), codes[0][1]))
        network = Transformer(transformer).init(key, vectors, plain, plain[:, 0])
        heads = init_heads(key, jnp.zeros((1, 1, transformer.width)), tuple(map(jnp.zeros, codes)))
        return {"transformer": network["params"], "heads": heads["params"]}

    return flatten_dict(partition.abstract_state(init, partition.local_mesh()), sep="/")
