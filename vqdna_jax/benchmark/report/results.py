"""The runs of a benchmark as JSON and CSV: the same cells give the same bytes."""

import csv
import io
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from vqdna_jax.benchmark.cells import FIELDS, Cell
from vqdna_jax.benchmark.report import comparisons, summaries
from vqdna_jax.benchmark.report.summaries import Row
from vqdna_jax.benchmark.sets import published as published_rows
from vqdna_jax.benchmark.sets.cards import by_group
from vqdna_jax.benchmark.sets.published import PublishedRow


def to_json(cells: Sequence[Cell], published: Iterable[PublishedRow] = ()) -> dict[str, Any]:
    """Cells, published rows and everything that `summaries` makes of them, scores of the latter times 100."""
    published = sorted(published, key=lambda row: (row.model, row.source))
    datasets = summaries.datasets(cells)
    rows = summaries.rows(cells, published)
    own = [row for row in rows if row.role != "published"]
    by_run = summaries.summarise(cells)
    return {
        "cells": [cell.to_json() for cell in cells],
        "published": [published_rows.to_json(row) for row in published],
        "summaries": [{"model": key[0], "dataset": key[1], **value._asdict()} for key, value in by_run.items()],
        "means": [_means(row, datasets) for row in rows],
        "ranks": _ranks(own),
        "ranks_with_published": _ranks(rows),
        "deltas": [_delta(row, known) for row in own for known in rows[len(own) :]],
        "paired": [
            {"first": first, "second": second, **comparisons.paired(cells, first, second)._asdict()}
            for first, second in itertools.combinations([row.model for row in own], 2)
        ],
    }


def _means(row: Row, datasets: list[str]) -> dict[str, Any]:
    groups = {of: summaries.mean_over(row, members)._asdict() for of, members in by_group(datasets).items()}
    return {"model": row.model, "role": row.role, **summaries.mean_over(row, datasets)._asdict(), "groups": groups}


def _ranks(rows: Sequence[Row]) -> list[dict[str, Any]]:
    pairs = zip(rows, comparisons.ranking(rows))
    return [{"model": row.model, "role": row.role, **rank._asdict()} for row, rank in pairs if rank]


def _delta(row: Row, known: Row) -> dict[str, Any]:
    by_dataset = comparisons.deltas(row, known)
    mean = summaries.mean_if_any(by_dataset.values())
    return {"model": row.model, "published": known.model, "mean": mean, "n": len(by_dataset), "by_dataset": by_dataset}


def to_csv(cells: Sequence[Cell]) -> str:
    """One line per cell, with the columns FIELDS; None is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(FIELDS)
    writer.writerows([getattr(cell, key) for key in FIELDS] for cell in cells)
    return text.getvalue()
