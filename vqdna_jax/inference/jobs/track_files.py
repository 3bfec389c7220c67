"""Tracks of a genome as files that genome browsers and bedtools read: what `vqdna tracks` writes.

    codes_1.bed.gz          a line for each code of a level: its number is its name, and always has the same colour
    likelihood.bw           and likelihood.bedgraph.gz, the same numbers: log2 of a base's probability when it is hidden
    entropy.bw              of the four bases there, in bits
    change.bw               share of the codes around a base that are others when it is hidden
    reference.fa            the contigs that tracks are of, with index; chrom.sizes: their lengths
    session.xml             for IGV: all of it, by paths relative to the directory
    tracks.json             what made it

Text is bgzip with a tabix index. Numbers have four decimals; where a base is not known there is none.
"""

import colorsys
import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self
from xml.etree import ElementTree

import numpy as np
import pyBigWig
import pysam

from vqdna_jax.errors import StorageError, first_line, shown
from vqdna_jax.genome import htslib
from vqdna_jax.genome.alphabet import to_text
from vqdna_jax.genome.indexed_fasta import IndexedFasta
from vqdna_jax.genome.runs import runs_of

REFERENCE, SESSION, SIZES = "reference.fa", "session.xml", "chrom.sizes"
DECIMALS = 4
BYTES_A_CODE, BYTES_A_NUMBER = 20, 16  # of all files, at most
_LINE, _LINES = 60, 20_000  # bases of a line of FASTA, lines at a time
_BIGWIG = (0x888FFC26).to_bytes(4, sys.byteorder)  # at both ends of a file
_LONGEST_TBI = 1 << 29  # bases of a contig; a .csi index has longer ones
_STEPS = (5**0.5 - 1) / 2, 2**0.5 - 1, 3**0.5 - 1  # of hue, lightness, saturation: near numbers, far colours


class Track(NamedTuple):
    """A number for every base. `low` to `high` is what a browser shows."""

    name: str
    title: str
    low: float
    high: float
    color: str


TRACKS = (
    Track("likelihood", "log2 probability of the base when hidden", -6, 0, "31,119,180"),
    Track("entropy", "entropy of the hidden base, bits", 0, 2, "255,127,14"),
    Track("change", "share of codes that change when the base is hidden", 0, 1, "44,160,44"),
)


class Piece(NamedTuple):
    """Bases [start, start + S) of a contig: their numbers f32 [S, tracks], NaN where there are none, and the codes
    [L, N] that have some of them, code l being bases `spans` [L, 2]."""

    contig: str
    start: int
    values_SxT: np.ndarray
    codes_LxN: np.ndarray
    spans_Lx2: np.ndarray


def color(code: int) -> str:
    """Of a code, by its number alone: "R,G,B"."""
    hue, light, strong = (code * step % 1 for step in _STEPS)
    return ",".join(f"{255 * part:.0f}" for part in colorsys.hls_to_rgb(hue, 0.3 + 0.4 * light, 0.5 + 0.5 * strong))


@contextlib.contextmanager
def told_in_one_line(out: str | os.PathLike) -> Iterator[None]:
    """What htslib and pyBigWig raise when a disk is full is a StorageError, and htslib writes nothing to stderr."""
    with htslib.quiet():
        try:
            yield
        except (RuntimeError, pysam.SamtoolsError) as error:
            raise StorageError(f"{shown(out)}: cannot be written ({first_line(error)}); make room") from error


class TrackWriter(contextlib.AbstractContextManager):
    """Writes pieces, which come in order, to the files of tracks in `directory`; they are whole on leaving.

    Args:
        lengths: of the contigs, in their order. levels: of the codes.
    """

    def __init__(self, directory: Path, lengths: Mapping[str, int], levels: int):
        self._directory, self._lengths = directory, dict(lengths)
        self._beds = [directory / f"codes_{n}.bed.gz" for n in range(1, levels + 1)]
        self._graphs = [directory / f"{track.name}.bedgraph.gz" for track in TRACKS]
        self._colors = dict[int, str]()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._texts = [
                stack.enter_context(pysam.BGZFile(str(path), "wb", None)) for path in self._beds + self._graphs
            ]
            wigs = [pyBigWig.open(str(self._directory / f"{track.name}.bw"), "w") for track in TRACKS]
            self._wigs = [stack.enter_context(contextlib.closing(wig)) for wig in wigs]
            for wig in self._wigs:
                wig.addHeader(list(self._lengths.items()))
            self._close = stack.pop_all().close
        return self

    def write(self, piece: Piece) -> None:
        beds, graphs = self._texts[: len(self._beds)], self._texts[len(self._beds) :]
        for bed, codes_L in zip(beds, piece.codes_LxN.T):
            bed.write("".join(self._bed_lines(piece, codes_L)).encode())
        values_SxT = piece.values_SxT.round(DECIMALS) + 0.0  # which makes -0 a 0
        for graph, wig, values_S in zip(graphs, self._wigs, values_SxT.T):
            for first, count in runs_of(~np.isnan(values_S)).tolist():
                start, known = piece.start + first, values_S[first : first + count]
                wig.addEntries(piece.contig, start, values=known.astype(np.float64), span=1, step=1)
                graph.write("".join(_graph_lines(piece.contig, start, known)).encode())

    def _bed_lines(self, piece: Piece, codes_L: np.ndarray) -> Iterator[str]:
        for code, (start, stop) in zip(codes_L.tolist(), piece.spans_Lx2.tolist()):
            rgb = self._colors.setdefault(code, color(code))
            yield f"{piece.contig}\t{start}\t{stop}\t{code}\t0\t+\t{start}\t{stop}\t{rgb}\n"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        if kind is None:
            for track in TRACKS:
                check_end(self._directory / f"{track.name}.bw")
            csi = max(self._lengths.values()) > _LONGEST_TBI
            for path in self._beds + self._graphs:
                pysam.tabix_index(str(path), preset="bed", keep_original=True, csi=csi)


def check_end(wig: Path) -> None:
    """Raises RuntimeError where a bigWig is not whole, which pyBigWig, when it closes one, keeps for itself."""
    with open(wig, "rb") as file:
        start, size = file.read(len(_BIGWIG)), file.seek(0, os.SEEK_END)
        file.seek(max(0, size - len(_BIGWIG)))
        if start != _BIGWIG or file.read() != _BIGWIG:
            raise RuntimeError(f"{wig.name} is cut short")


def _graph_lines(contig: str, start: int, values: np.ndarray) -> Iterator[str]:
    for at, value in enumerate(values.tolist(), start=start):
        yield f"{contig}\t{at}\t{at + 1}\t{value:.{DECIMALS}f}\n"


def write_reference(directory: Path, genome: IndexedFasta, contigs: Iterable[str]) -> None:
    """The contigs whole, as FASTA with its index, and their lengths. What is no A C G T is N."""
    with open(directory / REFERENCE, "w") as file:
        for name in contigs:
            file.write(f">{name}\n")
            for start in range(0, genome.lengths[name], _LINES * _LINE):
                text = to_text(genome.bases(name, start, min(start + _LINES * _LINE, genome.lengths[name])))
                file.writelines(f"{text[at : at + _LINE]}\n" for at in range(0, len(text), _LINE))
    pysam.faidx(str(directory / REFERENCE))  # type: ignore[attr-defined]  # made when pysam is imported
    (directory / SIZES).write_text("".join(f"{name}\t{genome.lengths[name]}\n" for name in contigs))


def write_session(directory: Path, levels: int, locus: str) -> None:
    """What IGV opens."""
    session = ElementTree.Element("Session", genome=REFERENCE, locus=locus, version="8")
    resources = ElementTree.SubElement(session, "Resources")
    panel = ElementTree.SubElement(session, "Panel", name="DataPanel")
    for track in TRACKS:
        shown = {"id": f"{track.name}.bw", "name": track.title, "color": track.color, "windowFunction": "mean"}
        line = ElementTree.SubElement(panel, "Track", shown | {"autoScale": "false", "height": "60"})
        limits = {"minimum": f"{track.low}", "baseline": "0", "maximum": f"{track.high}", "type": "LINEAR"}
        ElementTree.SubElement(line, "DataRange", limits)
    for n in range(1, levels + 1):
        shown = {"id": f"codes_{n}.bed.gz", "name": f"codes of level {n}", "displayMode": "COLLAPSED"}
        ElementTree.SubElement(panel, "Track", shown)
    for line in panel:
        ElementTree.SubElement(resources, "Resource", path=line.attrib["id"])
    ElementTree.indent(session)
    ElementTree.ElementTree(session).write(directory / SESSION, encoding="UTF-8", xml_declaration=True)
