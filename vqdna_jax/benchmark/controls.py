"""Control rows that learnt nothing from genomes: linear models of k-mer counts and of bases by position, and, where it
is asked for, a convolutional network trained on the set alone.

A table without them proves nothing: small pretrained models did not beat k-mer counts (docs/pretraining.md).
"""

import functools
from collections.abc import Callable
from typing import Literal

import numpy as np
from scipy import sparse

from vqdna_jax.benchmark.cells import NETWORK
from vqdna_jax.evaluation import code_statistics, linear, probes, scores
from vqdna_jax.genome.alphabet import reverse_complement
from vqdna_jax.labels.sets import LabelledSet

Features = Callable[[list[np.ndarray]], sparse.csr_array]
Controls = Literal["counts", "linear", "all"]


def counts_and_positions(bases: list[np.ndarray]) -> sparse.csr_array:
    """Logarithms of 1 + the counts of 4-, 5- and 6-mers, beside the base at each position, f32 [B, P]."""
    padded_BxS = probes.padded(bases)
    counts = [np.log1p(code_statistics.kmer_counts(padded_BxS, k)) for k in (4, 5, 6)]
    return sparse.csr_array(sparse.hstack([*counts, probes.one_hot(bases)], "csr"))


def counts_of_both_strands(bases: list[np.ndarray]) -> sparse.csr_array:
    """Logarithms of 1 + the counts of 6-mers on either strand, f32 [B, 4096]: where a factor binds either, as good a
    control as there is, and what a model that reads both strands has to beat."""
    strands = (bases, [reverse_complement(of) for of in bases])
    forward_BxK, backward_BxK = (code_statistics.kmer_counts(probes.padded(of), 6) for of in strands)
    return np.log1p(forward_BxK + backward_BxK)


COUNTS: dict[str, Features] = {f"{k}-mer counts": functools.partial(probes.kmers, k=k) for k in (4, 5, 6)}
LINEAR: dict[str, Features] = COUNTS | {
    "6-mer counts, both strands": counts_of_both_strands,
    "one-hot by position": probes.one_hot,
    "counts + positions": counts_and_positions,
}


NAMES = (*LINEAR, NETWORK)


def of_seed(which: Controls, seed: int) -> list[str]:
    """The controls that a benchmark runs with a seed. Linear ones know none: they are run once, with the first."""
    of_rows = COUNTS if which == "counts" else LINEAR
    return [*(of_rows if seed == 0 else ()), *([NETWORK] if which == "all" else ())]


def run(name: str, labelled_set: LabelledSet, metric: str, seed: int) -> dict[str, scores.Scores]:
    """{"dev": scores, "test": scores} after training on all rows; dev chooses, by `metric`, and test is scored once."""
    if name == NETWORK:
        from vqdna_jax.benchmark import convolutional

        return convolutional.run(labelled_set, metric, seed)
    return _linear(name, labelled_set, metric)


def _linear(name: str, labelled_set: LabelledSet, metric: str) -> dict[str, scores.Scores]:
    """Of logistic (or ridge) regression; dev chooses the penalty."""
    splits, kind, classes = labelled_set.splits, labelled_set.kind, labelled_set.classes
    features_BxP = LINEAR[name]([bases for split in splits.values() for bases in split.bases])
    ends = np.cumsum([0, *(len(split.bases) for split in splits.values())])
    rows = {
        name: linear.Rows(features_BxP[start:end], split.labels)
        for (name, split), start, end in zip(splits.items(), ends, ends[1:])
    }
    found = linear.choose(kind, rows["train"], rows["dev"], classes, metric)
    outputs_BxV = found.model.outputs(rows["test"].features_BxP)
    return {"dev": found.dev, "test": scores.score(kind, rows["test"].labels, outputs_BxV, classes)}
