"""The tables of the benchmark's page: overview, every score as a heat map, differences, failed runs."""

from collections.abc import Sequence
from typing import Any

from vqdna_jax.benchmark.cells import Cell
from vqdna_jax.benchmark.report import comparisons, summaries, wording
from vqdna_jax.benchmark.report.summaries import Row, Summary
from vqdna_jax.benchmark.sets.cards import by_group
from vqdna_jax.benchmark.sets.published import PublishedRow
from vqdna_jax.report.page import Block, TableCell, escape, paragraph, section, table, text_cell

_STRONGEST = 0.5  # opacity of the strongest colour of the heat map: text stays readable on it in light and dark
_ABOVE, _BELOW = "0 114 178", "213 94 0"


def overview(cells: Sequence[Cell], published: Sequence[PublishedRow]) -> str:
    """Models, controls and published rows: mean, ranks, means of the task groups, runs."""
    rows, found = summaries.rows(cells, published), summaries.summarise(cells)
    own = [row for row in rows if row.role != "published"]
    datasets = summaries.datasets(cells)
    groups = by_group(datasets)
    rankings = {"rank here": comparisons.ranking(own) + [None] * (len(rows) - len(own))}
    if len(own) < len(rows):
        rankings["rank with published"] = comparisons.ranking(rows)
    columns = ["model", "mean", *(wording.rank_title(title, ranks) for title, ranks in rankings.items())]
    columns += [f"{of} ({len(members)})" for of, members in groups.items()] + ["runs", "failed"]
    lines = {}
    for row, *ranks in zip(rows, *rankings.values()):
        means = [_mean(row, found, members) for members in (datasets, *groups.values())]
        of_row = [summary for (model, _), summary in found.items() if model == row.model and not row.published]
        counts = _counts(of_row)
        lines[id(row)] = [_name(row), means[0], *map(_rank, ranks), *means[1:], *counts]
    caption = (
        f"Test scores times 100, mean over {wording.datasets(len(datasets))} and by task group (how many datasets)"
    )
    notes = [wording.NOTES] + ([wording.FAILURES] if any(cell.failed is not None for cell in cells) else [])
    parts = [table("overview", caption, columns, _blocks(rows, lines)), *(paragraph(note, "note") for note in notes)]
    return section("Overview", *parts, name="overview-part")


def _counts(found: Sequence[Summary]) -> list[TableCell]:
    if not found:
        return [TableCell(wording.EMPTY), TableCell(wording.EMPTY)]
    counts = sum(one.runs for one in found), sum(one.collapsed + one.errors for one in found)
    return [TableCell(str(count), count) for count in counts]


def _blocks(rows: Sequence[Row], lines: dict[int, list[TableCell]]) -> list[Block]:
    of_role = {role: [lines[id(row)] for row in rows if row.role == role] for role in wording.TITLES}
    return [Block(title, of_role[role]) for role, title in wording.TITLES.items()]


def _name(row: Row) -> TableCell:
    extra = f"<br><small>{escape(wording.budget(row))}</small>" if row.published else ""
    return TableCell(escape(row.model) + extra, row.model)


def _mean(row: Row, found: dict, datasets: Sequence[str]) -> TableCell:
    mean = summaries.mean_over(row, datasets)
    mark = "" if row.published else wording.marks(found.get((row.model, name)) for name in datasets)
    return TableCell(escape(wording.of_all(mean) + mark), mean.mean)


def _rank(rank: comparisons.Ranked | None) -> TableCell:
    return TableCell(escape(wording.rank_text(rank)), rank and rank.average)


def scores(cells: Sequence[Cell], published: Sequence[PublishedRow]) -> str:
    """Every mean and deviation, a line per dataset, coloured by its distance from the mean of the rows run here."""
    rows, found = summaries.rows(cells, published), summaries.summarise(cells)
    datasets = summaries.datasets(cells)
    own = [row for row in rows if not row.published]
    of_dataset = {name: [row.scores[name] for row in own if name in row.scores] for name in datasets}
    centres = {name: summaries.mean(found) for name, found in of_dataset.items() if found}
    distances = [abs(score - centres[name]) for row in own for name, score in row.scores.items()]
    widest = max([*distances, 1.0])
    metrics = {cell.dataset: cell.metric for cell in cells}
    lines = []
    for name in datasets:
        best = max(of_dataset[name], default=None)
        line = [TableCell(f"{escape(name)} <small>{escape(wording.metric_name(metrics[name]))}</small>", name)]
        for row in rows:
            summary = None if row.published else found.get((row.model, name))
            line.append(_heat(row.scores.get(name), summary, centres.get(name), widest, row in own and best))
        if len(own) < len(rows):  # a gap between what was run here and what was not
            line[1 + len(own)] = line[1 + len(own)]._replace(classes="edge")
        lines.append(line)
    columns = ["dataset", *(f"{row.model} (published)" if row.published else row.model for row in rows)]
    caption = "Test scores times 100, mean ± standard deviation over runs; the best row run here is bold"
    heat = table("scores", caption, columns, [Block("", lines)], "heat")
    return section("Every score", _colours(widest), heat, name="scores-part")


def _colours(widest: float) -> str:
    above = f"{widest:.1f} or more points above the mean of the rows run here on that dataset"
    words = {_ABOVE: above, _BELOW: f"{widest:.1f} or more below it"}
    items = (f"<li>{_swatch(colour)}{escape(text)}</li>" for colour, text in words.items())
    return f'<ul class="key">{"".join(items)}</ul>'


def _swatch(colour: str) -> str:
    return f'<span class="swatch" style="background:rgb({colour} / {_STRONGEST})"></span>'


def _heat(score: float | None, summary: Summary | None, centre: float | None, widest: float, best: Any) -> TableCell:
    mark = escape(wording.marks([summary]))
    if score is None:
        return TableCell(wording.EMPTY + mark)
    spread = f" <small>± {summary.sd:.2f}</small>" if summary and summary.sd is not None else ""
    distance = 0.0 if centre is None else max(-1.0, min(1.0, (score - centre) / widest))
    colour = _ABOVE if distance > 0 else _BELOW
    bold = ' class="best"' if best is not False and score == best else ""
    style = f"background:rgb({colour} / {_STRONGEST * abs(distance):.3f})"
    return TableCell(f"<span{bold}>{wording.figure(score)}</span>{spread}{mark}", score, style)


def differences(cells: Sequence[Cell], published: Sequence[PublishedRow]) -> str:
    """Rows run here less published rows: means, and every dataset for each model."""
    rows = summaries.rows(cells, published)
    own, known = ([row for row in rows if (row.published is None) is ours] for ours in (True, False))
    if not known:
        return ""
    lines = [[_name(row), *(_mean_points(comparisons.deltas(ours, row)) for ours in own)] for row in known]
    caption = "Points, mean over the datasets that both have (how many): above zero, the row run here is higher"
    means = table("differences", caption, ["published", *(row.model for row in own)], [Block("", lines)])
    datasets = summaries.datasets(cells)
    models = [row for row in own if row.role == "model"] or own
    parts = [_by_dataset(place, row, known, datasets) for place, row in enumerate(models)]
    return section("Difference to published rows", means, *parts, name="differences-part")


def _by_dataset(place: int, row: Row, known: Sequence[Row], datasets: Sequence[str]) -> str:
    by_row = [comparisons.deltas(row, other) for other in known]
    lines = [[text_cell(name), *(_points(one.get(name)) for one in by_row)] for name in datasets]
    caption = f"{row.model} less each published row, points"
    columns = ["dataset", *(other.model for other in known)]
    inner = table(f"differences-{place + 1}", caption, columns, [Block("", lines)])
    return f"<details><summary>{escape(row.model)}, dataset by dataset</summary>{inner}</details>"


def _mean_points(by_dataset: dict[str, float]) -> TableCell:
    return TableCell(wording.difference(by_dataset), summaries.mean_if_any(by_dataset.values()))


def _points(difference: float | None) -> TableCell:
    return TableCell(wording.EMPTY if difference is None else wording.signed(difference), difference)


def failures(cells: Sequence[Cell]) -> str:
    """Each failed run, or that there is none."""
    failed = [cell for cell in cells if cell.failed is not None]
    if not failed:
        return section("Failed runs", paragraph("None."), name="failures-part")
    lines = []
    for cell in failed:
        score = None if cell.test is None else 100 * cell.test
        numbers = [TableCell(escape(cell.seed), cell.seed), TableCell(escape(cell.attempts), cell.attempts)]
        texts = [text_cell(cell.model), text_cell(cell.dataset)]
        lines.append([*texts, *numbers, text_cell(cell.failed), TableCell(wording.figure(score), score)])
    columns = ("model", "dataset", "seed", "attempts", "what happened", "test score")
    caption = "Runs that collapsed (their scores count) or ended in an error (no score)"
    return section("Failed runs", table("failures", caption, columns, [Block("", lines)]), name="failures-part")
