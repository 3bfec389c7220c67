"""The alternative alleles of a record as changes of the reference genome, or why they are none that can be scored."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from vqdna_jax.errors import InputError
from vqdna_jax.genome.alphabet import N, to_bases
from vqdna_jax.genome.indexed_fasta import IndexedFasta
from vqdna_jax.inference.changes import Change, change_of
from vqdna_jax.variants.vcf import Site

DIFFERS = "reference_differs"


class Genome(NamedTuple):
    """Where changes are looked up.

    Attributes:
        contigs: what each contig of the VCF is called in the FASTA; none that is unknown.
        around: bases on both sides of a record that are of interest. longest: that are scored at once.
    """

    fasta: IndexedFasta
    contigs: Mapping[str, str]
    around: int
    longest: int


def changes(genome: Genome, site: Site) -> list[Change | str]:
    """Of every allele the change, or the name of a reason of `fields.REASONS`."""
    whys = [_unlike_dna(site.reference, allele) for allele in site.alleles]
    if all(whys):
        return [why for why in whys if why]
    there = _reference(genome, site)
    return [
        why or (there if isinstance(there, str) else _change(genome, there, a)) for why, a in zip(whys, site.alleles)
    ]


class _Reference(NamedTuple):
    """Bases of the genome around a record, uint8, and which of them are its REF."""

    bases: np.ndarray
    start: int
    stop: int


def _unlike_dna(reference: str, allele: str) -> str:
    """Why an allele is none by itself, or empty."""
    if not allele:
        return "not_dna"
    if allele in (".", "*"):
        return "no_alternative" if allele == "." else "spanning_deletion"
    if allele.startswith("<"):
        return "symbolic"
    if set(allele) & set("[]") or "." in (allele[0], allele[-1]):
        return "breakend"
    try:
        letters = to_bases(reference + allele)
    except InputError:
        return "not_dna"
    return "ambiguous_allele" if (letters == N).any() else ""


def _reference(genome: Genome, site: Site) -> _Reference | str:
    if site.contig not in genome.contigs:
        return "unknown_contig"
    contig, stop = genome.contigs[site.contig], site.position + len(site.reference)
    if site.position < 0 or stop > genome.fasta.lengths[contig]:
        return "beyond_contig"
    first, last = max(0, site.position - genome.around), min(genome.fasta.lengths[contig], stop + genome.around)
    bases = genome.fasta.bases(contig, first, last)
    there = bases[site.position - first : stop - first]
    if (there == N).any():
        return "unknown_reference"
    if not np.array_equal(there, to_bases(site.reference)):
        return DIFFERS
    return _Reference(bases, site.position - first, stop - first)


def _change(genome: Genome, there: _Reference, allele: str) -> Change | str:
    bases, start, stop = there
    change = change_of(bases, np.concatenate([bases[:start], to_bases(allele), bases[stop:]]))
    if change is None:
        return "same"
    return "too_long" if change.longest > genome.longest else change
