"""A picture of embeddings (`vqdna map`): their first two principal components, and how far neighbours are alike."""

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from vqdna_jax.errors import InputError
from vqdna_jax.evaluation import plots
from vqdna_jax.inference.jobs import embedding_files
from vqdna_jax.inference.jobs.sequence_rows import columns_of, is_gzip
from vqdna_jax.labels import header as headers
from vqdna_jax.labels import sets
from vqdna_jax.labels.csv_rows import Row, read_rows
from vqdna_jax.labels.header import BLANKS
from vqdna_jax.runtime.files import check_output, replacing

OTHER_SUFFIXES = (".svg", ".pdf", ".ps", ".eps", ".jpg", ".jpeg", ".gif", ".tif", ".tiff", ".webp", ".bmp", ".html")
MOST_NEIGHBOURS = 5000  # rows whose neighbours are looked for


def draw_map(
    files: Sequence[str | os.PathLike], out: str | os.PathLike, table: str | os.PathLike | None = None
) -> dict[str, Any]:
    """Writes the PNG `out`: a point for each sequence, coloured by its label, or by the file that it is from.

    Args:
        files: written by `vqdna embed`, with vectors of one width.
        table: what was embedded, with a column `label`; a labels.txt beside it has the names of numbers.

    Returns: points, width, labels {name: points}, shares (of the variance, of each axis), alike (share of the sequences
    whose nearest neighbour has their label; None of one label), chance (the same of any other sequence), out.

    Raises:
        InputError: fewer than three vectors, or of several widths; a sequence that the table has not; `out` is
            another kind of picture, or an input. StorageError: it cannot be written.
    """
    if (suffix := Path(out).suffix.lower()) in OTHER_SUFFIXES:
        raise InputError(f"{out}: the map is a PNG, and not written as {suffix}; give it the suffix .png")
    check_output(out, [*files, *([table] if table else [])])
    found = [embedding_files.read(file) for file in files]
    widths = {vectors.vectors_BxD.shape[1]: file for vectors, file in zip(found, files)}
    if len(widths) > 1:
        listed = ", ".join(f"{width} in {file}" for width, file in widths.items())
        raise InputError(f"{files[0]}: vectors of several widths, {listed}; embed all with one model and --pool")
    vectors_BxD = np.concatenate([vectors.vectors_BxD for vectors in found])
    if len(vectors_BxD) < 3:
        raise InputError(f"{files[0]}: {len(vectors_BxD)} vectors; a map needs three or more")
    ids = [id for vectors in found for id in vectors.ids]
    labels = labels_of(table, ids) if table else _names_of(files, [len(vectors.ids) for vectors in found])
    points_Bx2, shares = project(vectors_BxD)
    alike, chance = neighbours_alike(vectors_BxD, labels)
    title = f"{len(ids):,} sequences"
    if alike is not None:
        title += f"; the nearest neighbour is of the same label: {alike:.0%} (any other: {chance:.0%})"
    with replacing(out) as new:
        plots.plot_map(points_Bx2, labels, shares, title, new)
    counts = dict(sorted(Counter(labels).items()))
    told = {"points": len(ids), "width": vectors_BxD.shape[1], "labels": counts, "shares": shares}
    return told | {"alike": alike, "chance": chance, "out": os.fspath(out)}


def project(vectors_BxD: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """The first two principal components [B, 2], and their shares of the variance."""
    pca = PCA(2, random_state=0)
    with np.errstate(invalid="ignore"):  # vectors that are all alike have no variance to share
        points_Bx2 = pca.fit_transform(vectors_BxD.astype(np.float64))
    return points_Bx2, np.nan_to_num(pca.explained_variance_ratio_).tolist()


def neighbours_alike(vectors_BxD: np.ndarray, labels: Sequence[str]) -> tuple[float | None, float]:
    """Of at most MOST_NEIGHBOURS sequences, the share whose nearest other one (Euclid, all D) has the same label, and
    the share that any other one would give. None where there is one label."""
    names, numbers_B = np.unique(labels, return_inverse=True)
    counts = np.bincount(numbers_B)
    chance = float((counts * (counts - 1)).sum() / (len(labels) * (len(labels) - 1)))
    if len(names) == 1:
        return None, chance
    rows = np.random.default_rng(0).permutation(len(labels))[:MOST_NEIGHBOURS]
    _, nearest_Bx2 = NearestNeighbors(n_neighbors=2).fit(vectors_BxD).kneighbors(vectors_BxD[rows])
    other_B = np.where(nearest_Bx2[:, 0] == rows, nearest_Bx2[:, 1], nearest_Bx2[:, 0])
    return float((numbers_B[other_B] == numbers_B[rows]).mean()), chance


def labels_of(table: str | os.PathLike, ids: Sequence[str]) -> list[str]:
    """Labels of embedded rows, as a table has them. Raises InputError: it has no column `label`, or lacks a row."""
    with contextlib.closing(read_rows(table, is_gzip(table))) as rows:  # whatever is wrong in it
        found = _labels_by_id(table, rows)
    if missing := [id for id in ids if id not in found]:
        raise InputError(f"{table}: has no row {missing[0]!r}, which the embeddings have; name the table they are of")
    return [found[id] for id in ids]


def _labels_by_id(table: str | os.PathLike, rows: Iterator[Row]) -> dict[str, str]:
    header = next(rows)
    _, named = columns_of(header, {})
    label, names, found = headers.find(header, headers.LABEL), sets.label_names(table), dict[str, str]()
    for number, row in enumerate(rows, start=1):
        text = row.fields[label].strip(BLANKS)
        known = names[int(text)] if text.isdecimal() and int(text) < len(names) else text
        found[str(number) if named is None else row.fields[named].strip(BLANKS)] = known
    return found


def _names_of(files: Sequence[str | os.PathLike], counts: Sequence[int]) -> list[str]:
    """The name of its file for each sequence, as text that can be drawn."""
    names = [Path(file).stem.encode("utf-8", "replace").decode() for file in files]
    return [name for name, count in zip(names, counts) for _ in range(count)]
