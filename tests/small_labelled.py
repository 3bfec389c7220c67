"""Labelled files of a few rows, in a folder or alone, and why one is refused."""

import pathlib
from collections.abc import Iterable

import numpy as np
import refusals

from vqdna_jax.genome.alphabet import to_text
from vqdna_jax.labels import sets

GOOD = "sequence,label\nAC,0\nGT,1\n"


def write(path: pathlib.Path, **texts: str | bytes | None) -> pathlib.Path:
    """NAME.csv of each text, train.csv and dev.csv GOOD where they are not given; None leaves one out."""
    path.mkdir(exist_ok=True)
    for name, text in ({"train": GOOD, "dev": GOOD} | texts).items():
        if text is not None:
            (path / f"{name}.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def write_file(path: pathlib.Path, labels: Iterable[str], header: str = "label", seed: int = 0) -> pathlib.Path:
    """One file of random sequences with these labels."""
    rng = np.random.default_rng(seed)
    rows = [f"{to_text(rng.integers(0, 4, 20).astype(np.uint8))},{label}" for label in labels]
    path.write_text("\n".join([f"sequence,{header}", *rows, ""]))
    return path


def write_splits(path: pathlib.Path, **splits: Iterable[tuple[str, object]]) -> pathlib.Path:
    """SPLIT.csv of (sequence, label)s in the folder `path`."""
    path.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        lines = "".join(f"{sequence},{label}\n" for sequence, label in rows)
        (path / f"{split}.csv").write_text("sequence,label\n" + lines)
    return path


def labels_text(*labels: object, header: str = "label") -> str:
    return f"sequence,{header}\n" + "".join(f"ACGT,{label}\n" for label in labels)


def refusal(path: pathlib.Path, *args, **options) -> str:
    """The message, which is one line, without the folder."""
    message = refusals.refusal(sets.read_set, path, *args, **options)
    return message.replace(f"{path}/", "").replace(f"{path.parent}/", "")
