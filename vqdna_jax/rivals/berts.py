"""DNABERT, DNABERT-2 and the Nucleotide Transformer: their configs, vocabularies and names of tensors."""

import dataclasses
import pathlib
from typing import Annotated, Any

import numpy as np

from vqdna_jax.models.bert import BertConfig
from vqdna_jax.rivals.bert_tensors import bert, bert_layer, esm, mosaic_layer
from vqdna_jax.rivals.directory import Tensors, lines, of_vocabulary, settings
from vqdna_jax.rivals.published import Published
from vqdna_jax.runtime.files import read_json
from vqdna_jax.runtime.typed import Positive, PositiveNumber, expect, one_of
from vqdna_jax.tokenizers.vocabulary import (
    VocabularyBytePairs,
    VocabularyKmers,
    VocabularyOverlapping,
    is_dna,
)

VOCABULARY, MERGES = "vocab.txt", "tokenizer.json"
LICENCE = "What the weights may be used for is said where they were downloaded."
HEAD = "cls.predictions.transform.dense.weight"
ESM_PADS = 2  # rows of its table of positions that stand before the first token's


@dataclasses.dataclass(frozen=True)
class _Shared:
    hidden_size: Positive
    num_hidden_layers: Positive
    num_attention_heads: Positive
    intermediate_size: Positive
    vocab_size: Positive
    max_position_embeddings: Positive
    layer_norm_eps: PositiveNumber
    hidden_act: Annotated[str, one_of("gelu")] = "gelu"

    @property
    def channels_in(self) -> int:
        """What the channels of a head are a multiple of."""
        return 1

    def check_fields(self, prefix: str) -> None:
        """Raises BadField: the heads do not share the width."""
        each = self.num_attention_heads * self.channels_in
        expect(self.hidden_size % each == 0, f"{prefix}hidden_size", self.hidden_size, f"a multiple of {each}")

    def network(self, **changes: Any) -> BertConfig:
        return BertConfig(
            layers=self.num_hidden_layers,
            width=self.hidden_size,
            heads=self.num_attention_heads,
            hidden=self.intermediate_size,
            epsilon=self.layer_norm_eps,
            **changes,
        )


@dataclasses.dataclass(frozen=True)
class _Bert(_Shared):
    model_type: Annotated[str, one_of("bert")] = "bert"
    position_embedding_type: Annotated[str, one_of("absolute")] = "absolute"


@dataclasses.dataclass(frozen=True)
class _MosaicBert(_Shared):
    model_type: Annotated[str, one_of("bert")] = "bert"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Esm(_Shared):
    model_type: Annotated[str, one_of("esm")]
    position_embedding_type: Annotated[str, one_of("absolute", "rotary")] = "absolute"
    token_dropout: bool = False
    emb_layer_norm_before: Annotated[bool, one_of(False)] = False
    add_bias_fnn: bool = True
    tie_word_embeddings: bool = True
    pad_token_id: Annotated[int, one_of(ESM_PADS - 1)] = 1

    @property
    def channels_in(self) -> int:
        return 2 if self.position_embedding_type == "rotary" else 1


def dnabert(path: pathlib.Path) -> Published:
    """3 to 6-mers at every base, BERT."""
    of = settings(path, _Bert)
    tensors = Tensors(path, "bert", ("cls.",))
    words = lines(path / VOCABULARY)
    k = next((len(word) for word in words if is_dna(word)), 1)
    tokenizer = of_vocabulary(path / VOCABULARY, lambda: VocabularyOverlapping.read(k, words), of.vocab_size)
    network = of.network(slots=of.max_position_embeddings, head=_head(tensors, HEAD, "tied"))
    weights = bert(tensors, network, words, bert_layer)
    tensors.refuse_rest(r"pooler|position_ids|cls\.seq_relationship|cls\.predictions\.decoder")
    length, source = of.max_position_embeddings - 2, tensors.digests(VOCABULARY)
    return Published(f"DNABERT of {k}-mers", LICENCE, tokenizer, network, weights, length + k - 1, length, source)


def dnabert2(path: pathlib.Path) -> Published:
    """Byte pairs, ALiBi, GEGLU. Its positions have no end; windows are of the length that its config names."""
    of = settings(path, _MosaicBert)
    tensors = Tensors(path, "bert", ("cls.",))
    stored = read_json(path / MERGES, "the vocabulary of byte pairs; download it too")
    tokenizer = of_vocabulary(path / MERGES, lambda: VocabularyBytePairs.read(0, stored), of.vocab_size)
    head = _head(tensors, HEAD, "tied")
    network = of.network(activation="geglu", up_bias=False, positions="alibi", slots=0, head=head)
    weights = bert(tensors, network, tokenizer.words, mosaic_layer)
    tensors.refuse_rest(r"pooler|position_ids|cls\.predictions\.decoder|cls\.seq_relationship")
    length, source = of.max_position_embeddings - 2, tensors.digests(MERGES)
    bases = round(length * float(np.mean([len(word) for word in tokenizer.words if is_dna(word)])))
    return Published("DNABERT-2", LICENCE, tokenizer, network, weights, bases, length, source)


def nt(path: pathlib.Path) -> Published:
    """6-mers side by side; v1 with learned positions, v2 with rotary ones and SwiGLU."""
    of = settings(path, _Esm)
    tensors = Tensors(path, "esm", ("lm_head.",))
    words = lines(path / VOCABULARY)
    k = max((len(word) for word in words if is_dna(word)), default=1)
    tokenizer = of_vocabulary(path / VOCABULARY, lambda: VocabularyKmers.read(k, words), of.vocab_size)
    learned = of.position_embedding_type == "absolute"
    slots = of.max_position_embeddings - ESM_PADS
    up, _ = tensors.shape("esm.encoder.layer.0.intermediate.dense.weight")
    network = of.network(
        activation="swiglu" if up == 2 * of.intermediate_size else "gelu",
        up_bias=of.add_bias_fnn,
        down_bias=of.add_bias_fnn,
        norm="before",
        positions="learned" if learned else "rotary",
        slots=slots if learned else 0,
        end=False,
        hidden_share=0.15 * 0.8 if of.token_dropout else 0.0,
        head=_head(tensors, "lm_head.dense.weight", "tied" if of.tie_word_embeddings else "own"),
    )
    weights = esm(tensors, network, words, ESM_PADS)
    tensors.refuse_rest(r"position_ids|position_embeddings|inv_freq|contact_head|pooler|lm_head\.decoder")
    length = slots - 1
    licence = "The Nucleotide Transformer's weights are under CC BY-NC-SA 4.0: not for commercial use."
    source = tensors.digests(VOCABULARY)
    return Published("Nucleotide Transformer", licence, tokenizer, network, weights, k * length, length, source)


def _head(tensors: Tensors, name: str, kind: str) -> str:
    return kind if name in tensors else "none"
