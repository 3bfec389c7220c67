"""The ArrayRecord shards of a split, named as TFDS names them.

The shards are written here, record by record: TFDS's builders sort all records in memory first, and their bytes
differ from one run to the next. The same records give the same files.
"""

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter

from vqdna_jax.genome.chunks import DATASET_NAME

RECORDS_PER_SHARD = 8192  # about 128 MiB, half a gigabase
_SHARD_NAME = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}"  # the number of shards is not known in advance


def shard_name(split: str, index: int) -> str:
    return _template(split, ".").sharded_filepath(shard_index=index, num_shards=None).name


def _template(split: str, directory: str | os.PathLike) -> tfds.core.ShardedFileTemplate:
    return tfds.core.ShardedFileTemplate(
        dataset_name=DATASET_NAME,
        data_dir=directory,
        split=split,
        filetype_suffix="array_record",
        template=_SHARD_NAME,
    )


class Shard:
    """One file of records. Raises OSError when it cannot be written."""

    def __init__(self, path: str | os.PathLike):
        self.records = self.bytes = 0  # bytes of the records, as TFDS counts them
        with _failures_as_os_errors():
            self._writer = ArrayRecordWriter(os.fspath(path), "group_size:1")  # one record per group for random access

    def add(self, records: Iterable[bytes]) -> None:
        """All are in memory at once."""
        records = list(records)
        with _failures_as_os_errors():
            for record in records:
                self._writer.write(record)
        self.records += len(records)
        self.bytes += sum(map(len, records))

    def close(self) -> None:
        with _failures_as_os_errors():
            self._writer.close()


@contextlib.contextmanager
def _failures_as_os_errors() -> Iterator[None]:
    """ArrayRecord reports a full disk as RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(" ".join(str(error).split())) from error


class SplitShards:
    """All shards of a split, written one after the other."""

    def __init__(self, split: str, directory: Path):
        self._split, self._directory = split, directory
        self._shards: list[Shard] = []

    def add(self, records: Iterator[bytes]) -> None:
        for first in records:
            if not self._shards or self._shards[-1].records == RECORDS_PER_SHARD:
                self._close_last()
                self._shards.append(Shard(self._directory / shard_name(self._split, len(self._shards))))
            room = RECORDS_PER_SHARD - self._shards[-1].records
            self._shards[-1].add(itertools.chain([first], itertools.islice(records, room - 1)))

    def _close_last(self) -> None:
        if self._shards:
            self._shards[-1].close()

    def close(self) -> tfds.core.SplitInfo:
        self._close_last()
        sizes = [shard.records for shard in self._shards], sum(shard.bytes for shard in self._shards)
        return split_info(self._split, self._directory, *sizes)


class WrittenShards:
    """Stands for the shards of a split that others have written: takes in what is in them and writes nothing."""

    def __init__(self, split: str, directory: Path, shard_lengths: list[int], record_bytes: int):
        self._info = split_info(split, directory, shard_lengths, record_bytes)

    def add(self, records: Iterator[bytes]) -> None:
        pass

    def close(self) -> tfds.core.SplitInfo:
        return self._info


def split_info(split: str, directory: Path, shard_lengths: list[int], record_bytes: int) -> tfds.core.SplitInfo:
    return tfds.core.SplitInfo(
        name=split,
        shard_lengths=shard_lengths,
        num_bytes=record_bytes,
        filename_template=_template(split, directory),
    )
