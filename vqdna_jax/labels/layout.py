"""What the prepared sets have in common: how groups are dealt out to splits, and how a set is written."""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO, TypeVar

from vqdna_jax.errors import InputError, cannot_write
from vqdna_jax.labels.divide import SPLITS
from vqdna_jax.runtime.files import behind_links, check_directory

Group = TypeVar("Group")
SHARES = {"train": 0.8, "dev": 0.1, "test": 0.1}
PREPARED = "prepared.json"


def draw(*path: object) -> int:
    """64 random bits, a pure function of the path: the same on every machine and under every version of numpy."""
    return int.from_bytes(hashlib.blake2b(repr(path).encode(), digest_size=8).digest(), "little")


def deal(sizes: Mapping[Group, int], seed: object) -> dict[Group, str]:
    """A split for each group, so that the sum of sizes in a split comes close to its share in SHARES.

    Groups come in the order of a hash of the seed and the group, and each goes to the split that is least full. What
    would bring dev or test above twice their share goes to train.
    """
    total, filled, splits = sum(sizes.values()), dict.fromkeys(SHARES, 0), {}
    for group in sorted(sizes, key=lambda group: draw(seed, group)):
        room = [split for split in SHARES if filled[split] + sizes[group] <= 2 * SHARES[split] * total]
        split = min(room, key=lambda split: filled[split] / SHARES[split])
        filled[split] += sizes[group]
        splits[group] = split
    return splits


def check_vacant(out: str | os.PathLike) -> None:
    """Raises InputError where `out` is there and not an empty folder, or no folder can be made; follows links."""
    place = behind_links(out)
    try:
        vacant = not os.path.lexists(place) or (place.is_dir() and not any(place.iterdir()))
    except OSError as error:
        raise cannot_write(out, error) from error
    if not vacant:
        raise InputError(f"{out}: exists and is not an empty directory; choose another place or remove it")
    check_directory(out)


@contextlib.contextmanager
def writing(
    out: str | os.PathLike, columns: Sequence[str] = ("sequence", "label")
) -> Iterator[tuple[pathlib.Path, Mapping[str, TextIO]]]:
    """A folder that becomes `out` if all goes well and vanishes if not, and its CSV files by split, headers written.

    Raises as `check_vacant`, and StorageError on a full disk.
    """
    check_vacant(out)
    place = behind_links(out)
    staging = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        staging.mkdir(parents=True)
        with contextlib.ExitStack() as stack:
            files = {split: stack.enter_context(open(staging / f"{split}.csv", "w", newline="")) for split in SPLITS}
            for file in files.values():
                file.write(",".join(columns) + "\n")
            yield staging, files
        os.replace(staging, place)
    except OSError as error:
        raise cannot_write(out, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_summary(staging: pathlib.Path, summary: Mapping[str, Any]) -> None:
    """Puts how the set was made beside it."""
    (staging / PREPARED).write_text(json.dumps(summary, indent=1) + "\n")
