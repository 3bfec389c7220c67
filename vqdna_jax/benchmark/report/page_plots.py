"""The plots of the benchmark's page: every run of every dataset, and the ranks."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

from vqdna_jax.benchmark.cells import Cell
from vqdna_jax.benchmark.report import comparisons, summaries, wording
from vqdna_jax.benchmark.report.lanes import Lane, Point, draw, mark
from vqdna_jax.benchmark.report.summaries import Row
from vqdna_jax.benchmark.sets.published import PublishedRow
from vqdna_jax.report.page import escape, paragraph, section


def datasets(cells: Sequence[Cell], published: Sequence[PublishedRow], cards: Mapping[str, Any]) -> str:
    """A dot plot per dataset: a point per run, a bar at the mean, published rows as diamonds on one lane."""
    rows = summaries.rows(cells, published)
    names = summaries.datasets(cells)
    plots = "".join(_dataset(cells, rows, name, cards.get(name, {}).get("title", "")) for name in names)
    note = paragraph("Test scores times 100. Each plot has its own scale.", "note")
    return section("Every run", _key(rows), f'<div class="plots">{plots}</div>', note, name="runs-part")


def _key(rows: Sequence[Row]) -> str:
    words = {"model": "a run of a model", "control": "of a control", "published": "a published row"}
    here = {row.role for row in rows}
    shapes = {"published": "diamond"}
    points = {role: Point(0, words[role], shapes.get(role, "dot")) for role in words if role in here}
    items = [f"<li>{_sign(role, mark(point, 8, 8))}{escape(point.title)}</li>" for role, point in points.items()]
    items.append(f"<li>{_sign('model', mark(Point(0, 'a collapsed run', 'cross'), 8, 8))}a collapsed run</li>")
    bar = '<line class="mean" x1="8" x2="8" y1="2" y2="14"/>'
    return f'<ul class="key">{"".join(items)}<li>{_sign("model", bar)}the mean</li></ul>'


def _sign(role: str, marks: str) -> str:
    return f'<svg viewBox="0 0 16 16" aria-hidden="true"><g class="{role}">{marks}</g></svg>'


def _dataset(cells: Sequence[Cell], rows: Sequence[Row], name: str, title: str) -> str:
    found = summaries.summarise(cells)
    lanes, metric = [], next(cell.metric for cell in cells if cell.dataset == name)
    for row in rows:
        summary = found.get((row.model, name))
        if row.published or summary is None:
            continue
        runs = [cell for cell in cells if (cell.model, cell.dataset) == (row.model, name)]
        points = [_run(cell, 100 * cell.test) for cell in runs if cell.test is not None]
        text = wording.EMPTY if summary.mean is None else f"{summary.mean:.1f}"
        lanes.append(Lane(row.model, row.role, points, summary.mean, text + wording.marks([summary])))
    known = sorted((row.scores[name], row.model) for row in rows if row.published and name in row.scores)
    if known:
        points = [Point(score, f"{model}: {score:.2f}", "diamond") for score, model in known]
        lanes.append(Lane("published", "published", points, None, f"{known[-1][0]:.1f}"))
    best = f"<small>best published: {escape(known[-1][1])}, {known[-1][0]:.2f}</small>" if known else ""
    caption = f"{escape(name)} <em>{escape(wording.metric_name(metric))}</em><small>{escape(title)}</small>{best}"
    lines = "; ".join(f"{lane.label} {lane.figure}" for lane in lanes)
    described = f"{name}, {wording.metric_name(metric)} times 100: {lines}"
    return f"<figure><figcaption>{caption}</figcaption>{draw(lanes, described)}</figure>"


def _run(cell: Cell, score: float) -> Point:
    title = f"{cell.model}, seed {cell.seed}: {score:.2f}"
    if cell.failed is None:
        return Point(score, title)
    return Point(score, f"{title}, {cell.failed}", "cross")


def ranks(cells: Sequence[Cell], published: Sequence[PublishedRow]) -> str:
    """Average rank as a bar, with the ranks on the datasets as discs; with published rows, and without."""
    rows = summaries.rows(cells, published)
    own = [row for row in rows if not row.published]
    plots = [_ranks(own, "Rows run here")]
    compared = [row for row, rank in zip(rows, comparisons.ranking(rows)) if rank]
    if any(row.published for row in compared):
        plots.append(_ranks(compared, "With the published rows that have every dataset ranked"))
    note = "1 is best. The bar and the figure are the average; the area of a disc grows with the datasets at that rank."
    panels = f'<div class="plots loose">{"".join(plots)}</div>'
    return section("Ranks", panels, paragraph(note, "note"), name="ranks-part")


def _ranks(rows: Sequence[Row], title: str) -> str:
    pairs = [(row, rank) for row, rank in zip(rows, comparisons.ranking(rows)) if rank]
    if not pairs:
        return f"<figure><figcaption>{escape(title)}</figcaption><p>The rows share no dataset.</p></figure>"
    lanes = []
    for row, rank in sorted(pairs, key=lambda pair: (pair[1].average, pair[0].model)):
        counts = collections.Counter(rank.ranks.values())
        points = [
            Point(place, f"{row.model}: rank {place:g} on {count} of {len(rank.ranks)}", "dot", count)
            for place, count in sorted(counts.items())
        ]
        lanes.append(Lane(row.model, row.role, points, rank.average, f"{rank.average:.2f}"))
    over = f"{len(pairs)} rows, datasets: {len(pairs[0][1].ranks)}"
    described = f"{title}, average rank: " + "; ".join(f"{lane.label} {lane.figure}" for lane in lanes)
    caption = f"<figcaption>{escape(title)}<small>{over}</small></figcaption>"
    return f"<figure>{caption}{draw(lanes, described, whole=True)}</figure>"
