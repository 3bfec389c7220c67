import csv
import io
import json
import math
import random
import statistics
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from vqdna_jax.benchmark.cells import FIELDS, Cell, consistent, parse
from vqdna_jax.benchmark.report import comparisons, results, summaries
from vqdna_jax.benchmark.report.comparisons import Paired
from vqdna_jax.benchmark.report.markdown import to_markdown
from vqdna_jax.benchmark.report.summaries import Mean, Row, Summary
from vqdna_jax.benchmark.sets.cards import group_of, in_order
from vqdna_jax.benchmark.sets.published import PublishedRow

ROLES = {"HRQ": "model", "HRQ untrained": "control", "4-mer counts": "control"}


def cell(model: str, dataset: str, seed: int, test: float | None, dev: float | None = None, **rest) -> Cell:
    known = dict(metric="mcc", failed=None, attempts=1, seconds=12.25, train_rows=600, role=ROLES.get(model, "model"))
    return Cell(model=model, dataset=dataset, seed=seed, test=test, dev=dev, **known | rest)


ERROR, COLLAPSED = "error: loss | not finite\nat step 3", "collapsed: predicts one class"
CELLS = [
    *(cell("HRQ", "tf/0", seed, test, dev) for seed, test, dev in [(0, 0.40, 0.5), (1, 0.41, 0.5), (2, 0.42, 0.53)]),
    *(cell("HRQ untrained", "tf/0", seed, test) for seed, test in enumerate([0.30, 0.30, 0.36])),
    cell("4-mer counts", "tf/0", 0, 0.41),
    *(cell("HRQ", "mouse/0", seed, 0.20) for seed in (0, 1)),
    cell("HRQ", "mouse/0", 2, None, failed=ERROR, attempts=3),
    cell("HRQ untrained", "mouse/0", 0, 0.10),
    cell("HRQ untrained", "mouse/0", 1, 0.0, failed=COLLAPSED),
    cell("HRQ untrained", "mouse/0", 2, 0.14),
    cell("4-mer counts", "mouse/0", 0, 0.25),
]
PUBLISHED = [
    PublishedRow("DNABERT-2", {"tf/0": 70.0, "mouse/0": 18.0}, "a", 117, 262),
    PublishedRow("VQDNA", {"tf/0": 72.0, "EMP/H3": 79.2}, "b", None, None),
    PublishedRow("elsewhere", {"EMP/H3": 79.2}, "c", 1, 1),
]
ORDER = ["HRQ", "4-mer counts", "HRQ untrained", "DNABERT-2", "VQDNA"]  # of the rows


def test_tables_and_pages_need_neither_jax_nor_scikit_learn():
    modules = ", ".join(f"vqdna_jax.benchmark.report.{name}" for name in ("results", "markdown", "page"))
    check = f"import sys, {modules}; sys.exit('jax' in sys.modules or "
    assert subprocess.run([sys.executable, "-c", check + "'sklearn' in sys.modules)"]).returncode == 0


def test_means_and_deviations_by_hand():
    found = summaries.summarise(CELLS)
    third = math.sqrt(3)
    expected = {
        ("HRQ", "tf/0"): Summary("mcc", 3, 3, 41, 1, 51, third, 0, 0),
        ("HRQ untrained", "tf/0"): Summary("mcc", 3, 3, 32, 2 * third, None, None, 0, 0),
        ("4-mer counts", "tf/0"): Summary("mcc", 1, 1, 41, None, None, None, 0, 0),
        ("HRQ", "mouse/0"): Summary("mcc", 3, 2, 20, 0, None, None, 0, 1),
        ("HRQ untrained", "mouse/0"): Summary("mcc", 3, 3, 8, math.sqrt(52), None, None, 1, 0),
        ("4-mer counts", "mouse/0"): Summary("mcc", 1, 1, 25, None, None, None, 0, 0),
    }
    assert found.keys() == expected.keys()
    for key, summary in expected.items():
        assert found[key]._asdict() == {name: pytest.approx(value) for name, value in summary._asdict().items()}, key


def test_a_mean_over_datasets_needs_them_all():
    rows = summaries.rows(CELLS, PUBLISHED)
    means = {row.model: summaries.mean_over(row, ["tf/0", "mouse/0"]) for row in rows}
    assert [row.model for row in rows] == ["HRQ", "4-mer counts", "HRQ untrained", "DNABERT-2", "VQDNA"]
    assert [means[model].mean for model in ORDER] == [pytest.approx(value) for value in (30.5, 33, 20, 44)] + [None]
    assert means["VQDNA"] == Mean(None, 1, 2)
    assert summaries.mean_over(Row("x", "model", {"a": 1.0}), ["a", "b"]).mean is None


def test_ranks_by_hand_with_and_without_published_rows():
    rows = summaries.rows(CELLS, PUBLISHED)
    own = {row.model: rank for row, rank in zip(rows, comparisons.ranking(rows[:3]))}
    assert {model: rank.ranks for model, rank in own.items()} == {
        "HRQ": {"tf/0": 1.5, "mouse/0": 2},
        "4-mer counts": {"tf/0": 1.5, "mouse/0": 1},
        "HRQ untrained": {"tf/0": 3, "mouse/0": 3},
    }
    assert [(own[model].average, own[model].order) for model in ORDER[:3]] == [(1.75, 2), (1.25, 1), (3, 3)]
    *compared, last = comparisons.ranking(rows)
    assert last is None, "VQDNA lacks a dataset that the others have"
    assert [(rank.average, rank.order) for rank in compared] == [(2.25, 3), (1.75, 1), (4, 4), (2, 2)]


def test_published_rows_narrow_the_datasets_that_are_ranked():
    rows = [Row("a", "model", {"x": 1, "y": 1}), Row("b", "model", {"x": 2, "y": 0}), Row("p", "published", {"x": 1.5})]
    assert [rank.ranks for rank in comparisons.ranking(rows)] == [{"x": 3}, {"x": 1}, {"x": 2}]
    assert [rank.average for rank in comparisons.ranking(rows[:2])] == [1.5, 1.5]
    apart = [Row("a", "model", {"x": 1}), Row("b", "model", {"y": 1}), Row("c", "model", {})]
    assert comparisons.ranking(apart) == [None] * 3


def test_deltas_and_paired_differences_by_hand():
    rows = {row.model: row for row in summaries.rows(CELLS, PUBLISHED)}
    assert comparisons.deltas(rows["HRQ"], rows["DNABERT-2"]) == pytest.approx({"tf/0": -29, "mouse/0": 2})
    assert comparisons.deltas(rows["HRQ"], rows["VQDNA"]) == pytest.approx({"tf/0": -31})
    # tf/0: 10, 11, 6; mouse/0: 10, 20, the third run has no score.
    assert comparisons.paired(CELLS, "HRQ", "HRQ untrained") == pytest.approx(Paired(12, 3, 2, 2, 0, 5, 5, 0))
    # The one run of the counts against each: -1, 0, 1 and -5, -5.
    assert comparisons.paired(CELLS, "HRQ", "4-mer counts") == pytest.approx(Paired(-2.5, 2.5, 2, 0, 1, 5, 1, 3))
    assert comparisons.paired(CELLS, "HRQ", "nothing") == Paired(None, None, 0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("dataset", "of"),
    [
        ("EMP/H3K4me1", "EMP"),
        ("prom/prom_300_all", "prom_300"),
        ("prom_core_tata", "prom_core"),
        ("tf/0", "tf"),
        ("virus/covid", "virus"),
        ("mine/one", "mine"),
    ],
)
def test_groups(dataset, of):
    assert group_of(dataset) == of


def test_datasets_come_in_the_order_of_their_groups_and_numbers():
    ordered = ["EMP/H3", "EMP/H3K9ac", "EMP/H4", "prom/prom_300_all", "prom/prom_core_all", "tf/2", "tf/10", "mine/a"]
    assert in_order(ordered[::-1] + ordered) == ordered


# Hypothesis: random benchmarks.
names = st.sampled_from(["A", "B", "C", "D|x", 'E, "e"'])
scores = st.one_of(st.none(), st.integers(-4, 8).map(lambda eighth: eighth / 8), st.floats(-1, 1))
runs = st.dictionaries(
    st.tuples(names, st.sampled_from(["tf/0", "tf/1", "EMP/H3", "virus/covid"]), st.integers(0, 2)),
    st.tuples(scores, st.booleans(), st.floats(0, 1e4)),
    min_size=1,
    max_size=40,
)


def in_one_order(cells: list[Cell]) -> list[Cell]:
    return consistent({str(place): cell for place, cell in enumerate(cells)})


def benchmark(found: dict) -> list[Cell]:
    roles = dict(zip(["A", "B", "C", "D|x", 'E, "e"'], ["model", "control", "model", "control", "model"]))
    cells = []
    for (model, dataset, seed), (score, whole, seconds) in found.items():
        failed = ERROR if score is None else None if whole else COLLAPSED
        role, metric = roles[model], "macro_f1" if dataset == "virus/covid" else "mcc"
        dev = None if score is None else score / 2
        rest = dict(role=role, metric=metric, failed=failed, seconds=seconds)
        cells.append(cell(model, dataset, seed, score, dev, **rest))
    return in_one_order(cells)


@given(runs, st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_the_same_cells_in_any_order_give_the_same_bytes(found, shuffle: random.Random):
    cells, published = benchmark(found), [*PUBLISHED]

    def texts() -> list[str]:
        of_cells = in_one_order(cells)
        return [
            json.dumps(results.to_json(of_cells, published)),
            results.to_csv(of_cells),
            to_markdown(of_cells, published),
        ]

    before = texts()
    shuffle.shuffle(cells)
    shuffle.shuffle(published)
    assert before == texts()


@given(runs)
@settings(max_examples=50)
def test_csv_and_json_hold_every_cell(found):
    cells = benchmark(found)
    assert parse(json.loads(json.dumps(results.to_json(cells)))["cells"]) == cells
    rows = list(csv.DictReader(io.StringIO(results.to_csv(cells), newline="")))
    assert [
        {key: "" if getattr(cell, key) is None else str(getattr(cell, key)) for key in FIELDS} for cell in cells
    ] == rows


@given(runs)
@settings(max_examples=50)
def test_ranks_are_those_of_scipy_and_sum_to_what_they_must(found):
    rows = summaries.rows(benchmark(found))
    pairs = [(row, rank) for row, rank in zip(rows, comparisons.ranking(rows)) if rank]
    scored = [set(row.scores) for row in rows if row.scores]
    shared = set.intersection(*scored) if scored else set()
    assert bool(pairs) == bool(shared)
    for dataset in shared:
        ranks = [rank.ranks[dataset] for _, rank in pairs]
        assert ranks == stats.rankdata([-round(row.scores[dataset], 9) for row, _ in pairs]).tolist()
        assert sum(ranks) == len(pairs) * (len(pairs) + 1) / 2
    for _, rank in pairs:
        assert rank.ranks.keys() == shared and rank.average == pytest.approx(statistics.mean(rank.ranks.values()))
        assert rank.order == 1 + sum(round(other.average, 9) < round(rank.average, 9) for _, other in pairs)


@given(runs)
@settings(max_examples=50)
def test_no_run_goes_missing(found):
    cells = benchmark(found)
    by_run = summaries.summarise(cells).values()
    assert sum(one.runs for one in by_run) == len(cells)
    assert sum(one.n + one.errors for one in by_run) == len(cells)
    failed = [one for one in cells if one.failed]
    assert sum(one.collapsed + one.errors for one in by_run) == len(failed)
    assert to_markdown(cells).count("\n- ") == len(failed)


@given(runs)
@settings(max_examples=50)
def test_a_paired_difference_turns_its_sign(found):
    cells = benchmark(found)
    one, other = comparisons.paired(cells, "A", "B"), comparisons.paired(cells, "B", "A")
    turned = other._replace(
        difference=other.difference and -other.difference,
        wins=other.losses,
        losses=other.wins,
        run_wins=other.run_losses,
        run_losses=other.run_wins,
    )
    assert one._asdict() == {name: pytest.approx(value) for name, value in turned._asdict().items()}


def rows_of(markdown: str) -> list[list[str]]:
    """The cells of every line of the tables, unescaped pipes apart."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[text.strip() for text in line.replace("\\|", "\0").strip("|").split("|")] for line in lines]


def test_markdown_shows_every_row_apart_and_marks_failures():
    markdown = to_markdown(CELLS, PUBLISHED)
    first = rows_of(markdown.split("\n\n")[0])
    title = ["model", "tf/0", "mouse/0", "mean", "rank here, 2 datasets", "rank with published, 2 datasets"]
    assert first[0] == title and {len(row) for row in first} == {6}
    assert [row[0] for row in first[2:]] == [
        *("**Run here**", "HRQ", "**Controls, run here**", "4-mer counts", "HRQ untrained"),
        *("**Published, not run here**", "DNABERT-2 (262 B tokens, 117 M parameters)", "VQDNA (token budget unknown)"),
    ]
    body = {row[0].split(" (")[0]: row[1:] for row in first[2:]}
    assert body["HRQ"] == ["41.00 ± 1.00", "20.00 ± 0.00‡", "30.50‡", "1.75 (2)", "2.25 (3)"]
    assert body["4-mer counts"] == ["41.00", "25.00", "33.00", "1.25 (1)", "1.75 (1)"]
    assert body["HRQ untrained"] == ["32.00 ± 3.46", "8.00 ± 7.21†", "20.00†", "3.00 (3)", "4.00 (4)"]
    assert body["DNABERT-2"] == ["70.00", "18.00", "44.00", "–", "2.00 (2)"]
    assert body["VQDNA"] == ["72.00", "–", "– (1 of 2)", "–", "–"]
    assert "elsewhere" not in markdown
    differences = rows_of(markdown.split("\n\n")[2])
    assert differences[2] == [
        *("DNABERT-2 (262 B tokens, 117 M parameters)", "−13.50 (2)", "−11.00 (2)", "−24.00 (2)"),
    ]
    assert "† a run answered with one class" in markdown and "‡ a run ended in an error" in markdown
    assert "- HRQ, mouse/0, seed 2: error: loss \\| not finite at step 3 (attempts: 3)\n" in markdown


def test_markdown_without_failures_has_no_marks():
    markdown = to_markdown([one for one in CELLS if one.failed is None])
    assert "†" not in markdown and "‡" not in markdown


def test_markdown_of_many_datasets_has_a_table_a_group():
    cells = [cell("HRQ", f"{of}/{i}", 0, i / 10) for of in ("tf", "mouse", "prom_300", "EMP") for i in range(4)]
    markdown = to_markdown(cells)
    assert rows_of(markdown)[0][:6] == ["model", "EMP (4)", "prom_300 (4)", "tf (4)", "mouse (4)", "mean"]
    assert [line for line in markdown.splitlines() if line.startswith("#")] == [
        *("### EMP", "### prom_300", "### tf", "### mouse")
    ]
    assert max(map(len, rows_of(markdown))) == 7, "no table is as wide as all datasets"


def test_json_holds_what_the_functions_say():
    found = results.to_json(CELLS, PUBLISHED)
    hrq = next(row for row in found["means"] if row["model"] == "HRQ")
    assert hrq["mean"] == pytest.approx(30.5) and hrq["groups"]["mouse"]["mean"] == pytest.approx(20)
    assert [row["order"] for row in found["ranks"]] == [2, 1, 3]
    assert len(found["ranks_with_published"]) == 4
    delta = next(one for one in found["deltas"] if (one["model"], one["published"]) == ("HRQ", "DNABERT-2"))
    assert (delta["mean"], delta["n"]) == (pytest.approx(-13.5), 2)
    assert next(one for one in found["paired"] if one["second"] == "HRQ untrained")["difference"] == pytest.approx(12)
    assert {row["model"] for row in found["published"]} == {row.model for row in PUBLISHED}
