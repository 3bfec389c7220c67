"""The task by length, with a model of random weights; that of several lengths has one split is in species_test.py."""

import json
import pathlib
import re
import runpy

import numpy as np
import pytest

from vqdna_jax.genome.alphabet import to_text

TOOL = pathlib.Path(__file__).parents[2] / "tools/species_by_length.py"
LENGTHS = (100, 400)


@pytest.fixture(scope="module")
def tool() -> dict:
    return runpy.run_path(str(TOOL))


@pytest.fixture(scope="module")
def genomes(tmp_path_factory) -> list[pathlib.Path]:
    """Two species, of a third and two thirds G and C."""
    folder, rng = tmp_path_factory.mktemp("genomes"), np.random.default_rng(0)
    for name, gc in (("poor", 1 / 3), ("rich", 2 / 3)):
        bases = rng.choice(4, 6000, p=[(1 - gc) / 2, gc / 2, gc / 2, (1 - gc) / 2])
        (folder / f"{name}.fa").write_text(f">{name}\n{to_text(bases)}\n")
    return sorted(folder.glob("*.fa"))


@pytest.fixture
def run(tool, monkeypatch, capsys):
    """Runs the tool in this process: its exit code, and what it said on stderr."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["species_by_length.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            tool["main"]()
        return end.value.code or 0, capsys.readouterr().err

    return run


def cells_of(out: pathlib.Path) -> dict[pathlib.Path, tuple[int, str]]:
    return {path: (path.stat().st_mtime_ns, path.read_text()) for path in out.glob("cells/*/cells/*/*/*.json")}


def test_it_goes_on_where_it_was_and_says_how_sure_it_is(run, genomes, pretrained_dir, tmp_path):
    out, lengths = tmp_path / "out", f"--lengths={','.join(map(str, LENGTHS))}"
    counts_alone = [*genomes, f"--out={out}", lengths, "--bases=2000", "--models=none"]
    assert run(*counts_alone)[0] == 0
    first = cells_of(out)
    with_model = [*counts_alone[:-1], f"--models=tiny={pretrained_dir}:100", "--lora=0", "--set=train.total_epochs=0"]
    assert run(*with_model, "--set=train.total_steps=1")[0] == 43, "cells that are there had other settings"
    (next(iter(first))).unlink()
    assert run(*counts_alone)[0] == 0
    after = cells_of(out)
    assert after.keys() == first.keys() and sum(after[path] != first[path] for path in first) == 1
    found = json.loads((out / "results.json").read_text())
    rows = {(row["model"], row["length"]): row for row in found["rows"]}
    assert {length for _, length in rows} == set(LENGTHS)
    assert rows["4-mer counts", 400]["accuracy"] == 1, "a third and two thirds G and C are told apart"
    assert all(row["low"] <= row["accuracy"] <= row["high"] for row in rows.values())
    assert (out / "accuracy_by_length.png").read_bytes().startswith(b"\x89PNG")
    assert "| 4-mer counts |" in (out / "table.md").read_text()


def test_a_model_and_its_twin_have_rows_up_to_the_longest_that_it_reads(run, genomes, pretrained_dir, tmp_path):
    few = ["--bases=1000", "--lora=0", "--lengths=100,400", "--set=train.total_epochs=0", "--set=train.total_steps=1"]
    assert run(*genomes, f"--out={tmp_path / 'out'}", f"--models=tiny={pretrained_dir}:100", *few)[0] == 0
    rows = json.loads((tmp_path / "out/results.json").read_text())["rows"]
    models = {row["model"]: row["control"] for row in rows if row["length"] == 100 and "mer" not in row["model"]}
    assert models == {"tiny, mean": False, "tiny, mean, untrained": True, "tiny, words": False}
    assert not any("tiny" in row["model"] for row in rows if row["length"] == 400)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--lengths=100,10000"], r"error: \S+poor.fa: poor: 1 contigs of up to 6,000 bases cannot be split .* 10,000"),
        (["--lengths=1k"], "error: --lengths=1k: expected numbers of bases"),
        (["--models=GPT-4"], "error: --models: 'GPT-4'; expected HRQ-16"),
        (["--models=HRQ-4:long"], "error: --models: 'HRQ-4'; expected"),
    ],
)
def test_what_cannot_be_is_one_line_before_anything_is_made(run, genomes, tmp_path, arguments, message):
    code, said = run(*genomes, f"--out={tmp_path / 'out'}", *arguments)
    assert code == 43 and re.fullmatch(f"{message}.*\n", said)
    assert not (tmp_path / "out").exists()


def test_sets_of_other_genomes_are_not_mixed(run, genomes, tmp_path):
    asked = [f"--out={tmp_path / 'out'}", "--lengths=100", "--bases=500", "--models=none"]
    assert run(*genomes, *asked)[0] == 0
    code, said = run(genomes[1], genomes[0], *asked[:-1], "--models=none", "--rows=3")
    assert code == 43 and "was drawn with other items" in said


@pytest.mark.parametrize("share, count, low, high", [(0.5, 10, 0.2366, 0.7634), (1, 5, 0.5655, 1), (0, 5, 0, 0.4345)])
def test_intervals_are_those_of_the_textbook(tool, share, count, low, high):
    assert np.allclose(tool["wilson"](share, count), (low, high), atol=2e-4)


def test_rows_that_overlap_do_not_count_twice(tool):
    drawn = {
        "items": {"test": 8},
        "length": 250,
        "bases": {"a": {"test": 1090}, "b": {"test": 5000}, "c": {"test": 99}},
    }
    assert tool["apart"](drawn) == 4 + 8 + 1
