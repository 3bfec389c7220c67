"""A corpus: genomes as a TFDS dataset of large ArrayRecord chunks, a chunk index and a manifest that vouches for both.

    corpus/{manifest.json, chunks.npz, *.array_record-*}
    open_corpus("corpus")  ->  Corpus, after every file was compared with the manifest

`build.build.build_corpus` makes one.
"""

import contextlib
import dataclasses
import functools
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource

from vqdna_jax.errors import InputError, StorageError, first_line
from vqdna_jax.genome.chunks import SCHEMA, SPLITS
from vqdna_jax.runtime.remote import places
from vqdna_jax.runtime.remote.cache import cached_corpus


@dataclasses.dataclass(frozen=True)
class ChunkTable:
    """The index of a split: arrays [chunks], one entry for each record, in the order of the records."""

    species: np.ndarray  # int32, into Corpus.species
    contig: np.ndarray  # int32, into Corpus.contigs
    start: np.ndarray  # int64, 0-based first base on the contig
    length: np.ndarray  # int32, bases
    n_offset: np.ndarray  # int64 [chunks + 1], where the N runs of each chunk begin in n_runs
    n_runs: np.ndarray  # int32 [runs, 2], (start, length) within the chunk


@dataclasses.dataclass(frozen=True)
class Corpus:
    """An opened corpus; make it with `open_corpus`."""

    path: Path
    manifest: dict[str, Any]

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
        file = self.path / "chunks.npz"
        try:
            with np.load(file, allow_pickle=False) as stored:
                return dict(stored)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{file}: cannot be read ({first_line(error)}); build the corpus again") from error

    def chunks(self, split: str) -> ChunkTable:
        """Where every chunk of a split lies. Raises InputError for a split that does not exist."""
        if split not in SPLITS:
            raise InputError(f"split={split!r}: expected one of {', '.join(SPLITS)}")
        fields = (field.name for field in dataclasses.fields(ChunkTable))
        return ChunkTable(**{name: self._index[f"{split}_{name}"] for name in fields})

    def records(self, split: str) -> ArrayRecordDataSource:
        """The split's records; read many at once with `read_records` and turn them into chunks with `parse_chunk`."""
        shards = sorted(name for name in self.manifest["files"] if f"-{split}.array_record" in name)
        if not shards:
            raise InputError(f"{self.path}/manifest.json: has no shard of {split}; build the corpus again")
        with _still_whole(self.path):
            return ArrayRecordDataSource([os.fspath(self.path / name) for name in shards])


def read_records(corpus: Corpus, records: ArrayRecordDataSource, numbers: np.ndarray) -> list[bytes]:
    """Raises StorageError: what was whole when the corpus was opened can no longer be read."""
    with _still_whole(corpus.path):
        return records.__getitems__(numbers.tolist())


@contextlib.contextmanager
def _still_whole(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        told = f"{path}: was whole when it was opened, now it cannot be read ({first_line(error)})"
        raise StorageError(f"{told}; look after the disk and copy or build the corpus again") from error


def open_corpus(path: str | os.PathLike) -> Corpus:
    """Opens a corpus after comparing the size and sha256 of every file with the manifest (about 1 GB per second).

    One that is remote is first copied into the cache directory, once. Raises InputError when it is not a corpus, is of
    another version, or a file is missing or differs; for a remote one also what `cached_corpus` raises.
    """
    places.check_spelling(path)
    path, stored, manifest = os.fspath(path), *_manifest_of(os.fspath(path))
    files = manifest.get("files", {})
    for name in files:
        if Path(name).name != name or name in ("", "..") or "\0" in name:
            raise InputError(f"{path}/manifest.json: {name!r} is not a file of this directory; build the corpus again")
    if places.is_remote(path):
        return Corpus(cached_corpus(path, stored, files), manifest)
    for name, expected in files.items():
        _check_file(Path(path) / name, expected)
    return Corpus(Path(path), manifest)


def _manifest_of(path: str) -> tuple[bytes, dict[str, Any]]:
    try:
        stored = places.read_bytes(places.join(path, "manifest.json"))
        manifest = json.loads(stored)
        schema = manifest["schema"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, OSError) and error.errno is None:
            raise places.cannot_read(f"{path}/manifest.json", error) from error
        raise InputError(f"{path}/manifest.json: not a readable corpus manifest ({error}); build it again") from error
    if schema != SCHEMA:
        raise InputError(f"{path}/manifest.json: schema is {schema!r}, this version reads {SCHEMA!r}; build it again")
    if fault := _fault_of(manifest):
        raise InputError(f"{path}/manifest.json: {fault}; build the corpus again")
    return stored, manifest


def _fault_of(manifest: dict[str, Any]) -> str:
    """What is wrong with the parts of a manifest that are used; "" where nothing is."""
    try:
        files = manifest["files"].values()
        sound = all(isinstance(file["bytes"], int) and isinstance(file["sha256"], str) for file in files)
        if not sound:
            return "a file has no size or sha256"
        for entry in manifest["species"]:
            sound &= isinstance(entry["name"], str) and isinstance(entry["splits"]["train"]["bases"], int)
        return (
            "" if sound and isinstance(manifest["digest"], str) else "a name, a size or the digest is of another type"
        )
    except (TypeError, KeyError, AttributeError) as error:
        return f"not as it was written ({type(error).__name__}: {error})"


def _check_file(file: Path, expected: dict[str, Any]) -> None:
    try:
        size = file.stat().st_size
        intact = size == expected["bytes"] and places.sha256_of(file) == expected["sha256"]
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}, but the manifest lists it; build the corpus again") from error
    if not intact:
        raise InputError(f"{file}: differs from the manifest, the file is damaged; build the corpus again")
