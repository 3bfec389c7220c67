"""What the runs of a benchmark say together: means over seeds, then over datasets, beside published rows.

A cell is one run, a mapping with the keys of FIELDS; its scores lie on the metric's own scale, summaries are times 100.
`failed` is None, "collapsed: ..." (the run counts, and is marked) or "error: ..." (it has no score, and is marked).
A published row is a mapping, or an object, with the fields of PUBLISHED; its scores are times 100 already.
"""

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vqdna_jax.benchmark.sets import cards
from vqdna_jax.errors import InputError

Cell = Mapping[str, Any]
FIELDS = ("model", "role", "dataset", "metric", "seed", "test", "dev", "failed", "attempts", "seconds", "train_rows")
PUBLISHED = ("model", "scores", "source", "parameters_m", "train_tokens_b")
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
    role: str  # one of ROLES
    scores: dict[str, float]
    published: dict[str, Any] | None = None  # with the keys of PUBLISHED, its scores on all datasets


class Mean(NamedTuple):
    """The mean of `of` scores; None where only `n` of them are there."""

    mean: float | None
    n: int
    of: int


def in_order(datasets: Iterable[str]) -> list[str]:
    """Each once, sorted by group (in the order of the cards, others after them), then by name, numbers by size."""
    groups = cards.groups()

    def place(dataset: str) -> tuple:
        group = cards.group_of(dataset)
        parts = [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", dataset)]
        return groups.index(group) if group in groups else len(groups), group, parts, dataset

    return sorted(set(datasets), key=place)


def by_group(datasets: Iterable[str]) -> dict[str, list[str]]:
    """The datasets of each group, both in order."""
    groups: dict[str, list[str]] = {}
    for dataset in in_order(datasets):
        groups.setdefault(cards.group_of(dataset), []).append(dataset)
    return groups


def check_cells(cells: Sequence[Cell], where: str = "cells") -> list[Cell]:
    """The cells, in one order whatever theirs was: by dataset, model, seed.

    Raises InputError, as `where[index]: what; what was expected`, where there is no cell, a key is missing, a score is
    not a finite number or does not go with `failed`, a run is there twice, a model has two roles or a dataset two
    metrics.
    """
    if not cells:
        raise InputError(f"{where}: no runs; expected at least one")
    runs, roles, metrics = set(), {}, {}
    for index, cell in enumerate(cells):
        place = f"{where}[{index}]"
        _check_cell(cell, place)
        run = cell["model"], cell["dataset"], cell["seed"]
        if run in runs:
            raise InputError(f"{place}: {run[0]}, {run[1]}, seed {run[2]} is there twice; expected each run once")
        runs.add(run)
        for known, key, name in ((roles, "role", "model"), (metrics, "metric", "dataset")):
            if (first := known.setdefault(cell[name], cell[key])) != cell[key]:
                found = f"{cell[key]!r} for {cell[name]}, which had {first!r}"
                raise InputError(f"{place}.{key}: {found}; expected one {key} for each {name}")
    places = {dataset: place for place, dataset in enumerate(in_order(metrics))}
    return sorted(cells, key=lambda cell: (places[cell["dataset"]], cell["model"], cell["seed"]))


def _check_cell(cell: Cell, place: str) -> None:
    if missing := [key for key in FIELDS if key not in cell]:
        raise InputError(f"{place}: {missing[0]} is missing; expected the keys {', '.join(FIELDS)}")
    for key in ("model", "dataset", "metric"):
        if not cell[key] or not isinstance(cell[key], str):
            raise InputError(f"{place}.{key}: {cell[key]!r}; expected a name")
    if isinstance(cell["seed"], bool) or not isinstance(cell["seed"], int):
        raise InputError(f"{place}.seed: {cell['seed']!r}; expected a whole number")
    if cell["role"] not in ROLES[:2]:
        raise InputError(f"{place}.role: {cell['role']!r}; expected one of {', '.join(ROLES[:2])}")
    failed = cell["failed"]
    if failed is not None and not str(failed).startswith(("collapsed", "error")):
        raise InputError(f"{place}.failed: {failed!r}; expected null, 'collapsed: ...' or 'error: ...'")
    for key in ("test", "dev"):
        value, optional = cell[key], key == "dev" or is_error(cell)
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not number and not (value is None and optional):
            raise InputError(f"{place}.{key}: {value!r}; expected a finite number{', or null' if optional else ''}")
    if is_error(cell) and cell["test"] is not None:
        raise InputError(f"{place}.test: {cell['test']} beside {failed!r}; expected null, as an error leaves no score")


def is_error(cell: Cell) -> bool:
    """Whether the run ended without a score."""
    return str(cell["failed"] or "").startswith("error")


def summarise(cells: Sequence[Cell]) -> dict[tuple[str, str], Summary]:
    """By (model, dataset). Raises InputError as `check_cells` does."""
    runs = {}
    for cell in check_cells(cells):
        runs.setdefault((cell["model"], cell["dataset"]), []).append(cell)
    return {key: _summary(cells) for key, cells in runs.items()}


def _summary(cells: Sequence[Cell]) -> Summary:
    test, dev = ([100 * cell[key] for cell in cells if cell[key] is not None] for key in ("test", "dev"))
    errors = sum(map(is_error, cells))
    collapsed = sum(cell["failed"] is not None for cell in cells) - errors
    figures = mean(test), sd(test), mean(dev), sd(dev)
    return Summary(cells[0]["metric"], len(cells), len(test), *figures, collapsed, errors)


def mean(values: Iterable[float]) -> float | None:
    """Exact before its one rounding, so that no order of the values changes it; None without any."""
    values = list(values)
    return math.fsum(values) / len(values) if values else None


def sd(values: list[float]) -> float | None:
    """With n - 1 in the denominator; None for fewer than two."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def rows(cells: Sequence[Cell], published: Iterable = ()) -> list[Row]:
    """Models, then controls, then published rows with a score on a dataset of the cells, each by falling mean.

    Rows that lack a dataset come after those that have all, then by name.
    """
    summaries, roles = summarise(cells), {cell["model"]: cell["role"] for cell in cells}
    datasets = in_order(dataset for _, dataset in summaries)
    table = [Row(model, role, {}) for model, role in roles.items()]
    for row, dataset in itertools.product(table, datasets):
        if (summary := summaries.get((row.model, dataset))) and summary.mean is not None:
            row.scores[dataset] = summary.mean
    for known in map(as_published, published):
        scores = {dataset: float(known["scores"][dataset]) for dataset in datasets if dataset in known["scores"]}
        table += [Row(known["model"], "published", scores, known)] if scores else []

    def key(row: Row) -> tuple:
        whole, source = mean_over(row, datasets).mean, row.published["source"] if row.published else ""
        return ROLES.index(row.role), whole is None, -(whole or 0.0), row.model, source, sorted(row.scores.items())

    return sorted(table, key=key)


def as_published(row: Any) -> dict[str, Any]:
    """A published row, whatever holds it, as a dict with the keys of PUBLISHED."""
    get = row.__getitem__ if isinstance(row, Mapping) else lambda name: getattr(row, name)
    return {name: get(name) for name in PUBLISHED}


def mean_over(row: Row, datasets: Iterable[str]) -> Mean:
    """Over all of these datasets, or None: means over different datasets must not be compared."""
    scores = [row.scores.get(dataset) for dataset in datasets]
    found = [score for score in scores if score is not None]
    return Mean(mean(found) if len(found) == len(scores) else None, len(found), len(scores))
