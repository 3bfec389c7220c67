"""FASTA files of a few lines, and what is read of them."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from vqdna_jax.errors import InputError
from vqdna_jax.genome import fasta, streams
from vqdna_jax.genome.alphabet import to_text


def write(tmp_path, data: bytes, name="x.fa") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


def read_text(path, **kwargs) -> list[tuple[str, str]]:
    """(id, sequence in the case of the file) of every record."""
    records = []
    for record in fasta.load_fasta(path, **kwargs):
        letters = np.frombuffer(to_text(record.bases).encode(), np.uint8)
        records.append((record.id, (letters | record.soft_mask.astype(np.uint8) << 5).tobytes().decode()))
    return records


def fails_at(path, line: int, *words: str, **kwargs):
    with pytest.raises(InputError) as caught:
        list(fasta.FastaReader(path, **kwargs))
    message = str(caught.value)
    assert message.startswith(f"{path}:{line}: ") and "\n" not in message, message
    for word in words:
        assert word in message, message


def bgzip(data: bytes, end_marker=True) -> bytes:
    blocks = []
    for at in range(0, len(data), 100):
        deflate = zlib.compressobj(6, zlib.DEFLATED, -15)
        body = deflate.compress(data[at : at + 100]) + deflate.flush()
        header = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x06\0BC\x02\0" + struct.pack("<H", len(body) + 25)
        blocks.append(header + body + struct.pack("<II", zlib.crc32(data[at : at + 100]), len(data[at : at + 100])))
    return b"".join(blocks) + (streams._BGZF_END if end_marker else b"")
