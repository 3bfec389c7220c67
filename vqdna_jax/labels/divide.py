"""One file's rows into train, dev and test.

Equal sequences and reverse complements of each other are a group, and a group is in one split. Groups are ordered by a
hash and cut by quota, so a split depends on what the sequences and labels are and on no order of rows, and rows that
are added move few others.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from vqdna_jax.genome.alphabet import reverse_complement

SPLITS = ("train", "dev", "test")
LEAST_GROUPS = len(SPLITS)  # that fill them all
_HELD_OUT = 0.1  # in dev, and in test
_NONE = -1  # in place of a split's number
_SEED = b"0:"  # another one divides files otherwise
_COMPLEMENT = reverse_complement(np.arange(256, dtype=np.uint8))[::-1].tobytes()  # of each byte of bases


def strand_hash(bases_S: np.ndarray) -> bytes:
    """16 bytes, the same for the reverse complement."""
    strand = bases_S.tobytes()
    return hashlib.sha256(_SEED + min(strand, strand.translate(_COMPLEMENT)[::-1])).digest()[:16]


def group(hashes: Sequence[bytes]) -> np.ndarray:
    """int64 [B], from 0: the same for the same `strand_hash`, and in their order."""
    return np.unique(np.array(hashes, "S16"), return_inverse=True)[1]


def count_classes(groups_B: np.ndarray, labels_B: np.ndarray, classes: int) -> np.ndarray:
    """int64 [V]: how many groups have a row of each class."""
    return np.bincount(np.unique(groups_B * classes + labels_B) % classes, minlength=classes)


def count_of_several(groups_B: np.ndarray, labels: np.ndarray) -> int:
    """How many groups have rows with different labels, which are [B] or [B, V]."""
    order = np.argsort(groups_B)
    groups_B, labels = groups_B[order], labels[order].reshape(len(order), -1)
    differ = (labels[1:] != labels[:-1]).any(axis=1) & (groups_B[1:] == groups_B[:-1])
    return len(np.unique(groups_B[1:][differ]))


def divide(groups_B: np.ndarray) -> np.ndarray:
    """int64 [B], the number of each row's split: 80, 10 and 10 % of the rows, none empty if there are three groups."""
    sizes_G = np.bincount(groups_B)
    return _cut(sizes_G, np.zeros(len(SPLITS)))[groups_B]


def divide_classes(groups_B: np.ndarray, labels_B: np.ndarray) -> np.ndarray:
    """As `divide`, but of the groups of each class: each split has its share of them, and one if there are three.

    A group with rows of several classes counts for each. The class with the fewest groups is placed first.
    """
    classes = int(labels_B.max()) + 1
    by_label, groups = np.divmod(np.unique(labels_B * len(groups_B) + groups_B), len(groups_B))
    groups_of = sorted(np.split(groups, np.searchsorted(by_label, np.arange(1, classes))), key=len)
    split_G = np.full(groups_B.max() + 1, _NONE)
    for groups in groups_of:  # what a class must have comes before what others should have
        _place_one_each(groups, split_G)
    for groups in groups_of:
        placed = split_G[groups][split_G[groups] != _NONE]
        free = groups[split_G[groups] == _NONE]
        split_G[free] = _cut(np.ones(len(free)), np.bincount(placed, minlength=len(SPLITS)))
    return split_G[groups_B]


def _place_one_each(groups: np.ndarray, split_G: np.ndarray) -> None:
    """Sets the split of a free group for each split that has none, where a cut of all of them would put it."""
    last_of_dev = len(groups) - max(1, int(_HELD_OUT * len(groups) + 0.5)) - 1
    for split, place in ((0, 0), (2, len(groups)), (1, last_of_dev - 1)):  # the first is no longer free
        free = groups[split_G[groups] == _NONE]
        if free.size and split not in split_G[groups]:
            split_G[free[min(place, len(free) - 1)]] = split


def _cut(sizes_G: np.ndarray, placed: np.ndarray) -> np.ndarray:
    """The split of each group: train, then dev, then test, each near its share of all sizes, `placed` ones included."""
    wanted = _HELD_OUT * (sizes_G.sum() + placed.sum()) - placed
    least = (placed == 0).astype(int)
    left = len(sizes_G)
    test = _count(sizes_G[::-1], wanted[2], least[2], left - least[0] - least[1])
    left -= test
    dev = _count(sizes_G[:left][::-1], wanted[1], least[1], left - least[0])
    return np.repeat(np.arange(len(SPLITS)), [left - dev, dev, test])


def _count(sizes_G: np.ndarray, wanted: float, least: int, most: int) -> int:
    """How many of the first groups come nearest to a size in sum; of two as near the more."""
    sums = np.concatenate([[0], np.cumsum(sizes_G)])
    nearest = len(sizes_G) - int(np.abs(sums - wanted)[::-1].argmin())
    return max(0, min(max(nearest, least), most))
