"""Variants of a slice of a human chromosome, as VCF."""

import pathlib

import numpy as np

from vqdna_jax.genome.alphabet import to_text
from vqdna_jax.genome.fasta import load_fasta

CONTIG, LENGTH = "20", 6000  # of the bundled slice, and with N at its end
SHORT = "ACGTTGCATTGACCAGGTAACCAGTTTTTGCA"
HEADER = """##fileformat=VCFv4.2
##FILTER=<ID=PASS,Description="All filters passed">
##FILTER=<ID=q10,Description="Quality below 10">
##contig=<ID=20,length=6040>
##contig=<ID=short,length=32>
##INFO=<ID=AF,Number=A,Type=Float,Description="Allele frequency">
##INFO=<ID=DB,Number=0,Type=Flag,Description="Known">
##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">
#CHROM	POS	ID	REF	ALT	QUAL	FILTER	INFO	FORMAT	a	b
"""


def genome(bundled: pathlib.Path) -> dict[str, str]:
    (record,) = load_fasta(bundled / "human_chr20_30-31Mb.fa.gz")
    return {CONTIG: to_text(record.bases[:LENGTH]) + "N" * 40, "short": SHORT}


def write_genome(path: pathlib.Path, contigs: dict[str, str]) -> pathlib.Path:
    lines = []
    for name, text in contigs.items():
        lines += [f">{name}\n", *(f"{text[at : at + 60]}\n" for at in range(0, len(text), 60))]
    path.write_text("".join(lines))
    return path


def record(contig: str, position: int, reference: str, alternatives: str, more: str = "AF=0.25") -> str:
    return f"{contig}\t{position}\trs{position}\t{reference}\t{alternatives}\t29.5\tPASS\t{more}\tGT\t0|1\t0/0\n"


def some_records(contigs: dict[str, str], count: int, seed: int = 0) -> list[str]:
    """One base for another, insertions and deletions, in the order of the genome; the first ones at its beginning."""
    rng, text, rows = np.random.default_rng(seed), contigs[CONTIG], []
    places = np.concatenate([[0, 1], np.sort(rng.choice(np.arange(3, LENGTH - 9), count - 2, replace=False))])
    for number, at in enumerate(places.tolist()):
        kind = number % 5
        size = int(rng.integers(1, 4))
        others = [base for base in "ACGT" if base != text[at]]
        if kind == 3:
            rows.append(record(CONTIG, at + 1, text[at : at + 1 + size], text[at]))
        elif kind == 4:
            rows.append(record(CONTIG, at + 1, text[at], text[at] + "".join(rng.choice(list("ACGT"), size))))
        else:
            alternatives = ",".join(others[: 1 + (kind == 2)])
            rows.append(record(CONTIG, at + 1, text[at], alternatives, "DB" if kind else "."))
    return rows
