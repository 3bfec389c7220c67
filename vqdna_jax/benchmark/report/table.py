"""The runs of a benchmark as JSON, CSV and Markdown: the same cells in any order give the same bytes."""

import csv
import io
import itertools
import json
import os
from collections.abc import Iterable, Sequence
from typing import Any

from vqdna_jax.benchmark.report import comparisons, summaries, wording
from vqdna_jax.benchmark.report.summaries import FIELDS, Cell, Row
from vqdna_jax.errors import InputError

_WIDEST = 10  # datasets in one Markdown table; more are shown group by group
_NUMBERS = {"seed": int, "test": float, "dev": float, "attempts": int, "seconds": float, "train_rows": int}


def to_json(cells: Sequence[Cell], published: Iterable = ()) -> str:
    """Cells, published rows and everything that `summaries` makes of them, scores of the latter times 100."""
    cells = summaries.check_cells(cells)
    published = sorted(map(summaries.as_published, published), key=lambda row: (row["model"], row["source"]))
    datasets = summaries.in_order(cell["dataset"] for cell in cells)
    rows = summaries.rows(cells, published)
    own = [row for row in rows if row.role != "published"]
    by_run = summaries.summarise(cells)
    content = {
        "cells": [{key: cell[key] for key in [*FIELDS, *sorted(cell.keys() - set(FIELDS))]} for cell in cells],
        "published": published,
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
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _means(row: Row, datasets: list[str]) -> dict[str, Any]:
    groups = {of: summaries.mean_over(row, members)._asdict() for of, members in summaries.by_group(datasets).items()}
    return {"model": row.model, "role": row.role, **summaries.mean_over(row, datasets)._asdict(), "groups": groups}


def _ranks(rows: Sequence[Row]) -> list[dict[str, Any]]:
    pairs = zip(rows, comparisons.ranking(rows))
    return [{"model": row.model, "role": row.role, **rank._asdict()} for row, rank in pairs if rank]


def _delta(row: Row, known: Row) -> dict[str, Any]:
    by_dataset = comparisons.deltas(row, known)
    mean = summaries.mean(by_dataset.values())
    return {"model": row.model, "published": known.model, "mean": mean, "n": len(by_dataset), "by_dataset": by_dataset}


def to_csv(cells: Sequence[Cell]) -> str:
    """One line a cell, with the columns FIELDS; None is empty. `from_csv` reads it back exactly."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(FIELDS)
    writer.writerows([cell[key] for key in FIELDS] for cell in summaries.check_cells(cells))
    return text.getvalue()


def from_csv(text: str, name: str | os.PathLike = "cells.csv") -> list[dict[str, Any]]:
    """The cells of `to_csv`.

    Raises InputError, as `name:line:column`, for another header, a line of another width, or what is not a number.
    """
    reader = csv.reader(io.StringIO(text, newline=""))
    if (header := next(reader, [])) != list(FIELDS):
        raise InputError(f"{name}:1: the header {','.join(header)[:80]!r}; expected {','.join(FIELDS)}")
    cells = []
    for line in reader:
        if len(line) != len(FIELDS):
            raise InputError(f"{name}:{reader.line_num}: {len(line)} columns; expected {len(FIELDS)}")
        place = f"{name}:{reader.line_num}"
        cells.append({key: _parse(value, key, place) for key, value in zip(FIELDS, line)})
    return cells


def _parse(value: str, key: str, place: str) -> Any:
    if value == "":
        return None
    try:
        return _NUMBERS.get(key, str)(value)
    except ValueError:
        raise InputError(f"{place}:{FIELDS.index(key) + 1}: {key} {value[:40]!r}; expected a number") from None


def to_markdown(cells: Sequence[Cell], published: Iterable = ()) -> str:
    """Tables of mean ± standard deviation over seeds: models, controls and published rows, apart; then the failed runs.

    Up to ten datasets come in one table; more come as one table of means by group, then one table a group.
    """
    cells = summaries.check_cells(cells)
    page = _Markdown(cells, list(published))
    datasets = summaries.in_order(cell["dataset"] for cell in cells)
    if len(datasets) <= _WIDEST:
        tables = [page.table([*page.scores(datasets), *page.overall(datasets)])]
    else:
        groups = summaries.by_group(datasets)
        means = [(f"{of} ({len(members)})", page.means(members)) for of, members in groups.items()]
        tables = [page.table([*means, *page.overall(datasets)])]
        tables += [f"### {escape(of)}\n\n{page.table(page.scores(members))}" for of, members in groups.items()]
    return "\n\n".join([*tables, *page.differences(), *page.notes()]) + "\n"


class _Markdown:
    """Columns, as (title, one text a row), and what is put around them."""

    def __init__(self, cells: Sequence[Cell], published: list):
        self.cells, self.rows = cells, summaries.rows(cells, published)
        self.summaries = summaries.summarise(cells)

    def table(self, columns: list[tuple[str, list[str]]]) -> str:
        lines = ["| " + " | ".join(["model", *(escape(title) for title, _ in columns)]) + " |"]
        lines.append("|---|" + "--:|" * len(columns))
        role = None
        for place, row in enumerate(self.rows):
            if row.role != role:
                role = row.role
                lines.append(f"| **{wording.TITLES[role]}** |" + " |" * len(columns))
            name = escape(row.model) + (f" ({wording.budget(row.published)})" if row.published else "")
            lines.append("| " + " | ".join([name, *(texts[place] for _, texts in columns)]) + " |")
        return "\n".join(lines)

    def scores(self, datasets: list[str]) -> list[tuple[str, list[str]]]:
        return [(dataset, [self._score(row, dataset) for row in self.rows]) for dataset in datasets]

    def _score(self, row: Row, dataset: str) -> str:
        if row.role == "published":
            return wording.figure(row.scores.get(dataset))
        summary = self.summaries.get((row.model, dataset))
        return wording.mean_and_sd(summary) + wording.marks([summary]) if summary else wording.EMPTY

    def means(self, datasets: list[str]) -> list[str]:
        marked = [wording.marks(self.summaries.get((row.model, name)) for name in datasets) for row in self.rows]
        texts = [wording.of_all(summaries.mean_over(row, datasets)) for row in self.rows]
        return [text + (mark if row.role != "published" else "") for row, text, mark in zip(self.rows, texts, marked)]

    def overall(self, datasets: list[str]) -> list[tuple[str, list[str]]]:
        own = [row for row in self.rows if row.role != "published"]
        rankings = {"rank here": comparisons.ranking(own) + [None] * (len(self.rows) - len(own))}
        if len(own) < len(self.rows):
            rankings["rank with published"] = comparisons.ranking(self.rows)
        columns = [("mean", self.means(datasets))]
        for title, ranks in rankings.items():
            columns.append((wording.rank_title(title, ranks), list(map(wording.rank_text, ranks))))
        return columns

    def differences(self) -> list[str]:
        own, known = ([row for row in self.rows if (row.published is None) is ours] for ours in (True, False))
        if not known:
            return []
        lines = ["| published | " + " | ".join(escape(row.model) for row in own) + " |", "|---|" + "--:|" * len(own)]
        for row in known:
            texts = [wording.difference(comparisons.deltas(ours, row)) for ours in own]
            lines.append("| " + " | ".join([f"{escape(row.model)} ({wording.budget(row.published)})", *texts]) + " |")
        return ["Run here less published, points, mean over the datasets that both have (how many):", "\n".join(lines)]

    def notes(self) -> list[str]:
        metrics: dict[str, list[str]] = {}
        for cell in self.cells:
            names = metrics.setdefault(cell["metric"], [])
            names += [] if escape(cell["dataset"]) in names else [escape(cell["dataset"])]
        by_metric = "; ".join(
            f"{escape(wording.metric_name(metric))} of {', '.join(names)}" for metric, names in metrics.items()
        )
        notes = [f"Test scores times 100, mean ± standard deviation over runs: {by_metric}. {wording.NOTES}"]
        failed = [cell for cell in self.cells if cell["failed"] is not None]
        if failed:
            notes.append(wording.FAILURES)
            notes.append("\n".join("- " + escape(wording.failure(cell)) for cell in failed))
        return notes


def escape(text: str) -> str:
    """As one cell of a Markdown table."""
    return " ".join(str(text).split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
