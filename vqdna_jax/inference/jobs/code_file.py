"""The file of codes, schema vqdna-codes/1: an uncompressed zip that `numpy.load(path, allow_pickle=False)` opens.

    meta.json               schema, tokenizer_digest, codebook_sizes, bases_per_code, and for each record
                            {id, description, length, codes, mismatches, ambiguous}, and the header if id, a blank and
                            description do not give it
    0/codes.npy             of record 0: codes [L, N], uint16 (uint32 for codebooks over 65,536)
    0/n_runs.npy            (start, length) of runs of unknown bases, int64 [R, 2]
    0/soft_mask_runs.npy    the same of lower case
    0/mismatches.npy        positions where decoding gives another base than the original had, int64 [M]

Positions are 0-based; code l of a record stands for its bases [l R, (l + 1) R) with R = bases_per_code. The last three
members are left out where they would be empty, as is codes.npy of an empty record.
"""

import json
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from vqdna_jax.errors import InputError

SCHEMA = "vqdna-codes/1"
_NO_RUNS, _NO_POSITIONS = np.zeros((0, 2), np.int64), np.zeros(0, np.int64)
_DAMAGE = (zipfile.BadZipFile, zlib.error, ValueError, KeyError, TypeError, EOFError, RuntimeError)


class CodeRecord(NamedTuple):
    """One sequence of a code file."""

    id: str
    description: str
    length: int
    codes_LxN: np.ndarray
    n_runs: np.ndarray
    soft_mask_runs: np.ndarray
    mismatches: np.ndarray
    ambiguous: dict[str, int]  # IUPAC letters other than N that were read as N
    header: str  # the line of the FASTA file without '>'


class RecordInfo(NamedTuple):
    """What meta.json says of a record; `codes` and `mismatches` are counts."""

    id: str
    description: str
    length: int
    codes: int
    mismatches: int
    ambiguous: dict[str, int]
    header: str


class CodeFileWriter:
    """Writes record by record; the file is whole only after the `with` block has ended without an error."""

    def __init__(
        self, path: str | os.PathLike, tokenizer_digest: str, codebook_sizes: Sequence[int], bases_per_code: int
    ):
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED)
        self._meta: dict[str, Any] = {
            "schema": SCHEMA,
            "tokenizer_digest": tokenizer_digest,
            "codebook_sizes": list(codebook_sizes),
            "bases_per_code": bases_per_code,
        }
        self._records: list[dict[str, Any]] = []

    def write(self, record: CodeRecord) -> None:
        number = len(self._records)
        self._write_array(f"{number}/codes", record.codes_LxN)
        for name in ("n_runs", "soft_mask_runs", "mismatches"):
            self._write_array(f"{number}/{name}", getattr(record, name))
        counts = len(record.codes_LxN), len(record.mismatches)
        info = RecordInfo(
            record.id, record.description, record.length, *counts, record.ambiguous, record.header
        )._asdict()
        if info["header"] == _plain_header(info):
            del info["header"]
        self._records.append(info)

    def _write_array(self, name: str, array: np.ndarray) -> None:
        if array.size:
            with self._zip.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)

    def __enter__(self) -> "CodeFileWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._zip:
            if kind is None:
                self._zip.writestr(zipfile.ZipInfo("meta.json"), json.dumps(self._meta | {"records": self._records}))


class CodeFile:
    """A code file opened for reading, one record in memory at a time; iterating gives `RecordInfo`s in order.

        with open_codes("genome.codes") as file:
            codes_LxN = file.record("chr1")  # code l stands for bases [l * file.bases_per_code, (l + 1) * ...)

    Attributes: path, tokenizer_digest, codebook_sizes, bases_per_code. Raises InputError on a damaged or foreign file.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}; expected a file written by vqdna encode") from error
        except _DAMAGE as error:
            raise InputError(f"{path}: not a code file, or cut short; expected one written by vqdna encode") from error
        try:
            self._read_meta()
        except InputError:
            self.close()
            raise
        except _DAMAGE as error:
            self.close()
            raise self._damaged("meta.json", error) from error

    def record(self, id: str) -> np.ndarray:
        """Codes [L, N] of one record. Raises InputError for an unknown id or a damaged record."""
        info = self._find(id)[1]
        empty = np.zeros((0, len(self.codebook_sizes)), np.uint16)
        return self._read(id, "codes", empty, (info.codes, len(self.codebook_sizes)))

    def n_runs(self, id: str) -> np.ndarray:
        """(start, length) of the runs of unknown bases, int64 [R, 2]."""
        return self._read(id, "n_runs", _NO_RUNS, (None, 2))

    def soft_mask_runs(self, id: str) -> np.ndarray:
        """(start, length) of the runs of lower case, int64 [R, 2]."""
        return self._read(id, "soft_mask_runs", _NO_RUNS, (None, 2))

    def mismatches(self, id: str) -> np.ndarray:
        """Positions that decoding changes, int64 [M]."""
        return self._read(id, "mismatches", _NO_POSITIONS, (self._find(id)[1].mismatches,))

    def __iter__(self) -> Iterator[RecordInfo]:
        return iter(info for _, info in self._records.values())

    def __len__(self) -> int:
        return len(self._records)

    def close(self) -> None:
        """Lets go of the file, as leaving `with` does."""
        self._zip.close()

    def __enter__(self) -> "CodeFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_meta(self) -> None:
        members = self._zip.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("it is packed, and may be of any size")  # vqdna encode packs nothing
        if min(member.header_offset for member in members):
            raise ValueError("something is before it")
        meta = json.loads(self._zip.read("meta.json"))
        if not isinstance(meta, dict):
            raise TypeError("expected a JSON object")
        if meta.get("schema") != SCHEMA:
            raise InputError(f"{self.path}: schema is {meta.get('schema')!r}, expected {SCHEMA!r}; encode again")
        self.tokenizer_digest = str(meta["tokenizer_digest"])
        self.codebook_sizes = tuple(int(size) for size in meta["codebook_sizes"])
        self.bases_per_code = int(meta["bases_per_code"])
        if self.bases_per_code < 1:
            raise ValueError(f"{self.bases_per_code} bases per code")
        infos = [RecordInfo(**{"header": _plain_header(info)} | info) for info in meta["records"]]
        self._records = {info.id: (number, info) for number, info in enumerate(infos)}
        for _, info in self._records.values():
            if type(info.mismatches) is not int:
                raise ValueError(f"record {info.id}: {info.mismatches!r} mismatches")
            if -(-info.length // self.bases_per_code) != info.codes:
                raise ValueError(f"record {info.id}: {info.codes} codes for {info.length} bases")

    def _find(self, id: str) -> tuple[int, RecordInfo]:
        if id not in self._records:
            first = next(iter(self._records), None)
            raise InputError(f"{self.path}: no record {id!r}; the first of its {len(self)} is {first!r}")
        return self._records[id]

    def _read(self, id: str, name: str, empty: np.ndarray, shape: tuple[int | None, ...]) -> np.ndarray:
        member = f"{self._find(id)[0]}/{name}.npy"
        array = empty
        try:
            if member in self._zip.NameToInfo:
                with self._zip.open(member) as file:
                    array = np.lib.format.read_array(file, allow_pickle=False)
        except (*_DAMAGE, OSError) as error:
            raise self._damaged(member, error) from error
        fits = len(shape) == array.ndim and all(want in (None, have) for want, have in zip(shape, array.shape))
        if array.dtype.kind not in "iu" or not fits:
            raise self._damaged(member, f"unexpected {array.dtype}{list(array.shape)}")
        return array

    def _damaged(self, member: str, why: object) -> InputError:
        reason = " ".join(str(why).split())
        return InputError(f"{self.path}: {member} is damaged ({reason}); encode the sequences again")


def _plain_header(info: dict[str, Any]) -> str:
    return f"{info['id']} {info['description']}".rstrip()


def open_codes(path: str | os.PathLike) -> CodeFile:
    """Opens a file of codes for reading. Raises InputError when it is not one, or damaged."""
    return CodeFile(path)
