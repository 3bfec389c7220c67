"""What the runs of a benchmark say together: means over seeds, then over datasets, beside published rows.

Cells have scores on the metric's own scale; summaries and published rows are times 100.
"""

import itertools
import math
from collections.abc import Collection, Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from vqdna_jax.benchmark.cells import Cell, Role
from vqdna_jax.benchmark.sets.cards import in_order
from vqdna_jax.benchmark.sets.published import PublishedRow

ROLES = ("model", "control", "published")


class Summary(NamedTuple):
    """The runs of one model on one dataset; scores times 100, None where there is none (sd: fewer than two)."""

    metric: str
    runs: int
    n: int  # runs with a score
    mean: float | None
    sd: float | None  # over seeds, n - 1 in the denominator
    dev_mean: float | None
    dev_sd: float | None
    collapsed: int
    errors: int


class Row(NamedTuple):
    """One line of a table: a score, times 100, for each dataset that has one."""

    model: str  # a published row may have the name of a model run here
    role: Literal["model", "control", "published"]
    scores: dict[str, float]
    published: PublishedRow | None = None  # with its scores on all datasets


class Mean(NamedTuple):
    """The mean of `of` scores; None where only `n` of them are there."""

    mean: float | None
    n: int
    of: int


def datasets(cells: Iterable[Cell]) -> list[str]:
    """Of the cells, each once, in the order of the cards."""
    return in_order(cell.dataset for cell in cells)


def summarise(cells: Sequence[Cell]) -> dict[tuple[str, str], Summary]:
    """By (model, dataset)."""
    runs: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        runs.setdefault((cell.model, cell.dataset), []).append(cell)
    return {key: _summary(cells) for key, cells in runs.items()}


def _summary(cells: Sequence[Cell]) -> Summary:
    test = [100 * cell.test for cell in cells if cell.test is not None]
    dev = [100 * cell.dev for cell in cells if cell.dev is not None]
    errors = sum(cell.is_error for cell in cells)
    collapsed = sum(cell.failed is not None for cell in cells) - errors
    means = {"mean": mean_if_any(test), "sd": sd(test), "dev_mean": mean_if_any(dev), "dev_sd": sd(dev)}
    return Summary(cells[0].metric, len(cells), len(test), **means, collapsed=collapsed, errors=errors)


def mean(values: Collection[float]) -> float:
    """Of one or more; exact before its one rounding, so that no order of the values changes it."""
    return math.fsum(values) / len(values)


def mean_if_any(values: Collection[float]) -> float | None:
    return mean(values) if values else None


def sd(values: list[float]) -> float | None:
    """With n - 1 in the denominator; None for fewer than two."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def rows(cells: Sequence[Cell], published: Iterable[PublishedRow] = ()) -> list[Row]:
    """Models, then controls, then published rows with a score on a dataset of the cells, each by falling mean.

    Rows that lack a dataset come after those that have all, then by name.
    """
    summaries = summarise(cells)
    roles: dict[str, Role] = {cell.model: cell.role for cell in cells}
    names = datasets(cells)
    table = [Row(model, role, {}) for model, role in roles.items()]
    for row, dataset in itertools.product(table, names):
        if (summary := summaries.get((row.model, dataset))) and summary.mean is not None:
            row.scores[dataset] = summary.mean
    for known in published:
        scores = {dataset: float(known.scores[dataset]) for dataset in names if dataset in known.scores}
        table += [Row(known.model, "published", scores, known)] if scores else []

    def key(row: Row) -> tuple:
        whole, source = mean_over(row, names).mean, row.published.source if row.published else ""
        return ROLES.index(row.role), whole is None, -(whole or 0.0), row.model, source, sorted(row.scores.items())

    return sorted(table, key=key)


def mean_over(row: Row, datasets: Iterable[str]) -> Mean:
    """Over all of these datasets, or None: means over different datasets must not be compared."""
    scores = [row.scores.get(dataset) for dataset in datasets]
    found = [score for score in scores if score is not None]
    return Mean(mean(found) if len(found) == len(scores) else None, len(found), len(scores))
