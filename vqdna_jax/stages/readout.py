"""What fine-tuning reads off a frozen model, and the linear probe that it starts from (Kumar et al., ICLR 2022)."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, get_args

import numpy as np

from vqdna_jax.errors import InputError
from vqdna_jax.evaluation import linear, scores
from vqdna_jax.inference.finetuned import FineTuned
from vqdna_jax.inference.pretrained import Pretrained
from vqdna_jax.labels.batches import Encoded, LabelledFeatures, Strands
from vqdna_jax.labels.sets import LabelledSet
from vqdna_jax.models.classifier import AUTO
from vqdna_jax.models.pooling import OF_CODES
from vqdna_jax.stages.frozen_features import FrozenFeatures, Known
from vqdna_jax.training.settings import FinetuneSettings

POSITIONAL = "positions:8"
CANDIDATES = (
    *("mean", "words", "pairs", "mean+words", "words+pairs", "mean+words+pairs"),
    *("segments:8", "segments:8+words", POSITIONAL, f"{POSITIONAL}+words"),
)
FINALISTS = 3  # of them, that "auto" tries on both strands
TRIED_ROWS = 3000  # of train, and of dev, that "auto" chooses its finalists with
FINAL_ROWS = 10_000  # and the best of these: what has more weights needs more rows to show it
MOST_NOISE = 0.05  # variance of a logit by dropout
FEW_ROWS = 30  # of dev: with fewer, one row more or less that is right decides

Tried = dict[str, float]  # the score on dev of each choice


class Probe(NamedTuple):
    """A linear model of the frozen features of all rows.

    Attributes:
        model: it, as a fine-tuned model of method "head". head: its parameters, which training starts from.
        features: of each split, where a head alone is trained.
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
    frozen = FrozenFeatures(settings, base, labelled_set, encoded, target)
    fitting = _Fitting(settings, labelled_set, frozen)
    pool, strands, lines = fitting.chosen()
    readouts, of_codes, method = pool.split("+"), set(pool.split("+")) <= set(OF_CODES), settings.tuning.method
    # Codes alone give the transformer nothing to learn by: beside them it has a say that begins at zero.
    silent = ["mean"] if of_codes and method != "head" else []
    blank = frozen.blank("+".join(readouts + silent))
    features = {name: fitting.features(name, pool, strands) for name in encoded}
    counts = frozen.counts(pool)
    rows = {name: of.rows(counts) for name, of in features.items()}
    if not of_codes:  # what the head says of counts is not trained
        rows["train"] = features["train"].rows_of_each(counts)
    found = linear.choose(labelled_set.kind, rows["train"], rows["dev"], labelled_set.classes)
    head = fitting.head(found.model, fitting.standards(silent, strands), blank)
    scored = {name: fitting.score(found.model, of) for name, of in rows.items() if name != "train"}
    said = _described(found, linear.METRICS[labelled_set.kind])
    lines = [f"readout    {pool}, {rows['train'].features_BxP.shape[1]:,} features; {said}", *lines]
    read = {name: of.dense() for name, of in features.items()} if method == "head" else {}
    model = frozen.model(blank.network, head, strands)
    return Probe(model, head, read, scored, _spread(found.model, rows["train"]), lines)


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


@dataclasses.dataclass(frozen=True)
class _Fitting:
    """Probes of one set and base."""

    settings: FinetuneSettings
    labelled_set: LabelledSet
    frozen: FrozenFeatures

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
        elif problem := self.frozen.problem(asked):
            raise InputError(f"config key head.pool: {problem}")
        else:
            pools = [asked]
        if len(choices := list(itertools.product(pools, options))) > 1:
            (pool, strands), tried = self.best(choices)
            lines.append(f"strands    {strands}: dev {linear.METRICS[self.labelled_set.kind]} {_listed(tried)}")
        elif strands == "both":
            lines.append("strands    both: the mean of their logits")
        if AUTO in (asked, self.settings.data.strands) and (few := len(self.frozen.encoded["dev"].codes)) < FEW_ROWS:
            lines.append(f"           warning: dev has {few} rows, so what was chosen on it means little")
        return pool, strands, lines

    def best_pools(self, strands: Strands) -> tuple[list[str], Tried]:
        """The FINALISTS best of CANDIDATES, the best first, of equals the first."""
        names = [name for name in CANDIDATES if not self.frozen.problem(name)]
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
            self.frozen.of(split, "+".join(dict.fromkeys("+".join(pools).split("+"))), strands, rows)

    def _tried(self, pool: str, strands: Strands, rows: int) -> float:
        """The score on dev of a probe of so many rows."""
        kind, counts = self.labelled_set.kind, self.frozen.counts(pool)
        train, dev = (self.frozen.of(split, pool, strands, rows).rows(counts) for split in ("train", "dev"))
        return linear.choose(kind, train, dev, self.labelled_set.classes).dev[linear.METRICS[kind]] or 0.0

    def features(self, split: str, pool: str, strands: Strands) -> Known:
        """Of all rows; of few, what was tried."""
        few = len(self.frozen.encoded[split].codes) <= FINAL_ROWS
        return self.frozen.of(split, pool, strands, FINAL_ROWS if few else 0)

    def standards(self, silent: Sequence[str], strands: Strands) -> linear.Standard:
        """Of features without a say yet. Some rows tell: to read those of all costs as much as to train on them."""
        if not silent:
            return linear.Standard(np.zeros(0, np.float32), np.zeros(0, np.float32))
        return linear.standard(self.frozen.of("train", "+".join(silent), strands, TRIED_ROWS).rows(()))

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
