"""A cell of the benchmark: one finished run of one model, or control, on one set. On disk, a small JSON file."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from vqdna_jax.benchmark.sets import cards
from vqdna_jax.errors import InputError
from vqdna_jax.runtime.files import read_json, replacing

Role = Literal["model", "control"]
Scores = Mapping[str, float | None]
NETWORK = "convolutional network"  # a control; named here, where pages that load neither jax nor scikit-learn read it


@dataclasses.dataclass(frozen=True)
class Cell:
    """Scores lie on the metric's own scale."""

    model: str
    role: Role
    dataset: str
    metric: str
    seed: int
    test: float | None  # None only after an error
    dev: float | None
    failed: str | None  # "collapsed: ..." (it counts, and is marked) or "error: ..." (it has no score, and is marked)
    attempts: int
    seconds: float
    train_rows: int
    dev_scores: Scores | None = None  # by metric
    test_scores: Scores | None = None

    @property
    def is_error(self) -> bool:
        """Whether the run ended without a score."""
        return (self.failed or "").startswith("error")

    def to_json(self) -> dict[str, Any]:
        """All of FIELDS, and the scores that are there."""
        values = dataclasses.asdict(self)
        return {key: value for key, value in values.items() if key in FIELDS or value is not None}


_OPTIONAL = ("dev_scores", "test_scores")
FIELDS = tuple(field.name for field in dataclasses.fields(Cell) if field.name not in _OPTIONAL)


def of_json(row: Mapping[str, Any], place: str) -> Cell:
    """Raises InputError, as `place.key: what; what was expected`, for a missing key or a value that does not fit."""
    if not isinstance(row, Mapping):
        raise InputError(f"{place}: {row!r}; expected the keys {', '.join(FIELDS)}")
    if missing := [key for key in FIELDS if key not in row]:
        raise InputError(f"{place}: {missing[0]} is missing; expected the keys {', '.join(FIELDS)}")
    for key in ("model", "dataset", "metric"):
        if not row[key] or not isinstance(row[key], str):
            raise InputError(f"{place}.{key}: {row[key]!r}; expected a name")
    for key in ("seed", "attempts", "train_rows"):
        if type(row[key]) is not int:
            raise InputError(f"{place}.{key}: {row[key]!r}; expected a whole number")
    if row["role"] not in get_args(Role):
        raise InputError(f"{place}.role: {row['role']!r}; expected one of {', '.join(get_args(Role))}")
    failed = row["failed"]
    if failed is not None and not str(failed).startswith(("collapsed", "error")):
        raise InputError(f"{place}.failed: {failed!r}; expected null, 'collapsed: ...' or 'error: ...'")
    values = {key: row[key] for key in (*FIELDS, *_OPTIONAL) if key in row}
    cell = Cell(**values)
    _check_scores(cell, place)
    return cell


def _check_scores(cell: Cell, place: str) -> None:
    for key, value, optional in (("test", cell.test, cell.is_error), ("dev", cell.dev, True)):
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not number and not (value is None and optional):
            raise InputError(f"{place}.{key}: {value!r}; expected a finite number{', or null' if optional else ''}")
    if cell.is_error and cell.test is not None:
        raise InputError(f"{place}.test: {cell.test} beside {cell.failed!r}; expected null, as an error has no score")


def parse(rows: Sequence[Mapping[str, Any]], where: str = "cells") -> list[Cell]:
    """Cells of JSON, in the order of `consistent`.

    Raises InputError, as `where[index]: what; what was expected`, where there is no cell, and as `of_json` and
    `consistent` do.
    """
    if not rows or not isinstance(rows, list):
        raise InputError(f"{where}: no runs; expected at least one")
    places = [f"{where}[{index}]" for index in range(len(rows))]
    return consistent({place: of_json(row, place) for place, row in zip(places, rows)})


def consistent(cells: Mapping[str, Cell]) -> list[Cell]:
    """Cells, given by where they come from, in one order whatever theirs was: by dataset, model, seed.

    Raises InputError where a run is there twice, a model has two roles or a dataset two metrics.
    """
    runs: set[tuple[str, str, int]] = set()
    roles: dict[str, str] = {}
    metrics: dict[str, str] = {}
    for place, cell in cells.items():
        run = cell.model, cell.dataset, cell.seed
        if run in runs:
            raise InputError(f"{place}: {run[0]}, {run[1]}, seed {run[2]} is there twice; expected each run once")
        runs.add(run)
        for known, key, of in ((roles, "role", "model"), (metrics, "metric", "dataset")):
            name, value = getattr(cell, of), getattr(cell, key)
            if (first := known.setdefault(name, value)) != value:
                found = f"{value!r} for {name}, which had {first!r}"
                raise InputError(f"{place}.{key}: {found}; expected one {key} for each {of}")
    rank = {dataset: index for index, dataset in enumerate(cards.in_order(metrics))}
    return sorted(cells.values(), key=lambda cell: (rank[cell.dataset], cell.model, cell.seed))


def path_of(out: pathlib.Path, model: str, dataset: str, seed: int) -> pathlib.Path:
    """Of the file of a cell under the folder of a benchmark."""
    return out / "cells" / model.replace(" ", "_") / cards.CARDS[dataset].key / f"{seed}.json"


def write(out: pathlib.Path, cell: Cell) -> None:
    """Raises as `replacing` does."""
    path = path_of(out, cell.model, cell.dataset, cell.seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as new:
        new.write_text(json.dumps(cell.to_json(), indent=1, sort_keys=True, allow_nan=False) + "\n")


def finished(out: pathlib.Path) -> list[Cell]:
    """All finished cells under `out`, in the order of `consistent`. Raises InputError for a file that is no cell."""
    paths = sorted((out / "cells").glob("*/*/*.json"))
    return consistent({str(path): of_json(read_json(path, "a cell of a benchmark"), str(path)) for path in paths})
