"""Writes chunks as a TFDS dataset, with chunk index and manifest beside it. The same input gives the same files."""

import array
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from vqdna_jax.genome.build.cutting import Chunks
from vqdna_jax.genome.build.records import make_records
from vqdna_jax.genome.build.shards import SplitShards, WrittenShards
from vqdna_jax.genome.chunks import DATASET_NAME, SPLITS, features
from vqdna_jax.runtime.remote.places import sha256_of


class CorpusWriter:
    """Call open_species, add in the order of the contigs, close_species for each species, then finish.

    `shards` are those of each split where they are already written; without it they are written here.
    """

    def __init__(self, directory: Path, shards: Mapping[str, WrittenShards] | None = None):
        self._directory = directory
        self._splits = {name: _SplitIndex(name, directory) for name in SPLITS}
        self._shards: Mapping[str, SplitShards | WrittenShards] = shards or {
            name: SplitShards(name, directory) for name in SPLITS
        }
        self._species: list[dict] = []
        self._contig_names = bytearray()
        self._contig_count = 0
        self._content = hashlib.sha256()

    def open_species(self, name: str, contigs: list[str]) -> None:
        self._name, self._contigs = name, contigs
        self._counts: dict[str, Counter[str]] = {split: Counter() for split in self._splits}
        self._contig_names += "".join(f"{contig}\n" for contig in contigs).encode()

    def add(self, chunks: Chunks, in_validation: np.ndarray) -> None:
        """Appends chunks, each to its split, bool [chunks]."""
        contents = chunks.contents()
        self._content.update(b"".join(self._described(chunks, contents, in_validation)))
        for split, chosen in zip(SPLITS, (~in_validation, in_validation)):
            if chosen.any():
                self._splits[split].add(len(self._species), self._contig_count, chunks, chosen)
                self._counts[split].update(_counts(chunks, chosen))
                rows = np.flatnonzero(chosen).tolist()
                self._shards[split].add(make_records(chunks, contents, rows, self._name, self._contigs))

    def _described(
        self, chunks: Chunks, contents: list[tuple[bytes, bytes, bytes]], in_validation: np.ndarray
    ) -> Iterator[bytes]:
        """What the digest is of."""
        columns = zip(in_validation.tolist(), chunks.contig.tolist(), chunks.start.tolist(), chunks.length.tolist())
        for (held_out, contig, start, length), content in zip(columns, contents):
            yield f"{SPLITS[held_out]} {self._name} {self._contigs[contig]} {start} {length}\n".encode()
            yield from content

    def close_species(
        self, source: dict[str, Any], ambiguous: dict[str, int], skipped: dict[str, int]
    ) -> dict[str, Any]:
        """Ends a species; returns its entry of the manifest."""
        entry = {
            "name": self._name,
            "source": source,
            "contigs": len(self._contigs),
            "splits": {split: dict(counts) for split, counts in self._counts.items() if counts},
            "ambiguous": ambiguous,
            "skipped": skipped,
        }
        self._contig_count += len(self._contigs)
        self._species.append(entry)
        return entry

    def finish(self, header: dict[str, Any], known: Mapping[str, dict[str, Any]] | None = None) -> dict[str, Any]:
        """Writes the TFDS metadata, the index and the manifest, which it returns.

        `known` has bytes and sha256 of files of the corpus that need not be read, or are in another directory.
        """
        self._write_dataset_info()
        self._write_index()
        totals: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
        for entry in self._species:
            for split, counts in entry["splits"].items():
                totals[split].update(counts)
        files = dict(known or {})
        for file in self._directory.iterdir():
            if file.name not in files:
                files[file.name] = {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
        digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode() + self._content.digest()).hexdigest()
        manifest = header | {
            "digest": digest,
            "splits": {k: dict(v) for k, v in totals.items()},
            "species": self._species,
            "files": dict(sorted(files.items())),
        }
        (self._directory / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
        return manifest

    def _write_dataset_info(self) -> None:
        identity = tfds.core.dataset_info.DatasetIdentity(
            name=DATASET_NAME,
            version=tfds.core.Version("1.0.0"),
            data_dir=os.fspath(self._directory),
            module_name=__name__,
        )
        info = tfds.core.DatasetInfo(builder=identity, features=features())
        info.set_file_format("array_record")
        splits = [shards.close() for shards in self._shards.values()]
        info.set_splits(tfds.core.splits.SplitDict([split for split in splits if split.shard_lengths]))
        info.write_to_directory(self._directory)

    def _write_index(self) -> None:
        names = np.frombuffer(bytes(self._contig_names[:-1]), np.uint8)
        arrays: dict[str, Any] = {"contig_names": names}
        for split in self._splits.values():
            arrays |= split.arrays()
        np.savez(self._directory / "chunks.npz", **arrays)
        for split in self._splits.values():
            split.remove()


def _counts(chunks: Chunks, chosen: np.ndarray) -> dict[str, int]:
    """What the manifest says of some chunks, bool [chunks]."""
    n, soft_masked = (
        int(runs[np.repeat(chosen, counts), 1].sum())
        for runs, counts in ((chunks.n_runs, chunks.n_count), (chunks.soft_mask_runs, chunks.soft_mask_count))
    )
    bases, number = int(chunks.length[chosen].sum()), int(chosen.sum())
    return {"bases": bases, "chunks": number, "n": n, "soft_masked": soft_masked}


class _SplitIndex:
    """The chunk table of a split; N runs go to a file, since a genome may have any number of them."""

    def __init__(self, split: str, directory: Path):
        self._split = split
        self._rows = array.array("q")  # species, contig, start, length, N runs
        self._path = directory / f"{split}.n_runs"
        self._file = open(self._path, "wb")

    def add(self, species: int, first_contig: int, chunks: Chunks, chosen: np.ndarray) -> None:
        """Some chunks, bool [chunks], whose contigs are counted from `first_contig`."""
        columns = (np.full(chosen.size, species), first_contig + chunks.contig, *chunks[1:4])
        self._rows.frombytes(np.stack(columns, axis=1)[chosen].astype(np.int64).tobytes())
        self._file.write(chunks.n_runs[np.repeat(chosen, chunks.n_count)].tobytes())

    def arrays(self) -> dict[str, np.ndarray]:
        self._file.close()
        species, contig, start, length, n_count = np.array(self._rows, np.int64).reshape(-1, 5).T
        has_runs = self._path.stat().st_size > 0  # an empty file cannot be mapped
        n_runs = np.memmap(self._path, np.int32, "r") if has_runs else np.zeros(0, np.int32)
        columns: dict[str, np.ndarray] = {
            "species": species.astype(np.int32),
            "contig": contig.astype(np.int32),
            "start": start.copy(),
            "length": length.astype(np.int32),
            "n_offset": np.append(0, np.cumsum(n_count)),
            "n_runs": n_runs.reshape(-1, 2),
        }
        return {f"{self._split}_{name}": values for name, values in columns.items()}

    def remove(self) -> None:
        self._path.unlink()
