"""What one corpus record holds: at most 65,536 consecutive bases of one contig, two bits each, with runs beside.

Chunks are large so that the cost of reading a record is paid once for many windows.
"""

from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from vqdna_jax.genome.alphabet import N, unpack_bases
from vqdna_jax.genome.runs import spread_runs

SCHEMA = "vqdna-corpus/1"
DATASET_NAME = "vqdna_corpus"
SPLITS = ("train", "validation")
CHUNK_BP = 65536


class Chunk(NamedTuple):
    """Runs are int32 (start, length) pairs [runs, 2], ordered, relative to the chunk."""

    packed: np.ndarray  # uint8 [ceil(length / 4)]
    length: int
    n_runs: np.ndarray
    soft_mask_runs: np.ndarray


def features() -> tfds.features.FeaturesDict:
    """The TFDS schema; arrays are stored as bytes because plain integer tensors become slow lists of int64."""

    def runs() -> tfds.features.Tensor:
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


def chunk_bases(chunk: Chunk) -> np.ndarray:
    """The bases of a chunk, uint8 [length], N as 4."""
    bases = unpack_bases(chunk.packed, chunk.length)
    bases[spread_runs(chunk.n_runs)] = N
    return bases


def parse_chunk(record: bytes) -> Chunk:
    """The chunk of a record, ten times faster than decoding every feature through TFDS."""
    feature = tf_example_pb2.Example.FromString(record).features.feature

    def stored(name: str, dtype: type[np.generic]) -> np.ndarray:
        return np.frombuffer(feature[name].bytes_list.value[0], dtype)

    return Chunk(
        packed=stored("bases", np.uint8),
        length=feature["length"].int64_list.value[0],
        n_runs=stored("n_runs", np.int32).reshape(-1, 2),
        soft_mask_runs=stored("soft_mask_runs", np.int32).reshape(-1, 2),
    )
