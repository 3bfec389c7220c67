"""The runs of a benchmark as Markdown: the same cells give the same bytes."""

from collections.abc import Sequence

from vqdna_jax.benchmark.cells import Cell
from vqdna_jax.benchmark.report import comparisons, summaries, wording
from vqdna_jax.benchmark.report.summaries import Row
from vqdna_jax.benchmark.sets.cards import by_group
from vqdna_jax.benchmark.sets.published import PublishedRow

_WIDEST = 10  # datasets in one table; more are shown group by group


def to_markdown(cells: Sequence[Cell], published: Sequence[PublishedRow] = ()) -> str:
    """Tables of mean ± standard deviation over seeds: models, controls and published rows, apart; then the failed runs.

    Up to ten datasets come in one table; more come as one table of means by group, then one table per group.
    """
    page = _Markdown(cells, published)
    datasets = summaries.datasets(cells)
    if len(datasets) <= _WIDEST:
        tables = [page.table([*page.scores(datasets), *page.overall(datasets)])]
    else:
        groups = by_group(datasets)
        means = [(f"{of} ({len(members)})", page.means(members)) for of, members in groups.items()]
        tables = [page.table([*means, *page.overall(datasets)])]
        tables += [f"### {escape(of)}\n\n{page.table(page.scores(members))}" for of, members in groups.items()]
    return "\n\n".join([*tables, *page.differences(), *page.notes()]) + "\n"


class _Markdown:
    """Columns, as (title, one text per row), and what is put around them."""

    def __init__(self, cells: Sequence[Cell], published: Sequence[PublishedRow]) -> None:
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
            name = escape(row.model) + (f" ({wording.budget(row)})" if row.published else "")
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
            lines.append("| " + " | ".join([f"{escape(row.model)} ({wording.budget(row)})", *texts]) + " |")
        return ["Run here less published, points, mean over the datasets that both have (how many):", "\n".join(lines)]

    def notes(self) -> list[str]:
        metrics: dict[str, list[str]] = {}
        for cell in self.cells:
            names = metrics.setdefault(cell.metric, [])
            names += [] if escape(cell.dataset) in names else [escape(cell.dataset)]
        by_metric = "; ".join(
            f"{escape(wording.metric_name(metric))} of {', '.join(names)}" for metric, names in metrics.items()
        )
        notes = [f"Test scores times 100, mean ± standard deviation over runs: {by_metric}. {wording.NOTES}"]
        failed = [cell for cell in self.cells if cell.failed is not None]
        if failed:
            notes.append(wording.FAILURES)
            notes.append("\n".join("- " + escape(wording.failure(cell)) for cell in failed))
        return notes


def escape(text: str) -> str:
    """As one cell of a Markdown table."""
    return " ".join(str(text).split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
