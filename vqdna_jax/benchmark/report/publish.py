"""What a benchmark leaves: results.json (everything), cells.csv, table.md and page.html, of the cells that are done."""

import datetime
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from vqdna_jax.benchmark.cells import Cell, finished
from vqdna_jax.benchmark.report import markdown, results
from vqdna_jax.benchmark.report.page import put, render, write_page
from vqdna_jax.benchmark.sets import published
from vqdna_jax.benchmark.sets.cards import CARDS
from vqdna_jax.errors import InputError
from vqdna_jax.runtime.devices import machine
from vqdna_jax.runtime.files import check_output, read_json, replacing

TITLE = "Fine-tuning benchmark"


def publish(out: pathlib.Path, command: str, budget: Mapping[str, Any]) -> pathlib.Path:
    """Writes the four files into `out` and returns the page. Raises InputError where no cell is finished."""
    cells = finished(out)
    if not cells:
        raise InputError(f"{out}: no cell is finished yet")
    found = collect(cells, command, budget)
    _write(out / "results.json", json.dumps(found, indent=1, allow_nan=False) + "\n")
    _write(out / "cells.csv", results.to_csv(cells))
    _write(out / "table.md", markdown.to_markdown(cells, published.ROWS))
    write_page(found, out / "page.html")
    return out / "page.html"


def page_of(path: pathlib.Path, out: str | os.PathLike) -> None:
    """The page of a results.json. Raises InputError where it is not one."""
    check_output(out, [path], streams=True)
    what = "a results.json that vqdna benchmark wrote"
    found = read_json(path, what)
    if not {"cells", "published", "cards"} <= found.keys():
        raise InputError(f"{path}: is not the results of a benchmark; expected {what}")
    try:
        page = render(found)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    put(page, out)


def collect(cells: Sequence[Cell], command: str, budget: Mapping[str, Any]) -> dict[str, Any]:
    """What the page is made of; JSON."""
    from vqdna_jax.version import versions

    datasets = {cell.dataset for cell in cells}
    names = [name for name in CARDS if name in datasets]
    facts = {
        "title": TITLE,
        "command": command,
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "budget": dict(budget) | {"versions": ", ".join(f"{k} {v}" for k, v in versions().items())},
        "cards": {name: _card(name, cells) for name in names},
    }
    return facts | results.to_json(cells, [row for row in published.ROWS if row.scores.keys() & datasets])


def _card(name: str, cells: Sequence[Cell]) -> dict[str, Any]:
    card = CARDS[name]
    rows = max(cell.train_rows for cell in cells if cell.dataset == name)
    return {
        "title": card.title,
        "metric": card.metric,
        "classes": card.classes or "regression",
        "sizes": card.sizes or {},
        "trained_on": rows,
        "source": card.source,
        "licence": card.licence,
    }


def _write(path: pathlib.Path, text: str) -> None:
    with replacing(path) as new:
        new.write_text(text)
