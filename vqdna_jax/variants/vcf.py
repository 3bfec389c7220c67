"""VCF and BCF, read and written so that nothing changes but the fields that are added.

What is read as text, plain, gzip or bgzip, is written line by line as it was, but for line ends, which become plain.
pysam (htslib) reads and writes BCF, checks headers and packs bgzip.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pysam
import pysam.bcftools

from vqdna_jax.errors import InputError, shown
from vqdna_jax.genome import htslib
from vqdna_jax.genome.streams import lines_of, read_chunks
from vqdna_jax.runtime.files import replacing, writing
from vqdna_jax.runtime.remote import places
from vqdna_jax.variants import bcf
from vqdna_jax.variants.fields import MADE_BY, NAMES, Values, as_text

_COLUMNS = 8  # that a record has at least; the last is INFO
_INFO = 7
_DIGITS = 18  # of a position
_OURS = (f"##{MADE_BY}=".encode(), *(f"##INFO=<ID={name},".encode() for name in NAMES))
_BCF, _VCF, _TITLES = b"BCF\2", b"##fileformat=VCF", b"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
_EXPECTED = "expected VCF, plain, gzip or bgzip, with its header from ##fileformat to #CHROM, or BCF"


class Site(NamedTuple):
    """A record. position: of its first base from 0, -1 of a telomere. alternatives: none where ALT is "."."""

    contig: str
    position: int
    reference: str
    alternatives: tuple[str, ...]

    @property
    def alleles(self) -> tuple[str, ...]:
        """Alternatives, or "." alone: what the record has values for."""
        return self.alternatives or (".",)


def check_start(start: bytes) -> tuple[int, str]:
    """What is wrong with a stream that begins so; see `StreamCheck`."""
    found = f"begins with {start[:20]!r}" if start else "is empty"
    return 0, "" if start.startswith((_BCF, _VCF)) else f"{found}; {_EXPECTED}"


def lines(path: str | os.PathLike) -> Iterator[bytes]:
    """All lines of its text, without their ends and empty ones, the header first. Raises InputError: neither VCF nor
    BCF, without a header, cut short or damaged."""
    if _is_bcf(path):
        with _htslib(path), pysam.VariantFile(os.fspath(path)) as file:
            yield from str(file.header).encode("utf-8", "surrogateescape").splitlines()
            yield from (str(record).rstrip("\n").encode("utf-8", "surrogateescape") for record in file)
        return
    in_header = True
    for number, line in enumerate(lines_of(_chunks(path)), 1):
        line = line.removesuffix(b"\r")
        if not line:
            continue
        if b"\r" in line:  # for htslib a part of a field, for others the end of a line
            told = f"line {number}: a carriage return within {line[:30]!r}"
            raise InputError(f"{shown(path)}: {told}; expected lines that end in LF or CRLF, convert the file")
        if in_header and not line.startswith(b"##"):
            if not line.startswith(_TITLES):
                raise InputError(f"{shown(path)}: {line[:30]!r} is where #CHROM should be; {_EXPECTED}")
            in_header = False
        yield line
    if in_header:
        raise InputError(f"{shown(path)}: ends before #CHROM; {_EXPECTED}")


def _is_bcf(path: str | os.PathLike) -> bool:
    start = next(_chunks(path), b"")
    if wrong := check_start(start)[1]:
        raise InputError(f"{shown(path)}: {wrong}")
    return start.startswith(_BCF)


def _chunks(path: str | os.PathLike) -> Iterator[bytes]:
    try:
        yield from read_chunks(path, line_ends=False)
    except OSError as error:
        raise InputError(f"{shown(path)}: cannot be read ({error.strerror or error}); {_EXPECTED}") from error


def sites(path: str | os.PathLike) -> Iterator[Site]:
    """Raises InputError: a record that is none, with its number; else as `lines`."""
    columns, number = 0, 0
    for line in lines(path):
        if not columns and line.startswith(b"#"):
            columns = 1 + line.count(b"\t") if line.startswith(_TITLES) else 0
            continue
        number += 1
        site = _site(path, number, line)
        _check_samples(path, number, line, columns)
        yield site


def _check_samples(path: str | os.PathLike, number: int, line: bytes, titles: int) -> None:
    """What has samples has each of them in every record; htslib would drop others from BCF."""
    if titles > _COLUMNS + 1 and (found := 1 + line.count(b"\t")) != titles:
        told = f"{found:,} columns, {line[:30]!r}; expected {titles:,}, as #CHROM has; give the file whole"
        raise InputError(f"{shown(path)}: record {number}: {told}")


def _site(path: str | os.PathLike, number: int, line: bytes) -> Site:
    if line.startswith(b"#"):  # htslib takes it for a contig's name where there are enough columns
        raise InputError(
            f"{shown(path)}: record {number}: {line[:30]!r} begins with #; expected that of the header only"
        )
    columns = line.split(b"\t", _COLUMNS)
    if len(columns) < _COLUMNS:
        found = f"{len(columns)} columns, {line[:30]!r}"
        raise InputError(f"{shown(path)}: record {number}: {found}; expected {_COLUMNS} or more, with tabs between")
    contig, position, _, reference, alternatives = (column.decode("utf-8", "surrogateescape") for column in columns[:5])
    is_number = position.isascii() and position.isdigit() and len(position) <= _DIGITS
    if not (is_number and contig and reference and alternatives):
        wrong = f"CHROM {contig[:30]!r}, POS {position[:30]!r}, REF {reference[:30]!r}, ALT {alternatives[:30]!r}"
        raise InputError(f"{shown(path)}: record {number}: {wrong}; expected none empty and POS a number")
    return Site(contig, int(position) - 1, reference, () if alternatives == "." else tuple(alternatives.split(",")))


def write(source: str | os.PathLike, out: str | os.PathLike, header: list[str], added: Iterable[Values]) -> None:
    """The records of `source` with the values of each, as VCF, as bgzip (.gz, .bgz) or as BCF (.bcf) as `out` says.

    header: lines that are added to its header. Raises as `runtime.files.replacing` does.
    """
    name = os.fspath(out).lower()
    if name.endswith(".bcf"):
        with htslib.quiet(), replacing(out) as new:
            _write_bcf(source, new, header, added)
    elif name.endswith((".gz", ".bgz")):
        with (
            htslib.quiet(),
            replacing(out) as new,
            contextlib.closing(pysam.BGZFile(os.fspath(new), "wb", None)) as packed,
        ):
            _write_lines(packed, source, header, added)
    else:
        with writing(out) as file:
            _write_lines(file, source, header, added)


def _write_lines(
    file: BinaryIO | pysam.BGZFile, source: str | os.PathLike, header: list[str], added: Iterable[Values]
) -> None:
    of_records = iter(added)
    for line in lines(source):
        if line.startswith(_OURS):  # of a file that was scored before
            continue
        if line.startswith(b"#CHROM"):
            file.write("".join(f"{text}\n" for text in header).encode())
        file.write((line if line.startswith(b"#") else _with(line, next(of_records))) + b"\n")


def _with(line: bytes, values: Values) -> bytes:
    columns = line.split(b"\t", _COLUMNS)
    before = [] if columns[_INFO] == b"." else columns[_INFO].split(b";")
    kept = [field for field in before if field.split(b"=")[0].decode("latin-1") not in NAMES]
    columns[_INFO] = b";".join([*kept, as_text(values).encode()])
    return b"\t".join(columns)


def _write_bcf(source: str | os.PathLike, new: Path, header: list[str], added: Iterable[Values]) -> None:
    """Of BCF by records, whose numbers keep all their digits; of text by htslib, which may know of a record only what
    the header says, so that it says all first."""
    if _is_bcf(source):
        bcf.copy(source, new, header, _OURS, added)
        return
    with places.scratch() as directory:
        text, whole = directory / "text.vcf", directory / "whole.vcf"
        with open(text, "wb") as file:
            _write_lines(file, source, header, added)
        with open(whole, "wb") as file:
            file.write(str(_header(places.Copy(text, source))).encode("utf-8", "surrogateescape"))
            file.writelines(line + b"\n" for line in lines(text) if not line.startswith(b"#"))
        _packed(source, whole, new)


def _packed(source: str | os.PathLike, text: Path, new: Path) -> None:
    """pysam would set or take away a record's END, which bcftools leaves as it is."""
    try:
        pysam.bcftools.view("--no-version", "-Ob", "-o", str(new), str(text), catch_stdout=False)
    except pysam.SamtoolsError as error:
        if shutil.disk_usage(new.parent).free < text.stat().st_size:  # it does not say which
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise InputError(f"{shown(source)}: does not become BCF ({' '.join(str(error).split())})") from error


def _header(path: str | os.PathLike) -> pysam.VariantHeader:
    """With all that records name, though it does not say so."""
    with _htslib(path), pysam.VariantFile(os.fspath(path)) as file:
        for _ in file:
            pass
        return file.header.copy()


@contextlib.contextmanager
def _htslib(path: str | os.PathLike) -> Iterator[None]:
    """What it raises as an InputError of one line."""
    with htslib.quiet():
        try:
            yield
        except (ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # of what is written
                raise
            why = " ".join(str(error).split()).replace(repr(os.fspath(path).encode()), "it")
            raise InputError(f"{shown(path)}: htslib cannot read it ({why}); {_EXPECTED}") from error
