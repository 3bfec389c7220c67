"""What fine-tuning reads off a frozen model, and the linear probe that it starts from (Kumar et al., ICLR 2022)."""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, get_args

import numpy as np
from scipy import sparse

from vqdna_jax.errors import InputError
from vqdna_jax.evaluation import linear, scores
from vqdna_jax.inference.finetuned import FineTuned
from vqdna_jax.inference.pretrained import Pretrained
from vqdna_jax.inference.saved.finetuned import Recipe, assemble
from vqdna_jax.labels import sets
from vqdna_jax.labels.batches import Encoded, LabelledFeatures, Strands
from vqdna_jax.labels.sets import LabelledSet
from vqdna_jax.models.classifier import AS_A_WHOLE, ATTENTION, AUTO, POSITIONS, Classifier
from vqdna_jax.models.lora import LoraConfig
from vqdna_jax.models.pooling import OF_CODES, without_cls
from vqdna_jax.training.settings import FinetuneSettings

POSITIONAL = "positions:8"
CANDIDATES = (
    *("mean", "words", "pairs", "mean+words", "words+pairs", "mean+words+pairs"),
    *("segments:8", "segments:8+words", POSITIONAL, f"{POSITIONAL}+words"),
)
FINALISTS = 3  # of them, that "auto" tries on both strands
TRIED_ROWS = 3000  # of train, and of dev, that "auto" chooses its finalists with
FINAL_ROWS = 10_000  # and the best of these: what has more weights needs more rows to show it
MOST_NUMBERS = 10_000  # of positions: a linear model of more has more weights than most sets have bases
MAPPED_ROWS = 500  # of train, whose vectors the map of positions is made of
MOST_NOISE = 0.05  # variance of a logit by dropout
FEW_ROWS = 30  # of dev: with fewer, one row more or less that is right decides

Tried = dict[str, float]  # the score on dev of each choice


class Probe(NamedTuple):
    """A linear model of the frozen features of all rows.

    Attributes:
        model: it, as a fine-tuned model of method "head". head: its parameters, which training starts from.
        features: of each split.
        scores: of each split but train, by name; dev chose the penalty.
        spread: the sum over features of variance times the weight's square, the mean of the logits: what dropout is
            told.
        lines: to say of it before the first step.
    """

    model: FineTuned
    head: Mapping[str, np.ndarray]
    features: Mapping[str, LabelledFeatures]
    scores: Mapping[str, scores.Scores]
    spread: float
    lines: Sequence[str]


def probe(
    settings: FinetuneSettings,
    base: Pretrained,
    labelled_set: LabelledSet,
    encoded: Mapping[str, Encoded],
    target: tuple[float, float],
) -> Probe:
    """The readout and the strands that the config names, or of "auto" the best on dev, and the probe of them.

    Raises InputError: the base cannot give the readout.
    """
    fitting = _Fitting(settings, base, labelled_set, encoded, target)
    pool, strands, lines = fitting.chosen()
    readouts, of_codes = pool.split("+"), set(pool.split("+")) <= set(OF_CODES)
    # Codes alone give the transformer nothing to learn by: beside them it has a say that begins at zero.
    silent = ["mean"] if of_codes and settings.tuning.method != "head" else []
    blank = fitting.blank("+".join(readouts + silent))
    features = {name: fitting.features(name, pool, strands) for name in encoded}
    counts = fitting.counts(pool)
    rows = {name: _rows(of, counts) for name, of in features.items()}
    if not of_codes:  # what the head says of counts is not trained
        rows["train"] = _rows_of_each(features["train"], counts)
    found = linear.choose(labelled_set.kind, rows["train"], rows["dev"], labelled_set.classes)
    head = fitting.head(found.model, fitting.standards(silent, strands), blank)
    scored = {name: fitting.score(found.model, of) for name, of in rows.items() if name != "train"}
    said = _described(found, linear.METRICS[labelled_set.kind])
    lines = [f"readout    {pool}, {rows['train'].features_BxP.shape[1]:,} features; {said}", *lines]
    return Probe(
        fitting.model(blank.network, head, strands), head, features, scored, _spread(found.model, rows["train"]), lines
    )


def dropout(most: float, spread: float) -> float:
    """At most `most`, and at most what gives the logits a variance of MOST_NOISE. Weights of a probe under a weak
    penalty are large and cancel: where a tenth of the features is missing they do not, and training would learn against
    that noise alone."""
    return min(most, MOST_NOISE / (MOST_NOISE + spread))


def _spread(found: linear.Linear, train: linear.Rows) -> float:
    kernel_PxV = found.kernel_PxV / found.scale_P[:, None]
    kernel_PxV = kernel_PxV - kernel_PxV.mean(axis=1, keepdims=True) if kernel_PxV.shape[1] > 1 else kernel_PxV
    _, variance_P = linear.moments(train.features_BxP)
    return float((variance_P @ np.square(kernel_PxV)).mean())


def _listed(tried: Tried) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in tried.items())


def _described(found: linear.Chosen, metric: str) -> str:
    edges = {linear.INVERSE_PENALTIES[0]: "strongest", linear.INVERSE_PENALTIES[-1]: "weakest"}
    edge = f", by the {edges[found.inverse_penalty]} penalty tried" if found.inverse_penalty in edges else ""
    return f"linear probe on dev: {metric} {found.dev[metric] or 0:.3f}{edge}"


def _rows(of: LabelledFeatures, counts: tuple[linear.Span, ...]) -> linear.Rows:
    """The features, of both strands their mean: what a linear head says of it is the mean of what it says of each.

    Where all are counts, which are mostly zeros, they are sparse: fitted in a tenth of the time."""
    first_BxP, *other = of.strands
    features_BxP = (first_BxP + other[0]) / 2 if other else first_BxP
    all_counts = sum(end - start for start, end in counts) == features_BxP.shape[1]
    return linear.Rows(sparse.csr_array(features_BxP) if all_counts else features_BxP, of.labels, counts)


def _rows_of_each(of: LabelledFeatures, counts: tuple[linear.Span, ...]) -> linear.Rows:
    """Every strand by itself, as training reads them. Weights fitted on means are larger, for means vary less, and what
    they say of one strand is noise that training would learn against."""
    return linear.Rows(np.concatenate(of.strands), np.concatenate([of.labels] * len(of.strands)), counts)


@dataclasses.dataclass(frozen=True)
class _Fitting:
    """What probes of one set and base share."""

    settings: FinetuneSettings
    base: Pretrained
    labelled_set: LabelledSet
    encoded: Mapping[str, Encoded]
    target: tuple[float, float]

    def chosen(self) -> tuple[str, Strands, list[str]]:
        """The readout and the strands that the config names, or the best on dev, and lines on what was tried.

        Raises InputError: the base cannot give the readout.
        """
        asked, given, lines = self.settings.head.pool, self.settings.data.given_strands, list[str]()
        options = (given,) if given else get_args(Strands)
        pool, strands = asked, options[0]
        if asked == AUTO:
            pools, tried = self.best_pools(strands)
            lines.append(f"           tried on dev: {_listed(tried)}")
        elif problem := self.problem(asked):
            raise InputError(f"config key head.pool: {problem}")
        else:
            pools = [asked]
        if len(choices := list(itertools.product(pools, options))) > 1:
            (pool, strands), tried = self.best(choices)
            lines.append(f"strands    {strands}: dev {linear.METRICS[self.labelled_set.kind]} {_listed(tried)}")
        elif strands == "both":
            lines.append("strands    both: the mean of their logits")
        if AUTO in (asked, self.settings.data.strands) and (few := len(self.encoded["dev"].codes)) < FEW_ROWS:
            lines.append(f"           warning: dev has {few} rows, so what was chosen on it means little")
        return pool, strands, lines

    def best_pools(self, strands: Strands) -> tuple[list[str], Tried]:
        """The FINALISTS best of CANDIDATES, the best first, of equals the first."""
        names = [name for name in CANDIDATES if not self.problem(name)]
        self._read(names, strands, TRIED_ROWS)
        tried = {name: self._tried(name, strands, TRIED_ROWS) for name in names}
        return sorted(names, key=lambda name: -tried[name])[:FINALISTS], tried

    def best(self, choices: Sequence[tuple[str, Strands]]) -> tuple[tuple[str, Strands], Tried]:
        """The best of readouts by one strand or both, of equals the first. What is best of one strand need not be of
        both, and what is best of few rows, which fit few weights, need not be of many."""
        pools, strands = zip(*choices)
        self._read(dict.fromkeys(pools), max(strands, key=get_args(Strands).index), FINAL_ROWS)
        tried = {choice: self._tried(*choice, FINAL_ROWS) for choice in choices}
        named = {" ".join(choice[len(set(pools)) == 1 :]): value for choice, value in tried.items()}
        return max(tried, key=lambda choice: tried[choice]), named

    def _read(self, pools: Iterable[str], strands: Strands, rows: int) -> None:
        """What is tried, in one pass."""
        for split in ("train", "dev"):
            self._features_of_some(split, "+".join(dict.fromkeys("+".join(pools).split("+"))), strands, rows)

    def _tried(self, pool: str, strands: Strands, rows: int) -> float:
        """The score on dev of a probe of so many rows."""
        kind = self.labelled_set.kind
        counts = self.counts(pool)
        train, dev = (_rows(self._features_of_some(split, pool, strands, rows), counts) for split in ("train", "dev"))
        return linear.choose(kind, train, dev, self.labelled_set.classes).dev[linear.METRICS[kind]] or 0.0

    def features(self, split: str, pool: str, strands: Strands) -> LabelledFeatures:
        """Of all rows."""
        of = self.encoded[split]
        if len(of.codes) <= FINAL_ROWS:
            return self._features_of_some(split, pool, strands, FINAL_ROWS)
        blank = self.blank(pool)
        return _of_strands([blank.features(codes) for codes in _strands(of, strands)], of.labels)

    def _features_of_some(self, split: str, pool: str, strands: Strands, rows: int) -> LabelledFeatures:
        """Of the rows that are tried, each part of the readout computed once."""
        of, parts = self._some(split, rows), pool.split("+")
        keys = [[(split, len(of.codes), number, part) for part in parts] for number in range(1 + (strands == "both"))]
        for of_strand, codes in zip(keys, _strands(of, strands)):
            if new := [key for key in of_strand if key not in self._known]:
                blank = self.blank("+".join(part for *_, part in new))
                found = np.split(blank.features(codes), np.cumsum(blank.network.widths)[:-1], axis=1)
                self._known.update(zip(new, found))
        known = [np.concatenate([self._known[key] for key in of_strand], axis=1) for of_strand in keys]
        return _of_strands(known, of.labels)

    @functools.cached_property
    def _known(self) -> dict[tuple[str, int, int, str], np.ndarray]:
        """Features of some rows [B, P], by split, number of rows, strand and readout."""
        return {}

    def _some(self, split: str, rows: int) -> Encoded:
        """At most so many rows, each class with its share."""
        of = self.encoded[split]
        return of if len(of.codes) <= rows else of.take(sets.draw(of.labels, rows))

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

    def model(self, network: Classifier, head: Mapping[str, np.ndarray], strands: Strands = "one") -> FineTuned:
        kind, names, long = self.labelled_set.kind, self.labelled_set.label_names, self.settings.data.long
        readout = network.pool, 0, network.places, self.settings.head.align
        recipe = Recipe(kind, "head", LoraConfig(), *readout, strands=strands)
        return assemble(self.base, recipe, {"head": head}, names, self.target, long)

    def standards(self, silent: Sequence[str], strands: Strands) -> linear.Standard:
        """Of features without a say yet. Some rows tell: to read those of all costs as much as to train on them."""
        if not silent:
            return linear.Standard(np.zeros(0, np.float32), np.zeros(0, np.float32))
        return linear.standard(_rows(self._features_of_some("train", "+".join(silent), strands, TRIED_ROWS), ()))

    def head(self, found: linear.Linear, rest: linear.Standard, blank: FineTuned) -> dict[str, np.ndarray]:
        """Parameters of `Head`, features without a say at its end."""
        nothing = np.zeros((len(rest.mean_P), found.kernel_PxV.shape[1]), np.float32)
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


def _strands(of: Encoded, strands: Strands) -> list[Sequence[np.ndarray]]:
    return [of.codes, of.other] if strands == "both" else [of.codes]


def _of_strands(features: Sequence[np.ndarray], labels: np.ndarray) -> LabelledFeatures:
    first, *other = (LabelledFeatures(features_BxP, labels) for features_BxP in features)
    return first.replace(other=other[0]) if other else first


def _directions(base: Pretrained, codes: Sequence[np.ndarray], channels: int) -> np.ndarray:
    """f32 [D, C]: the directions in which the context vectors of training sequences vary most, scaled so that each
    varies by 1. Without labels; training moves them."""
    codes = [codes[i] for i in np.linspace(0, len(codes) - 1, min(len(codes), MAPPED_ROWS)).astype(int)]
    vectors_MxD = np.concatenate([vectors for _, vectors in base.context_vectors(codes, "none", -1)]).astype(np.float64)
    variance_D, directions_DxD = np.linalg.eigh(np.cov(vectors_MxD, rowvar=False, ddof=min(1, len(vectors_MxD) - 1)))
    scale_C = np.sqrt(np.maximum(variance_D[::-1][:channels], 1e-12))
    return (directions_DxD[:, ::-1][:, :channels] / scale_C).astype(np.float32)
