"""Files of embeddings, written from vectors that lie on the disk already, and read. The suffix of the name says which:

.npy        the vectors alone, float32 [records, D]; OUT.json beside it has what meta.json says, and ids, lengths,
            names of regions and, of pool "none", offsets
.parquet    a row for each vector: id, of regions with names name, length (bases of the record), of pool "none"
            start, embedding (D floats); the file's metadata has what meta.json says, under "vqdna"
any other   schema vqdna-embeddings/1, an uncompressed zip that `numpy.load(path, allow_pickle=False)` opens:

    embeddings.npy   float32 [records, D]; of pool "none" [codes, D], all codes of all records one after another
    ids.npy          text [records], in the order of the files
    names.npy        what a BED file calls its regions, text [records]; only where it calls one something
    lengths.npy      bases of each record, int64 [records]
    offsets.npy      of "none": int64 [records + 1], vectors [offsets[i], offsets[i + 1]) are of record i
    starts.npy       of "none": int64 [codes], a vector stands for bases [start, min(start + bases_per_code, length))
    meta.json        schema, pretrained_digest, pool, layer, bases_per_code, versions; of a fine-tuned model also
                     finetuned_digest

Where tokens do not each stand for as many bases, as k-mers do not, bases_per_code is null.
"""

import io
import json
import os
import pathlib
import zipfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from vqdna_jax.errors import InputError, first_line, shown
from vqdna_jax.runtime.files import read_json, replacing, sync

SCHEMA = "vqdna-embeddings/1"
BLOCK_BYTES = 1 << 20
ROW_GROUP_BYTES = 1 << 26  # of vectors, in Parquet
OTHER_SUFFIXES = (
    ".csv",
    ".tsv",
    ".txt",
    ".json",
    ".h5",
    ".hdf5",
    ".pt",
    ".pth",
    ".safetensors",
    ".pkl",
    ".feather",
    ".arrow",
)


class Embeddings(NamedTuple):
    """What is written.

    Attributes:
        ids, lengths: of the records. width: D.
        meta: what meta.json says.
        vectors: (bytes) -> the vectors' bytes, float32, in pieces of so many.
        offsets, starts: of pool "none", else None; `starts` come in pieces.
        names: of regions, else None.
    """

    ids: list[str]
    lengths: np.ndarray
    width: int
    meta: dict[str, Any]
    vectors: Callable[[int], Iterator[bytes]]
    offsets: np.ndarray | None
    starts: Iterator[np.ndarray] | None
    names: list[str] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Of all vectors."""
        return len(self.ids) if self.offsets is None else int(self.offsets[-1]), self.width


def outputs(out: str | os.PathLike) -> list[str]:
    """The files that `write` writes. Raises InputError for a suffix of something else."""
    suffix = _suffix(out)
    if suffix in OTHER_SUFFIXES:
        kinds = ".npy, .parquet, or, under any name that says nothing else, a zip of arrays"
        raise InputError(f"{out}: embeddings are not written as {suffix}; expected {kinds}; give it another suffix")
    return [os.fspath(out), f"{os.fspath(out)}.json"] if suffix == ".npy" else [os.fspath(out)]


def write(new: pathlib.Path, out: pathlib.Path, found: Embeddings) -> None:
    """Writes the file `new` that is to be `out`, as its suffix asks for, and what lies beside it. Raises OSError."""
    if _suffix(out) == ".npy":
        _write_npy(new, found)
        _write_records(out.with_name(f"{out.name}.json"), found)
    elif _suffix(out) == ".parquet":
        _write_parquet(new, found)
    else:
        _write_zip(new, found)


class Vectors(NamedTuple):
    """What a file of embeddings holds, a vector for each record: f32 [records, D], and the ids of the records."""

    vectors_BxD: np.ndarray
    ids: list[str]


def read(path: str | os.PathLike) -> Vectors:
    """Raises InputError: it is no file of embeddings, damaged, or of pool "none"."""
    readers = {".npy": _read_npy, ".parquet": _read_parquet}
    try:
        if not pathlib.Path(path).is_file():
            raise ValueError("no such file")
        vectors_BxD, ids = readers.get(_suffix(path), _read_zip)(path)
        if vectors_BxD.ndim != 2 or vectors_BxD.dtype != np.float32 or not all(isinstance(id, str) for id in ids):
            raise ValueError(f"vectors {vectors_BxD.dtype}{list(vectors_BxD.shape)}")
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        told = f"{shown(path)}: cannot be read as embeddings ({first_line(error)})"
        raise InputError(f"{told}; expected a file written by vqdna embed") from error
    if len(ids) != len(vectors_BxD):
        found = f"{len(vectors_BxD):,} vectors of {len(ids):,} sequences"
        raise InputError(f"{path}: {found}; expected one of each; embed with another --pool than none")
    return Vectors(vectors_BxD, ids)


def _read_npy(path: str | os.PathLike) -> tuple[np.ndarray, list[str]]:
    vectors_BxD = np.load(path, allow_pickle=False)
    return vectors_BxD, read_json(pathlib.Path(f"{os.fspath(path)}.json"), "ids, beside the vectors")["ids"]


def _read_zip(path: str | os.PathLike) -> tuple[np.ndarray, list[str]]:
    with zipfile.ZipFile(path) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("its members are packed, and may be of any size")
        arrays = [
            np.load(io.BytesIO(archive.read(f"{name}.npy")), allow_pickle=False) for name in ("embeddings", "ids")
        ]
    return arrays[0], arrays[1].tolist()


def _read_parquet(path: str | os.PathLike) -> tuple[np.ndarray, list[str]]:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    column = table.column("embedding").combine_chunks()
    vectors_BxD = column.flatten().to_numpy().reshape(len(column), -1)
    return vectors_BxD, [] if "start" in table.column_names else table.column("id").to_pylist()


def _suffix(out: str | os.PathLike) -> str:
    return pathlib.Path(out).suffix.lower()


def _write_zip(new: pathlib.Path, found: Embeddings) -> None:
    members = [("embeddings", "<f4", found.shape, found.vectors(BLOCK_BYTES)), _texts("ids", found.ids)]
    if found.names is not None:
        members.append(_texts("names", found.names))
    members.append(("lengths", "<i8", found.lengths.shape, [found.lengths]))
    if found.offsets is not None:
        members.append(("offsets", "<i8", found.offsets.shape, [found.offsets]))
    if found.starts is not None:
        members.append(("starts", "<i8", found.shape[:1], found.starts))
    with open(new, "wb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for member in members:
                _write_member(archive, *member)
            archive.writestr(zipfile.ZipInfo("meta.json"), json.dumps(found.meta))
        sync(file)


def _texts(name: str, texts: list[str]) -> tuple[str, str, tuple, Iterable]:
    array = np.array(texts)
    return name, array.dtype.str, array.shape, [array]


def _write_member(archive: zipfile.ZipFile, name: str, dtype: str, shape: tuple, pieces: Iterable) -> None:
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, {"descr": dtype, "fortran_order": False, "shape": shape})
        for piece in pieces:
            member.write(piece)


def _write_npy(new: pathlib.Path, found: Embeddings) -> None:
    with open(new, "wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": found.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for piece in found.vectors(BLOCK_BYTES):
            file.write(piece)
        sync(file)


def _write_records(path: pathlib.Path, found: Embeddings) -> None:
    beside = found.meta | {"ids": found.ids, "lengths": found.lengths.tolist()}
    if found.names is not None:
        beside["names"] = found.names
    if found.offsets is not None:
        beside["offsets"] = found.offsets.tolist()
    with replacing(path) as new, open(new, "w") as file:
        json.dump(beside, file)
        sync(file)


def _write_parquet(new: pathlib.Path, found: Embeddings) -> None:
    import pyarrow  # takes a third of a second
    import pyarrow.parquet

    texts = {"id": found.ids} | ({} if found.names is None else {"name": found.names})
    fields = [*(pyarrow.field(name, pyarrow.string()) for name in texts), pyarrow.field("length", pyarrow.int64())]
    if found.starts is not None:
        fields.append(pyarrow.field("start", pyarrow.int64()))
    fields.append(pyarrow.field("embedding", pyarrow.list_(pyarrow.float32(), found.width)))
    schema = pyarrow.schema(fields, {"vqdna": json.dumps(found.meta)})
    of_records = [pyarrow.array(column, pyarrow.string()) for column in texts.values()]
    with open(new, "wb") as file:
        with pyarrow.parquet.ParquetWriter(file, schema) as writer:
            for records, starts, vectors in _row_groups(found):
                columns = [column.take(pyarrow.array(records)) for column in of_records]
                columns.append(pyarrow.array(found.lengths[records]))
                columns += [] if starts is None else [pyarrow.array(starts)]
                flat = pyarrow.array(vectors)
                columns.append(pyarrow.FixedSizeListArray.from_arrays(flat, found.width))
                writer.write_table(pyarrow.Table.from_arrays(columns, schema=schema))
        sync(file)


def _row_groups(found: Embeddings) -> Iterator[tuple[np.ndarray, np.ndarray | None, np.ndarray]]:
    """(record of each vector, its start where there are any, the vectors one after another)"""
    rows = max(1, ROW_GROUP_BYTES // (4 * found.width))
    starts = None if found.starts is None else _blocks(found.starts, rows)
    first = 0
    for block in found.vectors(rows * 4 * found.width):
        vectors = np.frombuffer(block, "<f4")
        at = np.arange(first, first + vectors.size // found.width)
        records = at if found.offsets is None else np.searchsorted(found.offsets, at, side="right") - 1
        yield records, None if starts is None else next(starts), vectors
        first += at.size


def _blocks(pieces: Iterator[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The same numbers in arrays of `size`, the last one of what is left."""
    held, count = list[np.ndarray](), 0
    for piece in pieces:
        held.append(piece)
        count += piece.size
        while count >= size:
            joined = np.concatenate(held)
            yield joined[:size]
            held, count = [joined[size:]], count - size
    if count:
        yield np.concatenate(held)
