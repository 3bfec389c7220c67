"""A model by its name: what is there wins over what ships, and what is neither is one line that lists what ships."""

import os
import pathlib

import pytest
from refusals import refusal

from vqdna_jax.runtime import shipped


@pytest.fixture(autouse=True)
def ships(tmp_path, monkeypatch) -> pathlib.Path:
    """Two models and a folder that is none, in the place of the package's; the test runs in an empty folder."""
    for name in ("mini", "midi"):
        (tmp_path / "shipped" / name).mkdir(parents=True)
        (tmp_path / "shipped" / name / "config.json").write_text("{}")
    (tmp_path / "shipped/notes").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(shipped, "SHIPPED", tmp_path / "shipped")
    return tmp_path / "shipped"


@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_a_name_is_what_ships_unless_there_is_such_a_directory(ships, kind):
    assert shipped.names() == ["midi", "mini"]
    assert shipped.find(kind("mini")) == ships / "mini"
    pathlib.Path("mini").write_text("a file is no model")
    assert shipped.find(kind("mini")) == ships / "mini"
    os.remove("mini")
    os.mkdir("mini")
    assert shipped.find(kind("mini")) == pathlib.Path("mini")


@pytest.mark.parametrize(
    "model", ["nano", "notes", "./mini", "mini/config.json", "Mini", "runs/mini", "../shipped/nano"]
)
def test_what_is_neither_is_refused_with_what_ships(model):
    message = refusal(shipped.find, model)
    assert message.startswith(f"{model}: no such file or directory; expected ") and "(midi, mini)" in message


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "x").write_text("")
    assert refusal(shipped.find, tmp_path / "x").startswith(f"{tmp_path / 'x'}: is no directory; ")


def test_only_what_ships_has_a_name(ships, tmp_path):
    assert shipped.name_of(ships / "mini") == "mini"
    (tmp_path / "link").symlink_to(ships / "midi")
    assert shipped.name_of(tmp_path / "link") == "midi"
    (tmp_path / "mini").mkdir()
    for other in (tmp_path / "mini", ships / "notes", ships / "absent", ships, ships / "mini/mini"):
        assert shipped.name_of(other) is None
