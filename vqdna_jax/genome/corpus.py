"""A corpus: genomes as a TFDS dataset of large ArrayRecord chunks, a chunk index and a manifest that vouches for both.

    build_corpus(["genomes/*.fa.gz"], "corpus")  ->  corpus/{manifest.json, chunks.npz, *.array_record-*}
    open_corpus("corpus")                        ->  Corpus, after every file was compared with the manifest

One file is one species, named after the file. The directory appears when it is complete or not at all.
"""

import contextlib
import dataclasses
import functools
import glob
import hashlib
import json
import os
import shutil
import sys
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from tqdm import tqdm

from vqdna_jax.errors import InputError, VqdnaError, cannot_write
from vqdna_jax.genome.chunks import CHUNK_BP
from vqdna_jax.genome.fasta import read_fasta
from vqdna_jax.genome.spool import Spool, split_piece, validation_starts
from vqdna_jax.genome.writer import SPLITS, CorpusWriter, sha256_of

SCHEMA = "vqdna-corpus/1"
FASTA_SUFFIXES = (".fa", ".fna", ".fasta", ".fas")
_BUNDLED = Path(__file__).parent / "bundled"


def build_corpus(
    inputs: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    *,
    validation_share: float = 0.1,
    on_duplicate: Literal["error", "rename"] = "error",
    progress: bool = True,
) -> dict:
    """Builds a corpus directory from FASTA files, globs and directories of them; returns its manifest.

    Memory is bounded whatever the size of the genomes, and each file is parsed once. `validation_share` of the bases
    of every species is held out: whole contigs, or the end of the longest where there are too few. What was skipped
    or changed is printed to stderr. Raises InputError on bad input or a wrong `out`, StorageError when the disk
    fails; nothing is left behind in either case.
    """
    if not 0 <= validation_share < 1:
        raise InputError(f"validation_share={validation_share}: expected a share from 0 up to, not including, 1")
    files = _species_files(inputs)
    out = Path(out)
    if os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"{out}: exists and is not an empty directory; choose another place or remove it")
    shown = progress and sys.stderr.isatty()
    total = sum(path.stat().st_size for path in files.values())
    with _staging(out) as staging, tqdm(total=total, unit="B", unit_scale=True, disable=not shown) as bar:
        writer = CorpusWriter(staging)
        for species, path in files.items():
            entry = _add_species(writer, species, path, staging, validation_share, on_duplicate, bar)
            _report(entry, progress)
        return writer.finish({"schema": SCHEMA, "chunk_bp": CHUNK_BP, "validation_share": validation_share})


def _add_species(writer, species, path, staging, validation_share, on_duplicate, bar) -> dict:
    bar.set_description(species)
    with Spool(staging) as spool:
        spool.fill(read_fasta(path, on_duplicate=on_duplicate, advance=bar.update))
        starts = validation_starts(spool.contigs, validation_share)
        writer.open_species(species, [contig.name for contig in spool.contigs])
        for piece in spool.pieces():
            for split, part in split_piece(piece, starts[piece.contig]):
                writer.add(split, part)
    source = {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256_of(path)}
    return writer.close_species(source, dict(spool.ambiguous), dict(spool.skipped))


def _report(entry: dict, progress: bool) -> None:
    counts, changed = Counter(), {name: count for name, count in entry["skipped"].items() if count}
    for split in entry["splits"].values():
        counts.update(split)
    if entry["ambiguous"]:
        changed["IUPAC letters read as N"] = " ".join(f"{k}:{v}" for k, v in sorted(entry["ambiguous"].items()))
    if counts["bases"] > 2 * (counts["bases"] - counts["n"]):
        changed["warning"] = "more than half of the bases are N"
    if progress or changed:
        notes = "".join(f", {name.replace('_', ' ')}: {value}" for name, value in changed.items())
        size = f"{counts['bases']:,} bp in {entry['contigs']:,} contigs"
        rest = f"{counts['n']:,} N, {counts['soft_masked']:,} soft-masked{notes}"
        tqdm.write(f"corpus: {entry['name']}: {size}, {rest}", file=sys.stderr)


def _species_files(inputs: Iterable[str | os.PathLike]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in dict.fromkeys(path for name in inputs for path in _expand(os.fspath(name))):
        species = path.name.removesuffix(".gz").removesuffix(".bgz")
        for suffix in FASTA_SUFFIXES:
            species = species.removesuffix(suffix)
        if species in files:
            raise InputError(f"{path}: {files[species]} is also named {species!r}; one file is one species, rename one")
        files[species] = path
    if not files:
        raise InputError("no FASTA file was given; expected files, globs or directories")
    return files


def _expand(name: str) -> list[Path]:
    path = Path(name)
    if path.is_dir():
        endings = tuple(suffix + packed for suffix in FASTA_SUFFIXES for packed in ("", ".gz", ".bgz"))
        found = sorted(child for child in path.iterdir() if child.name.endswith(endings) and child.is_file())
        if not found:
            raise InputError(f"{name}: no FASTA file in the directory; expected {' '.join(FASTA_SUFFIXES)} or .gz")
        return found
    if path.is_file():
        return [path]
    found = [Path(match) for match in sorted(glob.glob(name, recursive=True)) if os.path.isfile(match)]
    if not found:
        raise InputError(f"{name}: no such file, and as a pattern it matches none; check the path")
    return found


@contextlib.contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """A directory beside `out` that becomes `out` on success and vanishes otherwise."""
    staging = out.with_name(f"{out.name}.incomplete-{uuid.uuid4().hex[:8]}")
    try:
        staging.mkdir(parents=True)
        yield staging
        os.replace(staging, out)
    except OSError as error:
        raise cannot_write(out, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@dataclasses.dataclass(frozen=True)
class ChunkTable:
    """The index of a split: arrays [C], one entry a record, in the order of the records."""

    species: np.ndarray  # int32, into Corpus.species
    contig: np.ndarray  # int32, into Corpus.contigs
    start: np.ndarray  # int64, 0-based first base on the contig
    length: np.ndarray  # int32, bases
    n_offset: np.ndarray  # int64 [C + 1], where the N runs of each chunk begin in n_runs
    n_runs: np.ndarray  # int32 [R, 2], (start, length) within the chunk


@dataclasses.dataclass(frozen=True)
class Corpus:
    """An opened corpus; make it with `open_corpus`."""

    path: Path
    manifest: dict

    @property
    def digest(self) -> str:
        """sha256 over everything a model can see of the corpus: species, splits, bases, runs."""
        return self.manifest["digest"]

    @property
    def species(self) -> tuple[str, ...]:
        return tuple(entry["name"] for entry in self.manifest["species"])

    @functools.cached_property
    def contigs(self) -> tuple[str, ...]:
        return tuple(self._index["contig_names"].tobytes().decode().split("\n"))

    @functools.cached_property
    def _index(self) -> dict[str, np.ndarray]:
        with np.load(self.path / "chunks.npz", allow_pickle=False) as stored:
            return dict(stored)

    def chunks(self, split: str) -> ChunkTable:
        """Where every chunk of a split lies. Raises InputError for a split that does not exist."""
        if split not in SPLITS:
            raise InputError(f"split={split!r}: expected one of {', '.join(SPLITS)}")
        fields = (field.name for field in dataclasses.fields(ChunkTable))
        return ChunkTable(**{name: self._index[f"{split}_{name}"] for name in fields})

    def records(self, split: str) -> ArrayRecordDataSource:
        """The split's records; read many at once with `__getitems__` and turn them into chunks with `parse_chunk`."""
        shards = sorted(name for name in self.manifest["files"] if f"-{split}.array_record" in name)
        return ArrayRecordDataSource([os.fspath(self.path / name) for name in shards])


def open_corpus(path: str | os.PathLike) -> Corpus:
    """Opens a corpus after comparing the size and sha256 of every file with the manifest (about 1 GB a second).

    Raises InputError when it is not a corpus, is of another version, or a file is missing or differs.
    """
    path = Path(path)
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
        schema, files = manifest["schema"], manifest.get("files", {})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}/manifest.json: not a readable corpus manifest ({error}); build it again") from error
    if schema != SCHEMA:
        raise InputError(f"{path}/manifest.json: schema is {schema!r}, this version reads {SCHEMA!r}; build it again")
    for name, expected in files.items():
        if Path(name).name != name:
            raise InputError(f"{path}/manifest.json: {name!r} is not a file of this directory; build the corpus again")
        _check_file(path / name, expected)
    return Corpus(path, manifest)


def _check_file(file: Path, expected: dict) -> None:
    try:
        size = file.stat().st_size
        intact = size == expected["bytes"] and sha256_of(file) == expected["sha256"]
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}, but the manifest lists it; build the corpus again") from error
    if not intact:
        raise InputError(f"{file}: differs from the manifest, the file is damaged; build the corpus again")


def bundled_corpus() -> Path:
    """The corpus of the eight bundled genomes, built on first use into the cache directory; processes may race.

    The cache is $VQDNA_CACHE, or vqdna_jax in $XDG_CACHE_HOME or ~/.cache.
    """
    genomes = sorted(_BUNDLED.glob("*.fa.gz"))
    key = hashlib.sha256(SCHEMA.encode())
    for genome in genomes:
        key.update(f"{genome.name} {sha256_of(genome)}\n".encode())
    shared = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    cache = Path(os.environ.get("VQDNA_CACHE") or Path(shared) / "vqdna_jax")
    out = cache / f"bundled-{key.hexdigest()[:16]}"
    if _is_whole(out):
        return out
    shutil.rmtree(out, ignore_errors=True)  # a cache that was damaged
    try:
        build_corpus(genomes, out, progress=False)
    except VqdnaError as error:
        if not _is_whole(out):  # otherwise another process was faster
            raise type(error)(f"{error}; $VQDNA_CACHE names the directory for the bundled corpus") from error
    return out


def _is_whole(path: Path) -> bool:
    try:
        return bool(open_corpus(path))
    except InputError:
        return False
