"""A transformer pretrained on a fixed tokenizer's tokens: its export, and what fine-tuning needs of it.

Legend: L tokens, K vocabulary, E width of the table.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array
from jax.sharding import Mesh

from vqdna_jax import partition, version
from vqdna_jax.errors import InputError
from vqdna_jax.inference.pretrained import SLOTS_PER_CALL
from vqdna_jax.models.transformer import Compute, TransformerConfig
from vqdna_jax.runtime import exports
from vqdna_jax.runtime.exports import CONFIG, TENSORS
from vqdna_jax.tasks.masked_tokens import MaskedTokens, masking_of
from vqdna_jax.tokenizers import fixed
from vqdna_jax.tokenizers.batches import Layout, Tokens
from vqdna_jax.tokenizers.fixed import FixedTokenizer

FIXED_PRETRAINED = "vqdna-fixed-pretrained/1"
_SIZES = ("window_bp", "length", "table_width")
SCHEMAS = {FIXED_PRETRAINED: {"tokenizer", "tokenizer_digest", "transformer", "pretrained_digest", *_SIZES}}

CARD = """\
---
library_name: vqdna_jax
tags: [dna, genomics, masked-language-model, jax]
---
# A DNA language model over {tokens}

A baseline beside models over learned codes, made by vqdna_jax with the same network and training.
{layers} layers of width {width}, {heads} heads; a vocabulary of {vocabulary:,}; windows of {window_bp:,} bases, or
{length:,} tokens.
Digest: `{digest}`.

To fine-tune it: `python -m vqdna_jax.main --config=configs/finetune.py --config.pretrained=DIRECTORY_OF_THIS_FILE`.

Made {date} by `{command}`, {steps} steps, on {species}.
Metrics of the final evaluation, on windows held out from training: {metrics}.

Whoever trained it decides on its licence, and should say so here. vqdna_jax is under Apache-2.0; the genomes keep their
own terms. It has no opinion on function, disease or identity, and was not tested for clinical use.
"""
_TOKENS = {
    "one_hot": "single bases",
    "overlapping": "overlapping {k}-mers",
    "kmer": "{k}-mers side by side",
    "bpe": "byte pairs",
}


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class FixedPretrained:
    """Stands where fine-tuning expects a `Pretrained`; `load` makes it.

    Attributes:
        window_bp, length: bases of a training window, and its tokens without CLS, the longest context that it knows.
        table_KxE: f32, a vector a token. weights: {"transformer", "heads"}.
        pretrained_digest: sha256 of everything here, the tokenizer's digest included.
    """

    tokenizer: FixedTokenizer
    transformer: TransformerConfig
    window_bp: int
    length: int
    table_KxE: Array
    weights: dict[str, Any]
    pretrained_digest: str
    mesh: Mesh

    def encode_bases(
        self, bases: Sequence[np.ndarray], advance: Callable[[int], None] = lambda tokens: None
    ) -> list[np.ndarray]:
        """Tokens int32 [L, 1] of uint8 bases [S] that are known to be good."""
        return self.tokenizer.encode_bases(bases, advance)

    def vectors_KxE(self) -> tuple[Array, ...]:
        """The table, of the one level there is, as the transformer reads it: unlike codes not standardised."""
        return (self.table_KxE,)

    @property
    def config(self) -> FixedTokenizer:
        """In the place of a learned tokenizer's config."""
        return self.tokenizer

    @property
    def codes_KxD(self) -> tuple[Array, ...]:
        return (self.table_KxE,)

    @property
    def digest(self) -> str:
        """The tokenizer's."""
        return self.tokenizer.digest

    @property
    def context(self) -> int:
        """Tokens of a training window, CLS included."""
        return self.length + self.transformer.cls

    @property
    def slots_per_call(self) -> int:
        return SLOTS_PER_CALL.get(self.mesh.devices.flat[0].platform, SLOTS_PER_CALL["elsewhere"])


def save(
    directory: str | os.PathLike,
    tokenizer: FixedTokenizer,
    transformer: TransformerConfig,
    params: Mapping[str, Any],
    layout: Layout,
    card: Mapping[str, Any],
) -> str:
    """Writes config.json, model.safetensors and README.md, whole or not at all; returns the digest.

    Args:
        params: {"table", "transformer", "heads"}, a train state's; replicated where arrays span processes.
        card: as in `hub.save`.

    Raises:
        InputError: the directory holds something else. StorageError: it cannot be written.
    """
    tensors = _flat(jax.device_get(dict(params)))
    described = {
        "tokenizer": tokenizer.described(),
        "tokenizer_digest": tokenizer.digest,
        "transformer": dataclasses.asdict(transformer),
        "table_width": tensors["table"].shape[1],
        "window_bp": layout.window_bp,
        "length": layout.length,
    }
    digest = _digest(described, tensors)
    text = _card(tokenizer, described, digest, card)
    described = {"schema": FIXED_PRETRAINED, "pretrained_digest": digest} | described
    described |= {"steps": card.get("steps"), "versions": version.versions()}
    exports.write(directory, SCHEMAS, described, tensors, text)
    return digest


def load(directory: str | os.PathLike, mesh: Mesh | None = None) -> FixedPretrained:
    """Reads what `save` wrote, whole on every device of `mesh`, the first local one by default.

    Raises InputError: a file is missing, damaged or changed, the schema is another one.
    """
    path = pathlib.Path(directory) / CONFIG
    described = exports.read_config(path, SCHEMAS)
    for key in _SIZES:
        if type(described[key]) is not int or described[key] < 1:
            raise InputError(f"{path}: key {key} is {described[key]!r}, expected a positive integer")
    tokenizer = fixed.from_described(described["tokenizer"], f"{path}: key tokenizer")
    exports.check_digest(path, tokenizer.digest, described["tokenizer_digest"])
    transformer = exports.typed(path, "transformer", described["transformer"], TransformerConfig)
    tensors = exports.read_tensors(path.with_name(TENSORS))
    expected = _expected(tokenizer, transformer, described["table_width"])
    exports.check_tensors(path.with_name(TENSORS), tensors, expected)
    digest = _digest(described, tensors)
    exports.check_digest(path.with_name(TENSORS), digest, described["pretrained_digest"])
    mesh = mesh or partition.make_mesh(devices=jax.local_devices()[:1])
    weights = unflatten_dict(partition.whole_on(mesh, tensors), sep="/")
    return FixedPretrained(
        tokenizer=tokenizer, transformer=transformer, window_bp=described["window_bp"], length=described["length"],
        table_KxE=weights.pop("table"), weights=weights, pretrained_digest=digest, mesh=mesh,
    )  # fmt: skip


def _digest(described: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str:
    decides = ("tokenizer_digest", "transformer", *_SIZES)
    return exports.digest({key: described[key] for key in decides}, tensors)


def _flat(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(x) for name, x in flatten_dict(dict(params), sep="/").items()}


def _expected(tokenizer: FixedTokenizer, transformer: TransformerConfig, table_width: int) -> dict[str, Any]:
    layout = Layout(1, 1, 1.0, False)  # no parameter depends on it
    task = MaskedTokens(transformer, Compute(), tokenizer.vocabulary, table_width, masking_of(tokenizer), layout)

    def init():
        batch = Tokens(jnp.ones(1, jnp.int32), jnp.zeros((1, 1), jnp.int32))
        return task.init_params((), batch, jax.random.key(0))

    mesh = partition.make_mesh(devices=jax.local_devices()[:1])
    return flatten_dict(partition.abstract_state(init, mesh), sep="/")


def _card(tokenizer: FixedTokenizer, described: Mapping[str, Any], digest: str, card: Mapping[str, Any]) -> str:
    numbers = {name: value for name, value in (card.get("result") or {}).items() if isinstance(value, int | float)}
    known = {key: card.get(key) or "not recorded" for key in ("date", "command", "steps")}
    sizes = described["transformer"] | {key: described[key] for key in _SIZES}
    return CARD.format(
        **known,
        **{key: sizes[key] for key in ("layers", "width", "heads", "window_bp", "length")},
        tokens=_TOKENS[tokenizer.kind].format(k=tokenizer.k),
        vocabulary=tokenizer.vocabulary,
        digest=digest,
        species=", ".join(card.get("species") or ()) or "species that are not recorded",
        metrics=", ".join(f"{name} {value:.6g}" for name, value in numbers.items()) or "not recorded",
    )
