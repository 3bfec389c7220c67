"""How figures of a benchmark are put into words, for its Markdown and its page alike."""

from collections.abc import Iterable

from vqdna_jax.benchmark.cells import Cell
from vqdna_jax.benchmark.report import summaries
from vqdna_jax.benchmark.report.comparisons import Ranked
from vqdna_jax.benchmark.report.summaries import Mean, Row, Summary

COLLAPSED, ERROR = "\N{DAGGER}", "\N{DOUBLE DAGGER}"
EMPTY = "\N{EN DASH}"
TITLES = {"model": "Run here", "control": "Controls, run here", "published": "Published, not run here"}
NOTES = (
    "Average rank: 1 is best, ties share their ranks, over the datasets that all ranked rows have; in brackets the "
    "order of the averages. A mean over datasets is given where none is missing."
)
FAILURES = (
    f"{COLLAPSED} a run answered with one class or value; its score counts. "
    f"{ERROR} a run ended in an error and has no score; the mean is of the others."
)


def figure(value: float | None) -> str:
    """Two decimals, as the papers print."""
    return EMPTY if value is None else f"{value:.2f}"


def mean_and_sd(summary: Summary) -> str:
    """mean ± sd, the mean alone of one run, a dash without any."""
    return figure(summary.mean) + ("" if summary.sd is None else f" ± {summary.sd:.2f}")


def of_all(mean: Mean) -> str:
    """The mean, or how many datasets there are of those it needs."""
    return figure(mean.mean) if mean.mean is not None else f"{EMPTY} ({mean.n} of {mean.of})"


def difference(by_dataset: dict[str, float]) -> str:
    """The mean difference in points with its sign, and over how many datasets."""
    mean = summaries.mean_if_any(by_dataset.values())
    return EMPTY if mean is None else f"{signed(mean)} ({len(by_dataset)})"


def signed(points: float) -> str:
    """Two decimals, with a sign as it is printed."""
    return "0.00" if not round(points, 2) else f"{points:+.2f}".replace("-", "\N{MINUS SIGN}")


def datasets(number: int) -> str:
    return f"{number} dataset{'' if number == 1 else 's'}"


def rank_title(title: str, ranks: Iterable[Ranked | None]) -> str:
    """With the number of datasets that the ranks are over."""
    over = next((len(rank.ranks) for rank in ranks if rank), 0)
    return f"{title}, {datasets(over)}"


def rank_text(rank: Ranked | None) -> str:
    """Average rank, and in brackets the order of the averages."""
    return EMPTY if rank is None else f"{rank.average:.2f} ({rank.order})"


def metric_name(metric: str) -> str:
    """As the papers print it."""
    return {"mcc": "MCC", "macro_f1": "macro-F1", "spearman": "Spearman"}.get(metric, metric)


def marks(found: Iterable[Summary | None]) -> str:
    """COLLAPSED, ERROR, both or neither."""
    there = [summary for summary in found if summary]
    signs = {COLLAPSED: any(one.collapsed for one in there), ERROR: any(one.errors for one in there)}
    return "".join(sign for sign, here in signs.items() if here)


def failure(cell: Cell) -> str:
    """One failed run in words."""
    again = f" (attempts: {cell.attempts})" if cell.attempts > 1 else ""
    return f"{cell.model}, {cell.dataset}, seed {cell.seed}: {cell.failed}{again}"


def budget(row: Row) -> str:
    """What a published row was trained with, in words; nothing of a row run here."""
    if row.published is None:
        return ""
    tokens, parameters = row.published.train_tokens_b, row.published.parameters_m
    words = ["token budget unknown" if tokens is None else f"{tokens:g} B tokens"]
    return ", ".join(words + ([] if parameters is None else [f"{parameters:g} M parameters"]))
