"""Regions: what an option and a BED file mean, and that what is cut out is what lies there."""

import gzip
import os

import numpy as np
import pytest
from refusals import refusal

from vqdna_jax.genome import fasta
from vqdna_jax.genome.alphabet import to_text
from vqdna_jax.genome.fasta_files import FastaFiles
from vqdna_jax.genome.regions import Region, of_option, read_bed

GENOME = "human_chr20_30-31Mb.fa.gz"  # soft-masked, over a million bases: several batches


@pytest.fixture(scope="module")
def chromosome(bundled) -> fasta.Sequence:
    return next(fasta.load_fasta(bundled / GENOME))


def read(path, regions, **how) -> list[fasta.Sequence]:
    with FastaFiles([path] if not isinstance(path, list) else path, regions=regions, **how) as files:
        return list(files.read())


@pytest.mark.parametrize(
    "text, region",
    [
        ("chr1:1-1", ("chr1", 0, 1)),
        ("chr1:1,001-2,000", ("chr1", 1000, 2000)),
        ("HLA:A*01:3-9", ("HLA:A*01", 2, 9)),
        ("chr1", ("chr1", 0, None)),
        ("chr1:7", ("chr1:7", 0, None)),
        (f"chr1:1-{'9' * 5000}", (f"chr1:1-{'9' * 5000}", 0, None)),
    ],
)
def test_an_option_counts_from_1_with_both_ends(text, region):
    assert of_option(text)[:3] == region
    assert of_option(text).id == text.replace(",", "")


@pytest.mark.parametrize("text", ["chr1:0-5", "chr1:6-5", "chr1:,-5", "chr1:5-,"])
def test_an_option_that_is_no_stretch_is_refused(text):
    message = refusal(of_option, text)
    assert message.startswith(f"--region={text}: ") and "counted from 1" in message


def test_an_option_names_something():
    assert "names no sequence" in refusal(of_option, "")


def test_a_bed_file_counts_from_0_without_the_end(tmp_path):
    text = "# genes\nbrowser hide all\ntrack name=x\nchr1\t0\t1\n\nchr 1\t5\t9\tgene \x1bA\t0\t-\r\nchr1 2 4 . 7\n"
    (tmp_path / "a.bed").write_text(text)
    (tmp_path / "a.bed.gz").write_bytes(gzip.compress(text.encode()))
    found = read_bed(tmp_path / "a.bed")
    assert [region[:4] for region in found] == [("chr1", 0, 1, ""), ("chr 1", 5, 9, "gene A"), ("chr1", 2, 4, "")]
    assert [region.id for region in found] == ["chr1:1-1", "chr 1:6-9", "chr1:3-4"]
    assert [region.place for region in found] == [f"{tmp_path}/a.bed:{line}" for line in (4, 6, 7)]
    assert [region[:4] for region in read_bed(tmp_path / "a.bed.gz")] == [region[:4] for region in found]


@pytest.mark.parametrize(
    "line",
    [
        "chr1\t5",
        "\t5\t9",
        "chr1\tstart\tend",
        "chr1\t-1\t5",
        "chr1\t5\t5",
        "chr1\t9\t5",
        "chr1\t1.5\t5",
        "chr1:1-5",
        f"chr1\t0\t{'9' * 5000}",
    ],
)
def test_a_malformed_line_is_named(tmp_path, line):
    (tmp_path / "a.bed").write_text(f"chr1\t0\t9\n{line}\n")
    message = refusal(read_bed, tmp_path / "a.bed")
    assert message.startswith(f"{tmp_path}/a.bed:2: ") and "counted from 0" in message


@pytest.mark.parametrize("content, says", [(b"# nothing\n", "no regions"), (b"\x1f\x8b\x08ab", "damaged")])
def test_a_bed_file_of_nothing_is_refused(tmp_path, content, says):
    (tmp_path / "a.bed").write_bytes(content)
    assert says in refusal(read_bed, tmp_path / "a.bed") and "absent" in refusal(read_bed, tmp_path / "absent.bed")


def test_what_is_cut_out_is_what_lies_there(chromosome, bundled):
    """Over the edges of batches, too, and in the order in which it is asked for."""
    name, size = chromosome.id, chromosome.bases.size
    rng = np.random.default_rng(0)
    spans = [(0, 1), (size - 1, size), (0, size), *np.sort(rng.integers(0, size, (40, 2)), axis=1).tolist()]
    regions = [Region(name, start, stop, "", "here") for start, stop in spans]
    found = read(bundled / GENOME, [*regions, Region(name, 0, None, "", "here")])
    for record, (start, stop) in zip(found, spans):
        assert record.id == record.header == f"{name}:{start + 1}-{stop}"
        assert np.array_equal(record.bases, chromosome.bases[start:stop])
        assert np.array_equal(record.soft_mask, chromosome.soft_mask[start:stop])
    assert found[-1].header == chromosome.header and len(found) == len(spans) + 1
    assert np.array_equal(found[-1].bases, chromosome.bases)


def test_each_region_counts_its_own_letters(tmp_path):
    (tmp_path / "x.fa").write_text(">a A\nACGTRY\nNNacgtS\n>b B\nKKKK\n>c\n")
    asked = [of_option(text) for text in ("b:2-3", "a:6-8", "a:9-12", "a:1-13", "b")]
    found = read(tmp_path / "x.fa", asked)
    assert [(r.id, r.header, r.line, to_text(r.bases)) for r in found] == [
        ("a:6-8", "a:6-8", 1, "NNN"),
        ("a:9-12", "a:9-12", 1, "ACGT"),
        ("a:1-13", "a:1-13", 1, "ACGTNNNNACGTN"),
        ("b:2-3", "b:2-3", 4, "NN"),
        ("b", "b B", 4, "NNNN"),
    ]
    assert [r.ambiguous for r in found] == [{"Y": 1}, {}, {"R": 1, "Y": 1, "S": 1}, {"K": 2}, {"K": 4}]
    assert [r.soft_mask.sum() for r in found] == [0, 4, 4, 0, 0]


def test_regions_are_looked_for_in_all_files_before_the_first_is_given(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.fa").write_text(f">{name}\nACGT\n")
    paths = [tmp_path / "a.fa", tmp_path / "b.fa"]
    assert [record.id for record in read(paths, [of_option("b:2-3"), of_option("a:1-4")])] == ["a:1-4", "b:2-3"]
    message = refusal(read, paths, [of_option("a"), of_option("c:1-2")])
    assert message == "--region=c:1-2: no sequence is named 'c'; expected one of the 2, 'a', 'b'"
    message = refusal(read, paths, [of_option("a:1-4"), of_option("b:4-5")])
    assert message == "--region=b:4-5: b:4-5 is not within b, which has 4 bases"


def test_a_sequence_that_is_named_like_a_region_is_meant_as_a_whole(tmp_path):
    (tmp_path / "a.fa").write_text(">a:5-8 cut out\nACGTACGT\n>b\nGG\n")
    (record,) = read(tmp_path / "a.fa", [of_option("a:5-8")])
    assert (record.id, record.header, to_text(record.bases)) == ("a:5-8", "a:5-8 cut out", "ACGTACGT")
    (record,) = read(tmp_path / "a.fa", [of_option("a:5-8:2-3")])
    assert (record.id, to_text(record.bases)) == ("a:5-8:2-3", "CG")
    (tmp_path / "a.bed").write_text("a\t4\t8\n")
    assert "no sequence is named 'a'" in refusal(read, tmp_path / "a.fa", read_bed(tmp_path / "a.bed"))


def test_a_region_that_is_asked_for_twice_is_refused_or_numbered(tmp_path):
    (tmp_path / "a.fa").write_text(">a\nACGT\n")
    (tmp_path / "a.bed").write_text("a\t0\t2\tx\na\t0\t2\ty\n")
    regions = [of_option("a:1-2"), *read_bed(tmp_path / "a.bed")]
    message = refusal(read, tmp_path / "a.fa", regions)
    assert message.startswith(f"{tmp_path}/a.bed:1: a:1-2 is there already (--region=a:1-2)")
    found = read(tmp_path / "a.fa", regions, on_duplicate="rename")
    assert [record.header for record in found] == ["a:1-2", "a:1-2_2 x", "a:1-2_3 y"]


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="has no end")
def test_an_endless_file_of_regions_is_refused():
    assert "/dev/zero:1: a zero byte" in refusal(read_bed, "/dev/zero")
