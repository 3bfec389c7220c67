"""A genome of several contigs with soft mask and N, peaks on it, and sets that are made of them."""

import pathlib

import numpy as np
import pytest
from small_peaks import GENES, Made, make

from vqdna_jax.genome import fasta
from vqdna_jax.genome.alphabet import to_text


@pytest.fixture(scope="session")
def chromosome(bundled) -> str:
    (record,) = fasta.load_fasta(bundled / "human_chr20_30-31Mb.fa.gz")
    letters = np.frombuffer(to_text(record.bases).encode(), np.uint8) | record.soft_mask.astype(np.uint8) << 5
    return letters.tobytes().decode()


@pytest.fixture(scope="session")
def genome(chromosome, tmp_path_factory) -> pathlib.Path:
    """Twelve contigs of 15,000 bases, of which each has fifty N."""
    path = tmp_path_factory.mktemp("genome") / "genome.fa"
    with open(path, "w") as file:
        for number in range(1, 13):
            letters = chromosome[15_000 * number : 15_000 * (number + 1)]
            file.write(f">chr{number}\n{letters[:7000]}{'N' * 50}{letters[7050:]}\n")
    return path


@pytest.fixture(scope="session")
def peaks(tmp_path_factory) -> pathlib.Path:
    """Twenty on each contig, with strands, some of them alike or at an end."""
    rng = np.random.default_rng(0)
    lines = ["track name=peaks\r"]
    for number in range(1, 13):
        for start in [0, *np.sort(rng.integers(0, 14_900, 18)), 14_950]:
            size = int(rng.integers(1, 50))
            lines.append(f"{number}\t{start}\t{start + size}\tp{len(lines)}\t0\t{'+-.'[len(lines) % 3]}\r")
    path = tmp_path_factory.mktemp("peaks") / "peaks.bed"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="session")
def matched(genome, peaks, tmp_path_factory) -> Made:
    return make(genome, peaks, tmp_path_factory.mktemp("matched") / "set")


@pytest.fixture(scope="session")
def genes(bundled, tmp_path_factory) -> Made:
    """Starts of genes of one contig, which has an inverted repeat."""
    return make(bundled / "arabidopsis_chloroplast.fa.gz", GENES, tmp_path_factory.mktemp("genes") / "set", at="start")
