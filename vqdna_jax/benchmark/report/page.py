"""The page of a benchmark: what it shows, every score with its spread, beside controls and published rows."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vqdna_jax.benchmark.cells import Cell, parse
from vqdna_jax.benchmark.report import page_plots, page_tables, summaries
from vqdna_jax.benchmark.report.findings import certainty, findings
from vqdna_jax.benchmark.sets import published
from vqdna_jax.benchmark.sets.published import PublishedRow
from vqdna_jax.errors import InputError
from vqdna_jax.report import page as kit
from vqdna_jax.report.page import Block, definitions, escape, page, paragraph, section, table, text_cell
from vqdna_jax.runtime.files import writing
from vqdna_jax.runtime.typed import expect

KEYS = ("title", "command", "date", "machine", "budget", "cells", "published", "cards")
CARD_KEYS = ("title", "metric", "classes", "sizes")


def write_page(results: Mapping[str, Any], out: str | os.PathLike) -> None:
    """Writes one HTML file that needs nothing else.

    Args:
        results: title, command, date, machine: text. budget: text by text. cells: as in `benchmark.cells`. published:
            rows as in `benchmark.sets.published`. cards: by dataset, its title, metric, classes and sizes (text,
            numbers, or numbers by name).
        out: the file, replaced if it is there; "-" for standard output, a pipe or a device. The same results give
            the same bytes.

    Raises:
        InputError: a key is missing, a cell is not sound (`cells.parse`), or `out` cannot be written.
        StorageError: the disk is full or fails.
    """
    put(render(results), out)


def put(page: str, out: str | os.PathLike) -> None:
    """Writes what `render` made. Raises as `write_page`."""
    with writing(out) as file:
        file.write(page.encode("utf-8", "backslashreplace"))  # a file name may not be UTF-8


def render(results: Mapping[str, Any]) -> str:
    """The page that `write_page` writes."""
    if missing := [key for key in KEYS if key not in results]:
        raise InputError(f"results: {missing[0]} is missing; expected the keys {', '.join(KEYS)}")
    cells, cards = parse(results["cells"], "results.cells"), results["cards"]
    rows = published.parse(results["published"], "results.published")
    for key in ("budget", "cards"):
        expect(isinstance(results[key], Mapping), f"results.{key}", results[key], "a table of keys")
    for name, card in cards.items():
        expect(isinstance(card, Mapping), f"results.cards[{name!r}]", card, f"the keys {', '.join(CARD_KEYS)}")
        if missing := [key for key in CARD_KEYS if key not in card]:
            raise InputError(f"results.cards[{name!r}]: {missing[0]} is missing; expected {', '.join(CARD_KEYS)}")
    sections = [
        _findings(cells, rows),
        page_tables.overview(cells, rows),
        page_plots.datasets(cells, rows, cards),
        page_tables.scores(cells, rows),
        page_plots.ranks(cells, rows),
        page_tables.differences(cells, rows),
        page_tables.failures(cells),
        _making(results, summaries.datasets(cells), rows),
    ]
    return page(results["title"], f"{results['date']} · {results['machine']}", filter(None, sections))


def _findings(cells: Sequence[Cell], rows: Sequence[PublishedRow]) -> str:
    first, *others = findings(cells, rows)
    return kit.findings(first, others, paragraph(certainty(cells), "note"))


def _making(results: Mapping[str, Any], datasets: Sequence[str], rows: Sequence[PublishedRow]) -> str:
    budget = [(name, what) for name, what in results["budget"].items()]
    sources = dict.fromkeys((row.source, row.model) for row in rows)
    listed = "".join(f"<li>{escape(model)}: {escape(source)}</li>" for source, model in sorted(sources))
    return section(
        "How this was made",
        f"<pre>{escape(results['command'])}</pre>",
        definitions([("date", results["date"]), ("machine", results["machine"]), *budget]),
        _cards(datasets, results["cards"]),
        f"<h3>Sources of the published rows</h3><ul>{listed}</ul>" if listed else "",
        name="making",
    )


def _cards(datasets: Sequence[str], cards: Mapping[str, Mapping[str, Any]]) -> str:
    """A line per dataset, with all that its card holds; empty where there is no card."""
    keys = [*CARD_KEYS, *sorted({key for card in cards.values() for key in card} - set(CARD_KEYS))]
    rows = [[text_cell(name), *(text_cell(plain(cards.get(name, {}).get(key))) for key in keys)] for name in datasets]
    return table("cards", "Data cards", ["dataset", *(key.replace("_", " ") for key in keys)], [Block("", rows)])


def plain(value: Any) -> str:
    """A number, a list or a mapping in words: `train 600, dev 100`."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {plain(part)}" for name, part in value.items())
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ", ".join(map(plain, value))
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
