"""How many words one substituted or inserted base changes, by distance, and how motifs are spelt."""

import csv
import os
import re
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from typing import Any, NamedTuple

import numpy as np

from vqdna_jax.errors import InputError
from vqdna_jax.genome.text_file import read_text
from vqdna_jax.report.vocabulary.vocabularies import Vocabulary, Windows, in_windows

FAR = 48  # bases on both sides of an edit, in profiles
SPELLINGS = 48  # places where a motif is put
LONGEST = 36  # bases of a motif
IUPAC = {
    **dict(zip("ACGT", ("A", "C", "G", "T"))),
    **{"R": "AG", "Y": "CT", "S": "CG", "W": "AT", "K": "GT", "M": "AC"},
    **{"B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG", "N": "ACGT"},
}


class Motif(NamedTuple):
    name: str
    consensus: str  # IUPAC letters
    what: str


def edits(vocabulary: Vocabulary, windows: Windows) -> list[dict[str, Any]]:
    """Of one random edit in each window, a substitution or an insertion."""
    bases_BxS, rng = windows.bases_BxS, np.random.default_rng(0)
    rows, size = len(bases_BxS), bases_BxS.shape[1]
    at_B = rng.integers(size // 4, size - size // 4, rows)
    substituted, row_B = bases_BxS.copy(), np.arange(rows)
    substituted[row_B, at_B] = (bases_BxS[row_B, at_B] + rng.integers(1, 4, rows)) % 4
    base_B = rng.integers(0, 4, rows)
    inserted = np.stack([np.insert(x, at, base) for x, at, base in zip(bases_BxS, at_B.tolist(), base_B.tolist())])
    return [
        {"edit": name} | _changes(windows, in_windows(vocabulary, edited), at_B, shift)
        for name, edited, shift in (("substitution", substituted, 0), ("insertion", inserted, 1))
    ]


def _changes(before: Windows, after: Windows, at_B: np.ndarray, shift: int) -> dict[str, Any]:
    """A word is unchanged if the edited window has it at the same bases; behind the edit these lie `shift` on."""
    changed, total = np.zeros(2 * FAR + 1), np.zeros(2 * FAR + 1)
    counts: list[list[int]] = []
    holding, farthest, silent = [], 0, 0
    levels = before.codes[0].shape[1]
    for codes_LxN, spans_Lx2, codes, spans, at in zip(*before[1:], *after[1:], at_B.tolist()):
        moved_Lx2 = spans_Lx2 + shift * (spans_Lx2 >= [at, at + 1])
        there = {key: tuple(code) for key, code in zip(map(tuple, spans.tolist()), codes.tolist())}
        found = [there.get(key, (-1,) * levels) for key in map(tuple, moved_Lx2.tolist())]
        differs_LxN = np.array(found) != codes_LxN
        differs_L = differs_LxN.any(axis=1)
        apart_L = np.where(spans_Lx2[:, 0] > at, spans_Lx2[:, 0] - at, np.minimum(spans_Lx2[:, 1] - 1 - at, 0))
        counts.append(differs_LxN.sum(axis=0).tolist())
        holding.append(int((apart_L == 0).sum()))
        silent += not differs_L.any()
        farthest = max(farthest, int(np.abs(apart_L[differs_L]).max(initial=0)))
        near_L = np.abs(apart_L) <= FAR
        np.add.at(total, apart_L[near_L] + FAR, 1)
        np.add.at(changed, apart_L[near_L & differs_L] + FAR, 1)
    return {
        "changed": np.mean(counts, axis=0).tolist(),
        "holding": float(np.mean(holding)),
        "silent": silent / len(at_B),
        "farthest": farthest,
        "profile": [
            [place - FAR, float(changed[place] / total[place])] for place in range(2 * FAR + 1) if total[place]
        ],
    }


def read_motifs(path: str | os.PathLike | None) -> list[Motif]:
    """Name, consensus and what it is of each line, with tabs between them; of the list that ships where there is no
    path. Raises InputError, as `file:line: what; what was expected`."""
    if path is None:
        shipped = resources.files(__package__).joinpath("motifs.tsv").read_text()
        place, lines = "motifs.tsv", shipped.splitlines()
    else:
        text = read_text(path)
        place, lines = text.path, text.lines
    rows = [
        _motif(f"{place}:{number}", line)
        for number, line in enumerate(lines, start=1)
        if line.strip() and not line.startswith("#")
    ]
    if not rows:
        raise InputError(f"{place}: no motifs; expected NAME and CONSENSUS on each line, with a tab between them")
    return rows


def _motif(place: str, line: str) -> Motif:
    name, consensus, what, *_ = [*next(csv.reader([line], delimiter="\t", quoting=csv.QUOTE_NONE)), "", ""]
    if not name or not re.fullmatch(f"[{''.join(IUPAC)}]{{2,{LONGEST}}}", consensus.upper()):
        expected = f"expected NAME and CONSENSUS, 2 to {LONGEST} IUPAC letters, with a tab between them"
        raise InputError(f"{place}: {line[:80]!r}; {expected}")
    return Motif(name, consensus.upper(), what)


def motifs(vocabulary: Vocabulary, listed: Sequence[Motif], bases_BxS: np.ndarray) -> list[dict[str, Any]]:
    """How each is spelt where it is put at SPELLINGS places of the sample: words that hold some of it, and the share of
    the places in which a base of it has its commonest word; beside the same letters in another order."""
    rng, rows = np.random.default_rng(0), len(bases_BxS)
    given = [text for motif in listed for text in _two(motif, rng)]
    place_P = rng.integers(0, rows, SPELLINGS)
    start_P = rng.integers(LONGEST, 2 * LONGEST, SPELLINGS)
    windows_PxS = bases_BxS[place_P, : 4 * LONGEST]
    placed = [_with(text, bases, int(start)) for text in given for bases, start in zip(windows_PxS, start_P)]
    seen = in_windows(vocabulary, np.stack(placed))
    at = [(int(start), int(start) + len(text)) for text in given for start in start_P]
    counts = [int(((spans[:, 0] < stop) & (spans[:, 1] > start)).sum()) for spans, (start, stop) in zip(seen.spans, at)]
    spelt = [_spelling(codes, spans, *place) for codes, spans, place in zip(*seen[1:], at)]
    of_text = [_alike(spelt[first : first + SPELLINGS]) for first in range(0, len(spelt), SPELLINGS)]
    words = [float(np.mean(counts[first : first + SPELLINGS])) for first in range(0, len(counts), 2 * SPELLINGS)]
    return [
        {"motif": motif.name, "words": count, "same": own, "same_shuffled": shuffled}
        for motif, count, own, shuffled in zip(listed, words, of_text[::2], of_text[1::2])
    ]


def _two(motif: Motif, rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """Bases that the consensus stands for, and the same in another order."""
    bases = ["ACGT".index(rng.choice(list(IUPAC[letter]))) for letter in motif.consensus]
    return bases, rng.permutation(bases).tolist()


def _with(text: Sequence[int], bases: np.ndarray, start: int) -> np.ndarray:
    return np.concatenate([bases[:start], np.array(text, np.uint8), bases[start + len(text) :]])


def _spelling(codes_LxN: np.ndarray, spans_Lx2: np.ndarray, start: int, stop: int) -> list[tuple[int, ...]]:
    """Of each base the word that holds it, and where that begins; of those that overlap the last."""
    word_S = np.searchsorted(spans_Lx2[:, 0], np.arange(start, stop), side="right") - 1
    return [(*codes_LxN[word].tolist(), int(spans_Lx2[word, 0]) - start) for word in word_S]


def _alike(spelt: Sequence[Sequence[tuple[int, ...]]]) -> float:
    """Share of the places that have the commonest word of a base, the mean over bases."""
    return float(np.mean([Counter(words).most_common(1)[0][1] / len(words) for words in zip(*spelt)]))
