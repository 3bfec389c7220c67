"""The records of a corpus are what protobuf itself would write."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_datasets.proto import tf_example_pb2

from vqdna_jax.genome.alphabet import pack_bases
from vqdna_jax.genome.build.cutting import Chunks
from vqdna_jax.genome.build.records import make_records
from vqdna_jax.genome.chunks import features, parse_chunk


def runs_strategy():
    return st.lists(st.tuples(st.integers(0, 65536), st.integers(1, 65536)), max_size=400)


def as_protobuf(values: dict[str, bytes | int]) -> bytes:
    example = tf_example_pb2.Example()
    for name, value in values.items():
        feature = example.features.feature[name]
        (feature.bytes_list if isinstance(value, bytes) else feature.int64_list).value.append(value)
    return example.SerializeToString(deterministic=True)


@given(
    st.sampled_from([1, 2, 4, 5, 60, 507, 508, 509, 65533, 65536]),
    st.one_of(st.integers(0, 300), st.integers(0, 2**62)),
    runs_strategy(),
    runs_strategy(),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200),
    st.text("abcä", min_size=1, max_size=130),
)
@settings(max_examples=100, deadline=None)
def test_encoding_by_hand_is_that_of_protobuf(length, start, n_runs, soft_mask_runs, contig, species):
    packed = pack_bases(np.arange(length, dtype=np.uint8) % 4)
    runs = [np.array(some, np.int32).reshape(-1, 2) for some in (n_runs, soft_mask_runs)]
    counts = [np.array([len(some)]) for some in runs]
    chunks = Chunks(np.array([1]), np.array([start]), np.array([length]), *counts, packed, *runs)
    (record,) = make_records(chunks, chunks.contents(), [0], species, ["another", contig])
    values = {
        "bases": packed.tobytes(),
        "length": length,
        "start": start,
        "species": species.encode(),
        "contig": contig.encode(),
        "n_runs": runs[0].tobytes(),
        "soft_mask_runs": runs[1].tobytes(),
    }
    assert record == as_protobuf(values) and set(values) == set(features())
    chunk = parse_chunk(record)
    assert chunk.length == length and chunk.packed.tobytes() == values["bases"]
    assert chunk.n_runs.tolist() == runs[0].tolist() and chunk.soft_mask_runs.tolist() == runs[1].tolist()
