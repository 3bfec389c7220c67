"""Genomes, and a corpus of them."""

import gzip
import shutil
from pathlib import Path

import pytest

from vqdna_jax.genome import fasta
from vqdna_jax.genome.build.build import build_corpus
from vqdna_jax.genome.build.bundled import BUNDLED


def slice_of(name: str, start: int, length: int) -> str:
    (record,) = fasta.load_fasta(BUNDLED / f"{name}.fa.gz")
    return "".join("ACGTN"[base] for base in record.bases[start : start + length])


@pytest.fixture(scope="session")
def genomes(tmp_path_factory) -> Path:
    """Three species: one long contig, many contigs, and a tiny one; N runs and soft masks cross chunk borders."""
    directory = tmp_path_factory.mktemp("genomes")
    long = list(slice_of("e_coli_K12_MG1655", 0, 200_001))
    for start, stop in [(0, 7), (500, 501), (65_000, 67_000), (131_072, 131_080), (199_990, 200_001)]:
        long[start:stop] = "N" * (stop - start)
    text = "".join(long)
    text = text[:100] + text[100:66_000].lower() + text[66_000:]
    (directory / "long.fa").write_text(">chr1 one\n" + text + "\n")
    fly = slice_of("d_melanogaster_chr2R_5-6Mb", 0, 150_000)
    with gzip.open(directory / "many.fasta.gz", "wt") as file:
        for index in range(60):
            file.write(f">scaffold{index}\n{fly[index * 2500 : (index + 1) * 2500 - index * 7]}\n")
        file.write(">nothing\n>odd\nACGTRYACGT\n")
    shutil.copy(BUNDLED / "phiX174.fa.gz", directory)
    return directory


@pytest.fixture(scope="session")
def built(genomes, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("built") / "corpus"
    build_corpus([genomes], out, progress=False)
    return out
