"""Sets that are made of peaks, as they lie on the disk."""

import csv
import pathlib
from typing import NamedTuple

from vqdna_jax.labels.peaks.build import Options, Prepared, prepare

WIDTH = 60
GENES = pathlib.Path(__file__).parent / "labels/peaks/chloroplast_genes.bed"


class Made(NamedTuple):
    """A set as it lies on the disk."""

    rows: dict[str, list[dict[str, str]]]  # by split
    prepared: Prepared
    path: pathlib.Path

    @property
    def all(self) -> list[dict[str, str]]:
        return [row for rows in self.rows.values() for row in rows]


def make(fasta, peaks, out, **options) -> Made:
    prepared = prepare(fasta, peaks, out, Options(**{"width": WIDTH} | options), progress=False)
    rows = {split: list(csv.DictReader(open(out / f"{split}.csv"))) for split in ("train", "dev", "test")}
    return Made(rows, prepared, out)
