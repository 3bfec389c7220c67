"""The sentences at the top of the page: what may be said of none, one, two and many datasets."""

import dataclasses
import re

import pytest
from small_benchmark import DATASETS, make_cells

from vqdna_jax.benchmark.cells import Cell, consistent, parse
from vqdna_jax.benchmark.report.findings import findings
from vqdna_jax.benchmark.sets.published import PublishedRow

PUBLISHED = [PublishedRow("DNABERT-2", {name: 70.0 + i for i, name in enumerate(DATASETS)}, "its README", 117, 262)]


def sentences(offsets, datasets=DATASETS) -> str:
    return " ".join(findings(parse(make_cells(offsets, datasets)), PUBLISHED))


def test_findings_say_who_is_best_and_what_cannot_be_told():
    clear = sentences({"HRQ": 6, "HRQ untrained": 0, "6-mer counts": 2})
    assert clear.startswith("HRQ is best by mean (") and "and by average rank (1.00 among 3 rows)." in clear
    assert "HRQ is above the control HRQ untrained: +" in clear and "HRQ is above the control 6-mer counts: +" in clear
    assert "Against the published DNABERT-2 (262 B tokens, 117 M parameters), HRQ is at −" in clear
    assert "1 of 42 runs failed: 0 collapsed, 1 ended in an error." in clear and "run again" not in clear
    cells = make_cells({"HRQ": 6})
    retried = [cell | {"attempts": 1 + (place < 2)} for place, cell in enumerate(cells)]
    assert "2 answered with one class or value at first and were run again" in " ".join(findings(parse(retried)))
    lost = sentences({"HRQ": 0, "HRQ untrained": 0.1, "6-mer counts": 5})
    assert lost.startswith("6-mer counts, a control, is best by mean (")
    assert "HRQ is below the control 6-mer counts: −" in lost
    assert "HRQ is not told apart from the control HRQ untrained" in lost
    bare = sentences({"HRQ": 1, "VQVAE": 0})
    assert "No untrained control was run" in bare and "No k-mer counts were run" in bare


CLAIMS = re.compile(r"is above|is below|told apart|\bbest\b(?! by mean| parameters)")


def measured(**scores: list[float]) -> list[Cell]:
    """Cells of tf/0, mouse/0, ... in points, a list of runs for each dataset of a model: x for HRQ, y for counts."""
    names = {"x": ("HRQ", "model"), "y": ("6-mer counts", "control"), "z": ("HRQ untrained", "control")}
    cells = []
    for key, datasets in scores.items():
        for dataset, runs in zip(("tf/0", "mouse/0", "EMP/H3", "virus/covid"), datasets):
            model, role = names[key]
            cells += [
                Cell(model, role, dataset, "mcc", seed, run / 100, None, None, 1, 1.0, 600)
                for seed, run in enumerate(runs)
            ]
    return consistent({str(place): cell for place, cell in enumerate(cells)})


class TestOneDataset:
    """What was measured on it, with its spread, and nothing of models in general."""

    def lead_and_control(self, x: list[float], y: list[float]) -> tuple[str, str]:
        lead, untrained, control, *_ = findings(measured(x=[x], y=[y]))
        assert untrained.startswith("No untrained control")
        assert not CLAIMS.search(lead + control), "no claim beyond what was measured"
        return lead, control

    def test_a_clear_difference_is_told_with_the_runs(self):
        lead, control = self.lead_and_control([33, 34, 35], [80])
        assert lead == (
            "On tf/0, the only dataset, 6-mer counts, a control, has the highest score (80.00). One dataset does not "
            "tell how models compare on others."
        )
        assert control == (
            "On tf/0 HRQ scores 46.00 points lower than the control 6-mer counts: "
            "34.00 ± 1.00 (3 runs) against 80.00 (1 run); all 3 pairs of runs agree."
        )

    def test_runs_that_disagree_are_told(self):
        _, control = self.lead_and_control([81, 79, 83], [80])
        assert "HRQ scores 1.00 points higher than the control 6-mer counts: 81.00 ± 2.00 (3 runs)" in control
        assert control.endswith("of 3 pairs of runs it is higher in 2 and lower in 1: other seeds may turn it.")

    def test_a_single_run_has_no_spread(self):
        _, control = self.lead_and_control([33.33], [80])
        assert "scores 46.67 points lower than" in control
        assert control.endswith(
            "33.33 (1 run) against 80.00 (1 run); HRQ has one run, so its spread over seeds is not known."
        )

    def test_a_tie_is_no_difference(self):
        lead, control = self.lead_and_control([41, 41], [41])
        assert "HRQ and 6-mer counts, a control, have the highest score (41.00)" in lead
        assert "HRQ scores the same, to two decimals, as the control 6-mer counts: 41.00 ± 0.00 (2 runs)" in control

    def test_controls_that_share_the_lead_are_listed(self):
        lead, *_ = findings(measured(x=[[40]], y=[[80]], z=[[80]]))
        assert (
            "tf/0, the only dataset, the controls 6-mer counts and HRQ untrained have the highest score (80.00)" in lead
        )

    def test_a_published_row_is_compared_on_it_alone(self):
        found = findings(measured(x=[[65]]), PUBLISHED)
        assert (
            "HRQ is at −7.00 points, on tf/0, the one dataset that both have. Published rows were copied" in found[-2]
        )

    def test_it_may_be_the_only_one_that_a_pair_shares(self):
        cells = measured(x=[[50], [40]], y=[[45]])
        found = " ".join(findings(cells))
        assert "On tf/0, the one dataset that both have, HRQ scores 5.00 points higher" in found


def test_no_dataset_in_common_is_said():
    cells = [
        cell for cell in measured(x=[[50], [40]], y=[[45], [35]]) if (cell.model == "HRQ") == (cell.dataset == "tf/0")
    ]
    found = findings(cells)
    assert found[0] == "No row has a score on all datasets, 2 in number, so none is best by mean."
    assert "HRQ and its control 6-mer counts share no scored run." in found


def test_a_lone_dataset_without_a_score_is_said():
    (cell,) = measured(x=[[50]])
    broken = dataclasses.replace(cell, test=None, failed="error: x")
    assert findings([broken])[0] == "No row has a score on all datasets, 1 in number, so none is best by mean."


def test_two_datasets_are_too_few_for_a_claim():
    found = findings(measured(x=[[50, 52], [40, 40]], y=[[45], [45]]))
    assert (
        "Over 2 datasets, HRQ scores 0.50 points higher than the control 6-mer counts on average (tf/0 +6.00, mouse/0 "
        "−5.00): too few to tell how they compare on others."
    ) in found
    tie = " ".join(findings(measured(x=[[50], [40]], y=[[50], [40]])))
    assert (
        "HRQ scores the same, to two decimals, as the control 6-mer counts on average (tf/0 0.00, mouse/0 0.00)" in tie
    )
    few = sentences({"HRQ": 30, "HRQ untrained": 0, "6-mer counts": 0}, ["tf/0", "mouse/0"])
    assert not CLAIMS.search(few) and few.count("too few to tell") == 2


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (
            [50, 60, 70, 80],
            [40, 51, 60, 70],
            "HRQ is above the control 6-mer counts: +9.75 points, standard error 0.25,",
        ),
        (
            [40, 51, 60, 70],
            [50, 60, 70, 80],
            "HRQ is below the control 6-mer counts: −9.75 points, standard error 0.25,",
        ),
        ([50, 60, 70, 80], [60, 50, 71, 78], "HRQ is not told apart from the control 6-mer counts: +0.25 points,"),
        ([50, 60, 70, 80], [50, 60, 70, 80], "HRQ is not told apart from the control 6-mer counts: 0.00 points,"),
    ],
)
def test_many_datasets_allow_a_claim(x, y, expected):
    found = findings(measured(x=[[one] for one in x], y=[[one] for one in y]))
    assert any(sentence.startswith(expected) for sentence in found), found


def test_an_untrained_control_is_set_against_its_own_model():
    both = sentences({"HRQ": 6, "VQVAE": 4, "HRQ untrained": 0, "VQVAE untrained": 0})
    assert "HRQ is above the control HRQ untrained" in both
    assert re.search(r"VQVAE is \w+ (told apart from )?the control VQVAE untrained|VQVAE is not told apart", both)
