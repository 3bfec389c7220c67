"""What each base of a sample is in: genes, introns, repeats, stretches rich in G and C, a species."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from vqdna_jax.errors import InputError
from vqdna_jax.genome import contigs
from vqdna_jax.genome.alphabet import reverse_complement, to_text
from vqdna_jax.genome.annotation.features import CODING, GENE, RNA, TRANSCRIPTS, Annotation, Feature
from vqdna_jax.report.vocabulary.sample import Sample, Stretch

START_CODONS = ("ATG", "GTG", "TTG")
LEAST_STARTS = 0.5  # of coding sequences that begin with a start codon; of another assembly about one in twenty does
FEW_STARTS = 20  # of which the share says little
BEFORE = 50  # bases before a gene
GC_WINDOW = 500  # bases whose G and C are counted around a base
STRATA = 10


class Starts(NamedTuple):
    """How many coding sequences begin with a start codon, and how many triplets 100 bases further on are one."""

    total: int
    right: int
    shifted: int


def placed(annotation: Annotation, sample: Sample) -> tuple[list[Feature], list[str]]:
    """The features that lie on contigs of the sample's files, by their names there, and what is worth a line.

    Raises InputError: none does, or one ends beyond its contig.
    """
    lengths = sample.lengths
    used = {feature.contig for feature in annotation.features}
    if None in used and len(lengths) > 1:
        advice = f"the FASTA has {len(lengths):,} sequences; give one, or GFF"
        raise InputError(f"{annotation.path}: names no sequence, and {advice}")
    only = next(iter(lengths))
    resolved = contigs.resolve([name for name in used if name], lengths)
    found = [
        feature._replace(contig=only if feature.contig is None else resolved[feature.contig])
        for feature in annotation.features
        if feature.contig is None or feature.contig in resolved
    ]
    if not found:
        names = contigs.few([name for name in used if name])
        raise InputError(f"{annotation.path}: is of {names}, and the FASTA has {contigs.few(lengths)}; give its own")
    for feature in found:
        if feature.stop > lengths[feature.contig or only]:
            told = f"ends at {feature.stop:,}, and {feature.contig} has {lengths[feature.contig or only]:,} bases"
            raise InputError(f"{feature.place}: {told}; is it of another assembly?")
    left = len(annotation.features) - len(found)
    notes = contigs.describe(resolved)
    return found, notes + (
        [f"{annotation.path}: {left:,} features are of contigs that the FASTA lacks"] if left else []
    )


def check_starts(annotation: Annotation, features: Sequence[Feature], sample: Sample) -> Starts:
    """Raises InputError where too few coding sequences begin with a start codon: they are of another assembly."""
    found = [
        _triplets(stretch, feature) for stretch in sample.stretches for feature in features if _is_in(feature, stretch)
    ]
    right, shifted = (sum(pair[side] in START_CODONS for pair in found) for side in (0, 1))
    starts = Starts(len(found), right, shifted)
    if starts.total >= FEW_STARTS and right < LEAST_STARTS * starts.total:
        told = f"{right:,} of {starts.total:,} coding sequences begin with {', '.join(START_CODONS)}"
        by_chance = f"{right / starts.total:.1%}; 100 bases further on, {shifted / starts.total:.1%}"
        raise InputError(f"{annotation.path}: {told} ({by_chance}); is it of another assembly?")
    return starts


def _is_in(feature: Feature, stretch: Stretch) -> bool:
    """Whether the stretch has the triplets that are looked at of a coding sequence."""
    is_coding = feature.kind == CODING and feature.begins and feature.strand in ("+", "-")
    return is_coding and feature.contig == stretch.contig and stretch.start + 103 <= feature.first < stretch.stop - 103


def _triplets(stretch: Stretch, feature: Feature) -> tuple[str, str]:
    at, back = feature.first - stretch.start, feature.strand == "-"
    first, further = (
        stretch.bases[at - 2 - ahead : at + 1 - ahead] if back else stretch.bases[at + ahead : at + 3 + ahead]
        for ahead in (0, 100)
    )
    return to_text(reverse_complement(first) if back else first), to_text(
        reverse_complement(further) if back else further
    )


def masks(sample: Sample, features: Sequence[Feature]) -> dict[str, np.ndarray]:
    """Where each label holds, bool [S] over all stretches one after the other; those alone that hold somewhere and not
    everywhere."""
    of_stretch = [_masks(stretch, features) for stretch in sample.stretches]
    found = {name: np.concatenate([one[name] for one in of_stretch]) for name in of_stretch[0]}
    gc_S = _gc_of(sample)
    low, high = np.quantile(gc_S, (0.25, 0.75))
    found |= {"rich in G and C": gc_S >= high, "poor in G and C": gc_S <= low} if low < high else {}
    return {name: mask_S for name, mask_S in found.items() if mask_S.any() and not mask_S.all()}


def species_masks(sample: Sample) -> dict[str, np.ndarray]:
    """Of each species, where there are several."""
    species_S = np.repeat([stretch.species for stretch in sample.stretches], [len(s.bases) for s in sample.stretches])
    names = list(dict.fromkeys(stretch.species for stretch in sample.stretches))
    return {name: species_S == name for name in names} if len(names) > 1 else {}


def _masks(stretch: Stretch, features: Sequence[Feature]) -> dict[str, np.ndarray]:
    here = [feature for feature in features if feature.contig == stretch.contig]
    genes = [one for one in here if one.kind in {GENE, CODING} | RNA]
    coding = [one for one in here if one.kind == CODING]
    spliced = [one for one in here if one.kind in {CODING} | TRANSCRIPTS]
    gene_S, exon_S = _covered(stretch, _parts(genes)), _covered(stretch, _parts(spliced))
    gaps_S = _covered(stretch, (gap for one in spliced for gap in one.gaps))
    found = {
        "genes, read forwards": _covered(stretch, _parts(one for one in genes if one.strand == "+")),
        "genes, read backwards": _covered(stretch, _parts(one for one in genes if one.strand == "-")),
        "coding": _covered(stretch, _parts(coding)),
        "RNA genes": _covered(stretch, _parts(one for one in genes if one.kind in RNA)),
        "introns": gaps_S & gene_S & ~exon_S,
        f"{BEFORE} bases before genes": _covered(stretch, map(_before, genes)) & ~gene_S,
        "between genes": ~gene_S,
    }
    found |= {f"codon base {1 + base}, forwards": _codon_bases(stretch, coding, base) for base in range(3)}
    found = found if features else {}
    return found | {"soft-masked": stretch.soft_mask}


def _parts(features: Iterable[Feature]) -> Iterable[tuple[int, int]]:
    return (part for feature in features for part in feature.parts)


def _before(feature: Feature) -> tuple[int, int]:
    """Nothing of what has no strand."""
    if feature.strand == "-":
        return feature.stop, feature.stop + BEFORE
    return (feature.first - BEFORE, feature.first) if feature.strand == "+" else (0, 0)


def _covered(stretch: Stretch, parts: Iterable[tuple[int, int]]) -> np.ndarray:
    mask_S = np.zeros(len(stretch.bases), bool)
    for start, stop in parts:
        mask_S[max(0, start - stretch.start) : max(0, stop - stretch.start)] = True
    return mask_S


def _codon_bases(stretch: Stretch, coding: Sequence[Feature], base: int) -> np.ndarray:
    """Bases `base`, counted from 0, of the codons of unspliced coding sequences on the forward strand."""
    mask_S = np.zeros(len(stretch.bases), bool)
    for one in coding:
        if one.strand == "+" and one.begins and len(one.parts) == 1:
            start, stop = one.first - stretch.start + base, one.stop - stretch.start
            mask_S[start % 3 if start < 0 else start : max(0, stop) : 3] = True
    return mask_S


def local_gc(bases: np.ndarray) -> np.ndarray:
    """Share of G and C within GC_WINDOW bases around each, f64 [S]; the ends have what is there."""
    is_gc_S = (bases == 1) | (bases == 2)
    sums_S = np.append(0, np.cumsum(is_gc_S))
    at_S = np.arange(len(bases))
    first_S, last_S = np.maximum(0, at_S - GC_WINDOW // 2), np.minimum(len(bases), at_S + GC_WINDOW // 2 + 1)
    return (sums_S[last_S] - sums_S[first_S]) / (last_S - first_S)


def _gc_of(sample: Sample) -> np.ndarray:
    """As `local_gc`, over all stretches one after the other."""
    return np.concatenate([local_gc(stretch.bases) for stretch in sample.stretches])


def gc_strata(sample: Sample) -> np.ndarray:
    """Which tenth of the sample a base is in by the G and C around it, uint8 [S]."""
    gc_S = _gc_of(sample)
    edges = np.quantile(gc_S, np.arange(1, STRATA) / STRATA)
    return np.searchsorted(edges, gc_S, side="right").astype(np.uint8)
