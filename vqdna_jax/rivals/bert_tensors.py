"""Tensors of BERT's kin, by the names that their authors gave them, as `models.bert` and its head have them.

torch keeps matrices as [out, in].
"""

from collections.abc import Callable, Sequence

import numpy as np

from vqdna_jax.errors import InputError
from vqdna_jax.models.bert import BertConfig
from vqdna_jax.models.layers import Params
from vqdna_jax.rivals.directory import Tensors, stacked

Layer = dict[str, np.ndarray]


def bert(
    tensors: Tensors, c: BertConfig, words: Sequence[str], of_layer: Callable[[Tensors, BertConfig, str], Layer]
) -> Params:
    """Of DNABERT, or of DNABERT-2, whose layers are other ones."""
    embeddings, head = "bert.embeddings.", "cls.predictions."
    table_VxD = tensors.take(f"{embeddings}word_embeddings.weight", len(words), c.width)
    network = stacked(c.layers, lambda i: of_layer(tensors, c, f"bert.encoder.layer.{i}."))
    network |= _special(tensors, table_VxD, words, cls="[CLS]", end="[SEP]", mask="[MASK]")
    network["segment"] = tensors.take(f"{embeddings}token_type_embeddings.weight", 2, c.width)[0]
    network |= tensors.norm(f"{embeddings}LayerNorm", "embed", c.width)
    if c.positions == "learned":
        network["positions"] = tensors.take(f"{embeddings}position_embeddings.weight", c.slots, c.width)
    heads: Layer = {}
    if c.head != "none":
        heads |= tensors.linear(f"{head}transform.dense", "dense", c.width, c.width)
        heads |= tensors.norm(f"{head}transform.LayerNorm", "norm", c.width)
        stored = "bias" if f"{head}bias" in tensors else "decoder.bias"
        heads["bias"] = tensors.take(f"{head}{stored}", len(words))
    _check_tied(tensors, f"{head}decoder.weight", table_VxD)
    return {"transformer": network, "heads": heads, "table": table_VxD}


def bert_layer(tensors: Tensors, c: BertConfig, name: str) -> Layer:
    """Of BERT."""
    attention, mlp = f"{name}attention.", f"{name}output."
    return {
        **_split_qkv(tensors, c, f"{attention}self."),
        **_out(tensors, c, f"{attention}output.dense"),
        **tensors.norm(f"{attention}output.LayerNorm", "attention_norm", c.width),
        **_mlp(tensors, c, f"{name}intermediate.dense", f"{mlp}dense"),
        **tensors.norm(f"{mlp}LayerNorm", "mlp_norm", c.width),
    }


def mosaic_layer(tensors: Tensors, c: BertConfig, name: str) -> Layer:
    """Of DNABERT-2."""
    attention, mlp = f"{name}attention.", f"{name}mlp."
    joint = tensors.linear(f"{attention}self.Wqkv", "qkv", c.width, 3 * c.width)
    return {
        "qkv": joint["qkv"].reshape(_qkv_shape(c)),
        "qkv_bias": joint["qkv_bias"].reshape(_qkv_shape(c)[1:]),
        **_out(tensors, c, f"{attention}output.dense"),
        **tensors.norm(f"{attention}output.LayerNorm", "attention_norm", c.width),
        **_mlp(tensors, c, f"{mlp}gated_layers", f"{mlp}wo"),
        **tensors.norm(f"{mlp}layernorm", "mlp_norm", c.width),
    }


def esm(tensors: Tensors, c: BertConfig, words: Sequence[str], pads: int) -> Params:
    """Of the Nucleotide Transformer, whose table of positions begins with `pads` rows that no token has."""
    table_VxD = tensors.take("esm.embeddings.word_embeddings.weight", len(words), c.width)
    network = stacked(c.layers, lambda i: _esm_layer(tensors, c, f"esm.encoder.layer.{i}."))
    network |= _special(tensors, table_VxD, words, cls="<cls>", mask="<mask>")
    network |= tensors.norm("esm.encoder.emb_layer_norm_after", "norm", c.width)
    if c.positions == "learned":
        positions = tensors.take("esm.embeddings.position_embeddings.weight", c.slots + pads, c.width)
        network["positions"] = positions[pads:]
    heads: Layer = {}
    if c.head != "none":
        heads |= tensors.linear("lm_head.dense", "dense", c.width, c.width)
        heads |= tensors.norm("lm_head.layer_norm", "norm", c.width)
        heads["bias"] = tensors.take("lm_head.bias", len(words))
    if c.head == "own":
        heads["matrix"] = tensors.take("lm_head.decoder.weight", len(words), c.width)
    else:
        _check_tied(tensors, "lm_head.decoder.weight", table_VxD)
    return {"transformer": network, "heads": heads, "table": table_VxD}


def _esm_layer(tensors: Tensors, c: BertConfig, name: str) -> Layer:
    attention = f"{name}attention."
    return {
        **tensors.norm(f"{attention}LayerNorm", "attention_norm", c.width),
        **_split_qkv(tensors, c, f"{attention}self."),
        **_out(tensors, c, f"{attention}output.dense"),
        **tensors.norm(f"{name}LayerNorm", "mlp_norm", c.width),
        **_mlp(tensors, c, f"{name}intermediate.dense", f"{name}output.dense"),
    }


def _split_qkv(tensors: Tensors, c: BertConfig, name: str) -> Layer:
    thirds = [tensors.linear(f"{name}{third}", "w", c.width, c.width) for third in ("query", "key", "value")]
    whole = {key: np.stack([third[key] for third in thirds], axis=-2) for key in ("w", "w_bias")}
    return {"qkv": whole["w"].reshape(_qkv_shape(c)), "qkv_bias": whole["w_bias"].reshape(_qkv_shape(c)[1:])}


def _qkv_shape(c: BertConfig) -> tuple[int, int, int, int]:
    return c.width, 3, c.heads, c.width // c.heads


def _out(tensors: Tensors, c: BertConfig, name: str) -> Layer:
    out = tensors.linear(name, "out", c.width, c.width)
    return out | {"out": out["out"].reshape(c.heads, c.width // c.heads, c.width)}


def _mlp(tensors: Tensors, c: BertConfig, up: str, down: str) -> Layer:
    """Of a gate's two matrices the one that goes through the function comes first."""
    shape = (c.matrices_up, c.hidden)
    weights = tensors.linear(up, "up", c.width, c.matrices_up * c.hidden, c.up_bias)
    weights["up"] = weights["up"].reshape(c.width, *shape)
    if c.up_bias:
        weights["up_bias"] = weights["up_bias"].reshape(shape)
    return weights | tensors.linear(down, "down", c.hidden, c.width, c.down_bias)


def _special(tensors: Tensors, table_VxD: np.ndarray, words: Sequence[str], **named: str) -> Layer:
    """Rows of special tokens. Raises InputError: the vocabulary has no such word."""
    if missing := [word for word in named.values() if word not in words]:
        raise InputError(f"{tensors.path}: the vocabulary has no word {missing[0]}; download it again")
    return {name: table_VxD[list(words).index(word)] for name, word in named.items()}


def _check_tied(tensors: Tensors, name: str, table_VxD: np.ndarray) -> None:
    """Raises InputError: a matrix that should be the table of tokens, where it is stored at all, is another."""
    if name in tensors and not np.array_equal(tensors.take(name, *table_VxD.shape), table_VxD):
        raise InputError(f"{tensors.path}: tensor {name} is not the table of tokens; is this the model you named?")
