"""Putting a model into the package: the runs must belong together, and the card name the corpus."""

import json
import pathlib
import runpy

import pytest
from refusals import refusal
from tiny_pretrained import save_tiny_pretrained
from tiny_tokenizer import save_tiny

ROOT = pathlib.Path(__file__).parents[2]
SPECIES = {"human": 1_500_000, "mouse": 500_000}


@pytest.fixture(scope="module")
def ship() -> dict:
    return runpy.run_path(str(ROOT / "tools/ship.py"))


def workdir(place: pathlib.Path) -> pathlib.Path:
    """That of a finished run, whose export is there."""
    place.mkdir(parents=True, exist_ok=True)
    (place / "config.json").write_text(json.dumps({"data": {"corpus": "x"}, "hidden_share": 0.1}))
    (place / "result.json").write_text(json.dumps({"steps": 3}))
    return place


def test_a_model_over_other_words_is_refused(ship, tmp_path):
    save_tiny_pretrained(tmp_path / "model/export")
    save_tiny(tmp_path / "words/export", "hrq", 1, seed=1)
    words, model = (ship["Run"](workdir(tmp_path / name)) for name in ("words", "model"))
    assert "was trained on other words" in refusal(ship["ship"], "mini", words, model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_table_written_by_hand_has_the_species_of_the_corpus_and_no_others(ship):
    table, path = "{human} and {mouse}, {all}", pathlib.Path("x.md")
    assert ship["written"](table, SPECIES, path) == "1,500,000 and 500,000, 2,000,000"
    assert "names 'mouse', which the corpus has not" in refusal(ship["written"], table, {"human": 1}, path)
    assert "does not name rat" in refusal(ship["written"], table, SPECIES | {"rat": 1}, path)


def test_the_card_of_mini_is_written_for_such_sections(ship):
    text = (ROOT / "tools/mini.md").read_text()
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    assert titles == ["## Use", "## Training data", "## Limits", "## Licence"] and text.startswith(titles[0])


def test_a_table_has_a_row_for_each_fact(ship):
    text = ship["table"]("Title", "what", {"a": {"x": 1234, "y": None}, "b": {"x": 0.5, "y": "z"}})
    assert text == "## Title\n| what | a | b |\n| --- | --- | --- |\n| x | 1,234 | 0.5 |\n| y | not defined | z |"


def test_what_rounding_changes_is_measured(ship, tmp_path, capsys):
    save_tiny_pretrained(tmp_path / "export")
    ship["rounding"].__globals__["MEASURED"] = {"phiX174": 2000}
    rows = dict(line.strip("| ").split(" | ") for line in ship["rounding"](tmp_path / "export").splitlines()[1:])
    assert rows["bases"] == "2,000" and 0 < float(rows["codes that differ (share)"]) < 0.2
    assert 0 <= float(rows["decoded bases that differ (share)"]) < 0.2
