"""Stretches of a large FASTA file by an index, so that a genome of three gigabases is not read into memory.

    with IndexedFasta("hg38.fa") as genome:
        genome.bases("chr20", 1_000_000, 1_000_100)     uint8 [100]

The index is that of samtools, FILE.fai (of bgzip with FILE.gzi). One that is there and not older than the file is
used; of a plain file all records have to lie as it says, since what was put in another's place may be older. Else the
file is read once by the strict reader, so that a name that occurs twice or what is no DNA is an error with its line,
and the index is put beside it, or in a temporary place where that cannot be written. What htslib cannot index (plain
gzip, .2bit, standard input, remote files, lines of unequal lengths) is unpacked to a temporary file first.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

import numpy as np
import pysam

from vqdna_jax.errors import InputError, VqdnaError, cannot_write, shown
from vqdna_jax.genome import htslib
from vqdna_jax.genome.alphabet import to_bases, to_text
from vqdna_jax.genome.fasta import FastaReader
from vqdna_jax.genome.fasta_files import describe_skipped, open_reader
from vqdna_jax.genome.faults import MAX_HEADER_BYTES
from vqdna_jax.genome.stream_check import fasta_check
from vqdna_jax.genome.streams import GZIP_MAGIC, is_bgzip
from vqdna_jax.runtime.files import replacing
from vqdna_jax.runtime.remote import places

_BLANKS = "lines_ending_in_blanks"  # as `FastaReader` counts them; htslib takes them for bases


class _Index(NamedTuple):
    """The files of an index."""

    fai: Path
    gzi: Path | None  # of bgzip

    @classmethod
    def beside(cls, fasta: str | os.PathLike, packed: bool) -> Self:
        name = os.fspath(fasta)
        return cls(Path(f"{name}.fai"), Path(f"{name}.gzi") if packed else None)

    @property
    def files(self) -> list[Path]:
        return [self.fai, *([self.gzi] if self.gzi else [])]


def files_of(fasta: str | os.PathLike) -> list[Path]:
    """What a FASTA file may be read from, beside itself."""
    return _Index.beside(fasta, packed=True).files


class IndexedFasta(contextlib.AbstractContextManager):
    """A FASTA file whose stretches can be asked for, by one thread. Entering raises InputError: it cannot be read.

    Attributes:
        lengths: bases of each contig, in the order of the file.
        notes: what was done so that it could be read, a line each, to be said once.
        file: the local file with what was given, for its digest.
    """

    def __init__(self, path: str | os.PathLike):
        self._path = path
        self.lengths: dict[str, int] = {}
        self.notes: list[str] = []
        self.file: str | os.PathLike = path

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.file = stack.enter_context(places.readable(self._path, fasta_check()))
            scratch = stack.enter_context(places.scratch())
            self._fasta = stack.enter_context(contextlib.closing(self._open(scratch)))
            self.lengths = dict(zip(self._fasta.references, self._fasta.lengths))
            self._close = stack.pop_all().close
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def bases(self, contig: str, start: int, stop: int) -> np.ndarray:
        """uint8 [stop - start], of a stretch that lies within the contig. Raises InputError: what is there is no DNA,
        or not to be had."""
        if not 0 <= start <= stop <= self.lengths[contig]:
            raise IndexError(f"{contig}:{start}-{stop} of {self.lengths[contig]} bases")
        place = f"{shown(self._path)}: {contig}:{start + 1}-{stop}"
        with htslib.quiet():
            try:
                text = self._fasta.fetch(contig, start, stop) if start < stop else ""
                bases = to_bases(text)
            except (ValueError, OSError, InputError) as error:
                raise InputError(f"{place}: {error}; fetch the file again, or remove its .fai") from error
        if bases.size != stop - start:
            raise InputError(f"{place}: the file ends before; fetch it again, or remove its .fai")
        return bases

    def _open(self, scratch: Path) -> pysam.FastaFile:
        packed = is_bgzip(self.file)
        index = _Index.beside(self.file, packed)
        if _is_fresh(index, self.file) and (found := _opened(self.file, index)):
            _check_places(index, self.file)
            return found
        reader = open_reader(self.file)
        for _ in reader:  # raises where it is no DNA
            pass
        self.notes += describe_skipped({what: count for what, count in reader.skipped.items() if what != _BLANKS})
        if isinstance(reader, FastaReader) and not reader.skipped[_BLANKS] and (packed or not _is_gzip(self.file)):
            temporary = _Index.beside(scratch / "own", packed)
            if _build(self.file, temporary) and (found := _opened(self.file, self._kept(temporary, index))):
                return found
        return self._unpacked(scratch)

    def _kept(self, made: _Index, beside: _Index) -> _Index:
        """Where the index is used from: beside the file if none is there and one may be."""
        if any(map(os.path.lexists, beside.files)):
            advice = "samtools faidx makes it anew"
            self.notes.append(f"{shown(beside.fai)}: is older than the file or damaged, and not used; {advice}")
            return made
        try:
            for source, target in zip(made.files, beside.files):
                with replacing(target) as new:
                    new.write_bytes(source.read_bytes())
        except VqdnaError:
            return made
        return beside

    def _unpacked(self, scratch: Path) -> pysam.FastaFile:
        copy = scratch / "unpacked.fa"
        try:
            with open(copy, "wb") as file:
                file.writelines(_lines(self.file))
        except OSError as error:
            raise cannot_write(f"TMPDIR={scratch.parent}", error) from error
        index = _Index.beside(copy, packed=False)
        advice = "; bgzip it, and it is read in place" if _is_gzip(self.file) else ""
        self.notes.append(f"{shown(str(self.file))}: is unpacked to a temporary file to be indexed{advice}")
        _build(copy, index)
        if not (found := _opened(copy, index)):
            raise InputError(f"{shown(self._path)}: cannot be indexed; expected FASTA that samtools faidx takes")
        return found


def _lines(path: str | os.PathLike) -> Iterator[bytes]:
    """Of the records, each with its bases in one line."""
    first = True
    for batch in open_reader(path):
        ends = [0, *batch.starts.tolist(), batch.codes.size]
        letters = to_text(batch.bases).encode()
        for name, start, stop in zip([None, *batch.ids], ends, ends[1:]):
            if name is not None:
                yield f"{'' if first else chr(10)}>{name}\n".encode("utf-8", "surrogateescape")
                first = False
            yield letters[start:stop]
    yield b"\n"


def _is_gzip(path: str | os.PathLike) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == GZIP_MAGIC


def _is_fresh(index: _Index, fasta: str | os.PathLike) -> bool:
    try:
        return all(os.stat(file).st_mtime >= os.stat(fasta).st_mtime for file in index.files)
    except OSError:
        return False


def _check_places(index: _Index, fasta: str | os.PathLike) -> None:
    """Raises InputError where a record of a plain file does not begin and end where the index says, or there is
    another. Places within bgzip are not to be had before it is opened."""
    places_of = None if index.gzi else _places_of(index)
    if places_of is None:
        return
    with open(fasta, "rb") as file:
        before = 0
        for name, first, behind in places_of:
            if not _is_header(_gap(file, before, first), name, begins=not before):
                raise _other(index, fasta, name)
            before = behind
        rest = _gap(file, before, max(before, file.seek(0, os.SEEK_END)))
    if not rest[:1].strip() or rest[1:].strip(b"\r\n"):
        raise _other(index, fasta, name)


def _places_of(index: _Index) -> list[tuple[bytes, int, int]] | None:
    """Of each record its name, where its bases begin and where the last is; None where the index is none."""
    found = []
    for line in index.fai.read_bytes().splitlines():
        name, *numbers = line.split(b"\t")
        if len(numbers) != 4 or not all(number.isdigit() and len(number) < 16 for number in numbers):
            return None
        length, start, bases, width = map(int, numbers)
        if length and not 0 < bases < width:
            return None
        rows, rest = divmod(max(length - 1, 0), bases or 1)
        found.append((name, start, start + rows * width + rest))
    return found or None


def _gap(file: BinaryIO, start: int, stop: int) -> bytes:
    """What lies between the last base of a record and the first of the next; nothing where that is no header."""
    file.seek(start)
    return file.read(stop - start) if 0 <= stop - start <= 2 * MAX_HEADER_BYTES else b""


def _is_header(text: bytes, name: bytes, begins: bool) -> bool:
    """Whether this is the last base of a record, where one was before, and the header of one with this name."""
    base, line = (b"", text) if begins else (text[:1], text[1:])
    newline = begins or (base.strip() and line[:1] in (b"\r", b"\n"))
    header = line.strip(b"\r\n")
    is_one = line.endswith(b"\n") and b"\n" not in header and header[:1] == b">"
    return bool(newline and is_one and header[1:].split()[:1] == [name])


def _other(index: _Index, fasta: str | os.PathLike, name: bytes) -> InputError:
    told = f"{shown(index.fai)} says another place for {name[:80].decode('utf-8', 'backslashreplace')}, or for its end"
    return InputError(f"{shown(fasta)}: {told}; fetch the file again, or remove the index if it is of another file")


def _build(fasta: str | os.PathLike, index: _Index) -> bool:
    """Whether htslib could index it."""
    places_of = ["--fai-idx", str(index.fai), *(["--gzi-idx", str(index.gzi)] if index.gzi else [])]
    with htslib.quiet():
        try:
            pysam.faidx(*places_of, os.fspath(fasta))  # type: ignore[attr-defined]  # made when pysam is imported
        except (pysam.SamtoolsError, UnicodeEncodeError):  # pysam takes no name that is not UTF-8
            return False
    return True


def _opened(fasta: str | os.PathLike, index: _Index) -> pysam.FastaFile | None:
    """None where the index cannot be read."""
    gzi = str(index.gzi) if index.gzi else None
    with htslib.quiet():
        try:
            return pysam.FastaFile(os.fspath(fasta), filepath_index=str(index.fai), filepath_index_compressed=gzi)
        except (OSError, ValueError):
            return None
