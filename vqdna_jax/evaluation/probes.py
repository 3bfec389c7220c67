"""Linear probes: what an embedding of a sequence says about small labelled sets, beside controls that learnt nothing.

A set is a folder in the layout of GUE: train.csv and dev.csv, header `sequence,label`, labels 0, 1, ... Their
test.csv is never read: it is kept for a last comparison. Bases are uint8, A C G T N = 0 1 2 3 4, of any lengths.
"""

import collections
import functools
import glob
import os
import pathlib
from collections.abc import Callable

import numpy as np
from scipy import sparse

from vqdna_jax.errors import InputError
from vqdna_jax.evaluation import code_statistics as statistics
from vqdna_jax.evaluation import linear, scores
from vqdna_jax.evaluation.linear import Features
from vqdna_jax.genome.alphabet import N
from vqdna_jax.labels import sets
from vqdna_jax.labels.sets import LabelledSet
from vqdna_jax.tokenizers.stitch import neighbours

Bases = list[np.ndarray]
Embed = Callable[[Bases], Features | list[np.ndarray]]  # B uint8 arrays -> features [B, P]
MIN_ROWS_A_LABEL = 4
BASES_A_GROUP = 1 << 24  # whose k-mers are in memory at once, at some 30 bytes each


def find_sets(directory: str | os.PathLike) -> dict[str, pathlib.Path]:
    """The sets by name: the directory itself if it holds train.csv, else each folder below it, or linked, that does.

    A name is the folder's own, or its path below the directory with "/". Raises InputError where there is no set, a
    dev.csv is missing, or two sets would share a key of `probe` ("a/b" and "a_b").
    """
    root = pathlib.Path(os.path.abspath(directory))
    names = sorted(map(os.path.dirname, glob.glob("**/train.csv", root_dir=root, recursive=True)))
    found = {root.name: root} if "" in names else {name: root / name for name in names}
    if not found:
        raise InputError(f"{directory}: no train.csv in or below it; expected folders with train.csv and dev.csv")
    for path in found.values():
        if not (path / "dev.csv").is_file():
            raise InputError(f"{path}: dev.csv is missing; expected it beside train.csv")
    keys = [_key(name, kind) for name in ["mean", *found] for kind in _KINDS]
    if clash := [key for key, count in collections.Counter(keys).items() if count > 1]:
        raise InputError(f"{directory}: two figures would be called {clash[0]}; rename a folder")
    return found


def read_some(path: str | os.PathLike, rows: int) -> LabelledSet:
    """At most `rows` training and `rows` dev rows of the set in a folder, in file order, the same at every call.

    The rows kept are a seeded draw that gives each label its share and leaves none out. Raises InputError as
    `sets.read_set` does on a classification, and on fewer than MIN_ROWS_A_LABEL training rows per label.
    """
    whole = sets.read_set(path, "classification", splits=("train", "dev"))
    train, classes = whole.splits["train"], whole.classes
    kept, least = min(rows, len(train.labels)), MIN_ROWS_A_LABEL * classes
    if kept < least:
        raise InputError(f"{train.places[-1]}: {kept} training rows; expected at least {least} for {classes} labels")
    return sets.subset(whole, {"train": rows, "dev": rows})


def probe(embed: Embed, untrained: Embed, directory: str | os.PathLike, rows: int) -> dict[str, float]:
    """Matthews correlation (MCC) on dev of a logistic regression fitted on at most `rows` training rows of each set.

    Keys are probe_SET_mcc for `embed`, probe_SET_KIND_mcc for the controls, "/" in a name as "_", and probe_mean_...
    over the sets. KIND: untrained (`untrained`), 4mers 5mers 6mers (k-mer frequencies), one_hot (base by position).
    The penalty is the one that `linear.choose` finds best on a quarter of the training rows after a fit to the rest;
    then all training rows are fitted. So dev chooses nothing, and features of any number are treated alike: with one
    penalty for all, 4,096 6-mers overfit where 64 features would underfit.
    Every set is read before the first is embedded. Raises InputError as `find_sets` and `read_some` do.
    """
    found = {name: read_some(path, rows) for name, path in find_sets(directory).items()}
    features = {"": embed, "untrained": untrained, **_CONTROLS}
    values = {_key(name, kind): _score(features[kind], found[name]) for name in found for kind in _KINDS}
    means = {_key("mean", kind): float(np.mean([values[_key(name, kind)] for name in found])) for kind in _KINDS}
    return values | means


def kmers(bases: Bases, k: int) -> sparse.csr_array:
    """`code_statistics.kmer_shares` of sequences of any lengths, float32 [B, 4^k]; k-mers with an N are left out."""
    groups = neighbours(bases, len, BASES_A_GROUP)
    return sparse.csr_array(sparse.vstack([statistics.kmer_shares(padded(group), k) for group in groups], "csr"))


def one_hot(bases: Bases) -> sparse.csr_array:
    """Base by position, float32 [B, S * 4]; zeros for N and beyond the end of a sequence."""
    bases_BxS = padded(bases)
    known_BxS = bases_BxS != N
    keys_BxS = np.arange(bases_BxS.shape[1], dtype=np.int32) * N + bases_BxS
    return statistics.counted(keys_BxS[known_BxS], known_BxS.sum(axis=1), keys_BxS.shape[1] * N)


_CONTROLS = {f"{k}mers": functools.partial(kmers, k=k) for k in (4, 5, 6)} | {"one_hot": one_hot}
_KINDS = ("", "untrained", *_CONTROLS)


def _key(name: str, kind: str) -> str:
    return "_".join(["probe", name.replace("/", "_"), *([kind] if kind else []), "mcc"])


def padded(bases: Bases) -> np.ndarray:
    """[B, S], N beyond the end of a sequence."""
    bases_BxS = np.full((len(bases), max(map(len, bases))), N, np.uint8)
    for row, sequence in zip(bases_BxS, bases):
        row[: len(sequence)] = sequence
    return bases_BxS


def _score(features: Embed, labelled_set: LabelledSet) -> float:
    train, dev = (labelled_set.splits[name] for name in ("train", "dev"))
    # One call for both parts, so that they are padded to one length.
    of_both = features(train.bases + dev.bases)
    features_BxP = np.asarray(of_both, np.float32) if isinstance(of_both, list) else of_both.astype(np.float32)
    rows = linear.Rows(features_BxP[: len(train.bases)], train.labels)
    model = linear.fit(
        labelled_set.kind, rows, labelled_set.classes, _choose_inverse_penalty(rows, labelled_set.classes)
    )
    logits_BxV = model.outputs(features_BxP[len(train.bases) :])
    return scores.score(labelled_set.kind, dev.labels, logits_BxV, labelled_set.classes)["mcc"] or 0.0


def _choose_inverse_penalty(rows: linear.Rows, classes: int) -> float:
    fit = sets.draw(rows.labels, len(rows.labels) * 3 // 4)
    rest = np.delete(np.arange(len(rows.labels)), fit)
    fitted, held_out = (linear.Rows(rows.features_BxP[some], rows.labels[some]) for some in (fit, rest))
    return linear.choose("classification", fitted, held_out, classes).inverse_penalty
