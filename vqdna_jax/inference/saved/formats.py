"""What a pretrained model's directory holds, in three formats.

Over a learned tokenizer, whose tensors lie beside the transformer's; over a fixed one, which config.json describes
whole, with the table of its tokens; and what was imported of a model published elsewhere, over the tokens that its
vocabulary fixes, by any network of models.networks.
"""

import abc
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, Self, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh

from vqdna_jax import partition
from vqdna_jax.errors import InputError
from vqdna_jax.inference.saved import cards, imported_card
from vqdna_jax.models.heads import Heads, TokenHead
from vqdna_jax.models.hyena import KEPT
from vqdna_jax.models.layers import Params
from vqdna_jax.models.networks import PUBLISHED, TRAINED, NetworkConfig, PublishedConfig, TrainedConfig, name_of
from vqdna_jax.models.tokenizer import TokenizerConfig
from vqdna_jax.models.transformer import Compute, TransformerConfig
from vqdna_jax.runtime import exports
from vqdna_jax.runtime.exports import CONFIG, FIXED_PRETRAINED, IMPORTED, PRETRAINED, TENSORS, TOKENIZER
from vqdna_jax.tokenizers import learned
from vqdna_jax.tokenizers import load as tokenizers
from vqdna_jax.tokenizers.base import Tokenizer
from vqdna_jax.tokenizers.fixed import FixedTokenizer
from vqdna_jax.tokenizers.learned import LearnedTokenizer

OfTokenizer = TypeVar("OfTokenizer", LearnedTokenizer, FixedTokenizer)
OfNetwork = TypeVar("OfNetwork", bound=NetworkConfig)
Tensors = Mapping[str, np.ndarray]
Expected = dict[str, jax.ShapeDtypeStruct]


@dataclasses.dataclass(frozen=True)
class Format(abc.ABC, Generic[OfTokenizer, OfNetwork]):
    """A model as one format lays it out; `weights` by flat names, contiguous on the host."""

    tokenizer: OfTokenizer
    transformer: OfNetwork
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
class OverLearned(Format[LearnedTokenizer, TrainedConfig]):
    schema: ClassVar[str] = PRETRAINED
    replaces: ClassVar[tuple[str, ...]] = (TOKENIZER, PRETRAINED)

    def _decides(self) -> dict[str, Any]:
        of_tokenizer = {"tokenizer": self.tokenizer.digest, "window_bp": self.window_bp}
        return of_tokenizer | _named(self.transformer) | dataclasses.asdict(self.transformer)

    def tensors(self) -> Tensors:
        return {**self.tokenizer.tensors, **self.weights}

    def described(self) -> dict[str, Any]:
        return {
            "tokenizer_digest": self.tokenizer.digest,
            "model": self.tokenizer.config.described(),
            **_named(self.transformer),
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
        transformer = trained_network(path / CONFIG, described, tensors)
        codes = tuple((size, config.width) for size in config.codebook_sizes)
        weights = _expected(transformer, codes, Heads(config.bases_per_code, transformer.dtype))
        exports.check_tensors(path / TENSORS, tensors, learned.expected(config) | weights)
        of_tokenizer = {name: tensor for name, tensor in tensors.items() if name not in weights}
        share = described.get("hidden_share")
        tokenizer = LearnedTokenizer.from_tensors(config, of_tokenizer, mesh, hidden_share=share)
        exports.check_digest(path / TENSORS, tokenizer.digest, described["tokenizer_digest"])
        length = described["window_bp"] // config.bases_per_code - transformer.cls
        rest = {name: tensors[name] for name in weights}
        return cls(tokenizer, transformer, rest, described["window_bp"], length)


@dataclasses.dataclass(frozen=True)
class _OverTokens(Format[FixedTokenizer, OfNetwork]):
    """Over a tokenizer that config.json describes whole; all tensors are the network's."""

    def _decides(self) -> dict[str, Any]:
        return {key: value for key, value in self.described().items() if key != "tokenizer"}

    def tensors(self) -> Tensors:
        return self.weights

    def described(self) -> dict[str, Any]:
        return {
            "tokenizer": self.tokenizer.described(),
            "tokenizer_digest": self.tokenizer.digest,
            "transformer": dataclasses.asdict(self.transformer),
            "window_bp": self.window_bp,
            "length": self.length,
        }

    @classmethod
    def read(cls, path: pathlib.Path, described: Mapping[str, Any], mesh: Mesh) -> Self:
        tokenizer = tokenizers.from_described(described["tokenizer"], f"{path / CONFIG}: key tokenizer")
        exports.check_digest(path / CONFIG, tokenizer.digest, described["tokenizer_digest"])
        tensors = exports.read_tensors(path / TENSORS)
        network, expected = cls._read_network(path, described, tokenizer.vocabulary, tensors)
        exports.check_tensors(path / TENSORS, tensors, expected)
        return cls(tokenizer, network, tensors, described["window_bp"], described["length"])

    @classmethod
    @abc.abstractmethod
    def _read_network(
        cls, path: pathlib.Path, described: Mapping[str, Any], vocabulary: int, tensors: Tensors
    ) -> tuple[OfNetwork, Expected]:
        """The network of config.json, and the tensors that it has over so many tokens. Raises InputError."""


@dataclasses.dataclass(frozen=True)
class OverFixed(_OverTokens[TrainedConfig]):
    schema: ClassVar[str] = FIXED_PRETRAINED
    replaces: ClassVar[tuple[str, ...]] = (FIXED_PRETRAINED,)

    def described(self) -> dict[str, Any]:
        return super().described() | _named(self.transformer) | {"table_width": self.weights["table"].shape[1]}

    def card(self, told: Mapping[str, Any]) -> str:
        tokens = self.tokenizer.description, self.tokenizer.vocabulary
        return cards.of_fixed_pretrained(*tokens, self.transformer, self.window_bp, self.length, self.digest, told)

    @classmethod
    def _read_network(
        cls, path: pathlib.Path, described: Mapping[str, Any], vocabulary: int, tensors: Tensors
    ) -> tuple[TrainedConfig, Expected]:
        transformer = trained_network(path / CONFIG, described, tensors)
        table = (vocabulary, described["table_width"])
        expected = _expected(transformer, (table,), TokenHead(transformer.dtype))
        return transformer, expected | {"table": jax.ShapeDtypeStruct(table, jnp.float32)}


@dataclasses.dataclass(frozen=True)
class Imported(_OverTokens[PublishedConfig]):
    schema: ClassVar[str] = IMPORTED
    replaces: ClassVar[tuple[str, ...]] = (IMPORTED,)

    def described(self) -> dict[str, Any]:
        return super().described() | {"network": name_of(self.transformer)}

    def card(self, told: Mapping[str, Any]) -> str:
        return imported_card.text(self.tokenizer.description, self.transformer, self.length, self.digest, told)

    @classmethod
    def _read_network(
        cls, path: pathlib.Path, described: Mapping[str, Any], vocabulary: int, tensors: Tensors
    ) -> tuple[PublishedConfig, Expected]:
        transformer = read_network(path / CONFIG, described, tensors)
        return transformer, of_published(transformer, vocabulary)


Saved = OverLearned | OverFixed | Imported
FORMATS: dict[str, type[Saved]] = {of.schema: of for of in (OverLearned, OverFixed, Imported)}


def laid_out(tokenizer: Tokenizer, transformer: NetworkConfig, weights: Params, window_bp: int, length: int) -> Saved:
    """A model in the format that is for its network and tokenizer."""
    said = exports.flat(weights), window_bp, length
    if isinstance(tokenizer, LearnedTokenizer):
        assert isinstance(transformer, TrainedConfig), "no other network reads learned codes"
        return OverLearned(tokenizer, transformer, *said)
    assert isinstance(tokenizer, FixedTokenizer), "there are formats for these two"
    if isinstance(transformer, TrainedConfig):
        return OverFixed(tokenizer, transformer, *said)
    assert isinstance(transformer, PublishedConfig)
    return Imported(tokenizer, transformer, *said)


def trained_network(path: pathlib.Path, described: Mapping[str, Any], tensors: Tensors | None = None) -> TrainedConfig:
    """Of a config.json that is read, as `exports.typed`; one that names no network is older than there were two."""
    kind = _kind(path, described.get("network", "transformer"), TRAINED)
    return exports.typed(path, "transformer", described["transformer"], kind, tensors)


def _named(transformer: TrainedConfig) -> dict[str, str]:
    return {} if isinstance(transformer, TransformerConfig) else {"network": name_of(transformer)}


def _kind(path: pathlib.Path, name: object, known: Mapping[str, type[OfNetwork]]) -> type[OfNetwork]:
    for each, kind in known.items():
        if each == name:
            return kind
    raise InputError(f"{path}: key network is {name!r}, expected one of {', '.join(known)}; copy the directory again")


@functools.cache
def _expected(transformer: NetworkConfig, codes: tuple[tuple[int, int], ...], heads: nn.Module | None) -> Expected:
    """Shape and dtype of every tensor of a transformer over codes with vectors of such shapes, and of its heads."""

    def init() -> Params:
        key, plain = jax.random.key(0), jnp.zeros((1, 1), bool)
        vectors = jnp.zeros((1, 1, len(codes), codes[0][1]))
        network = transformer.module(Compute()).init(key, vectors, plain, plain[:, 0])
        context, tables = jnp.zeros((1, 1, transformer.width)), tuple(map(jnp.zeros, codes))
        of_heads = heads.init(key, context, *([tables] if isinstance(heads, Heads) else tables)) if heads else {}
        return {"transformer": network["params"], "heads": of_heads.get("params", {})}

    return flatten_dict(partition.abstract_state(init, partition.local_mesh()), sep="/")


def read_network(path: pathlib.Path, described: Mapping[str, Any], tensors: Tensors | None = None) -> PublishedConfig:
    """That of an imported model, by its config.json, `path`. Raises InputError as `exports.typed`, or no such kind."""
    kind = _kind(path, described["network"], PUBLISHED)
    return exports.typed(path, "transformer", described["transformer"], kind, tensors)


def parameters(tensors: Mapping[str, Any]) -> int:
    """Of a published model's arrays or their shapes, as papers count them: the table of tokens once, whether or not the
    head has its like of its own; no rows of special tokens, which are in the table, and nothing that is fixed."""
    left_out = ("cls", "end", "mask", "matrix", *KEPT)
    return sum(x.size for name, x in tensors.items() if name.rpartition("/")[2] not in left_out)


def of_published(transformer: PublishedConfig, vocabulary: int) -> Expected:
    """Shape and dtype of every tensor."""
    table = (vocabulary, transformer.width)
    expected = _expected(transformer, (table,), transformer.language_head())
    return expected | {"table": jax.ShapeDtypeStruct(table, jnp.float32)}
