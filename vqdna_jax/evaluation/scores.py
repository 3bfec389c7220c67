"""Scores of predictions on a labelled set, by scikit-learn and SciPy, which the papers of the field compare with.

Plain functions of arrays on the host. V counts the labels of a multi-label set, too.
"""

import warnings
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
from scipy import special, stats
from sklearn import metrics

from vqdna_jax.evaluation.code_statistics import ZERO
from vqdna_jax.labels.sets import Kind

KINDS = get_args(Kind)
Scores = dict[str, float | None]  # by name; None where the score is not defined
_NO_ANSWER = -1
_SAME = 1e-6  # outputs this near one another, relative to the largest, differ by rounding only


def score(kind: str, labels: np.ndarray, outputs: np.ndarray, num_classes: int = 1) -> Scores:
    """Every score of a set of this kind, as finite Python floats; None for one that is not defined.

    The same keys for all arrays of a kind. mcc, the F1s, spearman and pearson are always defined, 0 by scikit-learn's
    convention where there is nothing to correlate, as the papers count them.

    classification: int labels [B] in [0, V), logits [B, V]; argmax answers, the first of equals, and a row with a NaN
        answers no class, which is wrong. accuracy, mcc (0 where labels or answers are constant), macro_precision,
        macro_recall, macro_f1 (over the classes among labels and answers, 0 for 0 / 0), auroc (of class 1 if V is 2,
        else the mean over the classes present of one against the rest; None for one class or a non-finite logit).
    multilabel: 0/1 labels [B, V], logits [B, V]; a logit above 0 answers yes, a NaN no. macro_f1, micro_f1, mcc (mean
        over labels), mean_average_precision (over the labels with a positive; None without, or for a non-finite
        logit).
    regression: labels [B], values [B] or [B, 1]. spearman (ties share a rank), pearson (both 0 where either side is
        constant or a number is not finite), r2 (None where the labels are constant), mse; None both where a number is
        not finite or the figure overflows.

    Raises:
        ValueError: an unknown kind, no rows, or arrays that do not have these shapes and labels.
    """
    _check(kind, labels, outputs, num_classes)
    compute = {"classification": _classification, "multilabel": _multilabel, "regression": _regression}[kind]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # each warns of a degenerate case that is given its value here
        scores = compute(np.asarray(labels), np.asarray(outputs, np.float64))
    return {name: None if value is None or not np.isfinite(value) else float(value) for name, value in scores.items()}


def collapsed(kind: str, outputs: np.ndarray) -> bool:
    """Whether the outputs [B, V] (regression: [B] or [B, 1]) give two or more rows all the same answer, or none.

    One class, one set of labels, or one value up to rounding; NaN is no answer. False for a single row.
    """
    outputs = np.asarray(outputs, np.float64)
    if len(outputs) < 2:
        return False
    if kind == "classification":
        return len(np.setdiff1d(_answers(outputs), [_NO_ANSWER])) < 2
    if kind == "multilabel":
        return len(np.unique(outputs > 0, axis=0)) < 2
    if kind != "regression":
        raise ValueError(f"unknown kind {kind!r}; expected one of {', '.join(KINDS)}")
    finite = outputs[np.isfinite(outputs)]
    return finite.size < 2 or bool(np.ptp(finite) <= _SAME * np.abs(finite).max())


def _check(kind: str, labels: np.ndarray, outputs: np.ndarray, num_classes: int) -> None:
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; expected one of {', '.join(KINDS)}")
    rows = len(labels)
    wide, flat = (rows, num_classes), (rows,)
    labels_shape = wide if kind == "multilabel" else flat
    outputs_shapes = [flat, (rows, 1)] if kind == "regression" else [wide]
    if not rows or np.shape(labels) != labels_shape or np.shape(outputs) not in outputs_shapes:
        found = f"labels {np.shape(labels)} and outputs {np.shape(outputs)}"
        raise ValueError(f"{found} do not fit {kind} with {num_classes} classes")
    known = {"classification": range(num_classes), "multilabel": range(2)}.get(kind)
    if known is not None and not np.isin(labels, known).all():
        raise ValueError(f"labels of {kind} are outside 0 to {known[-1]}")


def _answers(logits_BxV: np.ndarray) -> np.ndarray:
    """Class of each row, int [B]; _NO_ANSWER where a logit is NaN."""
    return np.where(np.isnan(logits_BxV).any(axis=1), _NO_ANSWER, logits_BxV.argmax(axis=1))


def _classification(labels_B: np.ndarray, logits_BxV: np.ndarray) -> Scores:
    answers_B = _answers(logits_BxV)
    classes = np.union1d(labels_B, answers_B[answers_B != _NO_ANSWER])
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        labels_B, answers_B, labels=classes, average="macro", zero_division=ZERO
    )
    return {
        "accuracy": metrics.accuracy_score(labels_B, answers_B),
        "mcc": metrics.matthews_corrcoef(labels_B, answers_B),
        "macro_f1": f1,
        "macro_precision": precision,
        "macro_recall": recall,
        "auroc": _auroc(labels_B, logits_BxV),
    }


def _auroc(labels_B: np.ndarray, logits_BxV: np.ndarray) -> float | None:
    classes = np.unique(labels_B)
    if len(classes) < 2 or not np.isfinite(logits_BxV).all():
        return None
    if logits_BxV.shape[1] == 2:  # the difference of the logits orders rows as the probability does, without its ties
        return metrics.roc_auc_score(labels_B, logits_BxV[:, 1] - logits_BxV[:, 0])
    shares_BxV = special.softmax(logits_BxV, axis=1)
    return float(np.mean([metrics.roc_auc_score(labels_B == v, shares_BxV[:, v]) for v in classes]))


def _multilabel(labels_BxV: np.ndarray, logits_BxV: np.ndarray) -> Scores:
    answers_BxV = (logits_BxV > 0).astype(int)
    columns = list(zip(labels_BxV.T, answers_BxV.T, logits_BxV.T))
    # Label by label, as scikit-learn takes one column for a binary set and scores both of its classes.
    f1_V = [metrics.f1_score(labels_B, answers_B, zero_division=ZERO) for labels_B, answers_B, _ in columns]
    ranked = [(labels_B, logits_B) for labels_B, _, logits_B in columns if labels_B.any()]
    precise = bool(ranked) and np.isfinite(logits_BxV).all()
    mcc_V = [metrics.matthews_corrcoef(labels_B, answers_B) for labels_B, answers_B, _ in columns]
    precisions = [metrics.average_precision_score(*pair) for pair in ranked] if precise else []
    return {
        "macro_f1": float(np.mean(f1_V)),
        "micro_f1": metrics.f1_score(labels_BxV.ravel(), answers_BxV.ravel(), zero_division=ZERO),
        "mcc": float(np.mean(mcc_V)),
        "mean_average_precision": float(np.mean(precisions)) if precisions else None,
    }


def _regression(labels_B: np.ndarray, values: np.ndarray) -> Scores:
    values_B = values.reshape(len(labels_B))
    if not (np.isfinite(values_B).all() and np.isfinite(labels_B).all()):
        return {"spearman": 0.0, "pearson": 0.0, "r2": None, "mse": None}
    return {
        "spearman": _correlation(stats.spearmanr, labels_B, values_B),
        "pearson": _correlation(stats.pearsonr, labels_B, values_B),
        "r2": metrics.r2_score(labels_B, values_B) if np.ptp(labels_B) > 0 else None,
        "mse": metrics.mean_squared_error(labels_B, values_B),
    }


def _correlation(compute: Callable[..., Any], labels_B: np.ndarray, values_B: np.ndarray) -> float:
    if min(np.ptp(labels_B), np.ptp(values_B)) == 0:
        return 0.0
    value = compute(labels_B, values_B).statistic
    return value if np.isfinite(value) else 0.0
