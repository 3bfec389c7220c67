"""Genomes as what was substituted on a reference: read from a table, the reference found in a FASTA file.

The table is tab- or comma-separated with the columns `who` (the variant), `lineage` and `substitutions...`, which has
`913T,3037T`: places from 1 and their new bases. G counts genomes, S bases.
"""

import collections
import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from vqdna_jax.errors import InputError
from vqdna_jax.genome.alphabet import N, to_bases
from vqdna_jax.genome.fasta_files import FastaFiles
from vqdna_jax.inference.jobs.sequence_rows import is_gzip
from vqdna_jax.labels import header as headers
from vqdna_jax.labels.csv_rows import Row, read_rows
from vqdna_jax.labels.header import BLANKS

VARIANT, LINEAGE, CHANGES = "who", "lineage", "substitutions"
MOST_UNLIKE = 0.01  # of the substitutions may put the base that the reference has: another sequence has it at a quarter
FEWEST = 10  # genomes of a variant
HELD_OUT = 0.2  # of the genomes of a variant
_ITEM = re.compile("([1-9][0-9]{0,8})([ACGT])")
_EXPECTED = "expected places from 1 and their new bases, 913T,3037T"


class Genotype(NamedTuple):
    """Substitutions in the order of their places."""

    variant: str
    lineage: str
    places_M: np.ndarray  # int64, from 0
    bases_M: np.ndarray  # uint8


class Table(NamedTuple):
    """Attributes:
    genotypes: each once, whatever variant it is of.
    repeated: rows that had the substitutions of a row before, and were left out.
    last: where the row with the highest place is.
    """

    path: str
    genotypes: list[Genotype]
    repeated: int
    last: str


class Genomes(NamedTuple):
    """The genomes of the study, variant after variant, the held-out ones of each first.

    Attributes:
        variants: the V names. labels_G: which of them. held_out_G: bool.
        known: {name: (its commonest lineage, distinct genotypes in the table)}.
    """

    reference: np.ndarray  # uint8 [S]
    record: str
    genotypes: list[Genotype]
    variants: list[str]
    labels_G: np.ndarray
    held_out_G: np.ndarray
    known: dict[str, tuple[str, int]]
    repeated: int


def read_genomes(
    table: str | os.PathLike, reference: str | os.PathLike, most: int | None = None, seed: int = 0
) -> Genomes:
    """At most `most` genomes of each variant, drawn with `seed`.

    Raises InputError: the table is malformed (file, line, column), a variant has fewer than FEWEST distinct genotypes;
    no record of the FASTA file is what the table's substitutions were made on.
    """
    read = read_table(table)
    record, bases = find_reference(reference, read)
    genotypes, repeated = _distinct(read.genotypes, bases)
    by_variant: dict[str, list[Genotype]] = collections.defaultdict(list)
    for genotype in genotypes:
        by_variant[genotype.variant].append(genotype)
    variants = sorted(by_variant)
    _check(read.path, {name: len(of) for name, of in by_variant.items()}, most)
    rng = np.random.default_rng(seed)
    drawn = {name: [by_variant[name][i] for i in rng.permutation(len(by_variant[name]))[:most]] for name in variants}
    return Genomes(
        reference=bases,
        record=record,
        genotypes=[genotype for name in variants for genotype in drawn[name]],
        variants=variants,
        labels_G=np.repeat(np.arange(len(variants)), [len(drawn[name]) for name in variants]),
        held_out_G=np.concatenate([np.arange(len(of)) < round(HELD_OUT * len(of)) for of in drawn.values()]),
        known={name: (_commonest(by_variant[name]), len(by_variant[name])) for name in variants},
        repeated=read.repeated + repeated,
    )


def genome(reference: np.ndarray, genotype: Genotype) -> np.ndarray:
    """Its bases, uint8 [S]."""
    bases = reference.copy()
    bases[genotype.places_M] = genotype.bases_M
    return bases


def read_table(path: str | os.PathLike) -> Table:
    """Raises InputError: as `read_rows`, a column is missing, a row has something that is no substitution."""
    with contextlib.closing(read_rows(path, is_gzip(path))) as rows:  # whatever is wrong in it
        return _read(path, rows)


def _read(path: str | os.PathLike, rows: Iterator[Row]) -> Table:
    header = next(rows)
    variant, lineage = (headers.find(header, (name,)) for name in (VARIANT, LINEAGE))
    changes, found, last = _column_of_changes(header), list[Genotype](), (-1, "")
    for row in rows:
        name = row.fields[variant].strip(BLANKS)
        if not name:
            raise InputError(f"{row.place(variant)}: no variant; expected a name, Alpha; complete the row")
        places_M, bases_M = _substitutions(row, changes)
        found.append(Genotype(name, row.fields[lineage].strip(BLANKS), places_M, bases_M))
        last = max(last, (places_M.max(initial=-1), f"{row.path}:{row.line}"))
    if not found:
        raise InputError(f"{path}:1:1: no rows after the header; expected a genome on each line; add rows")
    kept = list({(g.places_M.tobytes(), g.bases_M.tobytes()): g for g in reversed(found)}.values())[::-1]
    return Table(os.fspath(path), kept, len(found) - len(kept), last[1])


def _column_of_changes(header: Row) -> int:
    titles = [field.strip(BLANKS) for field in header.fields if field.strip(BLANKS).lower().startswith(CHANGES)]
    return headers.find(header, titles[:1] or [CHANGES])


def _substitutions(row: Row, column: int) -> tuple[np.ndarray, np.ndarray]:
    """Places from 0 and bases."""
    text = row.fields[column].strip(BLANKS)
    found = _ITEM.findall(text)
    places_M, letters = np.array([int(place) for place, _ in found], np.int64), "".join([base for _, base in found])
    if ",".join(map("".join, found)) != text:
        wrong = next(item for item in text.split(",") if not _ITEM.fullmatch(item))
        raise InputError(f"{row.place(column)}: {wrong[:40]!r} is no substitution; {_EXPECTED}; mend the row")
    order_M = np.argsort(places_M)
    places_M = places_M[order_M]
    if (twice_M := np.diff(places_M) == 0).any():
        place = places_M[:-1][twice_M][0]
        raise InputError(f"{row.place(column)}: the place {place} is substituted twice; {_EXPECTED}; mend the row")
    return places_M - 1, to_bases(letters)[order_M]


def find_reference(path: str | os.PathLike, table: Table) -> tuple[str, np.ndarray]:
    """The name and bases of the record that the table's substitutions were made on: the first that they would change.

    Raises InputError: every record is too short, or already has the new base in more than MOST_UNLIKE of them, or none.
    """
    keys = np.unique(np.concatenate([g.places_M * N + g.bases_M for g in table.genotypes]))
    places, bases = keys // N, keys % N
    unlike, records = dict[str, float](), 0
    with FastaFiles([path]) as files:
        for record in files.read():
            records += 1
            if len(record.bases) > places.max(initial=-1):
                there = record.bases[places]
                unlike[record.id] = float(np.mean((there == bases) | (there == N))) if len(keys) else 0.0
                if unlike[record.id] <= MOST_UNLIKE:
                    return record.id, record.bases
    who = f"expected the sequence that {table.path} is about, as MN908947.3 of SARS-CoV-2"
    if not unlike:
        longest = f"place {places.max() + 1:,} is substituted in {table.last}"
        raise InputError(f"{path}: {records} records, none long enough: {longest}; {who}; name its FASTA file")
    best = min(unlike, key=lambda name: unlike[name])
    found = f"{unlike[best]:.0%} of the substitutions change nothing, or an N, in {best}, the nearest of {records}"
    raise InputError(f"{path}: is no reference of these genomes: {found}; {who}; name its FASTA file")


def _distinct(genotypes: Sequence[Genotype], reference: np.ndarray) -> tuple[list[Genotype], int]:
    """The same without what changes nothing, each genome once, and how many were left out."""
    found = dict[tuple[bytes, bytes], Genotype]()
    for genotype in genotypes:
        changes_M = reference[genotype.places_M] != genotype.bases_M
        real = genotype._replace(places_M=genotype.places_M[changes_M], bases_M=genotype.bases_M[changes_M])
        found.setdefault((real.places_M.tobytes(), real.bases_M.tobytes()), real)
    return list(found.values()), len(genotypes) - len(found)


def _check(path: str, counts: Mapping[str, int], most: int | None) -> None:
    if len(counts) < 2:
        raise InputError(f"{path}: one variant, {next(iter(counts))!r}; expected two or more; give a table of several")
    name = min(counts, key=lambda name: counts[name])
    if counts[name] < FEWEST:
        raise InputError(
            f"{path}: {counts[name]} distinct genomes of {name}; expected at least {FEWEST} of each; add some"
        )
    if most is not None and most < FEWEST:
        raise InputError(f"--genomes: {most}; expected at least {FEWEST} of each variant")


def _commonest(genotypes: Sequence[Genotype]) -> str:
    return collections.Counter(genotype.lineage for genotype in genotypes).most_common(1)[0][0]
