"""Finds the sets of the benchmark in a user's folder, in whichever of the usual layouts it was unpacked.

    GUE/tf/0/train.csv         the archive of DNABERT-2's authors
    human_tf_0/train.csv       leannmlindsey/GUE
    tf0/train.csv              flat copies
    xu2015TrainHl60.context.tab    editing tables of crisporPaper, as they are

Folders of other names are passed over; `unknown` names those that hold a set.
"""

import os
import pathlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping

from vqdna_jax.benchmark.sets import editing
from vqdna_jax.benchmark.sets.cards import CARDS, SPLITS, Card, by_spelling, find_card
from vqdna_jax.errors import InputError
from vqdna_jax.labels.sets import LabelledSet, label_names, read_set

MAX_DEPTH = 3  # folders below the one given: GUE/tf/0
_TABLES = (".tab", ".tsv")
_LAYOUT = "folders such as tf/0, human_tf_0 or tf0 with train.csv, dev.csv and test.csv, at most 3 levels down"


def find(directory: str | os.PathLike, names: Iterable[str] | None = None) -> dict[str, pathlib.Path]:
    """The sets in or below `directory`, or it itself, by name in the order of `CARDS`; links are followed.

    A value is a folder of train.csv, dev.csv and test.csv, or an editing table that is still to be prepared
    (`editing.prepare`) where there is no folder of that set.

    Args:
        names: the sets wanted, in any spelling; all that are there by default.

    Raises:
        InputError: an unknown name, a set that is wanted and not there, a set that is there twice, or no set at all.
    """
    wanted = None if names is None else [find_card(name).name for name in names]
    root = pathlib.Path(os.path.abspath(directory))
    if not root.is_dir():
        raise InputError(f"{directory}: no such directory; expected {_LAYOUT}")
    folders, tables, others = _gather(root)
    found = {name: _single(name, paths) for name, paths in (tables | folders).items()}
    if not found:
        there = "".join(f"; {path} has a name that no set has" for path in others[:1])
        raise InputError(f"{directory}: no set of the benchmark was found; expected {_LAYOUT}{there}")
    if wanted is None:
        return {name: found[name] for name in CARDS if name in found}
    if missing := [name for name in wanted if name not in found]:
        raise InputError(f"{directory}: {', '.join(missing)} not found; it has {', '.join(found)}, expected {_LAYOUT}")
    return {name: found[name] for name in CARDS if name in wanted}


def unknown(directory: str | os.PathLike) -> list[pathlib.Path]:
    """Folders in or below `directory`, as deep as `find` looks, that hold a split and have a name that no set has."""
    return _gather(pathlib.Path(os.path.abspath(directory)))[2]


def read(card: Card, path: pathlib.Path) -> LabelledSet:
    """A set that was found, strictly; a table as `editing.prepare` makes it. Raises InputError as `read_set` does."""
    if not path.is_dir():
        with tempfile.TemporaryDirectory() as folder:
            editing.prepare(path, pathlib.Path(folder) / card.key)
            return read_set(pathlib.Path(folder) / card.key, card.kind)
    return read_set(path, card.kind, label_names(path))


def is_table(path: pathlib.Path) -> bool:
    """Whether a file is a table of guides with their efficiency."""
    if path.suffix not in _TABLES or not path.is_file():
        return False
    with open(path, "rb") as file:
        return b"modFreq" in file.readline(1 << 16).rstrip().split(b"\t")


def _gather(
    root: pathlib.Path,
) -> tuple[dict[str, list[pathlib.Path]], dict[str, list[pathlib.Path]], list[pathlib.Path]]:
    """Folders and tables by set, and folders that hold a split and have a name that no set has."""
    folders: dict[str, list[pathlib.Path]] = {}
    tables: dict[str, list[pathlib.Path]] = {}
    others: list[pathlib.Path] = []
    cards = by_spelling()
    for path in _folders(root, MAX_DEPTH, ()):
        if any((path / f"{split}.csv").is_file() for split in SPLITS):
            card = _card_of_folder(path, cards)
            (folders.setdefault(card.name, []) if card else others).append(path)
        for file in sorted(path.iterdir()):
            card = cards.get(file.stem.casefold())
            if card and card.kind == "regression" and is_table(file):
                tables.setdefault(card.name, []).append(file)
    return folders, tables, others


def _folders(path: pathlib.Path, depth: int, above: tuple[pathlib.Path, ...]) -> Iterator[pathlib.Path]:
    """`path` and the folders below it; one that is linked into itself is not entered again."""
    real = path.resolve()
    if real in above or not os.access(path, os.R_OK | os.X_OK):
        return
    yield path
    if depth:
        for child in sorted(child for child in path.iterdir() if child.is_dir()):
            yield from _folders(child, depth - 1, (*above, real))


def _card_of_folder(path: pathlib.Path, cards: Mapping[str, Card]) -> Card | None:
    name = path.name.casefold()
    return cards.get(f"{path.parent.name.casefold()}/{name}") or cards.get(name)


def _single(name: str, paths: list[pathlib.Path]) -> pathlib.Path:
    if len({path.resolve() for path in paths}) > 1:
        raise InputError(f"{paths[1]}: {paths[0]} is also the set {name}; expected one folder per set, move one away")
    return paths[0]
