"""Sets from peaks: that rows are what lies at their places, that splits share nothing, and what is said of the rest."""

import gzip
import hashlib
import itertools
import json
from collections import Counter

import numpy as np
import pysam
import pytest
from refusals import refusal
from small_peaks import GENES, WIDTH, make

from vqdna_jax.genome.alphabet import reverse_complement, to_bases, to_text
from vqdna_jax.labels.peaks.build import Options, prepare
from vqdna_jax.labels.sets import read_set

SPLITS = ("train", "dev", "test")


def place(row) -> tuple[str, int, int]:
    return row["chrom"], int(row["start"]), int(row["end"])


def by_label(rows, label="1") -> list:
    return [row for row in rows if row["label"] == label]


def pairs(sequence: str) -> Counter:
    return Counter(map("".join, itertools.pairwise(sequence)))


def gc(row) -> int:
    return sum(row["sequence"].count(letter) for letter in "GC")


@pytest.fixture(scope="module")
def shuffled(genome, peaks, tmp_path_factory):
    return make(genome, peaks, tmp_path_factory.mktemp("shuffled") / "set", negatives="shuffled", ratio=2)


@pytest.mark.parametrize("name", ["matched", "genes"])
def test_a_row_is_what_lies_at_its_place(name, genome, bundled, request):
    """Read on its strand, in upper case, by another library."""
    made, letters = request.getfixturevalue(name), {}
    path = genome if name == "matched" else bundled / "arabidopsis_chloroplast.fa.gz"
    if name == "matched":
        letters = {contig: pysam.FastaFile(str(path)).fetch(contig) for contig in pysam.FastaFile(str(path)).references}
    else:
        (header, *lines) = gzip.open(path, "rt").read().splitlines()
        letters = {header[1:].split()[0]: "".join(lines)}
    for row in made.all:
        contig, start, end = place(row)
        found = letters[contig][start:end].upper()
        backwards = to_text(reverse_complement(to_bases(found)))
        assert row["sequence"] == (backwards if row["strand"] == "-" else found)
        assert len(row["sequence"]) == WIDTH and set(row["sequence"]) <= set("ACGT")
    assert {row["strand"] for row in made.all} == ({"+", "-", "."} if name == "matched" else {"+", "-"})


@pytest.mark.parametrize("name", ["matched", "genes", "shuffled"])
def test_no_base_and_no_sequence_is_in_two_splits_and_none_is_there_twice(name, request):
    made = request.getfixturevalue(name)
    covered = {
        split: {(c, at) for c, s, e in map(place, rows) for at in range(s, e)} for split, rows in made.rows.items()
    }
    assert all(not covered[a] & covered[b] for a, b in itertools.combinations(SPLITS, 2))
    strands = [min(row["sequence"], to_text(reverse_complement(to_bases(row["sequence"])))) for row in made.all]
    assert len(set(strands)) == len(strands)


def test_contigs_are_whole_in_a_split_and_each_has_its_share(matched):
    contigs = {split: {row["chrom"] for row in rows} for split, rows in matched.rows.items()}
    assert all(not contigs[a] & contigs[b] for a, b in itertools.combinations(SPLITS, 2))
    assert matched.prepared.rule.startswith("split by contig: ")
    assert all(len(matched.rows[split]) >= 0.05 * len(matched.all) for split in SPLITS)
    assert {name for names in matched.prepared.splits.values() for name in names} == {f"chr{i}" for i in range(1, 13)}


def test_one_contig_is_cut_in_stretches(genes):
    ends = [
        (min(s for _, s, _ in spans), max(e for _, _, e in spans))
        for spans in ([place(row) for row in genes.rows[split]] for split in SPLITS)
    ]
    assert ends[0][1] <= ends[1][0] and ends[1][1] <= ends[2][0]
    assert genes.prepared.rule.startswith("split by stretch: train NC_000932.1:1-")


@pytest.mark.parametrize("name", ["matched", "genes"])
def test_negatives_overlap_no_peak_and_are_as_many(name, peaks, request):
    made = request.getfixturevalue(name)
    intervals = [
        line.split("\t") for line in (peaks if name == "matched" else GENES).read_text().splitlines() if "\t" in line
    ]
    claimed = {place(row) for row in by_label(made.all)}
    if name == "matched":
        claimed |= {(f"chr{contig}", int(start), int(stop)) for contig, start, stop, *_ in intervals}
    for row in by_label(made.all, "0"):
        contig, start, end = place(row)
        assert not any(c == contig and s < end and start < e for c, s, e in claimed)
    for rows in made.rows.values():
        assert len(by_label(rows, "0")) == len(by_label(rows))
    assert {split: counts["peaks"] for split, counts in made.prepared.rows.items()} == {
        split: len(by_label(rows)) for split, rows in made.rows.items()
    }


@pytest.mark.parametrize("name", ["matched", "genes"])
def test_negatives_have_the_g_and_c_the_strands_and_the_contigs_of_peaks(name, request):
    made = request.getfixturevalue(name)
    for rows in made.rows.values():
        for of in (lambda row: (row["chrom"], row["strand"]), gc):
            assert Counter(map(of, by_label(rows, "0"))) == Counter(map(of, by_label(rows)))
    assert made.prepared.gc_apart == {0: len(by_label(made.all))}


def test_shuffles_have_the_pairs_of_their_peaks(shuffled):
    for rows in shuffled.rows.values():
        peaks = {(place(row), row["strand"]): row["sequence"] for row in by_label(rows)}
        negatives = by_label(rows, "0")
        assert len(negatives) == 2 * len(peaks)
        assert all(pairs(row["sequence"]) == pairs(peaks[place(row), row["strand"]]) for row in negatives)


def test_every_peak_is_a_row_or_has_a_reason(matched, genes, peaks):
    for made, path in ((matched, peaks), (genes, GENES)):
        intervals = sum("\t" in line for line in path.read_text().splitlines())
        assert len(by_label(made.all)) + sum(made.prepared.left_out["peaks"].values()) == intervals
    assert genes.prepared.left_out["peaks"]["whose sequence is that of another, on either strand"] > 5  # of the repeat


def test_what_was_done_is_said_and_kept(matched, peaks):
    said = "\n".join(matched.prepared.notes)
    assert "1 is read as chr1" in said and "track and browser lines passed over: 1" in said
    assert "peaks left out: 14 whose window is not all on the contig" in said
    kept = json.loads((matched.path / "prepared.json").read_text())
    assert kept["inputs"]["peaks"] == {
        "name": peaks.name,
        "sha256": hashlib.sha256(peaks.read_bytes()).hexdigest(),
    }
    assert kept["settings"] == {"width": WIDTH, "at": "auto", "ratio": 1, "seed": 0, "negatives": "gc-matched"}
    assert kept["left_out"] == matched.prepared.left_out and "notes" not in kept


def test_the_same_is_made_again_and_another_seed_makes_another(matched, genome, peaks, tmp_path):
    packed = tmp_path / "genome.fa.gz"
    packed.write_bytes(gzip.compress(genome.read_bytes()))
    again, other = make(packed, peaks, tmp_path / "again"), make(genome, peaks, tmp_path / "other", seed=1)
    for split in SPLITS:
        assert (tmp_path / f"again/{split}.csv").read_bytes() == (matched.path / f"{split}.csv").read_bytes()
    assert again.prepared.summary | {"inputs": 0} == matched.prepared.summary | {"inputs": 0}
    assert sorted(map(place, by_label(other.all, "0"))) != sorted(map(place, by_label(matched.all, "0")))


def test_it_is_read_as_any_set(matched):
    found = read_set(matched.path)
    assert found.kind == "classification" and found.classes == 2 and found.notes == ()
    assert {name: len(split.bases) for name, split in found.splits.items()} == {
        s: len(r) for s, r in matched.rows.items()
    }


def test_named_contigs_are_held_out(genome, peaks, tmp_path):
    made = make(genome, peaks, tmp_path / "set", dev=["2", "chr3"], test=["chr4"])
    assert {row["chrom"] for row in made.rows["dev"]} == {"chr2", "chr3"}
    assert {row["chrom"] for row in made.rows["test"]} == {"chr4"}
    assert "2 is read as chr2" in "\n".join(made.prepared.notes)


def test_negatives_of_a_file(genome, peaks, matched, tmp_path):
    """In each split as many as there are peaks; those that overlap one are left out, and counted."""
    spans = [f"chr{number}\t{start}\t{start + 2}" for number in range(1, 13) for start in range(40, 14_900, 200)]
    (tmp_path / "n.bed").write_text("\n".join(spans))
    made = make(genome, peaks, tmp_path / "set", negatives=tmp_path / "n.bed")
    for split, rows in made.rows.items():
        assert len(by_label(rows, "0")) == len(by_label(rows)) == len(by_label(matched.rows[split]))
    left_out = made.prepared.left_out["negatives"]
    assert left_out["that overlap a peak"] > 50 and "more than --ratio asks for" in left_out
    assert sum(left_out.values()) + len(by_label(made.all, "0")) == len(spans)
    assert {f"{c}\t{s + 29}\t{s + 31}" for c, s, _ in map(place, by_label(made.all, "0"))} <= set(spans)
    few = make(genome, peaks, tmp_path / "few", negatives=tmp_path / "n.bed", ratio=9)
    assert any("train has" in note and "--ratio asks for" in note for note in few.prepared.notes)


def test_poly_a_has_no_shuffle_and_scarce_negatives_are_counted(tmp_path):
    """A genome of ten peaks and hardly anything beside them."""
    rng = np.random.default_rng(0)
    texts = [to_text(rng.integers(0, 4, 30).astype(np.uint8)) for _ in range(9)]
    (tmp_path / "x.fa").write_text(">a\n" + "".join([*texts, "A" * 30, "C"]) + "\n")
    (tmp_path / "x.bed").write_text("".join(f"a\t{30 * i}\t{30 * i + 30}\n" for i in range(10)))
    made = make(tmp_path / "x.fa", tmp_path / "x.bed", tmp_path / "shuffled", width=30, negatives="shuffled")
    assert made.prepared.left_out["negatives"] == {"for which no other order has the same pairs": 1}
    made = make(tmp_path / "x.fa", tmp_path / "x.bed", tmp_path / "matched", width=30)
    assert made.prepared.left_out["negatives"] == {"for which no free window was left": 10}


BAD = [
    ("", "no regions"),
    ("track name=x\n", "no regions"),
    ("chr1\t9\t5\n", ":1: "),
    ("chr1\t1\t5\nchr1\t5\tsix\n", ":2: "),
    ("chr1\t1\t5\t.\t0\tx\n", "the strand 'x'"),
    ("chr1\t1\t5\t.\t0\t.\t1\t1\t1\t9\n", "the summit '9'"),
    ("chr1\t1\t5\t.\t0\t.\t1\t1\t1\tq\n", "the summit 'q'"),
    ("zebra\t1\t5\n", "no interval is on a contig of the FASTA file: they are on 'zebra'"),
    ("chr1\t1\t5\nchr1\t90\t900000\n", ":2: ends at 900,000, and chr1 has 15,000 bases; 1 of 2 intervals"),
    ("chr1\t100\t105\nchr2\t200\t205\n", "2 peaks are left, none for dev and test"),
    ("".join(f"chr{i}\t7010\t7020\n" for i in range(1, 9)), "8 with N in the window"),
]


@pytest.mark.parametrize(("text", "words"), BAD)
def test_peaks_that_give_no_set_are_refused_in_one_line(text, words, genome, tmp_path):
    (tmp_path / "x.bed").write_text(text)
    message = refusal(prepare, genome, tmp_path / "x.bed", tmp_path / "set", Options(width=WIDTH), False)
    assert words in message and message.startswith(str(tmp_path / "x.bed"))
    assert [file.name for file in tmp_path.iterdir()] == ["x.bed"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dev": ["chr99"], "test": ["chr1"]}, "--dev=chr99: the FASTA file has no such contig"),
        ({"dev": ["chr1"]}, "--test: is missing"),
        ({"dev": ["chr1"], "test": ["chr1"]}, "--test=chr1: is named for dev, too"),
        ({"width": 0}, "--width=0"),
        ({"ratio": 0}, "--ratio=0"),
        ({"width": 20_000}, "240 whose window is not all on the contig"),
        ({"negatives": "absent.bed"}, "absent.bed"),
    ],
)
def test_options_that_give_no_set_are_refused_in_one_line(options, words, genome, peaks, tmp_path):
    def call():
        prepare(genome, peaks, tmp_path / "set", Options(**{"width": WIDTH} | options), False)

    assert words in refusal(call)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_taken_is_refused(genome, peaks, matched):
    assert "not an empty directory" in refusal(prepare, genome, peaks, matched.path, Options(width=WIDTH), False)
