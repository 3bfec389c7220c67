"""Linear models of features, by scikit-learn: probes, the controls of the benchmark, and what fine-tuning starts from.

B counts rows, P features, V classes or labels. Features are standardised on the training rows.
"""

import math
import warnings
from typing import Any, NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression, Ridge

from vqdna_jax.evaluation import scores
from vqdna_jax.evaluation.code_statistics import one_thread

INVERSE_PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
METRICS = {"classification": "mcc", "multilabel": "mcc", "regression": "spearman"}
_NEVER = -30.0  # the logit of a class that no training row has; e^-30 of it is left


class Linear(NamedTuple):
    """Logits, or a regression's value [B, 1], of features: ((x - mean) / scale) kernel + bias."""

    mean_P: np.ndarray
    scale_P: np.ndarray
    kernel_PxV: np.ndarray
    bias_V: np.ndarray

    def outputs(self, features_BxP: np.ndarray) -> np.ndarray:
        return (features_BxP - self.mean_P) / self.scale_P @ self.kernel_PxV + self.bias_V


class Rows(NamedTuple):
    """Features f32 [B, P] and labels as `scores.score` takes them."""

    features_BxP: np.ndarray
    labels: np.ndarray


class Chosen(NamedTuple):
    """The model with the best score on dev, its inverse penalty, and its scores there."""

    model: Linear
    inverse_penalty: float
    dev: scores.Scores


def choose(kind: str, train: Rows, dev: Rows, outputs: int, metric: str = "") -> Chosen:
    """Logistic regression (one for each label of "multilabel"; ridge for "regression") fitted on `train`, with the
    penalty, of INVERSE_PENALTIES, that has the best `metric` on `dev`: the strongest of equals. Deterministic."""
    metric = metric or METRICS[kind]

    def tried(inverse_penalty: float) -> Chosen:
        model = fit(kind, train, outputs, inverse_penalty)
        return Chosen(model, inverse_penalty, scores.score(kind, dev.labels, model.outputs(dev.features_BxP), outputs))

    def on_dev(found: Chosen) -> float:
        value = found.dev[metric]
        return -math.inf if value is None else value

    with one_thread():
        return max(map(tried, INVERSE_PENALTIES), key=on_dev)


class Standard(NamedTuple):
    """Mean and standard deviation of features, 1 of those that do not vary."""

    mean_P: np.ndarray
    scale_P: np.ndarray


def standard(features_BxP: np.ndarray) -> Standard:
    mean_P, scale_P = features_BxP.mean(axis=0, dtype=np.float64), features_BxP.std(axis=0, dtype=np.float64)
    varies_P = scale_P > 1e-6 * np.maximum(1, np.abs(mean_P))
    return Standard(mean_P.astype(np.float32), np.where(varies_P, scale_P, 1).astype(np.float32))


def fit(kind: str, train: Rows, outputs: int, inverse_penalty: float) -> Linear:
    """One model. A class that no row has is never answered."""
    standardised = standard(train.features_BxP)
    x_BxP = (train.features_BxP - standardised.mean_P) / standardised.scale_P
    parts = {"classification": _classes, "multilabel": _labels, "regression": _values}[kind]
    kernel_PxV, bias_V = parts(x_BxP, train.labels, outputs, inverse_penalty)
    return Linear(*standardised, np.asarray(kernel_PxV, np.float32), np.asarray(bias_V, np.float32))


Parts = tuple[np.ndarray, np.ndarray]  # kernel [P, V], bias [V]


def _classes(x_BxP: np.ndarray, labels_B: np.ndarray, classes: int, inverse_penalty: float) -> Parts:
    kernel_PxV, bias_V = np.zeros((x_BxP.shape[1], classes)), np.full(classes, _NEVER)
    present = np.unique(labels_B)
    if len(present) == 1:
        bias_V[present] = 0
        return kernel_PxV, bias_V
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes")  # of few rows: labels are what they are
        model: Any = LogisticRegression(C=inverse_penalty, max_iter=2000).fit(x_BxP, labels_B)
    weights, bias = model.coef_, model.intercept_
    if len(present) == 2:  # of the second class alone
        weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    kernel_PxV[:, present], bias_V[present] = weights.T, bias
    return kernel_PxV, bias_V


def _labels(x_BxP: np.ndarray, labels_BxV: np.ndarray, outputs: int, inverse_penalty: float) -> Parts:
    """Each label on its own: its logit is the difference of those of no and yes."""
    of_each = [_classes(x_BxP, column_B.astype(int), 2, inverse_penalty) for column_B in np.asarray(labels_BxV).T]
    return np.stack([k[:, 1] - k[:, 0] for k, _ in of_each], axis=1), np.array([b[1] - b[0] for _, b in of_each])


def _values(x_BxP: np.ndarray, labels_B: np.ndarray, outputs: int, inverse_penalty: float) -> Parts:
    model: Any = Ridge(1 / inverse_penalty).fit(x_BxP, labels_B)
    return model.coef_[:, None], np.array([model.intercept_])
