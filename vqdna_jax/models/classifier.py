"""A transformer that reads the codes of sequences, a readout of them, and a head for their labels."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array

from vqdna_jax.models import lora
from vqdna_jax.models.heads import Head
from vqdna_jax.models.layers import Params, apply
from vqdna_jax.models.lora import Adapter, LoraConfig
from vqdna_jax.models.networks import NetworkConfig
from vqdna_jax.models.pooling import OF_CODES, POOLS, View, pool
from vqdna_jax.models.quantize import code_vectors
from vqdna_jax.models.transformer import Compute, born
from vqdna_jax.partition import spec, take

METHODS = ("lora", "full", "head")
Method = Literal["lora", "full", "head"]
ALIGNMENTS = ("start", "end", "middle")
Alignment = Literal["start", "end", "middle"]
# A few numbers of every position, side by side: each its vector times a map, the same for all, that is trained.
POSITIONS: Mapping[str, int] = {f"positions:{channels}": channels for channels in (4, 8, 16)}
ATTENTION = "attention"  # the mean of all codes, weighed by a query that is trained; a query of zeros weighs all alike
TRAINED = (*POSITIONS, ATTENTION)  # readouts with weights of their own
READOUTS = (*POOLS, *TRAINED)
AS_A_WHOLE = (*OF_CODES, *POSITIONS)  # readouts that say something else of a stretch than of the sequence around it
AUTO = "auto"  # to fine-tuning: the readout that dev chooses
_OF_READOUTS = ("positions_map", "attention_query")  # by their names among the head's parameters


@dataclasses.dataclass(frozen=True)
class Classifier:
    """Codes of sequences to one row of logits each, or to their standardised value.

    Attributes:
        sizes: codes of each level.
        pool: readouts of a sequence, READOUTS; several joined by "+" are concatenated.
        hidden: of an MLP beside the linear map; 0: there is none.
        dropout: of what the head reads.
        places: codes that "positions" reads, 0 without; align: where sequences of other lengths lie on them.
        form: 2; 1 as older exports have it: features of windows are averaged, and the head is as `Head` says.
    """

    model: NetworkConfig
    compute: Compute
    outputs: int
    sizes: tuple[int, ...]
    pool: str = "mean"
    hidden: int = 0
    dropout: float = 0.0
    places: int = 0
    align: Alignment = "start"
    form: int = 2

    @property
    def readouts(self) -> tuple[str, ...]:
        return tuple(self.pool.split("+"))

    @property
    def channels(self) -> int:
        """Of "positions"; 0 without."""
        return next((POSITIONS[name] for name in self.readouts if name in POSITIONS), 0)

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers of each readout."""
        own = {ATTENTION: self.model.width} | dict.fromkeys(POSITIONS, self.places * self.channels)
        return tuple(
            POOLS[name].width(self.model.width, self.sizes) if name in POOLS else own[name] for name in self.readouts
        )

    @property
    def width(self) -> int:
        """P, of the features."""
        return sum(self.widths)

    @property
    def counts(self) -> tuple[tuple[int, int], ...]:
        """The spans of the features that count codes, one each readout."""
        ends = list(itertools.accumulate(self.widths))
        spans = zip(self.readouts, [0, *ends], ends)
        return tuple((start, end) for name, start, end in spans if name in OF_CODES)

    @property
    def head(self) -> Head:
        """What it says of counts of frozen codes stays as the probe has it, whose penalty dev chose: without one, ten
        thousand weights learn a few thousand training rows by heart."""
        return Head(self.outputs, self.hidden, self.dropout, self.form, self.counts if self.form > 1 else ())

    def logits(self, head: Params, features_BxP: Array, key: Array | None = None) -> Array:
        """f32 [B, V] of `features`; dropout where there is a `key`."""
        return apply(self.head, _of_head(head), features_BxP, key)

    def features(
        self,
        transformer: Params,
        head: Params,
        vectors_KxE: tuple[Array, ...],
        codes_BxWxLxN: Array,
        lengths_BxW: Array,
        total_B: Array,
        adapter: Adapter | None = None,
    ) -> Array:
        """Read off the codes of all windows of each sequence, f32 [B, P].

        Args:
            vectors_KxE: of each level's codes, as the transformer reads them.
            lengths_BxW: how many codes of each window count.
            total_B: codes of each sequence, whose window w starts at w L or, the last one, at its end less L.
        """
        rows, windows, length, levels = codes_BxWxLxN.shape
        codes_RxLxN = _rows(codes_BxWxLxN.astype(jnp.int32), length, levels)
        lengths_R = _rows(lengths_BxW)
        unmasked_RxL = jnp.zeros_like(codes_RxLxN[..., 0], bool)
        h_RxLxD, cls_RxD = apply(
            self.model.module(self.compute),
            transformer,
            code_vectors(vectors_KxE, codes_RxLxN),
            unmasked_RxL,
            unmasked_RxL[:, 0],
            jnp.maximum(lengths_R + self.model.cls, 1),
            None,
            adapter,
        )
        at_1xL = jnp.arange(length)[None]
        if self.form == 1:  # every window as a sequence of its own
            view = View(h_RxLxD, cls_RxD, codes_RxLxN, self.sizes, at_1xL < lengths_R[:, None], at_1xL, lengths_R)
            return _mean_of_windows([pool(name, view) for name in self.readouts], lengths_BxW)
        start_BxW, kept_BxWxL = _places(total_B, windows, length)
        total_R = _rows(jnp.broadcast_to(total_B[:, None], (rows, windows)))
        at_RxL = _rows(start_BxW)[:, None] + at_1xL
        view = View(h_RxLxD, cls_RxD, codes_RxLxN, self.sizes, _rows(kept_BxWxL, length), at_RxL, total_R)

        def read(name: str) -> Array:
            if name == ATTENTION:
                return _attended(head["attention_query"], h_RxLxD, view.kept_BxL, windows)
            if name in POSITIONS:
                return self._positions(head, h_RxLxD, start_BxW, total_B)
            return pool(name, view, windows)

        return jnp.concatenate([read(name) for name in self.readouts], axis=-1)

    def _positions(self, head: Params, h_RxLxD: Array, start_BxW: Array, total_B: Array) -> Array:
        """[B, places channels]: place q reads the code that lies there, by `align`; 0 where none does."""
        (rows, windows), length, channels = start_BxW.shape, h_RxLxD.shape[1], self.channels
        z_RxLxC = jnp.einsum("rld,dc->rlc", h_RxLxD.astype(jnp.float32), head["positions_map"])
        z_BxLxC = jnp.reshape(z_RxLxC, (rows, windows * length, channels), out_sharding=spec("batch", None, None))
        spare_B = self.places - total_B
        shift_B = {"start": jnp.zeros_like(spare_B), "end": spare_B, "middle": spare_B // 2}[self.align]
        at_BxQ = jnp.arange(self.places)[None] - shift_B[:, None]
        there_BxQ = (at_BxQ >= 0) & (at_BxQ < total_B[:, None])
        at_BxQ = jnp.where(there_BxQ, at_BxQ, 0)
        window_BxQ = jnp.minimum(at_BxQ // length, windows - 1)
        within_BxQ = at_BxQ - take(start_BxW[..., None], window_BxQ)[..., 0]
        z_BxQxC = take(z_BxLxC, window_BxQ * length + within_BxQ)
        return jnp.where(there_BxQ[..., None], z_BxQxC, 0).reshape(rows, -1)


def _attended(query_D: Array, h_RxLxD: Array, kept_RxL: Array, windows: int) -> Array:
    """[B, D]: the mean of the kept codes of all windows, weighed by one softmax over them; 0 where none is kept.

    Scores are not divided by the root of D: at a head's slow rate a query from zero would hardly move them.
    """
    (_, length, width), rows = h_RxLxD.shape, len(h_RxLxD) // windows
    h_RxLxD = h_RxLxD.astype(jnp.float32)
    scores_RxL = jnp.einsum("rld,d->rl", h_RxLxD, query_D)
    scores_RxL = jnp.where(kept_RxL, scores_RxL, jnp.finfo(jnp.float32).min)
    scores_BxK, kept_BxK = (
        jnp.reshape(x, (rows, windows * length), out_sharding=spec("batch", None)) for x in (scores_RxL, kept_RxL)
    )
    h_BxKxD = jnp.reshape(h_RxLxD, (rows, windows * length, width), out_sharding=spec("batch", None, None))
    weights_BxK = jnp.where(kept_BxK, jax.nn.softmax(scores_BxK, axis=1), 0)
    return jnp.einsum("bk,bkd->bd", weights_BxK, h_BxKxD)


def _of_head(head: Params) -> dict[str, Any]:
    """What `Head` takes: other weights are the readout's."""
    return {name: x for name, x in head.items() if name not in _OF_READOUTS}


def _rows(x: Array, *shape: int) -> Array:
    """[B, W, ...] as [B W, ...]."""
    return jnp.reshape(x, (x.shape[0] * x.shape[1], *shape), out_sharding=spec("batch", *[None] * len(shape)))


def _places(total_B: Array, windows: int, length: int) -> tuple[Array, Array]:
    """(where the windows start [B, W], which of their codes count [B, W, L]): each code in the first that has it."""
    first_1xW = jnp.arange(windows)[None] * length
    start_BxW = jnp.minimum(first_1xW, jnp.maximum(total_B[:, None] - length, 0))
    at_BxWxL = start_BxW[..., None] + jnp.arange(length)[None, None]
    return start_BxW, (at_BxWxL >= first_1xW[..., None]) & (at_BxWxL < total_B[:, None, None])


def _mean_of_windows(pooled: list[Array], lengths_BxW: Array) -> Array:
    """Over the windows that have any codes."""
    shape = (*lengths_BxW.shape, -1)
    pooled_BxWxP = jnp.reshape(jnp.concatenate(pooled, axis=-1), shape, out_sharding=spec("batch", None, None))
    there_BxWx1 = (lengths_BxW > 0).astype(jnp.float32)[..., None]
    return jnp.sum(pooled_BxWxP * there_BxWx1, axis=1) / jnp.maximum(jnp.sum(there_BxWx1, axis=1), 1)


def init(
    network: Classifier, method: Method, factors: LoraConfig, transformer: Params, rows: int, key: Array
) -> Params:
    """What fine-tuning by `method` trains, before its first step: a head, and by "lora" the factors, by "full" the
    transformer too."""
    lora_key, head_key = jax.random.split(key)
    features_BxP = jnp.zeros((rows, network.width), out_sharding=spec("batch", None))
    head = dict(network.head.init(head_key, features_BxP)["params"])
    if network.channels:
        head["positions_map"] = jnp.zeros((network.model.width, network.channels), out_sharding=spec(None, None))
    if ATTENTION in network.readouts:
        head["attention_query"] = jnp.zeros(network.model.width, out_sharding=spec(None))
    params = {"head": head}
    if method == "lora":
        return params | {"lora": lora.init(factors, transformer, lora_key)}
    return params | ({"transformer": born(transformer)} if method == "full" else {})
