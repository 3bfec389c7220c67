"""Annotation: one gene is the same in every format; what is refused is named by file and line."""

import gzip

import pytest
from small_peaks import GENES

from vqdna_jax.errors import InputError
from vqdna_jax.genome.annotation.features import joined
from vqdna_jax.genome.annotation.read import read_annotation

GFF = "##gff-version 3\nc\t.\tCDS\t11\t20\t.\t-\t0\tID=cds1;Parent=t\n"
GENBANK = """LOCUS       c                         60 bp    DNA     linear   UNA 01-JAN-2000
ACCESSION   c
VERSION     c
FEATURES             Location/Qualifiers
     source          1..60
     CDS             complement(11..20)
ORIGIN
        1 acgtacgtac acgtacgtac acgtacgtac acgtacgtac acgtacgtac acgtacgtac
//
"""
ONE = {
    "GFF": GFF,
    "GFF of GTF": 'c\t.\tCDS\t11\t20\t.\t-\t0\tgene_id "g"; transcript_id "t";\n',
    "BED": "c\t10\t20\tg\t0\t-\n",
    "prot_table": "protein of a gene\t11\t20\t-\t3\t1\t2\tg\n",
    "GenBank": GENBANK,
}


def read(text: str, place, name: str = "x"):
    (place / name).write_text(text)
    return read_annotation(place / name)


@pytest.mark.parametrize("name", ONE)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_gene_is_the_same_in_every_format(name, end, tmp_path):
    found = read(ONE[name].replace("\n", end), tmp_path)
    (feature,) = found.features
    assert found.format == name.split()[0]
    assert (feature.parts, feature.strand, feature.first) == (((10, 20),), "-", 19)
    assert feature.contig == (None if name == "prot_table" else "c")
    assert feature.kind == ("gene" if name == "BED" else "CDS")


def test_rows_of_a_parent_are_the_parts_of_a_feature_and_phase_says_whether_it_begins(tmp_path):
    rows = [("exon", 1, 9, ".", "t"), ("exon", 21, 30, ".", "t"), ("CDS", 21, 29, "0", "t"), ("CDS", 4, 9, "2", "t")]
    text = "".join(f"c\t.\t{kind}\t{a}\t{b}\t.\t+\t{phase}\tParent={of}\n" for kind, a, b, phase, of in rows)
    exons, coding = read("##gff-version 3\n" + text + "##FASTA\n>c\nACGT\n", tmp_path).features
    assert exons.parts == ((0, 9), (20, 30)) and exons.gaps == [(9, 20)]
    assert coding.parts == ((3, 9), (20, 29)) and not coding.begins  # its first base is the third of a codon


def test_parts_of_a_join_of_genbank_and_a_first_base_that_is_not_known(tmp_path):
    text = GENBANK.replace("complement(11..20)", "join(<3..9,15..30)")
    (feature,) = read(text, tmp_path).features
    assert feature.parts == ((2, 9), (14, 30)) and feature.strand == "+" and not feature.begins


def test_it_is_read_packed(tmp_path):
    (tmp_path / "x.gz").write_bytes(gzip.compress(GENES.read_bytes()))
    assert len(read_annotation(tmp_path / "x.gz").features) == 127


@pytest.mark.parametrize(
    ("parts", "found"), [([(5, 9), (1, 3)], ((1, 3), (5, 9))), ([(1, 5), (5, 8), (6, 7)], ((1, 8),))]
)
def test_parts_that_touch_are_one(parts, found):
    assert joined(parts) == found


REFUSED = {
    "x:2: 'c": "##gff-version 3\nc\t.\tCDS\t11\tmany\t.\t-\t0\tID=a\n",
    "x:3: 'c": GFF + "c\t.\tCDS\t21\t20\t.\t-\t0\tID=a\n",
    "x:3: 'd": GFF + "d\t.\tCDS\t21\n",
    "x:4: '": GFF + GFF.splitlines()[1] + "\n" + "c\t.\tCDS\t1\t5\t.\tforwards\t0\tID=a\n",
    "x:2: 'p": "p\t1\t9\t+\t3\np\t9\t1\t+\t3\n",
    "x:1: 'nothing": "nothing of the kind\n",
    "x:2: 'e": "e\t1\t9\ne\t9\t1\n",
    "x: holds no annotation": "# only a comment\n",
    "x: is no GenBank record": GENBANK.replace("complement(11..20)", "somewhere"),
    "x: has no feature": GENBANK.replace("     CDS             complement(11..20)\n", ""),
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_is_no_annotation_is_refused_by_file_and_line(said, tmp_path):
    with pytest.raises(InputError) as refused:
        read(REFUSED[said], tmp_path)
    assert f"{tmp_path}/{said}" in str(refused.value) and "\n" not in str(refused.value)
