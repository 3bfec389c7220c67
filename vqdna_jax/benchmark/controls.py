"""Control rows that learnt nothing from genomes: linear models of k-mer counts and of bases by position.

A table without them proves nothing: small pretrained models did not beat k-mer counts (docs/pretraining.md).
"""

import functools
import math
from collections.abc import Callable

import numpy as np
import scipy.special
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from vqdna_jax.evaluation import probes, scores
from vqdna_jax.evaluation.code_statistics import one_thread
from vqdna_jax.labels.sets import LabelledSet

Features = Callable[[list[np.ndarray]], np.ndarray]
CONTROLS: dict[str, Features] = {
    "4-mer counts": functools.partial(probes.kmers, k=4),
    "5-mer counts": functools.partial(probes.kmers, k=5),
    "6-mer counts": functools.partial(probes.kmers, k=6),
    "one-hot by position": probes.one_hot,
}
_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # inverse, of which dev chooses one


def run(name: str, labelled_set: LabelledSet, metric: str) -> dict[str, scores.Scores]:
    """{"dev": scores, "test": scores} of logistic (or ridge) regression on all rows given; deterministic.

    The strength of the penalty is the one with the best `metric` on dev; test is scored once.
    """
    splits = labelled_set.splits
    features = CONTROLS[name]([bases for split in splits.values() for bases in split.bases])
    ends = np.cumsum([len(split.bases) for split in splits.values()])[:-1]
    by_split = dict(zip(splits, np.split(np.asarray(features, np.float32), ends)))

    def score(fitted: list[Pipeline], split: str) -> scores.Scores:
        outputs = _outputs(fitted, labelled_set, by_split[split])
        return scores.score(labelled_set.kind, splits[split].labels, outputs, labelled_set.classes)

    def on_dev(fitted: list[Pipeline]) -> float:
        found = score(fitted, "dev")[metric]
        return -math.inf if found is None else found

    with one_thread():
        candidates = (_fit(labelled_set.kind, by_split["train"], splits["train"].labels, one) for one in _PENALTIES)
        best = max(candidates, key=on_dev)
        return {split: score(best, split) for split in ("dev", "test")}


def _fit(kind: str, features_BxP: np.ndarray, labels: np.ndarray, inverse_penalty: float) -> list[Pipeline]:
    """One model, or of a multi-label set one for each label."""
    if kind == "regression":
        return [make_pipeline(StandardScaler(), Ridge(1 / inverse_penalty)).fit(features_BxP, labels)]
    return [
        make_pipeline(StandardScaler(), LogisticRegression(C=inverse_penalty, max_iter=2000)).fit(features_BxP, column)
        for column in ([labels] if kind == "classification" else np.asarray(labels).T)
    ]


def _outputs(models: list[Pipeline], labelled_set: LabelledSet, features_BxP: np.ndarray) -> np.ndarray:
    """Logits [B, V], or values [B, 1]."""
    if labelled_set.kind == "regression":
        return models[0].predict(features_BxP)[:, None]
    if labelled_set.kind == "multilabel":
        return np.stack([one.decision_function(features_BxP) for one in models], axis=1)
    logits = models[0].decision_function(features_BxP)
    if logits.ndim == 1:  # of label 1
        probability = scipy.special.expit(logits)
        return np.stack([1 - probability, probability], axis=1)
    return logits
