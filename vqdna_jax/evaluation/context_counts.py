"""The counts of context tables, kept beside the corpus they were counted in: a gigabase takes two minutes to count."""

import json
import pathlib
import sys
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from vqdna_jax.errors import VqdnaError
from vqdna_jax.genome.corpus import Corpus
from vqdna_jax.runtime.files import replacing

KEPT_FROM = 20_000_000  # bases: fewer are counted as quickly as a file of all contexts is read
_ABOUT, _COUNTS = "about", "counts_{}"
Families = Sequence[tuple[int, ...]]


def kept(corpus: Corpus, split: str, families: Families) -> list[np.ndarray] | None:
    """int64 [4^n, 4] for each tuple of n offsets, as they were kept of this very corpus; None where they were not, or
    where the file is damaged."""
    try:
        with np.load(_file(corpus, split), allow_pickle=False) as stored:
            if stored[_ABOUT].item() != _about(corpus, split, families):
                return None
            return [stored[_COUNTS.format(i)].astype(np.int64) for i in range(len(families))]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # each array has its CRC in the file
        return None


def keep(corpus: Corpus, split: str, families: Families, counts: Sequence[np.ndarray]) -> None:
    """Writes them beside the corpus if it is large; a place that cannot be written is said, and nothing is lost."""
    if corpus.chunks(split).length.sum(dtype=np.int64) < KEPT_FROM:
        return
    arrays: dict[str, Any] = {_ABOUT: np.array(_about(corpus, split, families))}
    arrays |= {_COUNTS.format(i): x.astype(np.min_scalar_type(x.max())) for i, x in enumerate(counts)}
    try:
        with replacing(_file(corpus, split)) as new, new.open("wb") as file:
            np.savez(file, **arrays)
    except VqdnaError as error:
        print(f"warning: context counts are not kept for the next run: {error}", file=sys.stderr)


def _file(corpus: Corpus, split: str) -> pathlib.Path:
    return corpus.path / f"context_counts-{split}.npz"


def _about(corpus: Corpus, split: str, families: Families) -> str:
    """What they are of: another corpus at the same place has another digest."""
    return json.dumps([corpus.digest, split, *families])
