"""Cells as JSON: what is refused, and what is read back."""

import dataclasses
import json

import pytest

from vqdna_jax.benchmark import cells
from vqdna_jax.benchmark.cells import Cell, parse
from vqdna_jax.errors import InputError

CELL = Cell("HRQ", "model", "tf/0", "mcc", 0, 0.40, 0.5, None, 1, 12.25, 600)
ROW, SECOND = CELL.to_json(), dataclasses.replace(CELL, seed=1).to_json()
BAD = {
    "no runs": [],
    r"cells\[0\]: seed is missing": [{key: value for key, value in ROW.items() if key != "seed"}],
    r"cells\[1\]: HRQ, tf/0, seed 0 is there twice": [ROW, ROW],
    r"cells\[0\].test: nan; expected a finite number": [ROW | {"test": float("nan")}],
    r"cells\[0\].test: None; expected a finite number$": [ROW | {"test": None}],
    r"cells\[0\].dev: True": [ROW | {"dev": True}],
    r"cells\[0\].test: 0.4 beside": [ROW | {"failed": "error: x"}],
    r"cells\[0\].failed: 'odd'": [ROW | {"failed": "odd"}],
    r"cells\[0\].role: 'published'": [ROW | {"role": "published"}],
    r"cells\[0\].seed: 0.5": [ROW | {"seed": 0.5}],
    r"cells\[0\].model: ''": [ROW | {"model": ""}],
    r"cells\[1\].role: 'control' for HRQ, which had 'model'": [ROW, SECOND | {"role": "control"}],
    r"cells\[1\].metric: 'auroc' for tf/0": [ROW, SECOND | {"metric": "auroc"}],
}


@pytest.mark.parametrize("message", BAD)
def test_unsound_cells_are_named(message):
    with pytest.raises(InputError, match=message) as error:
        parse(BAD[message])
    assert "\n" not in str(error.value) and "expected" in str(error.value)


def test_a_cell_is_read_back_as_it_was_written(tmp_path):
    scored = dataclasses.replace(CELL, dev_scores={"mcc": 0.5}, test_scores={"mcc": 0.4, "auroc": None})
    broken = dataclasses.replace(CELL, seed=1, test=None, dev=None, failed="error: loss is not finite", attempts=3)
    for cell in (scored, broken):
        cells.write(tmp_path, cell)
    assert cells.finished(tmp_path) == [scored, broken]
    assert "dev_scores" not in json.loads(cells.path_of(tmp_path, "HRQ", "tf/0", 1).read_text())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "not JSON"),
        ("[]", "holds a list, not a JSON object; expected a cell of a benchmark"),
        ("{}", "model is missing"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, text, problem):
    cells.write(tmp_path, CELL)
    path = cells.path_of(tmp_path, "HRQ", "tf/0", 0)
    path.write_text(text)
    with pytest.raises(InputError, match=problem) as error:
        cells.finished(tmp_path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)
