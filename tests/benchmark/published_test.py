import math

import numpy as np
import pytest

from vqdna_jax.benchmark.sets import published
from vqdna_jax.benchmark.sets.cards import CARDS

# As printed or worked out by others from the same tables, one figure after the other in the order of _GROUPS.
_GROUPS = ("EMP", "prom_300", "prom_core", "tf", "mouse")
_PRINTED_MEANS = {
    "DNABERT 3-mer": (49.54, 84.63, 72.96, 64.43, 57.74),
    "NT-500M-1000g": (47.68, 86.58, 69.13, 58.92, 49.31),
    "NT-2500M-1000g": (50.86, 86.61, 68.17, 62.00, 56.82),
    "NT-2500M-multi": (58.06, 88.15, 71.63, 63.33, 67.02),
    "DNABERT-2": (55.98, 84.21, 70.53, 70.11, 68.00),
}
_MEANS_OF_28 = {
    "DNABERT 3-mer": 61.62,
    "NT-500M-1000g": 57.79,
    "NT-2500M-1000g": 61.41,
    "NT-2500M-multi": 66.93,
    "DNABERT-2": 66.80,
}
GUE = {name: card.group for name, card in CARDS.items() if card.source.startswith("GUE")}
BY_MODEL = {row.model: row for row in published.ROWS}


def members(group: str) -> list[str]:
    return [name for name, of in GUE.items() if of == group]


def group_mean(model: str, group: str) -> float | None:
    """Of the scores of a group's sets if all are known, else as printed, else None."""
    row, names = BY_MODEL[model], members(group)
    if row.scores.keys() >= set(names):
        return math.fsum(row.scores[name] for name in names) / len(names)
    return row.group_means.get(group)


@pytest.mark.parametrize("model", _PRINTED_MEANS)
def test_means_of_the_scores_are_those_printed(model):
    found = [group_mean(model, group) for group in _GROUPS]
    np.testing.assert_allclose(found, _PRINTED_MEANS[model], atol=0.0101)
    scores = BY_MODEL[model].scores
    assert math.fsum(scores.values()) / 28 == pytest.approx(_MEANS_OF_28[model], abs=0.0101)


def test_every_row_of_the_figure_has_all_28_sets_and_others_only_what_is_known():
    assert len(GUE) == 28
    for row in published.ROWS:
        assert row.scores.keys() <= GUE.keys() and row.source
        assert all(10 < score < 100 for score in row.scores.values())
        assert row.group_means.keys() <= set(GUE.values())
    assert sum(row.scores.keys() == GUE.keys() for row in published.ROWS) == 10


def test_vqdna_means_follow_from_its_known_sets_and_unknown_cells_stay_empty():
    row = BY_MODEL["VQDNA (HRQ)"]
    for group in ("tf", "prom_core"):
        mean = np.mean([row.scores[name] for name in members(group)])
        assert group_mean("VQDNA (HRQ)", group) == pytest.approx(mean)
        assert mean == pytest.approx(row.group_means[group], abs=0.005)
    assert group_mean("VQDNA (HRQ)", "EMP") == 57.95  # printed, most of its sets are unknown
    assert "EMP/H4" not in row.scores and "mouse/0" not in row.scores
    assert group_mean("VQDNA (VQVAE)", "EMP") is None


def test_mean_of_28_from_the_group_means_of_vqdna():
    """68.75, not the 68.51 that counts each transcription factor task as three sets."""
    total = sum(group_mean("VQDNA (HRQ)", group) for group in GUE.values())
    assert total / 28 == pytest.approx(68.75, abs=0.01)


def test_some_cells_by_hand():
    """Of each part of the table, so that no column is shifted."""
    scores = {row.model: row.scores for row in published.ROWS}
    assert scores["DNABERT 6-mer"]["EMP/H4ac"] == 37.43
    assert scores["NT-500M-human"]["prom/prom_300_tata"] == 78.07
    assert scores["NT-2500M-multi"]["prom/prom_core_notata"] == 71.58
    assert scores["DNABERT-2"]["tf/4"] == 77.43 and scores["DNABERT-2"]["mouse/0"] == 56.76
    assert scores["DNABERT-2 (further PT)"]["mouse/4"] == 50.80
    assert scores["DNABERT 5-mer"]["virus/covid"] == 50.46
    assert scores["DNABERT 5-mer"]["splice/reconstructed"] == 84.02


def test_budgets_are_given_where_they_are_stated():
    budgets = {row.model: (row.parameters_m, row.train_tokens_b) for row in published.ROWS}
    assert budgets["DNABERT-2"] == (117, 262) and budgets["VQDNA (HRQ)"] == (103, 262)
    assert budgets["NT-500M-human"] == (None, None)


def test_species_table_has_each_length_at_most_once_as_known_or_out_of_memory():
    for row in published.SPECIES:
        assert not set(row.accuracy) & set(row.out_of_memory)
        assert set(row.accuracy) | set(row.out_of_memory) <= {"1k", "20k", "32k", "250k", "450k"}
    by_model = {row.model: row for row in published.SPECIES}
    assert by_model["VQDNA (HRQ)"].accuracy["32k"] == 99.46 > by_model["DNABERT-2"].accuracy["32k"] == 99.28
    assert "1k" not in by_model["DNABERT"].accuracy
    assert "species/hyenadna" in CARDS
