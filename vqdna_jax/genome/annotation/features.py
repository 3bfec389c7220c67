"""What lies where on a genome, as any kind of file says it: features, in parts where they are spliced."""

from collections.abc import Sequence
from typing import NamedTuple

Part = tuple[int, int]  # bases [start, stop), counted from 0

GENE, CODING = "gene", "CDS"
RNA = frozenset({"tRNA", "rRNA", "ncRNA", "tmRNA", "snRNA", "snoRNA", "miRNA", "lnc_RNA", "SRP_RNA", "RNase_P_RNA"})
TRANSCRIPTS = frozenset({"mRNA", "transcript", "exon", "primary_transcript"}) | RNA


class Feature(NamedTuple):
    """One feature.

    Attributes:
        contig: its name; None of a file that names none, and is of a genome's only one.
        kind: gene, CDS, tRNA and the like.
        strand: + - or . where it has none.
        parts: in the order of the contig, none of them overlapping; of most features one.
        begins: whether the first base on its strand is that of a codon.
        place: where it was read, for messages.
    """

    contig: str | None
    kind: str
    strand: str
    parts: tuple[Part, ...]
    begins: bool
    place: str

    @property
    def first(self) -> int:
        """Its first base on its strand."""
        return self.parts[-1][1] - 1 if self.strand == "-" else self.parts[0][0]

    @property
    def stop(self) -> int:
        return self.parts[-1][1]

    @property
    def gaps(self) -> list[Part]:
        """What lies between its parts."""
        return [(left[1], right[0]) for left, right in zip(self.parts, self.parts[1:])]


class Annotation(NamedTuple):
    """What a file holds."""

    path: str  # as messages name it
    format: str
    features: list[Feature]  # one or more
    sha256: str  # of the file


def joined(parts: Sequence[Part]) -> tuple[Part, ...]:
    """In the order of the contig, with those as one that touch or overlap."""
    found: list[Part] = []
    for start, stop in sorted(parts):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(stop, found[-1][1])
        else:
            found.append((start, stop))
    return tuple(found)
