"""Scores of variants: what the model says of each change, in a file that is otherwise as it was."""

import dataclasses
import itertools
import pathlib
import re
import shutil
import subprocess

import numpy as np
import pysam
import pytest
import slow_scores
from refusals import refusal
from small_variants import CONTIG, HEADER, record, some_records, write_genome

from vqdna_jax.genome.alphabet import to_bases, to_text
from vqdna_jax.genome.fasta import load_fasta
from vqdna_jax.inference import changes, load
from vqdna_jax.inference.jobs import partial
from vqdna_jax.rivals.importing import import_model
from vqdna_jax.variants import fields
from vqdna_jax.variants.score import score_vcf

SCORED = re.compile(r";?VQDNA_\w+=[^;\t]*")
needs_bcftools = pytest.mark.skipif(not shutil.which("bcftools"), reason="bcftools is not installed")


@pytest.fixture
def score(fasta, model_dir, tmp_path):
    """(records, ending of the output, options) to the summary and the output."""

    def call(rows, ending=".vcf", header=HEADER, **options):
        source, out = tmp_path / "in.vcf", tmp_path / f"out{ending}"
        source.write_text(header + "".join(rows))
        given = {"fasta": fasta, "model_dir": model_dir, "out": out, "progress": False} | options
        return score_vcf(source, **given), out

    return call


def info(out: pathlib.Path, name: str) -> list[tuple]:
    """Of each record."""
    with pysam.VariantFile(str(out)) as file:
        return [row.info.get(f"VQDNA_{name}") for row in file]


def haplotypes(contigs, row: str, around: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The contig, or so many bases of it around a record, as it is and with each alternative."""
    contig, position, _, reference, alternatives = row.split("\t")[:5]
    text, at = contigs[contig], int(position) - 1
    assert text[at : at + len(reference)] == reference
    before, behind = text[max(0, at - around) : at], text[at + len(reference) : at + len(reference) + around]
    alleles = [reference, *alternatives.split(",")]
    whole, *others = (to_bases(f"{before}{allele}{behind}") for allele in alleles)
    return [(whole, other) for other in others]


def check_scores(model, contigs, rows: list[str], out: pathlib.Path, around: int = 10**9) -> int:
    """All values of a file, by NumPy on whole contigs or around each; says how many alleles have them."""
    found = [np.concatenate([np.ravel(v) for v in info(out, name)]) for name in fields.SCORES]
    pairs = [pair for row in rows for pair in haplotypes(contigs, row, around)]
    assert {len(column) for column in found} == {len(pairs)}
    scored = [i for i, value in enumerate(found[0]) if value is not None]
    for i, pair in ((i, pairs[i]) for i in scored):
        change = changes.change_of(*pair)
        ratio_R = slow_scores.log_ratio(model, *change)
        mean, at, _ = slow_scores.distances(model, *change)
        expected = [ratio_R.mean(), ratio_R.std(), mean, at]
        np.testing.assert_allclose([column[i] for column in found[:4]], expected, atol=1e-3, rtol=1e-3)
    return len(scored)


def test_scores_are_what_their_definition_says_of_the_whole_contig(score, contigs, model_dir):
    rows = [*some_records(contigs, 5), record("short", 32, "A", "T,AG")]
    summary, out = score(rows)
    assert summary["records"] == 6 and summary["scored"] == summary["alleles"] == 8
    assert check_scores(load.load(model_dir).pretrained, contigs, rows, out) == 8


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_scores_of_a_thousand_real_variants(model_dir, tmp_path):
    shared = pathlib.Path(__file__).parents[3] / "shared/data"  # by others, the repository may not hold it
    if not shared.exists():
        pytest.skip("needs ../shared/data, variants of human chromosome 20")
    with pysam.BGZFile(str(shared / "variants/chr20_1000G_sites_1-3Mb.vcf.gz")) as file:
        lines = [line.decode() for line in file]
    header, rows = (list(part) for _, part in itertools.groupby(lines, key=lambda line: line.startswith("#")))
    rows = [f"{row}\n" for row in rows[:1000]]
    (tmp_path / "in.vcf").write_text("\n".join(header) + "\n" + "".join(rows))
    fasta = shared / "genomes/human_hg19_chr20.fa.gz"
    summary = score_vcf(tmp_path / "in.vcf", fasta, model_dir, tmp_path / "out.vcf", progress=False)
    assert summary["scored"] == 1000 - summary["reasons"]["too_long"] > 990
    (chromosome,) = load_fasta(fasta)
    found = load.load(model_dir).pretrained, {CONTIG: to_text(chromosome.bases)}, rows, tmp_path / "out.vcf"
    assert check_scores(*found, around=400) == summary["scored"]


def test_reverse_complement_and_a_longer_contig_give_the_same(score, contigs, tmp_path):
    rows = some_records(contigs, 7)[2:]
    _, out = score(rows)
    expected = [info(out, name) for name in fields.SCORES]
    reverse = str.maketrans("ACGTN", "TGCAN")
    text = contigs[CONTIG]
    other = write_genome(tmp_path / "other.fa", {CONTIG: text.translate(reverse)[::-1] + "ACGTT"})
    longer = write_genome(tmp_path / "longer.fa", {CONTIG: "GATTACA" * 3 + text})
    turned, shifted = [], []
    for row in rows:
        contig, position, _, reference, alternatives = row.split("\t")[:5]
        start = len(text) - (int(position) - 1 + len(reference))
        alleles = [a.translate(reverse)[::-1] for a in (reference, *alternatives.split(","))]
        turned.append(record(contig, start + 1, alleles[0], ",".join(alleles[1:])))
        shifted.append(record(contig, int(position) + 21, reference, alternatives))
    for again, genome in ((turned, other), (shifted, longer)):
        _, out = score(again, fasta=genome)
        for name, column in zip(fields.SCORES, expected):
            np.testing.assert_allclose(np.concatenate(info(out, name)), np.concatenate(column), atol=1e-3, err_msg=name)


ENDS = [
    record("20", 5990, "N", "<DEL>", "."),
    record("20", 5991, "N", "<DEL>", "END=5999"),
    record("20", 5992, "N", "A", "END=5992"),
    record("20", 5993, "N", ",".join("ACGT"[i % 4] * (2 + i) for i in range(20)), "."),
]
ROWS = ["short\t5\t.\tT\tG\t.\tq10;PASS\tDB;AF=0.125;ODD=x,y\tGT:XX\t0|1:7\t.\n", record("20", 6040, "N", "A", ".")]


def test_all_else_is_byte_for_byte_as_it_was(score, contigs):
    rows = [*some_records(contigs, 8), *ROWS, "20\t100\t.\tA\t<DEL>\t.\t.\tEND=200;SVTYPE=DEL\tGT\t0/1\t0/1\n"]
    _, out = score(rows)
    text = out.read_text()
    added = [line for line in text.splitlines(True) if line.startswith(("##INFO=<ID=VQDNA_", "##vqdna_score="))]
    assert len(added) == len(fields.NAMES) + 1
    rest = "".join(line for line in text.splitlines(True) if line not in added)
    back = SCORED.sub("", rest)
    assert back.replace("\t\tGT", "\t.\tGT") == HEADER + "".join(rows)
    assert rest.count("VQDNA_") >= len(rows)


@needs_bcftools
@pytest.mark.parametrize("ending", [".vcf", ".vcf.gz", ".bcf"])
@pytest.mark.parametrize("given", [".vcf", ".vcf.gz", ".bcf"])
@pytest.mark.parametrize("ends", ["", '##INFO=<ID=END,Number=1,Type=Integer,Description="Last base">\n'])
def test_through_bcftools_all_else_is_as_it_was(score, contigs, fasta, model_dir, tmp_path, given, ending, ends):
    """An END that is not needed, or not there, too: htslib's users set and remove it."""
    rows = [*some_records(contigs, 5), *ROWS[1:], *(row for row in ENDS if ends or "END" not in row)]
    header = HEADER.replace("##contig=<ID=short,length=32>\n", ends)
    (tmp_path / "plain.vcf").write_text(header + "".join(rows))
    kinds = {".vcf": "v", ".vcf.gz": "z", ".bcf": "b"}
    source, out = tmp_path / f"source{given}", tmp_path / f"scored{ending}"
    view = ["bcftools", "view", "--no-version"]
    subprocess.run([*view, f"-O{kinds[given]}", "-o", source, tmp_path / "plain.vcf"], check=True, capture_output=True)
    score_vcf(source, fasta, model_dir, out, progress=False)
    remove = ",".join(f"INFO/{name}" for name in fields.NAMES)
    annotate = ["bcftools", "annotate", "--no-version", "-x", remove, out]
    back, before = (
        subprocess.run(command, check=True, capture_output=True, text=True).stdout
        for command in (annotate, [*view, source])
    )
    kept = [line for line in back.splitlines() if not line.startswith("##vqdna_score")]
    assert (
        sorted(kept[: kept.index(kept[-1])]) == sorted(before.splitlines()[:-1]) and kept[-1] == before.splitlines()[-1]
    )
    assert [line for line in kept if line[0] != "#"] == [line for line in before.splitlines() if line[0] != "#"]


def out_header(text: str) -> list[str]:
    return [line for line in text.splitlines() if line[0] == "#"]


def test_formats_agree_and_a_scored_file_is_scored_anew(score, contigs, fasta, model_dir, tmp_path):
    rows = [*some_records(contigs, 5), ROWS[1]]
    _, out = score(rows)
    first = out.read_text()
    for ending in (".vcf.gz", ".bcf", ".again.vcf"):
        score_vcf(out, fasta, model_dir, again := tmp_path / f"again{ending}", progress=False)
        for name in (*fields.SCORES, fields.REASON):
            assert info(again, name) == info(out, name)
    assert again.read_text() == first
    with pysam.VariantFile(str(tmp_path / "again.bcf")) as file:
        assert sorted(str(file.header).splitlines()) == sorted(out_header(first))
    assert pysam.tabix_index(str(tmp_path / "again.vcf.gz"), preset="vcf") and not list(tmp_path.glob("*.partial"))


REASONS = [  # of the genome's contigs, 20 and short
    ("20", 101, None, ".", "no_alternative"),
    ("20", 101, None, "<DEL>", "symbolic"),
    ("20", 101, None, "<*>", "symbolic"),
    ("20", 101, None, "G]17:198982]", "breakend"),
    ("20", 101, None, ".A", "breakend"),
    ("20", 101, None, "*", "spanning_deletion"),
    ("20", 101, None, "A-", "not_dna"),
    ("20", 101, "A.C", "A", "not_dna"),
    ("20", 101, None, "R", "ambiguous_allele"),
    ("20", 101, "N", "A", "ambiguous_allele"),
    ("20", 101, None, "NA", "ambiguous_allele"),
    ("21", 101, "A", "C", "unknown_contig"),
    ("20", 6041, "A", "C", "beyond_contig"),
    ("short", 32, "AC", "A", "beyond_contig"),
    ("20", 0, "N", "A", "ambiguous_allele"),
    ("20", 0, "A", "C", "beyond_contig"),
    ("20", 99999999999, "A", "C", "beyond_contig"),
    ("20", 6005, "A", "C", "unknown_reference"),
    ("20", 101, "other", "other", "reference_differs"),
    ("20", 101, None, "same", "same"),
    ("20", 101, None, "A" * 100_000, "too_long"),
    ("20", 101, "long", "A", "too_long"),
]


def test_what_has_no_score_says_why_and_harms_nothing(score, contigs):
    """All of them in one file, out of order, one of them twice, between others whose scores are what they were."""
    rows, text = [], contigs[CONTIG]
    good = some_records(contigs, 12)
    for contig, position, reference, alternative, _ in REASONS:
        here = text[position - 1] if 0 < position <= len(text) else "A"
        other = next(base for base in "ACGT" if base != here)
        reference = {None: here, "other": other, "long": text[position - 1 : 3000]}.get(reference, reference)
        alternative = {"same": here.lower(), "other": here}.get(alternative, alternative)
        rows.append(record(contig, position, reference, alternative))
    summary, out = score([*good[6:], *rows, rows[0], *good[:6]])
    assert set(summary["reasons"]) == set(fields.REASONS) == {why for *_, why in REASONS}
    assert summary["reference_differs"] == 1
    with pysam.VariantFile(str(out)) as file:
        found = [row.info.get("VQDNA_REASON") for row in file]
    assert found[6 : 6 + len(rows)] == [(why,) for *_, why in REASONS]
    assert found[:6] == found[-6:] == [None] * 6
    mixed, (_, alone) = out.read_text().splitlines(), score(good)
    assert [line for line in alone.read_text().splitlines() if line[0] != "#" and line not in mixed] == []


def test_several_alternatives_have_a_value_or_a_reason_each(score, contigs):
    base = contigs[CONTIG][200]
    first, second = [other for other in "ACGT" if other != base][:2]
    _, out = score([record(CONTIG, 201, base, f"{first},<DEL>,{second.lower()}")])
    (llr,), (why,) = info(out, "LLR"), info(out, "REASON")
    assert why == (".", "symbolic", ".") and llr[1] is None and llr[0] != llr[2]
    _, alone = score([record(CONTIG, 201, base.lower(), second)])
    assert info(alone, "LLR") == [(llr[2],)]


@pytest.mark.parametrize("window, words", [(63, "a multiple of 2"), (66, "from 64 to 64"), (-2, "from 64 to 64")])
def test_windows_that_the_model_does_not_read_are_refused(score, window, words):
    assert words in refusal(score, [], window=window)


def test_a_file_without_variants_is_as_it_was(score):
    summary, out = score([])
    assert summary["records"] == summary["scored"] == 0
    assert [line for line in out.read_text().splitlines(True) if "qdna" not in line.lower()] == HEADER.splitlines(True)


def test_windows_line_ends_and_empty_lines_are_taken(score, contigs, tmp_path):
    rows = some_records(contigs, 4)
    _, out = score(rows)
    expected = out.read_text()
    ends = [row.replace("\n", "\r\n") for row in rows]
    _, out = score([*ends, "\n"], header=HEADER.replace("\n", "\r\n"))
    assert out.read_text() == expected


def test_contigs_named_otherwise_are_found_and_told(score, contigs, tmp_path):
    rows = some_records(contigs, 3)
    _, out = score(rows)
    expected = info(out, "LLR")
    summary, out = score([f"chr{row}" for row in rows])
    assert summary["notes"] == ["names of contigs: chr20 is read as 20"]
    assert info(out, "LLR") == expected and out.read_text().count("\nchr20\t") == 3
    both = write_genome(tmp_path / "both.fa", {"20": contigs[CONTIG], "CHR20": "ACGT"})
    assert score(rows, fasta=both)[0]["notes"] == []
    assert "none of its contigs" in refusal(score, [f"chr{row}" for row in rows], fasta=both)


def test_another_build_is_refused_before_any_work(score, contigs, tmp_path):
    rows, wrong = some_records(contigs, 10), dict(contigs)
    wrong[CONTIG] = contigs[CONTIG][7:]
    message = refusal(score, rows, fasta=write_genome(tmp_path / "wrong.fa", wrong))
    assert re.search(r"REF of \d of 10 records differs from .*wrong.fa; name the genome", message)
    assert not (tmp_path / "out.vcf").exists() and not list(tmp_path.glob("*.partial"))


def test_it_goes_on_where_it_was_stopped(score, contigs, monkeypatch, tmp_path):
    rows = some_records(contigs, 20)
    _, whole = score(rows, embeddings=tmp_path / "whole.npy")
    expected, vectors = whole.read_text(), np.load(tmp_path / "whole.npy")
    whole.unlink()
    monkeypatch.setattr(partial, "SECONDS_A_COMMIT", 0)
    monkeypatch.setattr("vqdna_jax.variants.score.CALLS_A_GROUP", 1)
    write = partial.Partial.write

    def stop(self, *arguments):
        write(self, *arguments)
        if self.records > 8:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(partial.Partial, "write", stop)
        score(rows, embeddings=tmp_path / "new.npy")
    assert not whole.exists() and not (tmp_path / "new.npy").exists() and (tmp_path / "out.vcf.partial").exists()
    assert "begun with embeddings True, not False" in refusal(score, rows)
    summary, _ = score(rows, embeddings=tmp_path / "new.npy")
    assert 8 < summary["resumed"] < 20
    assert whole.read_text() == expected and np.array_equal(np.load(tmp_path / "new.npy"), vectors)
    assert not list(tmp_path.glob("*.partial"))


def test_embeddings_are_of_the_reference_and_the_difference(score, contigs, model_dir, tmp_path):
    rows = [*some_records(contigs, 5), record(CONTIG, 101, contigs[CONTIG][100], "<DEL>")]
    summary, out = score(rows, embeddings=tmp_path / "e.npy")
    found = np.load(tmp_path / "e.npy")
    assert found.dtype == np.float32 and found.shape == (summary["alleles"], 32) and np.isnan(found[-1]).all()
    pairs = [pair for row in rows[:-1] for pair in haplotypes(contigs, row, 10**9)]
    scores = load.load(model_dir).score(*zip(*pairs))
    np.testing.assert_allclose(found[:-1], scores.embeddings, atol=1e-4)
    assert "name one that ends so" in refusal(score, rows, embeddings=tmp_path / "e.csv")


@pytest.mark.parametrize("rival", ["dnabert2", "nt", "hyenadna"])
def test_an_imported_model_scores_a_file_as_it_scores_whole_contigs(score, contigs, rival, tmp_path):
    import_model(rival, pathlib.Path(__file__).parents[1] / "rivals/golden" / rival, tmp_path / "model")
    rows = [*some_records(contigs, 3), record("short", 32, "A", "T"), record("short", 5, "T", "<DEL>")]
    summary, out = score(rows, model_dir=tmp_path / "model", window=36)
    assert summary["scored"] == summary["alleles"] - 1 and summary["reasons"] == {"symbolic": 1}
    model = load.load(tmp_path / "model")
    model = dataclasses.replace(model, pretrained=model.pretrained.with_window(36))
    expected = model.score(*zip(*(pair for row in rows[:-1] for pair in haplotypes(contigs, row, 10**9))))
    for name, values in zip(fields.SCORES, expected):
        found = np.concatenate([np.ravel(value) for value in info(out, name)[:-1]])
        np.testing.assert_allclose(found.astype(float), values, rtol=1e-4, atol=1e-4, err_msg=name)
    assert "expected bases from 32 to" in refusal(score, rows, model_dir=tmp_path / "model", window=31)
