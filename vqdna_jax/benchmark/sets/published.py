"""Published scores on the sets of the benchmark, x100, to stand beside one's own: copied as printed, nothing inferred.

A set needs none: rows are shown with what they have.

MCC, and macro-F1 for virus/covid. A score that no source gives is not there. HyenaDNA's means of GUE's tasks are left
out: they come from a table of DNABERT-2's appendix that disagrees with its own main table, probably by metric.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from vqdna_jax.errors import InputError
from vqdna_jax.runtime.typed import expect

_FIGURE = "DNABERT-2 (Zhou et al., ICLR 2024), figure of its results in the README of MAGICS-LAB/DNABERT_2"
_BIOARC = "per set from BioArc (arXiv 2512.00283), at second hand"
_MERGEDNA = "means of tasks from MergeDNA (AAAI 2026, same first author), table 3"
_POSTER = "VQDNA's ICML 2024 poster"
_NOTE = "a note on the VQDNA paper (trislaz/biofm-survey)"


@dataclasses.dataclass(frozen=True)
class PublishedRow:
    """A model on GUE."""

    model: str
    scores: dict[str, float]  # by name of the card
    source: str
    parameters_m: float | None  # millions; VQDNA's with its tokenizer
    train_tokens_b: float | None  # billions, in pretraining
    group_means: dict[str, float] = dataclasses.field(default_factory=dict)  # printed where sets are missing


@dataclasses.dataclass(frozen=True)
class SpeciesRow:
    """Top-1 accuracy x100 by length as printed."""

    model: str
    accuracy: dict[str, float]
    out_of_memory: tuple[str, ...]
    source: str


_MARKS = ("H3", "H3K14ac", "H3K36me3", "H3K4me1", "H3K4me2", "H3K4me3", "H3K79me3", "H3K9ac", "H4", "H4ac")
_ORDER = (
    *(f"EMP/{mark}" for mark in _MARKS),
    *(f"prom/prom_{region}_{part}" for region in ("300", "core") for part in ("all", "notata", "tata")),
    *(f"{group}/{i}" for group in ("tf", "mouse") for i in range(5)),
    "virus/covid",
    "splice/reconstructed",
)  # of the columns below
# Columns: model, parameters (M), tokens (B), "-" where not stated; then the sets of _ORDER, a few to a line.
_TABLE = """
DNABERT 3-mer  86  122
  74.15 42.07 48.49 42.95 31.34 28.92 60.12 50.48 78.27 38.60
  90.44 93.61 69.83 70.92 69.82 78.15
  67.95 70.90 60.51 53.03 69.76 42.31 79.10 69.90 55.40 41.97
  62.23 84.14

DNABERT 4-mer  -  122
  73.03 41.88 48.03 41.06 30.66 25.31 59.77 51.44 78.28 36.40
  89.54 92.65 66.78 69.00 70.04 74.25
  67.90 73.05 59.52 50.37 71.23 49.42 79.95 72.62 51.79 44.13
  59.87 84.05

DNABERT 5-mer  -  122
  73.40 40.68 48.29 40.65 30.67 27.10 59.61 51.11 77.27 37.48
  90.16 92.45 69.51 69.48 69.81 76.79
  66.97 69.98 59.03 52.95 69.26 42.45 79.32 62.22 49.92 40.34
  50.46 84.02

DNABERT 6-mer  -  122
  73.10 40.06 47.25 41.44 32.27 27.81 61.17 51.22 79.26 37.43
  90.48 93.05 61.56 68.90 70.47 76.06
  66.84 70.14 61.03 51.89 70.97 44.42 78.94 71.44 44.89 42.48
  55.50 84.07

NT-500M-human  -  -
  69.67 33.55 44.14 37.15 30.87 24.06 58.35 45.81 76.17 33.74
  87.71 90.75 78.07 63.45 64.82 71.34
  61.59 66.75 53.58 42.95 60.81 31.04 75.04 61.67 29.17 29.27
  50.82 79.71

NT-500M-1000g  480  50
  72.52 39.37 45.58 40.45 31.05 26.16 59.33 49.29 76.29 36.79
  89.76 91.75 78.23 66.70 67.17 73.52
  63.64 70.17 52.73 45.24 62.82 39.26 75.49 64.70 33.07 34.01
  52.06 80.97

NT-2500M-1000g  2537  300
  74.61 44.08 50.86 43.10 30.28 30.87 61.20 52.36 79.76 41.46
  90.95 93.07 75.80 67.39 67.46 69.66
  66.31 68.30 58.70 49.08 67.59 48.31 80.02 70.14 42.25 43.40
  66.73 85.78

NT-2500M-multi  -  -
  78.77 56.20 61.99 55.30 36.49 40.34 64.70 56.01 81.67 49.13
  91.01 94.00 79.43 70.33 71.58 72.97
  66.64 70.28 58.72 51.65 69.34 63.31 83.76 71.52 69.44 47.07
  73.04 89.35

DNABERT-2  117  262
  78.27 52.57 56.88 50.52 31.13 36.27 67.39 55.63 80.71 50.43
  86.77 94.27 71.59 69.37 68.04 74.17
  71.99 76.06 66.52 58.54 77.43 56.76 84.77 79.32 66.47 52.66
  71.02 84.99

DNABERT-2 (further PT)  -  -
  80.17 57.42 61.90 53.00 39.89 41.20 65.46 57.07 81.86 50.35
  88.31 94.34 68.79 67.50 69.53 76.18
  69.12 71.87 62.96 55.35 74.94 64.23 86.28 81.28 73.49 50.80
  68.49 85.93
"""


def _rows_of_figure() -> tuple[PublishedRow, ...]:
    rows = []
    for block in _TABLE.strip().split("\n\n"):
        model, parameters, tokens, *scores = [cell for line in block.split("\n") for cell in line.strip().split("  ")]
        values = [float(score) for cell in scores for score in cell.split()]
        parameters_m, tokens_b = (None if cell == "-" else float(cell) for cell in (parameters, tokens))
        rows.append(PublishedRow(model, dict(zip(_ORDER, values, strict=True)), _FIGURE, parameters_m, tokens_b))
    return tuple(rows)


_VQDNA_TOKENS_B = 262
ROWS: tuple[PublishedRow, ...] = (
    *_rows_of_figure(),
    PublishedRow("HyenaDNA", {"virus/covid": 54.10}, f"VQDNA, table 1, from {_NOTE}", None, None),
    PublishedRow(
        "VQDNA (VQVAE)", {"EMP/H3": 78.6, "virus/covid": 73.16}, f"VQDNA, from {_NOTE}", 86 + 16, _VQDNA_TOKENS_B
    ),
    PublishedRow(
        "VQDNA (HRQ)",
        {
            "EMP/H3": 79.2,
            "tf/0": 72.48,
            "tf/1": 76.43,
            "tf/2": 66.85,
            "tf/3": 58.92,
            "tf/4": 78.10,
            "prom/prom_core_all": 71.02,
            "prom/prom_core_notata": 70.58,
            "prom/prom_core_tata": 78.50,
            "splice/reconstructed": 89.53,
            "virus/covid": 74.32,
        },
        f"{_POSTER}; {_MERGEDNA}; {_BIOARC}; EMP/H3 from {_NOTE}",
        86 + 17,
        _VQDNA_TOKENS_B,
        {
            "EMP": 57.95,
            "prom_300": 86.58,
            "prom_core": 73.37,
            "tf": 70.56,
            "mouse": 69.80,
            "splice": 89.53,
            "virus": 74.32,
        },
    ),
)

_QUADRATIC = ("250k", "450k")
SPECIES: tuple[SpeciesRow, ...] = (
    SpeciesRow("HyenaDNA", {"1k": 61.13, "20k": 87.42, "32k": 93.42, "250k": 97.90, "450k": 99.40}, (), _POSTER),
    SpeciesRow("DNABERT", {"32k": 91.93}, _QUADRATIC, f"{_POSTER}; 1k and 20k are unreadable there"),
    SpeciesRow("DNABERT-2", {"1k": 61.04, "20k": 86.83, "32k": 99.28}, _QUADRATIC, f"{_POSTER}; 1k, 20k from {_NOTE}"),
    SpeciesRow("VQDNA (HRQ)", {"1k": 61.57, "20k": 88.05, "32k": 99.46}, _QUADRATIC, _POSTER),
    SpeciesRow(
        "HyenaDNA from scratch",
        {"1k": 53.9, "32k": 70.7, "250k": 65.7, "450k": 71.4},
        (),
        "a note on HyenaDNA (Nguyen et al., 2023)",
    ),
)

_KEYS = ("model", "scores", "source", "parameters_m", "train_tokens_b")  # of a row in JSON


def to_json(row: PublishedRow) -> dict[str, Any]:
    return {key: getattr(row, key) for key in _KEYS}


def parse(rows: Sequence[Mapping[str, Any]], where: str = "published") -> list[PublishedRow]:
    """The rows that `to_json` wrote. Raises InputError, as `where[index]: KEY is missing; ...`."""
    expect(isinstance(rows, list), where, rows, "a list")
    for index, row in enumerate(rows):
        expect(isinstance(row, Mapping), f"{where}[{index}]", row, f"the keys {', '.join(_KEYS)}")
        if missing := [key for key in _KEYS if key not in row]:
            raise InputError(f"{where}[{index}]: {missing[0]} is missing; expected the keys {', '.join(_KEYS)}")
        _check(row, f"{where}[{index}]")
    return [PublishedRow(**{key: row[key] for key in _KEYS}) for row in rows]


def _check(row: Mapping[str, Any], where: str) -> None:
    for key in ("model", "source"):
        expect(isinstance(row[key], str), f"{where}.{key}", row[key], "a text")
    expect(isinstance(row["scores"], Mapping), f"{where}.scores", row["scores"], "a number for each set")
    for key, value in row["scores"].items():
        expect(type(value) in (int, float), f"{where}.scores.{key}", value, "a number")
    for key in ("parameters_m", "train_tokens_b"):
        expect(row[key] is None or type(row[key]) in (int, float), f"{where}.{key}", row[key], "a number, or null")
