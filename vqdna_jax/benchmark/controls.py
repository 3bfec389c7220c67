"""Control rows that learnt nothing from genomes: linear models of k-mer counts and of bases by position.

A table without them proves nothing: small pretrained models did not beat k-mer counts (docs/pretraining.md).
"""

import functools
from collections.abc import Callable

import numpy as np

from vqdna_jax.evaluation import linear, probes, scores
from vqdna_jax.labels.sets import LabelledSet

Features = Callable[[list[np.ndarray]], np.ndarray]
CONTROLS: dict[str, Features] = {
    "4-mer counts": functools.partial(probes.kmers, k=4),
    "5-mer counts": functools.partial(probes.kmers, k=5),
    "6-mer counts": functools.partial(probes.kmers, k=6),
    "one-hot by position": probes.one_hot,
}


def run(name: str, labelled_set: LabelledSet, metric: str) -> dict[str, scores.Scores]:
    """{"dev": scores, "test": scores} of logistic (or ridge) regression on all rows given; deterministic.

    The strength of the penalty is the one with the best `metric` on dev; test is scored once.
    """
    splits, kind, classes = labelled_set.splits, labelled_set.kind, labelled_set.classes
    features = CONTROLS[name]([bases for split in splits.values() for bases in split.bases])
    ends = np.cumsum([len(split.bases) for split in splits.values()])[:-1]
    by_split = dict(zip(splits, np.split(np.asarray(features, np.float32), ends)))
    rows = {name: linear.Rows(by_split[name], split.labels) for name, split in splits.items()}
    found = linear.choose(kind, rows["train"], rows["dev"], classes, metric)
    outputs_BxV = found.model.outputs(rows["test"].features_BxP)
    return {"dev": found.dev, "test": scores.score(kind, rows["test"].labels, outputs_BxV, classes)}
