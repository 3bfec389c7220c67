import copy
import json
import pathlib
import re
import sys

import numpy as np
import pytest
import small_covid
from refusals import refusal
from small_verbs import run
from tiny_tokenizer import save_tiny

from vqdna_jax.genome.alphabet import to_text
from vqdna_jax.report.covid import maps, page
from vqdna_jax.report.covid.findings import claims, lead
from vqdna_jax.tokenizers.kmers import Kmers


def arguments(place: pathlib.Path, **changes: object) -> list[str]:
    given = {"genotypes": place / "genotypes.tsv", "reference": place / "reference.fa", "model": place / "hrq"}
    given |= {"out": place / "page.html", "map": "pca", "genomes": 20}
    return ["report", "covid", *(f"--{name}={value}" for name, value in (given | changes).items())]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> pathlib.Path:
    directory = tmp_path_factory.mktemp("covid")
    small_covid.write(directory, sequence=np.append(small_covid.reference(), small_covid.reference(7, 1500)))
    (directory / "short.fa").write_text(f">short\n{to_text(small_covid.reference())}\n")
    save_tiny(directory / "hrq")
    save_tiny(directory / "vqvae", "vqvae")
    Kmers(3).save(directory / "kmers")
    return directory


@pytest.fixture(scope="module")
def results(place) -> dict:
    assert run([*arguments(place), "--quiet"]) == 0
    return json.loads((place / "page.json").read_text())


def test_the_page_shows_what_the_numbers_beside_it_hold(place, results):
    assert page.render(results) == (place / "page.html").read_text()
    assert not set(re.findall(r"(?:src|href)=\"(?!data:|#)", page.render(results)))
    assert all(f">{name}</th>" in page.render(results) for name in small_covid.VARIANTS)


def test_what_is_known_of_the_genomes_is_found(results):
    """Five substitutions each are a variant's own: nothing that reads them misses one, whatever it knows."""
    named = {(row["words"], row["width"]): row["by_mean"] for row in results["accuracy"]}
    assert named["substitutions", 0] == named["kmers", 0] == 1
    assert all(row["accuracy"] == 1 for row in results["naive_bayes"] if row["width"] == 0)
    told = {row["words"]: row for row in results["information"]}
    assert told["bases"]["mutation"]["mean"] == pytest.approx(1)
    assert all(told["context"]["variant"]["mean"] >= row["variant"]["mean"] for row in told.values())
    assert [variant["held_out"] for variant in results["variants"]] == [4] * 3
    assert {len(one["points"]) for one in results["maps"]} == {60, maps.POINTS}


def changed(results: dict, claim: int, holds: bool) -> dict:
    """The same but for what decides a claim."""
    found = copy.deepcopy(results)
    low, alike, rank = (0.1, 0.95, 0.8) if holds else (-0.1, 0.5, 0.1)
    if claim in (0, 1):
        for one in found["maps"]:
            trained = one["words"].startswith("model")
            one["same_variant"] = (alike if trained else 0.2) if claim == 0 else (0.6 if trained == holds else 0.5)
    if claim in (2, 3):
        found["differences"]["model"][("variant", "mutation")[claim - 2]] = {"mean": low, "low": low, "high": low}
    for row in found["relatives"] if claim == 4 else []:
        row["spearman"] = rank
    return found


@pytest.mark.parametrize("holds", [True, False])
@pytest.mark.parametrize("claim", range(5))
def test_a_claim_holds_where_its_numbers_say_so(results, claim, holds):
    assert claims(changed(results, claim, holds))[claim].holds is holds


@pytest.mark.parametrize("coarse", [True, False])
@pytest.mark.parametrize("fine", [True, False])
def test_the_page_says_first_whether_there_is_a_hierarchy(results, coarse, fine):
    told = lead(changed(changed(results, 2, coarse), 3, fine))
    assert ("is not there" in told) is not (coarse and fine)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "vqvae"}, "has one level of words"),
        ({"model": "kmers"}, "not learned"),
        ({"model": "nowhere"}, "no such file or directory"),
        ({"genotypes": "nowhere.tsv"}, "no such file or directory"),
        ({"genotypes": "reference.fa"}, "reference.fa:1:"),
        ({"reference": "genotypes.tsv"}, "genotypes.tsv:1:"),
        ({"reference": "short.fa"}, "640 bases; expected at least 1,998"),
        ({"genomes": 3}, "--genomes: 3"),
        ({"out": "page.json"}, "is where the numbers go"),
        ({"out": "reference.fa"}, "is the input"),
        ({"out": "nowhere/page.html"}, "cannot be written"),
        ({"out": "hrq"}, "is a directory"),
        ({"out": "hrq/"}, "names a directory"),
    ],
)
def test_what_cannot_be_is_one_line_before_anything_is_computed(place, changes, said, capsys, monkeypatch):
    monkeypatch.chdir(place)
    given = changes if "genomes" in changes else {name: place / value for name, value in changes.items()}
    if given.get("out") and str(changes["out"]).endswith("/"):
        given = {"out": f"{place / changes['out']}/"}
    capsys.readouterr()
    assert run(arguments(place, **given)) == 43
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1 and said in told.err, told.err


def test_a_page_goes_to_no_stream(place, capsys):
    assert run(arguments(place, out="-")) == 43
    assert "is no stream" in capsys.readouterr().err


def test_without_umap_what_to_install_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)  # as if it were not there
    assert "vqdna_jax[umap]" in refusal(maps.library)


@pytest.mark.slow
def test_a_umap_is_the_same_at_every_run(place, results):
    pytest.importorskip("umap")
    found = []
    for name in ("one", "other"):
        assert run([*arguments(place, out=place / f"{name}.html", map="umap"), "--quiet"]) == 0
        found.append([one["points"] for one in json.loads((place / f"{name}.json").read_text())["maps"]])
    assert found[0] == found[1]
