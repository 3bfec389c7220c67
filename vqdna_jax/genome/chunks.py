"""What one corpus record holds: at most 65,536 consecutive bases of one contig, two bits each, with runs beside.

Chunks are large so that the cost of reading a record is paid once for many windows.
"""

from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from vqdna_jax.genome.alphabet import N, pack_bases, unpack_bases
from vqdna_jax.genome.runs import clip_runs, runs_of, spread_runs

CHUNK_BP = 65536


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
    n_runs, soft_mask_runs = (runs_of(flags).astype(np.int32) for flags in (bases == N, soft_mask))
    return Chunk(pack_bases(bases), bases.size, n_runs, soft_mask_runs)


def chunk_bases(chunk: Chunk) -> np.ndarray:
    """The bases of a chunk, uint8 [length], N as 4."""
    bases = unpack_bases(chunk.packed, chunk.length)
    bases[spread_runs(chunk.n_runs)] = N
    return bases


def clip_chunk(chunk: Chunk, start: int, stop: int) -> Chunk:
    """Bases [start, stop) of a chunk; start is a multiple of four, so that no byte is split."""
    if start % 4:
        raise ValueError(f"start {start} is not a multiple of 4")
    n_runs, soft_mask_runs = (clip_runs(runs, start, stop) for runs in (chunk.n_runs, chunk.soft_mask_runs))
    return Chunk(chunk.packed[start // 4 : -(-stop // 4)], stop - start, n_runs, soft_mask_runs)


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


SCHEMA = "vqdna-corpus/1"


SPLITS = ("train", "validation")
DATASET_NAME = "vqdna_corpus"
