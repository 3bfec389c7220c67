"""`vqdna report vocabulary` as a user calls it: the page, its numbers, and what is refused."""

import gzip
import html.parser
import json
import pathlib
import re

import numpy as np
import pytest
from small_peaks import GENES

import vqdna_jax
from vqdna_jax.cli import main
from vqdna_jax.genome.fasta import load_fasta
from vqdna_jax.report.vocabulary.findings import findings
from vqdna_jax.report.vocabulary.page import render

BASES = 20_000


@pytest.fixture(scope="module")
def place(bundled, tmp_path_factory) -> pathlib.Path:
    """The first bases of a chloroplast, its genes, and those of another place."""
    directory = tmp_path_factory.mktemp("audit")
    header, *lines = gzip.decompress((bundled / "arabidopsis_chloroplast.fa.gz").read_bytes()).decode().splitlines()
    (directory / "genome.fa").write_text(f"{header}\n{''.join(lines)[:BASES].replace('AATT', 'aatt')}\n")
    rows = [line for line in GENES.read_text().splitlines()[1:] if int(line.split("\t")[2]) <= BASES]
    (directory / "genes.bed").write_text("\n".join(rows) + "\n")
    (directory / "other.bed").write_text("elsewhere\t1\t9\n")
    return directory


def call(place: pathlib.Path, model: pathlib.Path, *options: str) -> list[str]:
    return ["report", "vocabulary", str(model), f"--fasta={place}/genome.fa", *options]


@pytest.fixture(scope="module")
def made(place, tokenizer_dir) -> pathlib.Path:
    (record,) = load_fasta(place / "genome.fa")
    word = np.bincount(vqdna_jax.load(tokenizer_dir).encode(record.bases)[:, 1]).argmax()
    options = [f"--annotation={place}/genes.bed", f"--out={place}/page.html", f"--word=2:{word}", "--quiet"]
    main.main(call(place, tokenizer_dir, *options))
    return place / "page.html"


class Tags(html.parser.HTMLParser):
    """That every tag is closed, and what the page would ask for."""

    def __init__(self):
        super().__init__()
        self.open, self.asked, self.ids = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)
        self.asked += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "xlink:href")]
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_asks_for_nothing_and_is_made_of_the_numbers_beside_it(made):
    numbers, page = json.loads(made.with_suffix(".json").read_text()), made.read_text()
    assert render(numbers) == page  # so every number of the page is among them
    tags = Tags()
    tags.feed(page)
    assert tags.open == [] and len(set(tags.ids)) == len(tags.ids)
    assert {asked for asked in tags.asked if not asked.startswith("#")} == {"data:,"}
    assert {asked[1:] for asked in tags.asked if asked.startswith("#")} <= set(tags.ids)
    assert not re.search(r"\bnan\b|\binf\b", page)


def test_all_that_is_asked_of_a_vocabulary_is_there_beside_the_others(made):
    found = json.loads(made.with_suffix(".json").read_text())
    own, *others = found["vocabularies"]
    assert [one["name"] for one in others] == ["one-hot-vq", "6-mers", "bpe"]
    for one in found["vocabularies"]:
        assert all(one[key] for key in ("usage", "rate", "strands", "edits", "motifs", "enrichment"))
        assert {row["label"] for row in one["enrichment"]} >= {"soft-masked", "between genes", "genes, read forwards"}
    assert [row["codes"] for row in own["usage"]] == [16, 32] and len(own["kmers"]) == 2
    assert found["words"][0]["asked"] and found["words"][0]["level"] == 2
    assert all(word["fine"] for word in found["words"][1:])
    assert {len(word["context"]) for row in own["enrichment"] for word in row["words"]} == {2 + 8 + 2}
    assert found["annotation"]["features"] > 10 and len(findings(found)) == 7


def test_a_sample_is_smaller_of_each_species_and_the_page_says_so(place, tokenizer_dir, bundled, capsys):
    options = [
        "--sample=10000",
        "--against=none",
        f"--fasta={bundled}/phiX174.fa.gz",
        f"--out={place}/part.html",
        "--json",
    ]
    main.main(call(place, tokenizer_dir, *options))
    told = json.loads(capsys.readouterr().out)
    assert told["numbers"] == f"{place}/part.json" and told["findings"]
    found = json.loads((place / "part.json").read_text())
    assert found["sample"]["total"] == BASES + 5386 and found["sample"]["bases"] == pytest.approx(10_000, rel=0.1)
    assert f"of {BASES + 5386:,} bases, 10 stretches" in (place / "part.html").read_text()
    species = {row["label"] for row in found["vocabularies"][0]["enrichment"] if row["shuffled"] == "dealt"}
    assert species == set(found["sample"]["species"]) == {"genome", "phiX174"}
    assert found["annotation"] == {} and [one["name"] for one in found["vocabularies"]] == ["tokenizer"]


REFUSED = {
    "no level 3; its levels are 1 to 2": ["--word=3:1"],
    "those of level 1 are 0 to 15": ["--word=1:16"],
    "--word=first: expected LEVEL:CODE": ["--word=first"],
    "no sequence is named 'nowhere'": ["--region=nowhere:1-99"],
    "is not within": ["--region=NC_000932.1:1-99999"],
    "has 0 windows of 240 bases without N": ["--region=NC_000932.1:1-99"],
    "other.bed: is of 'elsewhere'": ["--annotation={place}/other.bed"],
    "genome.fa:1: '>": ["--annotation={place}/genome.fa"],
    "genes.bed:1: 'NC": ["--motifs={place}/genes.bed"],
    "absent: no such file": ["--annotation=absent"],
    "--sample=-1: expected bases": ["--sample=-1"],
    "nosuchmodel": ["--against=nosuchmodel"],
    "page.json: is where the numbers go": ["--out={place}/page.json"],
    "absent/page.html: cannot be written": ["--out={place}/absent/page.html"],
    "genome.fa: is the input": ["--out={place}/genome.fa"],
    "-: is a pipe, a device or standard output": ["--out=-"],
}


@pytest.mark.parametrize("said", REFUSED)
def test_bad_input_is_one_line_and_nothing_is_written(said, place, tokenizer_dir, capsys):
    before = sorted(path.name for path in place.iterdir())
    options = [option.format(place=place) for option in REFUSED[said]]
    options += [] if options[0].startswith("--out=") else [f"--out={place}/refused.html"]
    with pytest.raises(SystemExit) as stopped:
        main.main(call(place, tokenizer_dir, *options, "--quiet"))
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert stopped.value.code == 43 and said in line and printed.out == ""
    assert sorted(path.name for path in place.iterdir()) == before
