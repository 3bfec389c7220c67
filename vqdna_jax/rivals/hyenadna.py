"""HyenaDNA: its config, its characters and names of tensors. Its repositories hold no vocabulary: code that comes with
them numbers seven special tokens and then the characters."""

import dataclasses
import pathlib
from typing import Annotated

import numpy as np

from vqdna_jax.errors import InputError
from vqdna_jax.models.hyena import HyenaConfig
from vqdna_jax.models.layers import Params
from vqdna_jax.rivals.directory import Tensors, of_vocabulary, settings, stacked
from vqdna_jax.rivals.published import Published
from vqdna_jax.runtime.files import read_json
from vqdna_jax.runtime.typed import Positive, PositiveNumber, one_of
from vqdna_jax.tokenizers.vocabulary import LETTERS, VocabularyKmers

SPECIAL = ("[CLS]", "[SEP]", "[BOS]", "[MASK]", "[PAD]", "[RESERVED]", "[UNK]")
CHARACTERS = "tokenizer_config.json"  # which may name them
TRUNK = "hyena.backbone"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Settings:
    model_type: Annotated[str, one_of("hyenadna")]
    d_model: Positive
    n_layer: Positive
    d_inner: Positive
    max_seq_len: Positive
    vocab_size: Positive
    pad_vocab_size_multiple: Positive = 8
    emb_dim: Positive = 5
    filter_order: Positive = 64
    short_filter_order: Positive = 3
    num_inner_mlps: Positive = 2
    hyena_order: Annotated[int, one_of(2)] = 2
    layer_norm_epsilon: PositiveNumber = 1e-5
    activation_freq: PositiveNumber = 10
    tie_word_embeddings: bool = False


def hyenadna(path: pathlib.Path) -> Published:
    """Single bases; causal. No special token is in front; the one that its authors put behind changes none before it
    and is left out."""
    of = settings(path, _Settings)
    tensors = Tensors(path, TRUNK, ("lm_head.",))
    characters = _characters(path)
    if len(SPECIAL) + len(characters) != of.vocab_size:
        told = f"{len(SPECIAL)} special tokens and characters {''.join(characters)}, and vocab_size is {of.vocab_size}"
        raise InputError(f"{path / CHARACTERS}: {told}; download the directory again")
    rows = -(-of.vocab_size // of.pad_vocab_size_multiple) * of.pad_vocab_size_multiple
    table_VxD = tensors.take(f"{TRUNK}.embeddings.word_embeddings.weight", rows, of.d_model)
    words = [*SPECIAL, *characters, *[""] * (rows - of.vocab_size)]
    head = "tied" if of.tie_word_embeddings else "own" if "lm_head.weight" in tensors else "none"
    network = HyenaConfig(
        layers=of.n_layer,
        width=of.d_model,
        hidden=of.d_inner,
        slots=of.max_seq_len,
        taps=of.short_filter_order,
        filter_width=of.filter_order,
        filter_layers=of.num_inner_mlps,
        filter_features=of.emb_dim,
        epsilon=of.layer_norm_epsilon,
        head=head,
    )
    weights = _weights(tensors, network, table_VxD, of.activation_freq)
    tensors.refuse_rest(r"^lm_head\.weight$" if head == "tied" else r"^$")
    licence = "HyenaDNA is published under BSD-3-Clause."
    length = of.max_seq_len - 2  # the bases that it was trained on
    tokenizer = of_vocabulary(path / CHARACTERS, lambda: VocabularyKmers.read(1, words), rows)
    source = tensors.digests(CHARACTERS)
    return Published("HyenaDNA", licence, tokenizer, network, weights, length, length, source)


def _characters(path: pathlib.Path) -> list[str]:
    if not (path / CHARACTERS).exists():
        return list(LETTERS)
    found = read_json(path / CHARACTERS, "the characters of a tokenizer; download it again")
    characters = found.get("characters", list(LETTERS))
    if not isinstance(characters, list) or not all(isinstance(x, str) for x in characters):
        raise InputError(f"{path / CHARACTERS}: expected a table whose characters are a list; download it again")
    return characters


def _weights(tensors: Tensors, c: HyenaConfig, table_VxD: np.ndarray, rate: float) -> Params:
    network = stacked(c.layers, lambda i: _layer(tensors, c, f"{TRUNK}.layers.{i}.", rate))
    network |= {"mask": table_VxD[SPECIAL.index("[MASK]")]} | tensors.norm(f"{TRUNK}.ln_f", "norm", c.width)
    heads = {"matrix": tensors.take("lm_head.weight", len(table_VxD), c.width)} if c.head == "own" else {}
    return {"transformer": network, "heads": heads, "table": table_VxD}


def _layer(tensors: Tensors, c: HyenaConfig, name: str, rate: float) -> dict[str, np.ndarray]:
    width, mixer = c.width, f"{name}mixer."
    short = tensors.take(f"{mixer}short_filter.weight", 3 * width, 1, c.taps)
    weights = {
        **tensors.norm(f"{name}norm1", "attention_norm", width),
        **tensors.norm(f"{name}norm2", "mlp_norm", width),
        **tensors.linear(f"{mixer}in_proj", "qkv", width, 3 * width),
        **tensors.linear(f"{mixer}out_proj", "out", width, width),
        **tensors.linear(f"{name}mlp.fc1", "up", width, c.hidden),
        **tensors.linear(f"{name}mlp.fc2", "down", c.hidden, width),
        **_filter(tensors, c, f"{mixer}filter_fn.", rate),
        "short": np.ascontiguousarray(short[:, 0].T),
        "short_bias": tensors.take(f"{mixer}short_filter.bias", 3 * width),
    }
    shapes = {
        "qkv": (width, 3, 1, width),
        "qkv_bias": (3, 1, width),
        "short": (c.taps, 3, width),
        "short_bias": (3, width),
        "out": (1, width, width),
        "up": (width, 1, c.hidden),
        "up_bias": (1, c.hidden),
    }
    return weights | {key: weights[key].reshape(shape) for key, shape in shapes.items()}


def _filter(tensors: Tensors, c: HyenaConfig, name: str, rate: float) -> dict[str, np.ndarray]:
    """The network that makes the long filter."""
    network, width = f"{name}implicit_filter.", c.filter_width
    hidden = [tensors.linear(f"{network}{2 + 2 * i}", "w", width, width) for i in range(c.filter_layers)]
    rates_C = _rates(tensors, [f"{network}{1 + 2 * i}.freq" for i in range(c.filter_layers + 1)], width, rate)
    return {
        **tensors.linear(f"{network}0", "filter_in", c.filter_features, width),
        "filter_hidden": np.stack([layer["w"] for layer in hidden]),
        "filter_hidden_bias": np.stack([layer["w_bias"] for layer in hidden]),
        **tensors.linear(f"{network}{2 + 2 * c.filter_layers}", "filter_out", width, c.width, bias=False),
        "filter_rate": rates_C,
        "filter_skip": tensors.take(f"{name}bias", c.width),
        "waves": tensors.take(f"{name}pos_emb.z", 1, c.slots, c.filter_features)[0],
        "times": tensors.take(f"{name}pos_emb.t", 1, c.slots, 1)[0, :, 0],
        "decays": tensors.take(f"{name}modulation.deltas", 1, 1, c.width)[0, 0],
    }


def _rates(tensors: Tensors, names: list[str], width: int, rate: float) -> np.ndarray:
    """Frequencies of the sines, which share them: as a rule stored once, and where they are not trained not at all.

    Raises InputError: they are not the same.
    """
    stored = [tensors.take(name, 1, width)[0] for name in names if name in tensors]
    if any(not np.array_equal(rates_C, stored[0]) for rates_C in stored):
        raise InputError(f"{tensors.path}: tensors {', '.join(names)} differ, expected one for all sines of a filter")
    return stored[0] if stored else np.full(width, rate, np.float32)
