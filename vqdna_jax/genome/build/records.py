"""What ArrayRecord holds of a chunk: a tf.train.Example of `chunks.features`, encoded by hand.

It is what protobuf's deterministic encoding gives, ten times as fast: files of short records have a million. Each
feature is an entry of a map, in the order of the names, and every level has its length before it:

    entry( key(name) value( bytes_list | int64_list( value ) ) )
"""

import functools
from collections.abc import Iterable, Iterator, Sequence

from vqdna_jax.genome.build.cutting import Chunks

_FIRST, _SECOND = b"\x0a", b"\x12"  # tags: the first and the second field of a message; a length follows
_BYTES_LIST, _INT64_LIST = b"\x0a", b"\x1a"  # tags of the two kinds of feature


def make_records(
    chunks: Chunks,
    contents: Sequence[tuple[bytes, bytes, bytes]],
    rows: Iterable[int],
    species: str,
    contigs: Sequence[str],
) -> Iterator[bytes]:
    """The records of some chunks; `contents` are those of all, `contigs` the names of all of the species."""
    places = list(zip(chunks.contig.tolist(), chunks.start.tolist(), chunks.length.tolist()))
    for row in rows:
        number, start, length = places[row]
        packed, n_runs, soft_mask_runs = contents[row]
        contig = contigs[number].encode()
        sizes = len(packed), len(contig), len(n_runs), len(soft_mask_runs)
        before, to_contig, to_n_runs, to_soft_mask, after = _frame(*sizes, length, start, species)
        yield b"".join((before, packed, to_contig, contig, to_n_runs, n_runs, to_soft_mask, soft_mask_runs, after))


@functools.lru_cache(1 << 14)
def _frame(
    bases: int, contig: int, n_runs: int, soft_mask_runs: int, length: int, start: int, species: str
) -> tuple[bytes, bytes, bytes, bytes, bytes]:
    """What stands before, between and after values of so many bytes: most short records share it."""
    heads = (
        _head("bases", bases),
        _head("contig", contig),
        _number("length", length) + _head("n_runs", n_runs),
        _head("soft_mask_runs", soft_mask_runs),
        _head("species", len(species.encode())) + species.encode() + _number("start", start),
    )
    size = sum(map(len, heads)) + bases + contig + n_runs + soft_mask_runs
    return _FIRST + _varint(size) + heads[0], *heads[1:]


def _number(name: str, value: int) -> bytes:
    content = _varint(value)
    return _head(name, len(content), _INT64_LIST) + content


def _head(name: str, size: int, kind: bytes = _BYTES_LIST) -> bytes:
    """What precedes a value of `size` bytes."""
    in_list = _FIRST + _varint(size)
    in_feature = kind + _varint(len(in_list) + size) + in_list
    key = _FIRST + _varint(len(name)) + name.encode()
    in_entry = key + _SECOND + _varint(len(in_feature) + size) + in_feature
    return _FIRST + _varint(len(in_entry) + size) + in_entry


def _varint(value: int) -> bytes:
    """Seven bits per byte, the lowest first; all but the last byte have the highest bit set."""
    content = bytearray()
    while value > 127:
        content.append(value & 127 | 128)
        value >>= 7
    content.append(value)
    return bytes(content)
