"""Linear models of features: those of scikit-learn's own pipeline, and what they do where nothing can be learnt."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vqdna_jax.evaluation import linear, scores

ROWS, P = 120, 7


def features(seed: int = 0, rows: int = ROWS) -> np.ndarray:
    """Of unlike scales and means."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((rows, P)) * 10.0 ** np.arange(-3, 4) + np.arange(P)).astype(np.float32)


def labels_of(kind: str, x_BxP: np.ndarray, classes: int = 3) -> np.ndarray:
    noise = np.random.default_rng(1).standard_normal(len(x_BxP))
    value = x_BxP[:, 0] * 1e3 + x_BxP[:, 3] + 0.3 * noise
    if kind == "regression":
        return value.astype(np.float32)
    if kind == "multilabel":
        return np.stack([value > np.quantile(value, q) for q in (0.3, 0.6)], axis=1).astype(np.float32)
    return np.searchsorted(np.quantile(value, np.arange(1, classes) / classes), value).astype(np.int32)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("c", [1e-3, 1.0])
def test_a_classification_is_scikit_learns(classes, c):
    x, new = features(), features(9, 30)
    labels = labels_of("classification", x, classes)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000)).fit(x, labels)
    logits = linear.fit("classification", linear.Rows(x, labels), classes, c).outputs(new)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(shares, model.predict_proba(new), atol=2e-3)


def test_a_regression_is_scikit_learns():
    x, new = features(), features(9, 30)
    labels = labels_of("regression", x)
    model = make_pipeline(StandardScaler(), Ridge(10.0)).fit(x, labels)
    found = linear.fit("regression", linear.Rows(x, labels), 1, 0.1).outputs(new)
    np.testing.assert_allclose(found[:, 0], model.predict(new), rtol=1e-3, atol=1e-3)


def test_each_of_several_labels_is_a_classification_of_its_own():
    x, new = features(), features(9, 30)
    labels = labels_of("multilabel", x)
    found = linear.fit("multilabel", linear.Rows(x, labels), 2, 1.0).outputs(new)
    for v in range(2):
        alone = linear.fit("classification", linear.Rows(x, labels[:, v].astype(int)), 2, 1.0).outputs(new)
        np.testing.assert_allclose(found[:, v], alone[:, 1] - alone[:, 0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["classification", "multilabel", "regression"])
def test_the_penalty_with_the_best_score_on_dev_is_chosen_the_strongest_of_equals(kind):
    x, dev = features(), features(2)
    outputs = {"classification": 3, "multilabel": 2, "regression": 1}[kind]
    rows, of_dev = linear.Rows(x, labels_of(kind, x)), linear.Rows(dev, labels_of(kind, dev))
    found, metric = linear.choose(kind, rows, of_dev, outputs), linear.METRICS[kind]
    tried = {}
    for c in linear.INVERSE_PENALTIES:
        values = linear.fit(kind, rows, outputs, c).outputs(dev)
        tried[c] = scores.score(kind, of_dev.labels, values, outputs)[metric]
    assert tried[found.inverse_penalty] == found.dev[metric] == max(tried.values()) > 0.5
    assert found.inverse_penalty == min(c for c, value in tried.items() if value == found.dev[metric])
    again = linear.choose(kind, rows, of_dev, outputs)
    assert all(np.array_equal(a, b) for a, b in zip(found.model, again.model))


def test_what_does_not_vary_has_no_weight_and_new_values_of_it_change_little():
    x = features()
    x[:, 2] = 5.0
    labels = labels_of("classification", x)
    model = linear.fit("classification", linear.Rows(x, labels), 3, 1.0)
    assert np.isfinite(model.outputs(x)).all() and model.scale_P[2] == 1 and np.abs(model.kernel_PxV[2]).max() < 1e-3
    nothing = linear.fit("classification", linear.Rows(np.zeros((ROWS, P), np.float32), labels), 3, 1.0)
    np.testing.assert_allclose(nothing.kernel_PxV, 0, atol=1e-6)


@pytest.mark.parametrize("present", [[1], [0, 2]])
def test_a_class_without_rows_is_never_answered(present):
    x = features()
    labels = np.asarray(present)[np.arange(ROWS) % len(present)]
    logits = linear.fit("classification", linear.Rows(x, labels), 3, 1.0).outputs(10 * features(4))
    assert set(logits.argmax(axis=1)) <= set(present) and np.isfinite(logits).all()
