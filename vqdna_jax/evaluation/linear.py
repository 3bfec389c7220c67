"""Linear models of features, by scikit-learn: probes, the controls of the benchmark, and what fine-tuning starts from.

B counts rows, P features, V classes or labels. What a network says is standardised on the training rows, each feature
by itself. Counts of one kind are all divided by one number, so that their variance is 1 on average: divided by its own
deviation, a k-mer that few sequences have would weigh as much as common ones, and what is fitted is chance
(docs/results.md). Sparse features are counts; they are fitted as they are, for centred no zero would be left, and the
bias, which has no penalty, makes up for that.
"""

import contextlib
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import threadpoolctl
from scipy import sparse
from sklearn.linear_model import LogisticRegression, Ridge

from vqdna_jax.evaluation import scores

Features: TypeAlias = np.ndarray | sparse.csr_array
INVERSE_PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
PATIENCE = 2  # penalties in a row that may be worse before weaker ones are left out
FEW, CHEAP = 4, 20_000_000  # rows a feature, and numbers in all, with which weak penalties cost little
METRICS = {"classification": "mcc", "multilabel": "mcc", "regression": "spearman"}
_NEVER = -30.0  # the logit of a class that no training row has; e^-30 of it is left


class Linear(NamedTuple):
    """Logits, or a regression's value [B, 1], of features: ((x - mean) / scale) kernel + bias."""

    mean_P: np.ndarray
    scale_P: np.ndarray
    kernel_PxV: np.ndarray
    bias_V: np.ndarray

    def outputs(self, features_BxP: Features) -> np.ndarray:
        if isinstance(features_BxP, np.ndarray):
            return (features_BxP - self.mean_P) / self.scale_P @ self.kernel_PxV + self.bias_V
        kernel_PxV = self.kernel_PxV / self.scale_P[:, None]
        return features_BxP @ kernel_PxV + (self.bias_V - self.mean_P @ kernel_PxV)


Span: TypeAlias = tuple[int, int]  # columns, half open


class Rows(NamedTuple):
    """Features f32 [B, P], which of them are counts, a span each kind, and labels as `scores.score` takes them.

    Sparse features without a span are counts of one kind.
    """

    features_BxP: Features
    labels: np.ndarray
    counts: tuple[Span, ...] = ()


class Chosen(NamedTuple):
    """The model with the best score on dev, its inverse penalty, and its scores there."""

    model: Linear
    inverse_penalty: float
    dev: scores.Scores


def choose(kind: str, train: Rows, dev: Rows, outputs: int, metric: str = "") -> Chosen:
    """Logistic regression (one for each label of "multilabel"; ridge for "regression") fitted on `train`, with the
    penalty, of INVERSE_PENALTIES, that has the best `metric` on `dev`: the strongest of equals. Deterministic.

    From the strongest on, each fit begins at the one before, and after PATIENCE in a row that are worse than the best
    the rest is left out: it takes longest. While the best gives all of dev one answer, there is nothing to be lost; and
    of few features of many rows all penalties are tried, for the weakest may be the best after worse ones.
    """
    metric, best, learnt, worse = metric or METRICS[kind], None, False, 0
    rows, width = train.features_BxP.shape
    all_are_tried = rows >= FEW * width and train.features_BxP.size <= CHEAP  # of a sparse array what is stored
    with one_thread():
        for inverse_penalty, model in zip(INVERSE_PENALTIES, path(kind, train, outputs, INVERSE_PENALTIES)):
            of_dev = model.outputs(dev.features_BxP)
            found = Chosen(model, inverse_penalty, scores.score(kind, dev.labels, of_dev, outputs))
            if best is None or _value(found, metric) > _value(best, metric):
                best, learnt, worse = found, not scores.collapsed(kind, of_dev), 0
            elif learnt and _value(found, metric) < _value(best, metric):
                worse += 1
            if worse == PATIENCE and not all_are_tried:
                break
    assert best is not None  # there are penalties
    return best


def _value(found: Chosen, metric: str) -> float:
    value = found.dev[metric]
    return -math.inf if value is None else value


class Standard(NamedTuple):
    """Mean and standard deviation of features, 1 of those that do not vary; the latter of counts one for each kind."""

    mean_P: np.ndarray
    scale_P: np.ndarray

    def __call__(self, features_BxP: Features) -> Features:
        """Sparse features are divided alone."""
        if isinstance(features_BxP, np.ndarray):
            return (features_BxP - self.mean_P) / self.scale_P
        of, scaled = features_BxP, features_BxP.data / self.scale_P[features_BxP.indices]
        return sparse.csr_array((scaled, of.indices, of.indptr), of.shape)


def standard(rows: Rows) -> Standard:
    mean_P, variance_P = moments(rows.features_BxP)
    varies_P = variance_P > 1e-12 * np.maximum(1, np.square(mean_P))
    scale_P = np.where(varies_P, np.sqrt(variance_P), 1)
    sparse_kind = () if isinstance(rows.features_BxP, np.ndarray) else ((0, len(mean_P)),)
    for start, end in rows.counts or sparse_kind:
        of_kind = float(variance_P[start:end].mean())
        scale_P[start:end] = math.sqrt(of_kind) if of_kind > 1e-12 else 1
    return Standard(mean_P.astype(np.float32), scale_P.astype(np.float32))


def moments(features_BxP: Features) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each feature, f64 [P]."""
    if isinstance(features_BxP, np.ndarray):
        return features_BxP.mean(axis=0, dtype=np.float64), features_BxP.var(axis=0, dtype=np.float64)
    features = features_BxP.astype(np.float64)
    mean_P = np.asarray(features.mean(axis=0))
    return mean_P, np.maximum(np.asarray(features.power(2).mean(axis=0)) - np.square(mean_P), 0)


def fit(kind: str, train: Rows, outputs: int, inverse_penalty: float) -> Linear:
    """One model. A class that no row has is never answered."""
    with one_thread():
        return next(path(kind, train, outputs, [inverse_penalty]))


def path(kind: str, train: Rows, outputs: int, inverse_penalties: Sequence[float]) -> Iterator[Linear]:
    """The models of several penalties, each fitted when it is asked for; a fit begins at the one before."""
    standardised = standard(train)
    parts = {"classification": _classes, "multilabel": _labels, "regression": _values}[kind]
    x_BxP, order_P, left_P = _fitted_form(train, standardised)
    for ordered_PxV, bias_V in parts(x_BxP, train.labels, outputs, inverse_penalties):
        kernel_PxV = np.empty_like(ordered_PxV)
        kernel_PxV[order_P] = ordered_PxV
        bias_V = bias_V + left_P / standardised.scale_P @ kernel_PxV
        yield Linear(*standardised, np.asarray(kernel_PxV, np.float32), np.asarray(bias_V, np.float32))


def _fitted_form(rows: Rows, standardised: Standard) -> tuple[Features, np.ndarray, np.ndarray]:
    """What a model is fitted on, which feature each column of it is, and of each feature the mean that was not taken
    off: of counts, where they are sparse. Others beside them are centred, for to be fitted far from 0 takes long."""
    x_BxP, width = standardised(rows.features_BxP), len(standardised.mean_P)
    if isinstance(x_BxP, np.ndarray):
        return x_BxP, np.arange(width), np.zeros(width)
    spans = rows.counts or ((0, width),)
    is_count_P = np.zeros(width, bool)
    is_count_P[np.concatenate([np.arange(*span) for span in spans])] = True
    counts, others = np.flatnonzero(is_count_P), np.flatnonzero(~is_count_P)
    if len(others):
        centred = x_BxP[:, others].toarray() - (standardised.mean_P / standardised.scale_P)[others]
        x_BxP = sparse.hstack([x_BxP[:, counts], sparse.csr_array(centred)], "csr")
    return x_BxP, np.append(counts, others), np.where(is_count_P, standardised.mean_P, 0)


def one_thread() -> contextlib.AbstractContextManager:
    """Within it, BLAS stays on one thread. Fits of a thousand rows are many small products: on two cores they take ten
    times as long when each is split and waited for, on sixteen longer still."""
    return threadpoolctl.threadpool_limits(1, user_api="blas")


Parts = Iterator[tuple[np.ndarray, np.ndarray]]  # kernel [P, V], bias [V], for each penalty


def _classes(x_BxP: Features, labels_B: np.ndarray, classes: int, inverse_penalties: Sequence[float]) -> Parts:
    present = np.unique(labels_B)
    model: Any = LogisticRegression(max_iter=2000, warm_start=True)
    for inverse_penalty in inverse_penalties:
        kernel_PxV, bias_V = np.zeros((x_BxP.shape[1], classes)), np.full(classes, _NEVER)
        if len(present) == 1:
            bias_V[present] = 0
        else:
            kernel_PxV[:, present], bias_V[present] = _fitted(model.set_params(C=inverse_penalty), x_BxP, labels_B)
        yield kernel_PxV, bias_V


def _fitted(model: Any, x_BxP: Features, labels_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the classes present."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes")  # of few rows: labels are what they are
        model.fit(x_BxP, labels_B)
    weights, bias = model.coef_, model.intercept_
    if len(weights) == 1:  # of the second class alone
        weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    return weights.T, bias


def _labels(x_BxP: Features, labels_BxV: np.ndarray, outputs: int, inverse_penalties: Sequence[float]) -> Parts:
    """Each label on its own: its logit is the difference of those of no and yes."""
    of_each = [_classes(x_BxP, column_B.astype(int), 2, inverse_penalties) for column_B in np.asarray(labels_BxV).T]
    for found in zip(*of_each):
        yield np.stack([k[:, 1] - k[:, 0] for k, _ in found], axis=1), np.array([b[1] - b[0] for _, b in found])


def _values(x_BxP: Features, labels_B: np.ndarray, outputs: int, inverse_penalties: Sequence[float]) -> Parts:
    for inverse_penalty in inverse_penalties:
        model: Any = Ridge(1 / inverse_penalty, tol=1e-6).fit(x_BxP, labels_B)  # of sparse features step by step
        yield model.coef_[:, None], np.array([model.intercept_])
