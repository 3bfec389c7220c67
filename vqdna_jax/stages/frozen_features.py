"""What a frozen model says of all rows of a labelled set, by readout: computed once, counts as sparse arrays."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse

from vqdna_jax.evaluation import linear
from vqdna_jax.evaluation.linear import Features
from vqdna_jax.inference.finetuned import FineTuned
from vqdna_jax.inference.pretrained import Pretrained
from vqdna_jax.inference.saved.finetuned import Recipe, assemble
from vqdna_jax.labels import sets
from vqdna_jax.labels.batches import Encoded, LabelledFeatures, Strands
from vqdna_jax.labels.sets import LabelledSet
from vqdna_jax.models.classifier import AS_A_WHOLE, ATTENTION, POSITIONS, Classifier
from vqdna_jax.models.lora import LoraConfig
from vqdna_jax.models.pooling import OF_CODES, without_cls
from vqdna_jax.training.settings import FinetuneSettings

MOST_NUMBERS = 10_000  # of positions: a linear model of more has more weights than most sets have bases
MAPPED_ROWS = 500  # of train, whose vectors the map of positions is made of
MOSTLY = 0.75  # of the features are counts, mostly zeros: sparse arrays take a tenth of the memory
BLOCK = 4096  # rows, of which all features are there at once


class Known(NamedTuple):
    """Features [B, P] of one strand or of both, and the labels."""

    strands: Sequence[Features]
    labels: np.ndarray

    def rows(self, counts: tuple[linear.Span, ...]) -> linear.Rows:
        """Of both strands their mean: what a linear head says of it is the mean of what it says of each."""
        first_BxP, *other = self.strands
        return linear.Rows((first_BxP + other[0]) / 2 if other else first_BxP, self.labels, counts)

    def rows_of_each(self, counts: tuple[linear.Span, ...]) -> linear.Rows:
        """Every strand by itself, as training reads them. Weights fitted on means are larger, for means vary less, and
        what they say of one strand is noise that training would learn against."""
        are_sparse = not isinstance(self.strands[0], np.ndarray)
        features_BxP = sparse.vstack(self.strands, "csr") if are_sparse else np.concatenate(self.strands)
        return linear.Rows(features_BxP, np.concatenate([self.labels] * len(self.strands)), counts)

    def dense(self) -> LabelledFeatures:
        """As a head is trained on them."""
        as_dense = (x if isinstance(x, np.ndarray) else x.toarray() for x in self.strands)
        first, *other = (LabelledFeatures(features_BxP, self.labels) for features_BxP in as_dense)
        return first.replace(other=other[0]) if other else first


@dataclasses.dataclass(frozen=True)
class FrozenFeatures:
    """Of one set and base."""

    settings: FinetuneSettings
    base: Pretrained
    labelled_set: LabelledSet
    encoded: Mapping[str, Encoded]
    target: tuple[float, float]

    def of(self, split: str, pool: str, strands: Strands, most_rows: int = 0) -> Known:
        """Of all rows, or of at most so many, each class with its share: then each part of the readout is kept, and
        computed once."""
        rows = self.encoded[split]
        if most_rows and most_rows < len(rows.codes):
            rows = rows.take(sets.draw(rows.labels, most_rows))
        parts, known = pool.split("+"), dict[tuple[str, int, int, str], Features]() if not most_rows else self._known
        numbered = list(enumerate([rows.codes, rows.other] if strands == "both" else [rows.codes]))
        keys = [[(split, len(rows.codes), strand, part) for part in parts] for strand, _ in numbered]
        for of_strand, (_, codes) in zip(keys, numbered):
            if new := [key for key in of_strand if key not in known]:
                known.update(zip(new, _parts(self.blank("+".join(part for *_, part in new)), codes)))
        return Known([_joined([known[key] for key in of_strand]) for of_strand in keys], rows.labels)

    @functools.cached_property
    def _known(self) -> dict[tuple[str, int, int, str], Features]:
        """By split, number of rows, strand and readout."""
        return {}

    def problem(self, pool: str) -> str:
        """Why the base cannot give such a readout of these sequences, or of stretches of them; empty if it can."""
        if self.settings.data.length_warmup_bp and not set(AS_A_WHOLE).isdisjoint(pool.split("+")):
            return "reads a stretch as if it were the whole sequence"
        if not self.base.transformer.cls and (found := without_cls(pool)):
            return f"found {found}, but this base was trained without CLS; use mean or max"
        numbers = sum(POSITIONS.get(name, 0) for name in pool.split("+")) * self._longest
        if numbers > MOST_NUMBERS:
            return (
                f"found {pool}, {numbers:,} numbers for the longest training sequence, expected at most"
                f" {MOST_NUMBERS:,}; use segments:16"
            )
        return ""

    def counts(self, pool: str) -> tuple[linear.Span, ...]:
        """The spans of the features of a readout that count codes."""
        return self._network(pool).counts

    def blank(self, pool: str) -> FineTuned:
        """A model with the readout, before there is a head, to compute features with."""
        network, own = self._network(pool), {}
        if network.channels:
            own["positions_map"] = self._map_of(network.channels)
        if ATTENTION in network.readouts:
            own["attention_query"] = np.zeros(network.model.width, np.float32)
        return self.model(network, own)

    def model(self, network: Classifier, head: Mapping[str, np.ndarray], strands: Strands = "one") -> FineTuned:
        kind, names, long = self.labelled_set.kind, self.labelled_set.label_names, self.settings.data.long
        readout = network.pool, 0, network.places, self.settings.head.align
        recipe = Recipe(kind, "head", LoraConfig(), *readout, strands=strands)
        return assemble(self.base, recipe, {"head": head}, names, self.target, long)

    def _network(self, pool: str) -> Classifier:
        places = self._longest if any(name in POSITIONS for name in pool.split("+")) else 0
        return Recipe(self.labelled_set.kind, "head", LoraConfig(), pool, 0, places).network(self.base, 1)

    def _map_of(self, channels: int) -> np.ndarray:
        if channels not in self._maps:
            self._maps[channels] = _directions(self.base, self.encoded["train"].codes, channels)
        return self._maps[channels]

    @functools.cached_property
    def _maps(self) -> dict[int, np.ndarray]:
        """Of positions, by their channels: the same for all splits and strands."""
        return {}

    @functools.cached_property
    def _longest(self) -> int:
        return int(self.encoded["train"].lengths.max())


def _parts(blank: FineTuned, codes: Sequence[np.ndarray]) -> list[Features]:
    """Of every readout of the model, counts sparse."""
    readouts, ends = blank.network.readouts, np.cumsum(blank.network.widths)[:-1]
    blocks = [np.split(blank.features(codes[i : i + BLOCK]), ends, axis=1) for i in range(0, max(1, len(codes)), BLOCK)]
    return [
        sparse.vstack(list(map(sparse.csr_array, of_blocks)), "csr") if name in OF_CODES else np.concatenate(of_blocks)
        for name, of_blocks in zip(readouts, zip(*blocks))
    ]


def _joined(parts: Sequence[Features]) -> Features:
    """Side by side: sparse where most are counts."""
    counts = sum(x.shape[1] for x in parts if not isinstance(x, np.ndarray))
    if counts >= MOSTLY * sum(x.shape[1] for x in parts):
        return sparse.hstack([sparse.csr_array(x) for x in parts], "csr") if len(parts) > 1 else parts[0]
    return np.concatenate([x if isinstance(x, np.ndarray) else x.toarray() for x in parts], axis=1)


def _directions(base: Pretrained, codes: Sequence[np.ndarray], channels: int) -> np.ndarray:
    """f32 [D, C]: the directions in which the context vectors of training sequences vary most, scaled so that each
    varies by 1. Without labels; training moves them."""
    codes = [codes[i] for i in np.linspace(0, len(codes) - 1, min(len(codes), MAPPED_ROWS)).astype(int)]
    vectors_MxD = np.concatenate([vectors for _, vectors in base.context_vectors(codes, "none", -1)]).astype(np.float64)
    variance_D, directions_DxD = np.linalg.eigh(np.cov(vectors_MxD, rowvar=False, ddof=min(1, len(vectors_MxD) - 1)))
    scale_C = np.sqrt(np.maximum(variance_D[::-1][:channels], 1e-12))
    return (directions_DxD[:, ::-1][:, :channels] / scale_C).astype(np.float32)
