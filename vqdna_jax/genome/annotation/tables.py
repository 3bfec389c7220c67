"""Annotation in rows between tabs: GFF3 and GTF, and the prot_table of NCBI. BED is read by `genome.bed`."""

import re
import urllib.parse

from vqdna_jax.errors import InputError
from vqdna_jax.genome import bed
from vqdna_jax.genome.annotation.features import CODING, GENE, Feature, joined
from vqdna_jax.genome.text_file import Text

_NUMBER = re.compile("[0-9]{1,15}")
_PARENT = re.compile(r'(?:^|;)\s*(?:Parent=|transcript_id ")([^;"]+)')
_ID = re.compile(r"(?:^|;)\s*ID=([^;]+)")
_SEQUENCES = "##FASTA"  # what comes behind it is no annotation


def is_gff(line: str) -> bool:
    fields = line.split("\t")
    return line.startswith("##gff-version") or (len(fields) >= 8 and all(map(_NUMBER.fullmatch, fields[3:5])))


def is_prot_table(line: str) -> bool:
    fields = line.split("\t")
    return len(fields) >= 5 and all(map(_NUMBER.fullmatch, fields[1:3])) and fields[3] in ("+", "-")


def gff(text: Text) -> list[Feature]:
    """Rows of one kind with one parent, or else one ID, are the parts of a feature: exons of a transcript, a CDS.

    Raises InputError, as `file:line: what; what was expected`.
    """
    ends = text.lines.index(_SEQUENCES) if _SEQUENCES in text.lines else len(text.lines)
    rows: dict[tuple[str, ...], list[tuple[int, int, bool, str]]] = {}
    for number, line in enumerate(text.lines[:ends], start=1):
        if line.strip() and not line.startswith("#"):
            place = f"{text.path}:{number}"
            key, row = _gff_row(place, line)
            rows.setdefault(key, []).append((*row, place))
    return [_feature(key, found) for key, found in rows.items()]


def _gff_row(place: str, line: str) -> tuple[tuple[str, ...], tuple[int, int, bool]]:
    """(what the parts of its feature share, its bases, whether a codon begins where it does)."""
    fields = line.split("\t")
    expected = "expected nine columns of GFF with tabs between them: START and END counted from 1, + - or . for STRAND"
    if (
        len(fields) not in (8, 9)
        or not all(map(_NUMBER.fullmatch, fields[3:5]))
        or fields[6] not in ("+", "-", ".", "?")
    ):
        raise InputError(f"{place}: {line[:80]!r}; {expected}")
    contig, _, kind, start, stop, _, strand, phase, *others = fields
    if not (contig and kind and 0 < int(start) <= int(stop)):
        raise InputError(f"{place}: {line[:80]!r}; {expected}")
    about = others[0] if others else ""
    group = _PARENT.search(about) if kind != GENE else None
    found = group or _ID.search(about)
    key = urllib.parse.unquote(contig), kind, strand if strand != "?" else ".", found[1] if found else place
    return key, (int(start) - 1, int(stop), phase in (".", "0"))


def _feature(key: tuple[str, ...], rows: list[tuple[int, int, bool, str]]) -> Feature:
    contig, kind, strand, _ = key
    first = (max if strand == "-" else min)(rows)
    parts = joined([(start, stop) for start, stop, _, _ in rows])
    return Feature(contig, kind, strand, parts, first[2], rows[0][3])


def prot_table(text: Text) -> list[Feature]:
    """Product, start and end, counted from 1 with both, and strand of each protein. Raises as `gff`."""
    return [
        _protein(f"{text.path}:{number}", line)
        for number, line in enumerate(text.lines, start=1)
        if line.strip() and not line.startswith("#")
    ]


def _protein(place: str, line: str) -> Feature:
    _, start, stop, strand, *_ = [*line.split("\t"), "", "", ""]
    if not (is_prot_table(line) and 0 < int(start) <= int(stop)):
        expected = "expected product, start and end counted from 1, + or - and more, with tabs between them"
        raise InputError(f"{place}: {line[:80]!r}; {expected}")
    return Feature(None, CODING, strand, ((int(start) - 1, int(stop)),), True, place)


def intervals(text: Text) -> list[Feature]:
    """Of BED, each taken for a gene. Raises as `gff`."""
    return [_interval(one) for one in bed.parse(text).intervals]


def _interval(one: bed.Interval) -> Feature:
    strand = one.strand if one.strand in ("+", "-") else "."
    return Feature(one.contig, GENE, strand, ((one.start, one.stop),), False, one.place)
