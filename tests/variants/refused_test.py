"""What is no VCF, or not the whole of one, is refused in one line before any work."""

import resource
import shutil

import numpy as np
import pysam
import pytest
from refusals import refusal
from small_variants import HEADER, some_records

from vqdna_jax.errors import StorageError
from vqdna_jax.variants.score import score_vcf

BAD = {
    "no header": (lambda text: text.removeprefix(HEADER).encode(), "begins with b'20"),
    "no titles": (lambda text: text.replace("#CHROM", "CHROM").encode(), "where #CHROM should be"),
    "only a header's beginning": (lambda text: text[:100].encode(), "ends before #CHROM"),
    "empty": (lambda text: b"", "is empty"),
    "FASTA": (lambda text: b">20\nACGT\n", "begins with b'>20"),
    "blanks for tabs": (lambda text: (HEADER + "20 101 . A C . . .\n").encode(), "record 1: 1 columns"),
    "too few columns": (lambda text: (HEADER + "20\t101\t.\tA\tC\n").encode(), "record 1: 5 columns"),
    "POS of 5,000 digits": (lambda text: text.replace("\t1\trs1", f"\t{'1' * 5000}\trs1").encode(), "POS '1111"),
    "POS of letters": (lambda text: text.replace("\t1\trs1", "\tx\trs1").encode(), "record 1: CHROM '20', POS 'x'"),
    "a sample is missing": (lambda text: (text[:-1].rpartition("\t")[0] + "\n").encode(), "record 3: 10 columns"),
    "a sample too many": (lambda text: (text[:-1] + "\t0/1\n").encode(), "record 3: 12 columns"),
    "two files in one": (lambda text: (2 * text).encode(), "record 4: b'##fileformat=VCF"),
    "a contig #": (lambda text: (text + "#\t1\t.\tA\tC\t.\t.\t.\n").encode(), "begins with #"),
    "CR line ends": (lambda text: text.replace("\n", "\r").encode(), "line 1: a carriage return within b'##file"),
    "CR in a record": (lambda text: (text + 8 * "\t" + "\rx\n").encode(), "a carriage return within b'\\t\\t"),
    "no REF": (lambda text: (HEADER + "20\t101\t.\t\tC\t.\t.\t.\n").encode(), "REF ''"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_vcf_is_refused(kind, contigs, fasta, model_dir, tmp_path):
    change, words = BAD[kind]
    (tmp_path / "in.vcf").write_bytes(change(HEADER + "".join(some_records(contigs, 3))))
    message = refusal(score_vcf, tmp_path / "in.vcf", fasta, model_dir, tmp_path / "out.vcf", progress=False)
    assert message.startswith(f"{tmp_path}/in.vcf: ") and words in message
    assert [path.name for path in tmp_path.iterdir()] == ["in.vcf"]


@pytest.mark.parametrize("name", ["in.vcf", "genome.fa", "genome.fa.fai", "model/config.json"])
def test_what_is_read_is_not_written(contigs, fasta, model_dir, tmp_path, name):
    (tmp_path / "in.vcf").write_text(HEADER + "".join(some_records(contigs, 3)))
    shutil.copy(fasta, tmp_path / "genome.fa")
    (tmp_path / "model").symlink_to(model_dir)
    given = tmp_path / "in.vcf", tmp_path / "genome.fa", tmp_path / "model", tmp_path / name
    assert "is the input" in refusal(score_vcf, *given, progress=False)


@pytest.mark.parametrize("kind", ["vcf.gz", "bcf"])
@pytest.mark.parametrize("lost", [28, 60])
def test_a_file_cut_short_is_refused(kind, lost, contigs, fasta, model_dir, tmp_path):
    (tmp_path / "in.vcf").write_text(HEADER + "".join(some_records(contigs, 9)))
    packed = tmp_path / f"in.{kind}"
    mode = "wb" if kind == "bcf" else "wz"
    with (
        pysam.VariantFile(str(tmp_path / "in.vcf")) as file,
        pysam.VariantFile(str(packed), mode, header=file.header) as out,
    ):
        for row in file:
            out.write(row)
    packed.write_bytes(packed.read_bytes()[:-lost])
    message = refusal(score_vcf, packed, fasta, model_dir, tmp_path / "out.vcf", progress=False)
    assert message.startswith(f"{packed}: ") and "truncated" in message


@pytest.mark.parametrize(("ending", "given"), [(".vcf", 0), (".vcf.gz", 0), (".bcf", 0), (".bcf", ".bcf")])
def test_an_output_that_finds_no_room_is_told_as_that(contigs, fasta, model_dir, tmp_path, ending, given):
    """The system allows no larger file, as it would on a full disk; the input is as large."""
    letters = np.random.default_rng(0).integers(65, 91, 60_000, np.uint8).tobytes().decode()
    (tmp_path / "in.vcf").write_text(f"{HEADER[:-1].replace('#CHROM', f'##noise={letters}{chr(10)}#CHROM')}\n")
    source, out = tmp_path / "in.vcf", tmp_path / f"out{ending}"
    if given:
        score_vcf(source, fasta, model_dir, source := tmp_path / "in.bcf", progress=False)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(StorageError) as found:
            score_vcf(source, fasta, model_dir, out, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert "cannot be written" in str(found.value) and "\n" not in str(found.value) and not out.exists()
