"""A virus of a few hundred bases with three variants: reference, genotypes, and the files that have them."""

import pathlib
from collections.abc import Sequence

import numpy as np

from vqdna_jax.genome.alphabet import to_text

BASES = 640
VARIANTS = ("Alpha", "Beta", "Gamma")
HEADER = "who\tlineage\tsource\tsubstitutions_vs_ref"
Rows = Sequence[tuple[str, list[str]]]


def reference(seed: int = 0, bases: int = BASES) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4, bases).astype(np.uint8)


def substitution(place: int, shift: int = 1) -> str:
    """At a place from 0, another base than the reference has."""
    return f"{place + 1}{'ACGT'[(int(reference()[place]) + shift) % 4]}"


def genotypes(each: int = 20) -> list[tuple[str, list[str]]]:
    """Five places are a variant's own, the same in all its genomes; three more are drawn for each genome."""
    rng, rows = np.random.default_rng(1), []
    for number, name in enumerate(VARIANTS):
        own = [substitution(30 + 20 * number + 120 * i) for i in range(5)]
        for _ in range(each):
            others = rng.choice([place for place in range(BASES - 1) if (place - 30) % 20], 3, replace=False)
            rows.append((name, own + [substitution(int(place), 2) for place in others]))
    return rows


def write(
    directory: pathlib.Path, rows: Rows | None = None, sequence: np.ndarray | None = None
) -> tuple[pathlib.Path, pathlib.Path]:
    """(table, FASTA file)"""
    table, fasta = directory / "genotypes.tsv", directory / "reference.fa"
    rows = genotypes() if rows is None else rows
    table.write_text("\n".join([HEADER, *(f"{name}\t{name[:1]}.1\tx\t{','.join(of)}" for name, of in rows)]) + "\n")
    fasta.write_text(f">ref\n{to_text(reference() if sequence is None else sequence)}\n")
    return table, fasta
