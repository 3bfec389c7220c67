"""What ArrayRecord holds of a chunk: a tf.train.Example of `chunks.features`, encoded by hand.

It is what protobuf's deterministic encoding gives, five times as fast: files of short records have a million. Each
feature is an entry of a map, in the order of the names, in which lengths precede what they are the length of:

    entry( key(name) value( bytes_list | int64_list( value ) ) )
"""

import functools
from collections.abc import Iterable, Iterator, Sequence

from vqdna_jax.genome.build.cutting import Chunks

_FIRST, _SECOND = b"\x0a", b"\x12"  # tags: the first and the second field of a message, what follows has a length
_BYTES_LIST, _INT64_LIST = b"\x0a", b"\x1a"  # tags of the two kinds of feature


def make_records(chunks: Chunks, rows: Iterable[int], species: str, contigs: Sequence[str]) -> Iterator[bytes]:
    """The records of some chunks; `contigs` are the names of all."""
    contents, species_entry = list(chunks.contents()), _entry("species", species.encode())
    places = list(zip(chunks.contig.tolist(), chunks.start.tolist(), chunks.length.tolist()))
    for row in rows:
        contig, start, length = places[row]
        packed, n_runs, soft_mask_runs = contents[row]
        entries = (
            _entry("bases", packed),
            _entry("contig", contigs[contig].encode()),
            _number_entry("length", length),
            _entry("n_runs", n_runs),
            _entry("soft_mask_runs", soft_mask_runs),
            species_entry,
            _number_entry("start", start),
        )
        example = b"".join(entries)
        yield _FIRST + varint(len(example)) + example


def _entry(name: str, value: bytes) -> bytes:
    return _head(name, len(value), _BYTES_LIST) + value


def _number_entry(name: str, value: int) -> bytes:
    content = varint(value)
    return _head(name, len(content), _INT64_LIST) + content


@functools.lru_cache(1 << 14)
def _head(name: str, size: int, kind: bytes) -> bytes:
    """What precedes a value of `size` bytes."""
    in_list = _FIRST + varint(size)
    in_feature = kind + varint(len(in_list) + size) + in_list
    key = _FIRST + varint(len(name)) + name.encode()
    in_entry = key + _SECOND + varint(len(in_feature) + size) + in_feature
    return _FIRST + varint(len(in_entry) + size) + in_entry


@functools.lru_cache(1 << 14)
def varint(value: int) -> bytes:
    """Seven bits per byte, the lowest first; all but the last byte have the highest bit set."""
    content = bytearray()
    while value > 127:
        content.append(value & 127 | 128)
        value >>= 7
    content.append(value)
    return bytes(content)
