import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats
from sklearn import metrics

from vqdna_jax.evaluation.scores import KINDS, collapsed, score

pytestmark = pytest.mark.filterwarnings("error")  # a degenerate set must not warn
CASES = [(seed, num_classes) for seed in range(6) for num_classes in (2, 3, 9)]


def draw(seed: int, num_classes: int, rows: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Labels [B] with every class, and logits [B, V] that know something of them, with ties."""
    rng = np.random.default_rng(seed)
    labels_B = rng.permutation(np.arange(rows) % num_classes)
    logits_BxV = rng.normal(size=(rows, num_classes)) + 1.5 * (labels_B[:, None] == range(num_classes))
    logits_BxV = np.round(4 * logits_BxV) / 4  # exact in binary, so that ties stay ties
    return labels_B, logits_BxV


def mcc_by_hand(labels_B, answers_B) -> float:
    """Gorodkin's R_K from the confusion matrix; 0 where labels or answers are constant."""
    classes = np.union1d(labels_B, answers_B)
    table = np.array(
        [[np.sum((labels_B == true) & (answers_B == said)) for said in classes] for true in classes], float
    )
    true_V, said_V, total = table.sum(axis=1), table.sum(axis=0), table.sum()
    below = (total**2 - said_V @ said_V) * (total**2 - true_V @ true_V)
    return (np.trace(table) * total - true_V @ said_V) / np.sqrt(below) if below > 0 else 0.0


def auroc_by_hand(positive_B, scores_B) -> float:
    """The chance that a positive row scores above a negative one; a tie counts half."""
    above = scores_B[positive_B][:, None] - scores_B[~positive_B]
    return float(np.mean((above > 0) + 0.5 * (above == 0)))


@pytest.mark.parametrize(("seed", "num_classes"), CASES)
def test_classification_equals_scikit_learn(seed, num_classes):
    labels_B, logits_BxV = draw(seed, num_classes)
    answers_B, macro = logits_BxV.argmax(axis=1), {"average": "macro", "zero_division": 0}
    shares_BxV = special.softmax(logits_BxV, axis=1)
    ranked = {"y_score": shares_BxV[:, 1]} if num_classes == 2 else {"y_score": shares_BxV, "multi_class": "ovr"}
    assert score("classification", labels_B, logits_BxV, num_classes) == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(labels_B, answers_B),
            "mcc": metrics.matthews_corrcoef(labels_B, answers_B),
            "macro_f1": metrics.f1_score(labels_B, answers_B, **macro),
            "macro_precision": metrics.precision_score(labels_B, answers_B, **macro),
            "macro_recall": metrics.recall_score(labels_B, answers_B, **macro),
            "auroc": metrics.roc_auc_score(labels_B, **ranked),
        }
    )


@pytest.mark.parametrize(("seed", "num_classes"), CASES)
def test_mcc_and_auroc_equal_their_definitions(seed, num_classes):
    labels_B, logits_BxV = draw(seed, num_classes)
    found = score("classification", labels_B, logits_BxV, num_classes)
    shares_BxV = special.softmax(logits_BxV, axis=1)
    one_vs_rest = [auroc_by_hand(labels_B == v, shares_BxV[:, v]) for v in range(num_classes)]
    assert found["mcc"] == pytest.approx(mcc_by_hand(labels_B, logits_BxV.argmax(axis=1)))
    assert found["auroc"] == pytest.approx(np.mean(one_vs_rest))


@pytest.mark.parametrize("seed", range(6))
def test_multilabel_equals_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    labels_BxV = rng.integers(0, 2, size=(40, 5))
    logits_BxV = np.round(rng.normal(size=(40, 5)) + labels_BxV - 0.5, 1)
    answers_BxV = (logits_BxV > 0).astype(int)
    mcc_V = [metrics.matthews_corrcoef(*columns) for columns in zip(labels_BxV.T, answers_BxV.T)]
    assert score("multilabel", labels_BxV, logits_BxV, 5) == pytest.approx(
        {
            "macro_f1": metrics.f1_score(labels_BxV, answers_BxV, average="macro", zero_division=0),
            "micro_f1": metrics.f1_score(labels_BxV, answers_BxV, average="micro", zero_division=0),
            "mcc": np.mean(mcc_V),
            "mean_average_precision": metrics.average_precision_score(labels_BxV, logits_BxV, average="macro"),
        }
    )


@pytest.mark.parametrize("seed", range(6))
def test_regression_equals_scipy_and_its_definitions(seed):
    rng = np.random.default_rng(seed)
    labels_B = np.round(rng.normal(size=50), 1)  # ties on both sides
    values_B = np.round(labels_B + rng.normal(size=50), 1)
    found = score("regression", labels_B, values_B[:, None])
    residual = np.sum((labels_B - values_B) ** 2)
    places = [np.array([(side < one).sum() + (side == one).sum() / 2 for one in side]) for side in (labels_B, values_B)]
    assert found == pytest.approx(
        {
            "spearman": stats.spearmanr(labels_B, values_B).statistic,
            "pearson": stats.pearsonr(labels_B, values_B).statistic,
            "r2": 1 - residual / np.sum((labels_B - labels_B.mean()) ** 2),
            "mse": residual / 50,
        }
    )
    assert found["spearman"] == pytest.approx(np.corrcoef(places)[0, 1])
    assert found == score("regression", labels_B, values_B)


FLOATS = st.sampled_from([0.0, 1.0, -1.0, 0.5, 1e30, -1e30, float("nan"), float("inf"), float("-inf")])


NAMES = {
    "classification": {"accuracy", "mcc", "macro_f1", "macro_precision", "macro_recall", "auroc"},
    "multilabel": {"macro_f1", "micro_f1", "mcc", "mean_average_precision"},
    "regression": {"spearman", "pearson", "r2", "mse"},
}
MAY_LACK = {"auroc", "mean_average_precision", "r2", "mse"}  # and no headline score


@given(st.sampled_from(KINDS), st.integers(1, 12), st.integers(2, 4), st.data())
def test_every_score_of_any_outputs_is_finite_json_and_in_its_range(kind, rows, num_classes, data):
    num_classes = 1 if kind == "regression" else num_classes
    outputs = np.array(data.draw(st.lists(FLOATS, min_size=rows * num_classes, max_size=rows * num_classes)))
    outputs = outputs.reshape(rows, num_classes)
    if kind == "regression":
        labels = np.array(data.draw(st.lists(st.floats(-10, 10), min_size=rows, max_size=rows)))
    else:
        shape = (rows,) if kind == "classification" else (rows, num_classes)
        highest = num_classes - 1 if kind == "classification" else 1
        drawn = st.lists(st.integers(0, highest), min_size=math.prod(shape), max_size=math.prod(shape))
        labels = np.array(data.draw(drawn)).reshape(shape)
    found = score(kind, labels, outputs, num_classes)
    json.dumps(found, allow_nan=False)
    assert all(value is None or type(value) is float for value in found.values())
    lowest = {"mcc": -1, "spearman": -1, "pearson": -1, "r2": -np.inf}
    assert set(found) == NAMES[kind], "the same for all arrays"
    for name, value in found.items():
        assert value is None or name == "mse" or lowest.get(name, 0) - 1e-9 <= value <= 1 + 1e-9, name
    assert {name for name, value in found.items() if value is None} <= MAY_LACK
    assert isinstance(collapsed(kind, outputs), bool)


def test_constant_answers_score_nothing():
    labels_B, constant_BxV = np.array([0, 1, 1, 1]), np.tile([0.0, 2.0], (4, 1))
    assert score("classification", labels_B, constant_BxV, 2) == pytest.approx(
        dict(accuracy=0.75, mcc=0.0, macro_f1=3 / 7, macro_precision=0.375, macro_recall=0.5, auroc=0.5)
    )
    found = score("regression", np.arange(4.0), np.full(4, 1.5))
    assert found == pytest.approx(dict(spearman=0.0, pearson=0.0, r2=0.0, mse=1.25))


def test_what_the_labels_leave_undefined_is_none():
    found = score("classification", np.ones(4, int), np.tile([0.0, 2.0], (4, 1)), 2)
    assert found == dict(accuracy=1.0, mcc=0.0, macro_f1=1.0, macro_precision=1.0, macro_recall=1.0, auroc=None)
    found = score("multilabel", np.zeros((4, 2), int), np.full((4, 2), -1.0), 2)
    assert found == dict(macro_f1=0.0, micro_f1=0.0, mcc=0.0, mean_average_precision=None)
    for values in ([2.0, 2.0, 2.0], [1.0, 2.0, 3.0]):
        found = score("regression", np.full(3, 2.0), np.array(values))
        assert found == dict(spearman=0.0, pearson=0.0, r2=None, mse=pytest.approx(np.var(values)))
    assert score("regression", np.array([1.0]), np.array([1.5])) == dict(spearman=0.0, pearson=0.0, r2=None, mse=0.25)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_outputs_that_are_no_numbers_leave_no_figure_but_a_wrong_answer(odd):
    labels_B, outputs_BxV = np.array([0, 1, 1, 0]), np.array([[1.0, 0.0], [0.0, 1.0], [odd, odd], [2.0, 1.0]])
    assert score("classification", labels_B, outputs_BxV, 2)["auroc"] is None
    assert score("multilabel", np.eye(4, 2, dtype=int), outputs_BxV, 2)["mean_average_precision"] is None
    for labels, values in ((np.arange(4.0), outputs_BxV[:, 0]), (outputs_BxV[:, 0], np.arange(4.0))):
        assert score("regression", labels, values) == dict(spearman=0.0, pearson=0.0, r2=None, mse=None)


def test_a_figure_too_large_for_a_float_is_none():
    found = score("regression", np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 1e200]))
    assert found["mse"] is None and found["spearman"] == pytest.approx(1.0)


def test_a_class_that_no_label_has_is_left_out_of_auroc():
    labels_B, logits_BxV = draw(0, 3)
    kept = labels_B < 2
    shares_BxV = special.softmax(logits_BxV[kept], axis=1)
    expected = np.mean([auroc_by_hand(labels_B[kept] == v, shares_BxV[:, v]) for v in (0, 1)])
    assert score("classification", labels_B[kept], logits_BxV[kept], 3)["auroc"] == pytest.approx(expected)


def test_a_row_that_is_not_a_number_is_a_wrong_answer():
    labels_B, logits_BxV = draw(1, 3)
    logits_BxV[:10, 0] = np.nan
    found = score("classification", labels_B, logits_BxV, 3)
    answers_B = np.where(np.arange(60) < 10, -1, logits_BxV.argmax(axis=1))
    f1_V = metrics.f1_score(labels_B, answers_B, labels=[0, 1, 2], average=None)
    assert found["accuracy"] == np.mean(labels_B == answers_B) and found["mcc"] == pytest.approx(
        mcc_by_hand(labels_B, answers_B)
    )
    assert found["macro_f1"] == pytest.approx(np.mean(f1_V)) and found["auroc"] is None
    values_B = np.arange(5.0)
    values_B[2] = np.nan
    assert score("regression", np.arange(5.0), values_B) == dict(spearman=0.0, pearson=0.0, r2=None, mse=None)


@pytest.mark.parametrize(
    ("kind", "outputs", "expected"),
    [
        ("classification", [[1.0, 0.0], [5.0, 2.0]], True),
        ("classification", [[1.0, 0.0], [np.nan, 2.0]], True),
        ("classification", [[np.nan, 0.0], [np.nan, 2.0]], True),
        ("classification", [[1.0, 0.0], [1.0, 2.0]], False),
        ("classification", [[1.0, 0.0]], False),
        ("multilabel", [[1.0, -1.0], [2.0, -0.5]], True),
        ("multilabel", [[1.0, -1.0], [2.0, 0.5]], False),
        ("regression", [[0.7], [0.7 + 1e-8]], True),
        ("regression", [0.0, 0.0, 0.0], True),
        ("regression", [np.nan, 0.5, np.nan], True),
        ("regression", [1e-9, 2e-9], False),
        ("regression", [0.7, 0.701], False),
    ],
)
def test_collapsed_is_one_answer_for_all_rows(kind, outputs, expected):
    assert collapsed(kind, np.array(outputs)) is expected


@pytest.mark.parametrize(
    ("kind", "labels", "outputs", "num_classes"),
    [
        ("ranking", [0, 1], [[1, 0], [0, 1]], 2),
        ("classification", [], np.zeros((0, 2)), 2),
        ("classification", [0, 1], [[1, 0, 0], [0, 1, 0]], 2),
        ("classification", [0, 2], [[1, 0], [0, 1]], 2),
        ("multilabel", [[0, 2]], [[1, 0]], 2),
        ("regression", [0.0, 1.0], [[0.0, 1.0], [1.0, 0.0]], 1),
    ],
)
def test_what_does_not_fit_is_an_error(kind, labels, outputs, num_classes):
    with pytest.raises(ValueError, match="expected|fit|outside"):
        score(kind, np.array(labels), np.array(outputs, float), num_classes)
