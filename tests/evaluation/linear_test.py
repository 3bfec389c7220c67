"""Linear models of features: those of scikit-learn's own pipeline, and what they do where nothing can be learnt."""

import itertools

import numpy as np
import pytest
import threadpoolctl
from scipy import sparse
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


OUTPUTS = {"classification": 3, "multilabel": 2, "regression": 1}


def flags(seed: int = 0, rows: int = ROWS, columns: int = 40) -> np.ndarray:
    """As base by position: 0 or the column's height, so that each column varies by 1 and few numbers are not 0."""
    on = np.random.default_rng(seed).random((rows, columns)) < 0.1
    return (on / np.maximum(on.std(axis=0), 0.1)).astype(np.float32)


def rule(kind: str, x_BxP: np.ndarray) -> np.ndarray:
    value = x_BxP[:, :12] @ np.linspace(-1, 1, 12) + 0.2 * np.random.default_rng(1).standard_normal(len(x_BxP))
    if kind == "regression":
        return value.astype(np.float32)
    cuts = np.stack([value > np.quantile(value, q) for q in (0.3, 0.6)], axis=1)
    return cuts.astype(np.float32) if kind == "multilabel" else cuts.sum(axis=1)


def all_rows(kind: str, form) -> tuple[linear.Rows, linear.Rows]:
    """Of train and dev; `form` is np.asarray or sparse.csr_array."""
    return tuple(linear.Rows(form(x), rule(kind, x)) for x in (flags(0), flags(2)))


FORMS = pytest.mark.parametrize("form", [np.asarray, sparse.csr_array])
KINDS = pytest.mark.parametrize("kind", OUTPUTS)


@KINDS
@FORMS
def test_a_fit_that_begins_at_the_one_before_is_the_fit_from_nothing(kind, form):
    train, dev = all_rows(kind, form)
    for c, model in zip(linear.INVERSE_PENALTIES, linear.path(kind, train, OUTPUTS[kind], linear.INVERSE_PENALTIES)):
        alone = linear.fit(kind, train, OUTPUTS[kind], c).outputs(dev.features_BxP)
        np.testing.assert_allclose(model.outputs(dev.features_BxP), alone, atol=0.03 * max(1, np.abs(alone).max()))


@KINDS
def test_sparse_features_have_the_model_of_dense_ones(kind):
    """Of columns that vary alike, which one scale serves as well as one each; whether they are centred is the same."""
    dense, thin = (all_rows(kind, form) for form in (np.asarray, sparse.csr_array))
    scale = linear.standard(dense[0]).scale_P
    np.testing.assert_allclose(linear.standard(thin[0]).scale_P, scale, rtol=1e-3)
    for c in linear.INVERSE_PENALTIES:
        of_dense, of_thin = (
            linear.fit(kind, train, OUTPUTS[kind], c).outputs(dev.features_BxP) for train, dev in (dense, thin)
        )
        np.testing.assert_allclose(of_thin, of_dense, atol=0.03 * max(1, np.abs(of_dense).max()))
    again = linear.fit(kind, dense[0], OUTPUTS[kind], 0.1)
    of_dense, of_thin = (again.outputs(dev.features_BxP) for _, dev in (dense, thin))  # one model, two forms of rows
    np.testing.assert_allclose(of_thin, of_dense, atol=1e-4)


@FORMS
def test_counts_that_are_rare_weigh_no_more_than_common_ones_of_their_kind(form):
    x = form((np.eye(ROWS, 4) + [1, 0, 5, 5]).astype(np.float32) * [1, 1, 9, 9])
    rows = linear.Rows(x, np.arange(ROWS) % 2, ((0, 2), (2, 4)))
    scale_P = linear.standard(rows).scale_P
    assert scale_P[0] == scale_P[1] and scale_P[2] == scale_P[3] == pytest.approx(9 * scale_P[0])
    dense = x if form is np.asarray else x.toarray()
    np.testing.assert_allclose(linear.standard(rows).mean_P, dense.mean(axis=0), rtol=1e-5)


@KINDS
@pytest.mark.parametrize("spans", [((0, 10), (10, 40)), ((0, 10), (18, 40))])
def test_counts_have_one_model_dense_or_sparse(kind, spans):
    """Centred or not, for the bias has no penalty; also beside eight features that vary about a mean far from 0."""
    counted = [at for span in spans for at in range(*span)]
    far_P = np.where(np.isin(np.arange(40), counted), 0, 20).astype(np.float32)
    train, dev = (
        rows._replace(features_BxP=rows.features_BxP + far_P, counts=spans) for rows in all_rows(kind, np.asarray)
    )
    of_dense, of_sparse = (
        linear.fit(kind, train._replace(features_BxP=form(train.features_BxP)), OUTPUTS[kind], 0.1)
        for form in (np.asarray, sparse.csr_array)
    )
    np.testing.assert_allclose(of_sparse.kernel_PxV, of_dense.kernel_PxV, atol=3e-3)
    np.testing.assert_allclose(of_sparse.outputs(dev.features_BxP), of_dense.outputs(dev.features_BxP), atol=2e-2)
    thin = sparse.csr_array(dev.features_BxP)
    np.testing.assert_allclose(of_sparse.outputs(thin), of_sparse.outputs(dev.features_BxP), atol=1e-4)


@KINDS
@FORMS
def test_the_penalty_with_the_best_score_on_dev_is_chosen_the_strongest_of_equals(kind, form):
    (train, dev), outputs, metric = all_rows(kind, form), OUTPUTS[kind], linear.METRICS[kind]
    found = linear.choose(kind, train, dev, outputs)
    tried = {}
    for c, model in zip(linear.INVERSE_PENALTIES, linear.path(kind, train, outputs, linear.INVERSE_PENALTIES)):
        tried[c] = scores.score(kind, dev.labels, model.outputs(dev.features_BxP), outputs)[metric]
    stronger = [value for c, value in tried.items() if c < found.inverse_penalty]
    weaker = [value for c, value in tried.items() if c > found.inverse_penalty]
    assert tried[found.inverse_penalty] == found.dev[metric] > max([0.5, *stronger])
    assert weaker and all(value <= found.dev[metric] for value in weaker[: linear.PATIENCE])
    again = linear.choose(kind, train, dev, outputs)
    assert all(np.array_equal(a, b) for a, b in zip(found.model, again.model))


def fitted_penalties(monkeypatch) -> list[float]:
    """Those of the fits from now on."""
    fit, seen = LogisticRegression.fit, []
    monkeypatch.setattr(LogisticRegression, "fit", lambda self, *rows: (seen.append(self.C), fit(self, *rows))[1])
    return seen


@FORMS
def test_weaker_penalties_are_left_out_where_they_stopped_helping(form, monkeypatch):
    rng = np.random.default_rng(4)  # labels that are chance for the most part
    xs = flags(0, 400, 120), flags(2, 4000, 120)
    values = [x[:, :9].sum(axis=1) + 9 * rng.standard_normal(len(x)) for x in xs]
    train, dev = (linear.Rows(form(x), (value > np.median(value)).astype(int)) for x, value in zip(xs, values))
    seen = fitted_penalties(monkeypatch)
    found = linear.choose("classification", train, dev, 2)
    place = linear.INVERSE_PENALTIES.index(found.inverse_penalty)
    assert tuple(seen) == linear.INVERSE_PENALTIES[: place + 1 + linear.PATIENCE] != linear.INVERSE_PENALTIES


def test_of_few_features_all_penalties_are_tried(monkeypatch):
    """The best may come after worse ones: mean vectors of 128 numbers had dev scores of 0.28, 0.27, 0.25, 0.27, 0.29,
    0.35, 0.38 (docs/results.md)."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 800)
    loud, fine = 0.3 * (labels - 0.5) + rng.normal(size=800), rng.normal(size=800)
    x = np.stack([loud, fine, fine + 0.03 * (labels - 0.5)], axis=1).astype(np.float32)
    train, dev = (linear.Rows(x[of], labels[of]) for of in (slice(400), slice(400, None)))
    seen = fitted_penalties(monkeypatch)
    found = linear.choose("classification", train, dev, 2)
    assert tuple(seen) == linear.INVERSE_PENALTIES and found.inverse_penalty == seen[-1]


def test_a_difference_that_only_weak_penalties_see_is_found():
    """Under the stronger ones all scores are alike, near 0."""
    rng = np.random.default_rng(1)
    labels, noise = rng.integers(0, 2, 400), rng.normal(size=(400, 1))
    x = noise + np.array([0, 0.02]) * labels[:, None]
    train, dev = (linear.Rows(x[of], labels[of]) for of in (slice(300), slice(300, None)))
    found = linear.choose("classification", train, dev, 2)
    assert found.dev["mcc"] > 0.3 and found.inverse_penalty == linear.INVERSE_PENALTIES[-1]


def test_penalties_under_which_nothing_is_learnt_do_not_end_the_search(monkeypatch):
    """Of rare labels all strong ones answer the common one, with a score of 0 each."""
    x, dev = features(), features(2)
    of_train, of_dev = (linear.Rows(rows, (rows[:, 0] > 1.2e-3).astype(int)) for rows in (x, dev))
    seen = fitted_penalties(monkeypatch)
    found = linear.choose("classification", of_train, of_dev, 2)
    silent = list(itertools.takewhile(lambda c: c < found.inverse_penalty, seen))
    assert len(silent) > linear.PATIENCE and found.dev["mcc"] > 0.5
    assert not any(
        linear.fit("classification", of_train, 2, c).outputs(dev).argmax(axis=1).any()
        for c in silent[: linear.PATIENCE + 1]
    )


@FORMS
def test_labels_that_a_feature_tells_are_told(form):
    """No penalty at all would have no end."""
    x = flags()
    labels = (x[:, 3] > 0).astype(int)
    rows = linear.Rows(form(x), labels)
    found = linear.choose("classification", rows, rows, 2)
    assert found.dev["mcc"] == 1 and all(np.isfinite(part).all() for part in found.model)


@FORMS
@pytest.mark.parametrize("value", [0.0, 5.0])
def test_what_does_not_vary_has_no_weight_and_new_values_of_it_change_little(form, value):
    x = flags()
    x[:, 2] = value
    labels = rule("classification", flags())
    model = linear.fit("classification", linear.Rows(form(x), labels), 3, 1e-3)
    assert np.isfinite(model.outputs(form(x))).all() and np.abs(model.kernel_PxV[2]).max() < 2e-2
    nothing = linear.fit("classification", linear.Rows(form(np.full((ROWS, P), value, np.float32)), labels), 3, 1e-3)
    assert np.isfinite(nothing.outputs(form(np.ones((2, P), np.float32)))).all()
    np.testing.assert_allclose(nothing.kernel_PxV, 0, atol=2e-2)


@FORMS
@pytest.mark.parametrize("present", [[1], [0, 2]])
def test_a_class_without_rows_is_never_answered(present, form):
    x = flags()
    labels = np.asarray(present)[np.arange(ROWS) % len(present)]
    rows = linear.Rows(form(x), labels)
    logits = linear.choose("classification", rows, rows, 3).model.outputs(form(10 * flags(4)))
    assert set(logits.argmax(axis=1)) <= set(present) and np.isfinite(logits).all()


class TestOnePenalty:
    """What a probe says with a penalty that is not tuned."""

    def scores(self, x: np.ndarray, labels: np.ndarray, fitted: int, c: float = 1.0) -> scores.Scores:
        classes = 1 + labels.max()
        model = linear.fit("classification", linear.Rows(x[:fitted], labels[:fitted]), classes, c)
        held_out = slice(fitted, None) if fitted < len(x) else slice(None)
        return scores.score("classification", labels[held_out], model.outputs(x[held_out]), classes)

    @pytest.mark.parametrize("scale", [1e-5, 1, 1e5])
    def test_separable_data_is_separated(self, scale):
        rng = np.random.default_rng(0)
        labels = rng.integers(0, 3, 600)
        found = self.scores((np.eye(3)[labels] * 10 + rng.normal(size=(600, 3))) * scale + 7, labels, 400)
        assert found["accuracy"] == found["macro_f1"] == found["mcc"] == 1

    def test_shuffled_labels_are_not(self):
        rng = np.random.default_rng(0)
        found = self.scores(rng.normal(size=(3000, 4)), rng.integers(0, 2, 3000), 2000)
        assert found["accuracy"] == pytest.approx(0.5, abs=0.05)
        assert found["macro_f1"] == pytest.approx(0.5, abs=0.06)
        assert found["mcc"] == pytest.approx(0, abs=0.1)

    def test_a_rare_class_missed_shows_in_macro_f1(self):
        labels = np.array([0] * 90 + [1] * 10)
        found = self.scores(np.random.default_rng(0).normal(size=(100, 1)) * 1e-3, labels, 100)
        assert found["accuracy"] == 0.9 and found["mcc"] == 0
        assert found["macro_f1"] == pytest.approx((2 * 90 / 190) / 2)

    def test_a_strong_penalty_answers_the_majority_whatever_the_features(self):
        labels = np.array([0] * 60 + [1] * 40)
        assert [self.scores(labels[:, None], labels, 100, c)["accuracy"] for c in (1e-6, 1)] == [0.6, 1]


def test_fits_leave_blas_on_one_thread_and_give_it_back():
    def threads() -> set[int]:
        return {library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"}

    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        before = threads()
        with linear.one_thread():
            assert threads() == {1}
        assert threads() == before
