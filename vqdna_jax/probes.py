"""Linear probes: what an embedding of a sequence says about small labelled sets, beside controls that learnt nothing.

A set is a folder in the layout of GUE: train.csv and dev.csv, header `sequence,label`, integer labels. test.csv is
never read: it is kept for a last comparison.

Shape letters: B sequences, S bases of the longest, F features. Bases are uint8, A C G T N = 0 1 2 3 4, of any lengths.
"""

import collections
import csv
import functools
import glob
import os
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from vqdna_jax import code_statistics as statistics
from vqdna_jax.errors import InputError
from vqdna_jax.genome.alphabet import N, to_bases

Bases = list[np.ndarray]
Embed = Callable[[Bases], np.ndarray]  # B uint8 arrays -> features [B, F]
MIN_ROWS_A_LABEL = 4
_INVERSE_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
_INTEGER = re.compile(r"-?[0-9]{1,9}")


class LabelledSet(NamedTuple):
    """Training rows and rows to score; bases are a list of B uint8 arrays, labels int64 [B]."""

    train_bases: Bases
    train_labels: np.ndarray
    dev_bases: Bases
    dev_labels: np.ndarray


class _Table(NamedTuple):
    places: list[str]  # file:line of each row
    bases: Bases
    labels: np.ndarray


def find_sets(directory: str | os.PathLike) -> dict[str, pathlib.Path]:
    """The sets by name: the directory itself if it holds train.csv, else each folder below it, or linked, that does.

    A name is the folder's own, or its path below the directory with "/". Raises InputError where there is no set, a
    dev.csv is missing, or two sets would share a key of `probe` ("a/b" and "a_b").
    """
    root = pathlib.Path(os.path.abspath(directory))
    names = sorted(map(os.path.dirname, glob.glob("**/train.csv", root_dir=root, recursive=True)))
    sets = {root.name: root} if "" in names else {name: root / name for name in names}
    if not sets:
        raise InputError(f"{directory}: no train.csv in or below it; expected folders with train.csv and dev.csv")
    for path in sets.values():
        if not (path / "dev.csv").is_file():
            raise InputError(f"{path}: dev.csv is missing; expected it beside train.csv")
    keys = [_key(name, kind) for name in ["mean", *sets] for kind in _KINDS]
    if clash := [key for key, count in collections.Counter(keys).items() if count > 1]:
        raise InputError(f"{directory}: two figures would be called {clash[0]}; rename a folder")
    return sets


def read_set(path: str | os.PathLike, rows: int) -> LabelledSet:
    """At most `rows` training and `rows` dev rows of the set in a folder, in file order, the same at every call.

    The rows kept are a seeded draw that gives each label its share and leaves none out. Raises InputError, as
    `file:line: what; what was expected`, on a row of either file that is not a DNA sequence and an integer label, a
    dev label that train.csv lacks, a single label, or fewer than MIN_ROWS_A_LABEL training rows a label.
    """
    train, dev = (_read_csv(pathlib.Path(path) / name) for name in ("train.csv", "dev.csv"))
    known = np.unique(train.labels)
    for place, label in zip(dev.places, dev.labels):
        if label not in known:
            raise InputError(f"{place}: the label {label}; expected one that train.csv has")
    if len(known) < 2:
        raise InputError(f"{train.places[0]}: {known[0]} is the only label; expected two or more labels")
    kept, least = min(rows, len(train.labels)), MIN_ROWS_A_LABEL * len(known)
    if kept < least:
        raise InputError(f"{train.places[-1]}: {kept} training rows; expected at least {least} for {len(known)} labels")
    parts = []
    for table in (train, dev):
        drawn = _draw(table.labels, rows)
        parts += [[table.bases[row] for row in drawn], table.labels[drawn]]
    return LabelledSet(*parts)


def probe(embed: Embed, untrained: Embed, directory: str | os.PathLike, rows: int) -> dict[str, float]:
    """Matthews correlation (MCC) on dev of a logistic regression fitted on at most `rows` training rows of each set.

    Keys are probe_SET_mcc for `embed`, probe_SET_KIND_mcc for the controls, "/" in a name as "_", and probe_mean_...
    over the sets. KIND: untrained (`untrained`), 4mers 5mers 6mers (k-mer frequencies), one_hot (base by position).
    The inverse penalty is the one of 1e-4, 1e-3, ... 10 with the best MCC on a quarter of the training rows after a fit
    to the rest (the strongest of equals); then all training rows are fitted. So dev chooses nothing, and features of
    any number are treated alike: with one penalty for all, 4,096 6-mers overfit where 64 features would underfit.
    Every set is read before the first is embedded. Raises InputError as `find_sets` and `read_set` do.
    """
    sets = {name: read_set(path, rows) for name, path in find_sets(directory).items()}
    features = {"": embed, "untrained": untrained, **_CONTROLS}
    values = {_key(name, kind): _score(features[kind], sets[name]) for name in sets for kind in _KINDS}
    means = {_key("mean", kind): float(np.mean([values[_key(name, kind)] for name in sets])) for kind in _KINDS}
    return values | means


def kmers(bases: Bases, k: int) -> np.ndarray:
    """`code_statistics.kmer_counts` of sequences of any lengths, float32 [B, 4^k]; k-mers with an N are left out."""
    return statistics.kmer_counts(_padded(bases), k)


def one_hot(bases: Bases) -> np.ndarray:
    """Base by position, float32 [B, S * 4]; zeros for N and beyond the end of a sequence."""
    bases_BxS = _padded(bases)
    return (bases_BxS[..., None] == np.arange(N)).reshape(len(bases), -1).astype(np.float32)


_CONTROLS = {f"{k}mers": functools.partial(kmers, k=k) for k in (4, 5, 6)} | {"one_hot": one_hot}
_KINDS = ("", "untrained", *_CONTROLS)


def _key(name: str, kind: str) -> str:
    return "_".join(["probe", name.replace("/", "_"), *([kind] if kind else []), "mcc"])


def _padded(bases: Bases) -> np.ndarray:
    """[B, S], N beyond the end of a sequence."""
    bases_BxS = np.full((len(bases), max(map(len, bases))), N, np.uint8)
    for row, sequence in zip(bases_BxS, bases):
        row[: len(sequence)] = sequence
    return bases_BxS


def _score(features: Embed, labelled: LabelledSet) -> float:
    # One call for both parts, so that they are padded to one length.
    features_BxF = np.asarray(features(labelled.train_bases + labelled.dev_bases), np.float32)
    train_BxF, dev_BxF = np.split(features_BxF, [len(labelled.train_bases)])
    c = _choose_inverse_penalty(train_BxF, labelled.train_labels)
    return statistics.linear_probe(train_BxF, labelled.train_labels, dev_BxF, labelled.dev_labels, c)["mcc"]


def _choose_inverse_penalty(features_BxF: np.ndarray, labels_B: np.ndarray) -> float:
    fit = _draw(labels_B, len(labels_B) * 3 // 4)
    rest = np.delete(np.arange(len(labels_B)), fit)
    split = features_BxF[fit], labels_B[fit], features_BxF[rest], labels_B[rest]
    return max(_INVERSE_PENALTIES, key=lambda c: statistics.linear_probe(*split, c)["mcc"])


def _draw(labels_B: np.ndarray, rows: int) -> np.ndarray:
    """Indices, ascending, of at most `rows` rows: of each label its share, and at least one if `rows` allows."""
    order = np.random.default_rng(0).permutation(len(labels_B))
    quantile_B = np.empty(len(labels_B))
    for label in np.unique(labels_B):
        of_label = order[labels_B[order] == label]
        quantile_B[of_label] = np.arange(len(of_label)) / len(of_label)
    return np.sort(order[np.argsort(quantile_B[order], kind="stable")][:rows])


def _read_csv(path: pathlib.Path) -> _Table:
    rows = []
    try:
        for place, fields in _records(path):
            if not _INTEGER.fullmatch(fields["label"]):
                raise InputError(f"{place}: the label {fields['label'][:40]!r}; expected an integer of up to 9 digits")
            rows.append((place, _bases(place, fields["sequence"]), int(fields["label"])))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a CSV file") from error
    if not rows:
        raise InputError(f"{path}:1: no rows; expected a sequence and its label on each line after the header")
    places, bases, labels = zip(*rows)
    return _Table(list(places), list(bases), np.array(labels, np.int64))


def _records(path: pathlib.Path) -> Iterator[tuple[str, dict[str, str]]]:
    """(file:line, fields by column) of each record; blank lines are passed over."""
    # Bytes that are not UTF-8 become a letter that is not DNA, so that they are reported with their line.
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            if not {"sequence", "label"} <= set(header):
                raise InputError(f"{path}:1: the columns {','.join(header)[:80]!r}; expected sequence and label")
            for fields in filter(None, reader):
                place = f"{path}:{reader.line_num}"
                if len(fields) != len(header):
                    raise InputError(f"{place}: {len(fields)} fields; expected {len(header)} as in the header")
                yield place, dict(zip(header, fields))
        except csv.Error as error:
            raise InputError(f"{path}:{reader.line_num}: {error}; expected comma-separated values") from error


def _bases(place: str, text: str) -> np.ndarray:
    try:
        if not text:
            raise InputError("the sequence is empty; expected at least one base")
        return to_bases(text)
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
