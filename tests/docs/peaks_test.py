"""docs/peaks.md: its commands do what it says, in their order, on the genes of a chloroplast."""

import csv
import gzip
import os
import pathlib
import re
import subprocess
import sys

import pytest
from small_peaks import GENES

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs/peaks.md"


def commands() -> str:
    """The lines that are indented, as a shell has them."""
    return "".join(f"{line}\n" for line in re.findall(r"^    (.*)$|^$", PAGE.read_text(), re.MULTILINE))


def gff_of(bed: str) -> str:
    fields = (line.split("\t") for line in bed.splitlines() if not line.startswith("#"))
    rows = (
        [contig, ".", "gene", str(int(start) + 1), stop, ".", strand, ".", f"ID={name}"]
        for contig, start, stop, name, _, strand in fields
    )
    return "##gff-version 3\n" + "".join("\t".join(row) + "\n" for row in rows)


@pytest.fixture(scope="module")
def done(bundled, tmp_path_factory) -> pathlib.Path:
    """The folder in which all was run."""
    place = tmp_path_factory.mktemp("peaks")
    (place / "genome.fa").write_bytes(gzip.decompress((bundled / "arabidopsis_chloroplast.fa.gz").read_bytes()))
    (place / "genes.gff").write_text(gff_of(GENES.read_text()))
    for name, call in {"python": "", "vqdna": "-m vqdna_jax.cli.main"}.items():
        (place / "bin").mkdir(exist_ok=True)
        (place / "bin" / name).write_text(f'#!/bin/sh\nexec {sys.executable} {call} "$@"\n')
        (place / "bin" / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{place / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(PAGE.parents[1])}
    subprocess.run(["bash", "-euo", "pipefail", "-c", commands()], cwd=place, env=environment, check=True, timeout=280)
    return place


def rows(path: pathlib.Path) -> list[dict[str, str]]:
    return list(csv.DictReader(open(path)))


@pytest.mark.slow
def test_the_awk_line_makes_the_bed_of_the_genes(done):
    expected = [line.split("\t") for line in GENES.read_text().splitlines()[1:]]
    found = [line.split("\t") for line in (done / "genes.bed").read_text().splitlines()]
    assert [row[:3] + row[5:] for row in found] == [row[:3] + row[5:] for row in expected]


@pytest.mark.slow
def test_the_harder_negatives_have_a_codon_in_the_middle(done):
    negatives = [row["sequence"][100:103] for row in rows(done / "codons/train.csv") if row["label"] == "0"]
    assert len(negatives) > 50 and set(negatives) == {"ATG", "GTG", "TTG"}


@pytest.mark.slow
def test_the_table_has_a_row_for_each_of_test(done):
    table, test = rows(done / "table.csv"), rows(done / "codons/test.csv")
    assert [[row[name] for name in ("label", "chrom", "start")] for row in table] == [
        [row[name] for name in ("label", "chrom", "start")] for row in test
    ]
    assert all(float(row["0"]) + float(row["1"]) == pytest.approx(1, abs=1e-3) for row in table)


@pytest.mark.slow
def test_every_variant_is_of_this_genome_and_scored(done):
    lines = [line.split("\t") for line in (done / "scored.vcf").read_text().splitlines() if not line.startswith("#")]
    assert {fields[2] for fields in lines} == {"start", "inside"}
    assert all(fields[4] == "C" and fields[7].startswith("VQDNA_LLR=") for fields in lines)


@pytest.mark.slow
def test_a_change_of_every_start_has_its_prediction(done):
    before = [float(row["1"]) for row in rows(done / "table.csv") if row["label"] == "1"]
    after = [float(row["1"]) for row in rows(done / "changed.predictions.csv")]
    assert len(after) == len(before) and sum(one != other for one, other in zip(before, after)) > len(before) / 2
