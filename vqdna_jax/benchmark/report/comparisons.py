"""Rows and models of a benchmark set against one another: ranks, differences to published rows, paired runs."""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from vqdna_jax.benchmark.cells import Cell
from vqdna_jax.benchmark.report.summaries import Row, datasets, mean, mean_if_any, sd
from vqdna_jax.benchmark.sets.cards import in_order

_DECIMALS = 9  # means that agree so far are equal: rounding makes no rank


class Ranked(NamedTuple):
    """The rank of a row on each dataset (1 best, ties share the average), their mean, and the order of those means."""

    ranks: dict[str, float]
    average: float
    order: int  # 1 best; equal averages share the better place


class Paired(NamedTuple):
    """First less second model, in points, over the datasets where both have a score.

    Runs of one seed are paired; where one side has a single run, as deterministic controls do, it is paired with each
    run of the other.

    difference: mean over datasets of the mean over seeds, None without any. standard_error: over datasets, None for
    fewer than two. wins and losses count datasets, run_wins and run_losses runs; the rest are ties.
    """

    difference: float | None
    standard_error: float | None
    datasets: int
    wins: int
    losses: int
    runs: int
    run_wins: int
    run_losses: int


def ranking(rows: Sequence[Row]) -> list[Ranked | None]:
    """Ranks of the rows among one another, in their order, over the datasets where all rows compared have a score.

    Those are the datasets that every model and control with any score has; with published rows, only those of them that
    one of these has. None for a row that lacks one, so is not compared, and for all where there is no such dataset.
    """
    own = [set(row.scores) for row in rows if row.scores and row.role != "published"]
    known = [set(row.scores) for row in rows if row.role == "published"]
    common: set[str] = set.intersection(*own) if own else set()
    shared = in_order(common & set[str]().union(*known) if known else common)
    compared = [index for index, row in enumerate(rows) if shared and row.scores.keys() >= set(shared)]
    ranks = [_ranks([rows[index].scores[dataset] for index in compared]) for dataset in shared]
    averages = [mean(of_row) for of_row in zip(*ranks)]
    result: list[Ranked | None] = [None] * len(rows)
    for index, average, order, *of_row in zip(compared, averages, _order(averages), *ranks):
        result[index] = Ranked(dict(zip(shared, of_row)), average, order)
    return result


def _ranks(scores: Sequence[float]) -> list[float]:
    """1 for the highest; equal scores share the mean of their places."""
    scores_B = np.round(scores, _DECIMALS)
    higher_B, equal_B = (compare(scores_B, scores_B[:, None]).sum(axis=1) for compare in (np.greater, np.equal))
    return (higher_B + (equal_B + 1) / 2).tolist()


def _order(averages: Sequence[float]) -> list[int]:
    """1 for the lowest; equal averages share the better place."""
    averages_B = np.round(averages, _DECIMALS)
    return (1 + (averages_B < averages_B[:, None]).sum(axis=1)).tolist()


def deltas(row: Row, published: Row) -> dict[str, float]:
    """Row less published row, in points, on each dataset that both have."""
    return {name: score - published.scores[name] for name, score in row.scores.items() if name in published.scores}


def paired(cells: Sequence[Cell], first: str, second: str) -> Paired:
    """Compares two models run by run."""
    differences = by_dataset(cells, first, second).values()
    means = [mean(of_dataset) for of_dataset in differences]
    runs = list(itertools.chain.from_iterable(differences))
    spread = sd(means)
    error = None if spread is None else spread / math.sqrt(len(means))
    return Paired(mean_if_any(means), error, len(means), *_signs(means), len(runs), *_signs(runs))


def by_dataset(cells: Sequence[Cell], first: str, second: str) -> dict[str, list[float]]:
    """First less second, in points, for each pair of runs of each dataset where both have a score."""
    found = {
        dataset: _differences(_by_seed(cells, first, dataset), _by_seed(cells, second, dataset))
        for dataset in datasets(cells)
    }
    return {dataset: differences for dataset, differences in found.items() if differences}


def _by_seed(cells: Sequence[Cell], model: str, dataset: str) -> dict[int, float]:
    found = [cell for cell in cells if (cell.model, cell.dataset) == (model, dataset)]
    return {cell.seed: 100 * cell.test for cell in found if cell.test is not None}


def _differences(first: dict[int, float], second: dict[int, float]) -> list[float]:
    if 1 in (len(first), len(second)):
        return [one - other for one, other in itertools.product(first.values(), second.values())]
    return [first[seed] - second[seed] for seed in first if seed in second]


def _signs(differences: Iterable[float]) -> tuple[int, int]:
    """How many are above, and how many below, nothing."""
    rounded = [round(difference, _DECIMALS) for difference in differences]
    return sum(value > 0 for value in rounded), sum(value < 0 for value in rounded)
