"""What one corpus record holds: at most 65,536 consecutive bases of one contig, two bits each, with runs beside.

Chunks are large so that the cost of reading a record is paid once for many windows.
"""

from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from vqdna_jax.genome.alphabet import N, pack_bases, unpack_bases

CHUNK_BP = 65536
NO_RUNS = np.zeros((0, 2), np.int32)


class Chunk(NamedTuple):
    """Runs are int32 (start, length) pairs [R, 2], ordered, relative to the chunk."""

    packed: np.ndarray  # uint8 [ceil(length / 4)]
    length: int
    n_runs: np.ndarray
    soft_mask_runs: np.ndarray


def features() -> tfds.features.FeaturesDict:
    """The TFDS schema; arrays are stored as bytes because plain integer tensors become slow lists of int64."""

    def runs():
        return tfds.features.Tensor(shape=(None, 2), dtype=np.int32, encoding="bytes")

    return tfds.features.FeaturesDict(
        {
            "bases": tfds.features.Tensor(shape=(None,), dtype=np.uint8, encoding="bytes"),
            "length": np.int64,
            "n_runs": runs(),
            "soft_mask_runs": runs(),
            "species": tfds.features.Text(),
            "contig": tfds.features.Text(),
            "start": np.int64,
        }
    )


def make_chunk(bases: np.ndarray, soft_mask: np.ndarray) -> Chunk:
    """uint8 bases [S] and bool mask [S] to a chunk."""
    return Chunk(pack_bases(bases), bases.size, runs_of(bases == N), runs_of(soft_mask))


def chunk_bases(chunk: Chunk) -> np.ndarray:
    """The bases of a chunk, uint8 [length], N as 4."""
    bases = unpack_bases(chunk.packed, chunk.length)
    bases[spread_runs(chunk.n_runs)] = N
    return bases


def clip_chunk(chunk: Chunk, start: int, stop: int) -> Chunk:
    """Bases [start, stop) of a chunk; start is a multiple of four, so that no byte is split."""
    if start % 4:
        raise ValueError(f"start {start} is not a multiple of 4")
    n_runs, soft_mask_runs = (_clip_runs(runs, start, stop) for runs in (chunk.n_runs, chunk.soft_mask_runs))
    return Chunk(chunk.packed[start // 4 : -(-stop // 4)], stop - start, n_runs, soft_mask_runs)


def runs_of(flags: np.ndarray) -> np.ndarray:
    """The runs of True in bool [S], int32 [R, 2]."""
    if not flags.any():
        return NO_RUNS
    edges = np.flatnonzero(np.diff(flags.view(np.int8), prepend=0, append=0)).astype(np.int32).reshape(-1, 2)
    return np.stack([edges[:, 0], edges[:, 1] - edges[:, 0]], axis=1)


def spread_runs(runs: np.ndarray, offset: np.ndarray | int = 0) -> np.ndarray:
    """Every position inside runs [R, 2], int64, each run moved by `offset` (one number or one a run)."""
    starts, lengths = runs[:, 0] + np.asarray(offset, np.int64), runs[:, 1].astype(np.int64)
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(lengths.sum())


def _clip_runs(runs: np.ndarray, start: int, stop: int) -> np.ndarray:
    begin = np.maximum(runs[:, 0], start)
    end = np.minimum(runs[:, 0] + runs[:, 1], stop)
    return np.stack([begin - start, end - begin], axis=1)[end > begin].astype(np.int32)


def make_record(chunk: Chunk, species: str, contig: str, start: int) -> bytes:
    """A chunk and its place as ArrayRecord holds it: what TFDS would write for `features`, always in the same order."""
    values = {
        "bases": chunk.packed.tobytes(),
        "n_runs": chunk.n_runs.tobytes(),
        "soft_mask_runs": chunk.soft_mask_runs.tobytes(),
        "species": species.encode(),
        "contig": contig.encode(),
        "length": chunk.length,
        "start": start,
    }
    example = tf_example_pb2.Example()
    for name, value in values.items():
        feature = example.features.feature[name]
        (feature.bytes_list if isinstance(value, bytes) else feature.int64_list).value.append(value)
    return example.SerializeToString(deterministic=True)


def parse_chunk(record: bytes) -> Chunk:
    """The chunk of a record, ten times faster than decoding every feature through TFDS."""
    feature = tf_example_pb2.Example.FromString(record).features.feature

    def stored(name, dtype):
        return np.frombuffer(feature[name].bytes_list.value[0], dtype)

    return Chunk(
        packed=stored("bases", np.uint8),
        length=feature["length"].int64_list.value[0],
        n_runs=stored("n_runs", np.int32).reshape(-1, 2),
        soft_mask_runs=stored("soft_mask_runs", np.int32).reshape(-1, 2),
    )
