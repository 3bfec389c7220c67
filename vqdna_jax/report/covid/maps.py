"""Maps of embeddings, as in the paper's Figure 5: of whole genomes, and of windows of them."""

from typing import Any, Literal

import numpy as np

from vqdna_jax.errors import InputError
from vqdna_jax.evaluation.embedding_map import neighbours_alike, project
from vqdna_jax.report.covid.genotypes import Genomes
from vqdna_jax.report.covid.nearest import Windows, WordVectors

Kind = Literal["umap", "pca"]
POINTS = 1500  # of a map


def library():
    """The `umap` package. Raises InputError where it is not installed."""
    try:
        import umap
    except ImportError as error:
        advice = "pip install vqdna_jax[umap], or name another map, --map=pca"
        raise InputError(f"package umap-learn: not installed, --map=umap needs it; {advice}") from error
    return umap


def of_genomes(embed: WordVectors, genomes: Genomes, kind: Kind, seed: int) -> dict[str, Any]:
    """Of at most POINTS genomes."""
    rows = np.random.default_rng(seed).permutation(len(genomes.genotypes))[:POINTS]
    vectors_BxE = embed(0, embed.bases)[rows]
    return _map(vectors_BxE, genomes.labels_G[rows], kind, seed)


def of_windows(embed: WordVectors, genomes: Genomes, windows: Windows, kind: Kind, seed: int) -> dict[str, Any]:
    """Of POINTS windows of genomes, and how often the nearest other window lies at the same place."""
    rng = np.random.default_rng(seed)
    genome_B, place_B = (rng.integers(size, size=POINTS) for size in (len(genomes.genotypes), len(windows)))
    order = np.argsort(place_B, kind="stable")
    genome_B, place_B = genome_B[order], place_B[order]
    parts = [embed(*windows[p])[genome_B[place_B == p]] + embed.of_reference(*windows[p]) for p in np.unique(place_B)]
    vectors_BxE = np.concatenate(parts)
    at_place, any_place = neighbours_alike(vectors_BxE, list(map(str, place_B)))
    of_place = {"same_place": at_place, "same_place_by_chance": any_place}
    return _map(vectors_BxE, genomes.labels_G[genome_B], kind, seed) | of_place


def _map(vectors_BxE: np.ndarray, labels_B: np.ndarray, kind: Kind, seed: int) -> dict[str, Any]:
    """The points, and how often the nearest other one, by all of the vector, is of the same variant."""
    scaled_BxE = vectors_BxE / (np.abs(vectors_BxE).max(initial=0) or 1)
    alike, chance = neighbours_alike(scaled_BxE, list(map(str, labels_B)))
    points_Bx2 = _umap(scaled_BxE, seed) if kind == "umap" else project(scaled_BxE)[0]
    points_Bx2 = points_Bx2 / (np.abs(points_Bx2).max(initial=0) or 1)
    points = np.round(points_Bx2.astype(float), 4).tolist()
    return {"points": points, "labels": labels_B.tolist(), "same_variant": alike, "same_variant_by_chance": chance}


def _umap(vectors_BxE: np.ndarray, seed: int) -> np.ndarray:
    """The same points at every run: on one thread, as a seed demands, and from principal components. Where vectors fall
    into islands, as of windows, its spectral start fails, and what it takes in its place differs from run to run."""
    embedding = library().UMAP(init="pca", random_state=seed, n_jobs=1)
    return embedding.fit_transform(vectors_BxE.astype(np.float32))
