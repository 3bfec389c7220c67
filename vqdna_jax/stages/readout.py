"""What fine-tuning reads off a frozen model, and the linear probe that it starts from (Kumar et al., ICLR 2022)."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from vqdna_jax.errors import InputError
from vqdna_jax.evaluation import linear, scores
from vqdna_jax.inference.finetuned import FineTuned
from vqdna_jax.inference.pretrained import Pretrained
from vqdna_jax.inference.saved.finetuned import Recipe, assemble
from vqdna_jax.labels import sets
from vqdna_jax.labels.batches import Encoded
from vqdna_jax.labels.sets import LabelledSet
from vqdna_jax.models.classifier import POSITIONS, Classifier
from vqdna_jax.models.lora import LoraConfig
from vqdna_jax.models.pooling import OF_CODES, without_cls
from vqdna_jax.training.settings import FinetuneSettings

POSITIONAL = "positions:8"
CANDIDATES = (
    *("mean", "words", "pairs", "mean+words", "words+pairs"),
    *("segments:8", "segments:8+words", POSITIONAL, f"{POSITIONAL}+words"),
)
TRIED_ROWS = 3000  # of train, and of dev, that "auto" chooses with
MOST_NUMBERS = 10_000  # of positions: a linear model of more has more weights than most sets have bases
MAPPED_ROWS = 500  # of train, whose vectors the map of positions is made of


class Probe(NamedTuple):
    """A linear model of the frozen features of all rows.

    Attributes:
        model: it, as a fine-tuned model of method "head". head: its parameters, which training starts from.
        features: of each split, [B, P].
        scores: of each split but train, by name; dev chose the penalty.
        lines: to say of it before the first step.
    """

    model: FineTuned
    head: Mapping[str, np.ndarray]
    features: Mapping[str, np.ndarray]
    scores: Mapping[str, scores.Scores]
    lines: Sequence[str]


def probe(
    settings: FinetuneSettings,
    base: Pretrained,
    labelled_set: LabelledSet,
    encoded: Mapping[str, Encoded],
    target: tuple[float, float],
) -> Probe:
    """The readout that the config names, or with "auto" the best on dev, and the probe of it.

    Raises InputError: the base cannot give the readout.
    """
    fitting, pool, lines = _Fitting(settings, base, labelled_set, target), settings.head.pool, []
    if pool == "auto":
        pool, tried = _choose(fitting, encoded)
        lines.append("           tried on dev: " + ", ".join(f"{name} {value:.3f}" for name, value in tried.items()))
    if problem := fitting.problem(pool, encoded):
        raise InputError(f"config key head.pool: {problem}")
    readouts = pool.split("+")
    # Codes alone give the transformer nothing to learn by: beside them it has a say that begins at zero.
    silent = ["mean"] if settings.tuning.method != "head" and set(readouts) <= set(OF_CODES) else []
    blank = fitting.blank("+".join(readouts + silent), encoded)
    features = {name: blank.features(of.codes) for name, of in encoded.items()}
    seen = sum(blank.network.widths[: len(readouts)])
    rows = {name: linear.Rows(features[name][:, :seen], of.labels) for name, of in encoded.items()}
    found = linear.choose(labelled_set.kind, rows["train"], rows["dev"], labelled_set.classes)
    head = fitting.head(found.model, features["train"][:, seen:], blank)
    scored = {name: fitting.score(found.model, of) for name, of in rows.items() if name != "train"}
    lines.insert(0, f"readout    {pool}, {seen:,} features; {_described(found, linear.METRICS[labelled_set.kind])}")
    return Probe(fitting.model(blank.network, head), head, features, scored, lines)


def _described(found: linear.Chosen, metric: str) -> str:
    edges = {linear.INVERSE_PENALTIES[0]: "strongest", linear.INVERSE_PENALTIES[-1]: "weakest"}
    edge = f", by the {edges[found.inverse_penalty]} penalty tried" if found.inverse_penalty in edges else ""
    return f"linear probe on dev: {metric} {found.dev[metric] or 0:.3f}{edge}"


def _choose(fitting: "_Fitting", encoded: Mapping[str, Encoded]) -> tuple[str, dict[str, float]]:
    """(the best of CANDIDATES on some rows of dev, the first of equals, and the score of each)."""
    kind, classes = fitting.labelled_set.kind, fitting.labelled_set.classes
    some = {name: _some(encoded[name], TRIED_ROWS) for name in ("train", "dev")}
    names = [name for name in CANDIDATES if not fitting.problem(name, encoded)]
    parts = list(dict.fromkeys(part for name in names for part in name.split("+")))
    blank = fitting.blank("+".join(parts), some)
    ends = np.cumsum(blank.network.widths)[:-1]
    features = {split: dict(zip(parts, np.split(blank.features(of.codes), ends, axis=1))) for split, of in some.items()}
    tried = {}
    for name in names:
        joined = {
            split: np.concatenate([of[part] for part in name.split("+")], axis=1) for split, of in features.items()
        }
        train, dev = (linear.Rows(joined[split], some[split].labels) for split in ("train", "dev"))
        tried[name] = linear.choose(kind, train, dev, classes).dev[linear.METRICS[kind]] or 0.0
    return max(tried, key=lambda name: tried[name]), tried


def _some(encoded: Encoded, rows: int) -> Encoded:
    """At most so many rows, each class with its share."""
    drawn = sets.draw(encoded.labels, rows)
    return Encoded([encoded.codes[i] for i in drawn], encoded.labels[drawn])


@dataclasses.dataclass(frozen=True)
class _Fitting:
    """What probes of one set and base share."""

    settings: FinetuneSettings
    base: Pretrained
    labelled_set: LabelledSet
    target: tuple[float, float]

    def problem(self, pool: str, encoded: Mapping[str, Encoded]) -> str:
        """Why the base cannot give such a readout of these sequences; empty if it can."""
        if not self.base.transformer.cls and (found := without_cls(pool)):
            return f"found {found}, but this base was trained without CLS; use mean or max"
        numbers = sum(POSITIONS.get(name, 0) for name in pool.split("+")) * _longest(encoded)
        if numbers > MOST_NUMBERS:
            return (
                f"found {pool}, {numbers:,} numbers for the longest training sequence, expected at most"
                f" {MOST_NUMBERS:,}; use segments:16"
            )
        return ""

    def blank(self, pool: str, encoded: Mapping[str, Encoded]) -> FineTuned:
        """A model with the readout, before there is a head, to compute features with."""
        places = _longest(encoded) if any(name in POSITIONS for name in pool.split("+")) else 0
        network = Recipe(self.labelled_set.kind, "head", LoraConfig(), pool, 0, places).network(self.base, 1)
        if not network.channels:
            return self.model(network, {})
        return self.model(network, {"positions_map": _directions(self.base, encoded["train"].codes, network.channels)})

    def model(self, network: Classifier, head: Mapping[str, np.ndarray]) -> FineTuned:
        kind, names, long = self.labelled_set.kind, self.labelled_set.label_names, self.settings.data.long
        readout = network.pool, 0, network.places, self.settings.head.align
        return assemble(
            self.base, Recipe(kind, "head", LoraConfig(), *readout), {"head": head}, names, self.target, long
        )

    def head(self, found: linear.Linear, silent_BxP: np.ndarray, blank: FineTuned) -> dict[str, np.ndarray]:
        """Parameters of `Head`, features without a say at its end."""
        rest = linear.standard(silent_BxP)
        nothing = np.zeros((silent_BxP.shape[1], found.kernel_PxV.shape[1]), np.float32)
        head = {
            "mean": np.append(found.mean_P, rest.mean_P),
            "scale": np.append(found.scale_P, rest.scale_P),
            "kernel": np.concatenate([found.kernel_PxV, nothing]),
            "bias": found.bias_V,
        }
        return head | {name: np.asarray(x) for name, x in blank.head.items()}

    def score(self, found: linear.Linear, rows: linear.Rows) -> scores.Scores:
        outputs_BxV = found.outputs(rows.features_BxP)
        return scores.score(self.labelled_set.kind, rows.labels, outputs_BxV, self.labelled_set.classes)


def _longest(encoded: Mapping[str, Encoded]) -> int:
    return max(len(codes_LxN) for codes_LxN in encoded["train"].codes)


def _directions(base: Pretrained, codes: Sequence[np.ndarray], channels: int) -> np.ndarray:
    """f32 [D, C]: the directions in which the context vectors of training sequences vary most, scaled so that each
    varies by 1. Without labels; training moves them."""
    codes = [codes[i] for i in np.linspace(0, len(codes) - 1, min(len(codes), MAPPED_ROWS)).astype(int)]
    vectors_MxD = np.concatenate([vectors for _, vectors in base.context_vectors(codes, "none", -1)]).astype(np.float64)
    variance_D, directions_DxD = np.linalg.eigh(np.cov(vectors_MxD, rowvar=False))
    scale_C = np.sqrt(np.maximum(variance_D[::-1][:channels], 1e-12))
    return (directions_DxD[:, ::-1][:, :channels] / scale_C).astype(np.float32)
