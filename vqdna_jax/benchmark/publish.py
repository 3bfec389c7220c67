"""What a benchmark leaves: results.json (everything), cells.csv, table.md and page.html, of the cells that are done."""

import dataclasses
import datetime
import json
import os
import pathlib
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from vqdna_jax.benchmark import runner
from vqdna_jax.benchmark.report import table
from vqdna_jax.benchmark.report.page import write_page
from vqdna_jax.benchmark.sets import published
from vqdna_jax.benchmark.sets.cards import CARDS
from vqdna_jax.errors import InputError
from vqdna_jax.runtime.files import replacing

TITLE = "Fine-tuning benchmark"


def publish(out: pathlib.Path, command: str, budget: Mapping[str, Any]) -> pathlib.Path:
    """Writes the four files into `out` and returns the page. Raises InputError where no cell is finished."""
    cells = runner.finished(out)
    if not cells:
        raise InputError(f"{out}: no cell is finished yet")
    results = collect(cells, command, budget)
    _write(out / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
    _write(out / "cells.csv", table.to_csv(cells))
    _write(out / "table.md", table.to_markdown(cells, published.ROWS))
    write_page(results, out / "page.html")
    return out / "page.html"


def page_of(results: pathlib.Path, out: pathlib.Path) -> None:
    """The page of a results.json. Raises InputError where it is not one."""
    try:
        found = json.loads(results.read_text())
        complete = isinstance(found, dict) and {"cells", "published", "cards"} <= found.keys()
    except (OSError, ValueError):
        complete = False
    if not complete:
        raise InputError(f"{results}: is not the results.json of a benchmark; expected one that vqdna benchmark wrote")
    write_page(found, out)


def collect(cells: Sequence[dict], command: str, budget: Mapping[str, Any]) -> dict[str, Any]:
    """What the page is made of; JSON."""
    from vqdna_jax.version import versions

    names = [name for name in CARDS if any(cell["dataset"] == name for cell in cells)]
    facts = {
        "title": TITLE,
        "command": command,
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "budget": dict(budget) | {"versions": ", ".join(f"{k} {v}" for k, v in versions().items())},
        "cards": {name: _card(name, cells) for name in names},
    }
    rows = [dataclasses.asdict(row) for row in published.ROWS if row.scores.keys() & set(names)]
    return facts | json.loads(table.to_json(cells, rows))


def machine() -> str:
    import jax

    devices = jax.devices()
    cores = f"{os.cpu_count()} CPU cores, {platform.machine()}"
    kind = devices[0].device_kind
    return cores if devices[0].platform == "cpu" else f"{len(devices)} x {kind}; {cores}"


def _card(name: str, cells: Sequence[dict]) -> dict[str, Any]:
    card = CARDS[name]
    rows = max((cell["train_rows"] for cell in cells if cell["dataset"] == name), default=0)
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
