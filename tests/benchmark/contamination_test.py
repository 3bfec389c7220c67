"""Rows of a set that stand in a corpus, against a search in the text of its genomes."""

import json

import numpy as np
import pytest
from small_labelled import write_splits
from small_sequences import random_texts

from vqdna_jax.benchmark import command
from vqdna_jax.benchmark.sets import contamination
from vqdna_jax.benchmark.sets.contamination import STRETCH, Found, look_for
from vqdna_jax.cli import main
from vqdna_jax.genome.alphabet import reverse_complement, to_bases, to_text
from vqdna_jax.genome.build.build import build_corpus
from vqdna_jax.genome.chunks import CHUNK_BP

LENGTH = 100


def other_strand(text: str) -> str:
    return to_text(reverse_complement(to_bases(text)))


@pytest.fixture(scope="module")
def genome(tmp_path_factory):
    """(a corpus; the text that training reads of it, contigs apart by N; its held-out text)"""
    place = tmp_path_factory.mktemp("genome")
    first, second = random_texts(2, CHUNK_BP + 20_000, seed=5)
    second = second[:1_000] + "N" * 40 + second[1_040:9_000]
    (place / "one.fa").write_text(f">a\n{first}\n>b\n{second}\n")
    manifest = build_corpus([place / "one.fa"], place / "corpus", validation_share=0.1, progress=False)
    assert manifest["species"][0]["splits"]["train"]["bases"] == len(first)  # all of the other is held out
    return place / "corpus", first, second


def found_in(tmp_path, corpus, rows) -> Found:
    splits = {split: [(text, i % 2) for i, text in enumerate(rows)] for split in ("train", "dev", "test")}
    (found,) = look_for(write_splits(tmp_path / "tf0", **splits).parent, corpus).values()
    return found


ROWS = {
    "inside": (lambda a: a[500 : 500 + LENGTH], (1, 1, 1)),
    "over the edge of a chunk": (lambda a: a[CHUNK_BP - 40 : CHUNK_BP + 60], (1, 1, 1)),
    "on the other strand": (lambda a: other_strand(a[7_000 : 7_000 + LENGTH]), (1, 1, 1)),
    "in lower case": (lambda a: a[500 : 500 + LENGTH].lower(), (1, 1, 1)),
    "one stretch": (lambda a: a[900 : 900 + STRETCH] + random_texts(1, 68, seed=9)[0], (0, 0, 1)),
    "one base less": (lambda a: a[900 : 900 + STRETCH - 1] + random_texts(1, 69, seed=2)[0], (0, 0, 0)),
    "most of it": (lambda a: a[900:980] + random_texts(1, 20, seed=4)[0], (0, 1, 1)),
    "one base changed in the middle": (lambda a: a[900:950] + "ACGT"["TGCA".index(a[950])] + a[951:1_000], (0, 1, 1)),
    "an N at its end": (lambda a: a[900:999] + "N", (1, 1, 1)),
    "too short": (lambda a: a[900 : 900 + STRETCH - 1], (0, 0, 0)),
    "random": (lambda a: random_texts(1, LENGTH, seed=8)[0], (0, 0, 0)),
}


@pytest.mark.parametrize("made, expected", ROWS.values(), ids=ROWS)
def test_a_row_counts_where_its_stretches_are(genome, tmp_path, made, expected):
    corpus, first, _ = genome
    found = found_in(tmp_path, corpus, [made(first), "A" * LENGTH])
    assert (found.rows, found.whole, found.half, found.any) == (2, *expected)


def test_what_is_held_out_is_not_counted_and_a_place_is_its_own(genome, tmp_path):
    corpus, first, second = genome
    found = found_in(tmp_path, corpus, [second[2_000:2_100], first[70_000:70_100]])
    assert (found.whole, found.any) == (1, 1) and found.examples == ["row 2 at one a:70,001"]


def test_counts_agree_with_a_search_in_the_text(genome, tmp_path):
    """Rows of pieces from here and there, of either strand, and of nowhere."""
    corpus, first, _ = genome
    rng, rows = np.random.default_rng(1), []
    for _ in range(40):
        starts, sizes = rng.integers(0, len(first) - 80, 4), rng.integers(10, 60, 4)
        pieces = [first[start : start + size] for start, size in zip(starts, sizes)]
        rows.append("".join(other_strand(piece) if rng.integers(2) else piece for piece in pieces))
    shares = []
    for row in rows:
        stretches = [row[at : at + STRETCH] for at in range(len(row) - STRETCH + 1)]
        shares.append(np.mean([each in first or other_strand(each) in first for each in stretches]))
    expected = [sum(np.array(shares) >= least) for least in (1, 0.5, 1e-9)]
    found = found_in(tmp_path, corpus, rows)
    assert [found.whole, found.half, found.any] == expected and 0 < found.any < 40


def test_the_command_says_it_in_words_and_as_json(genome, tmp_path, capsys):
    corpus, first, _ = genome
    rows = [(text, i % 2) for i, text in enumerate([first[:LENGTH], "ACGT" * 25])]
    data = write_splits(tmp_path / "GUE/tf0", train=rows, dev=rows, test=rows).parent
    command.run_check(data, (), False, corpus)
    assert "tf/0  2          1 (50.00%)  1 (50.00%)    1 (50.00%)" in capsys.readouterr().out
    command.run_check(data, (), True, corpus)
    (row,) = json.loads(capsys.readouterr().out)
    assert row["in_corpus"] == {"rows": 2, "whole": 1, "half": 1, "any": 1, "examples": ["row 1 at one a:1"]}


def test_a_set_that_cannot_be_read_is_left_to_the_check(genome, tmp_path):
    good = write_splits(tmp_path / "tf0", train=[("ACGT", 0), ("AAAA", 1)]).parent
    (tmp_path / "tf1").mkdir()
    (tmp_path / "tf1/train.csv").write_text("sequence,label\nXYZ,0\n")
    assert look_for(good, genome[0]) == {}


@pytest.mark.parametrize(
    "options, words",
    [
        (["--corpus={place}", "--out=o"], "--corpus: is read by --check alone"),
        (["--check", "--corpus={place}"], "manifest.json: not a readable corpus manifest"),
    ],
)
def test_a_corpus_that_is_none_or_not_asked_for_is_refused(tmp_path, capsys, options, words):
    write_splits(tmp_path / "tf0", train=[("ACGT", 0), ("AAAA", 1)])
    with pytest.raises(SystemExit) as stopped:
        main.main(["benchmark", f"--data={tmp_path}", *(text.format(place=tmp_path) for text in options)])
    assert stopped.value.code == 43 and words in capsys.readouterr().err


def test_no_row_has_a_stretch_by_chance(genome, tmp_path):
    found = found_in(tmp_path, genome[0], random_texts(200, LENGTH, seed=77))
    assert found.any == 0 and "0" in contamination.describe({"tf/0": found})
