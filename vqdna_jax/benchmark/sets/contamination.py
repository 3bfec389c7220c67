"""Do rows of a benchmark stand in a corpus? Stretches of 32 bases that both have, on either strand.

A row that stands there whole was seen in pretraining, without its label. One stretch alone may be a repeat of a genome.
"""

import dataclasses
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import tqdm

from vqdna_jax.benchmark.sets import find
from vqdna_jax.benchmark.sets.cards import CARDS, Card
from vqdna_jax.benchmark.sets.check import aligned
from vqdna_jax.errors import InputError
from vqdna_jax.genome.alphabet import N, reverse_complement
from vqdna_jax.genome.chunks import chunk_bases, parse_chunk
from vqdna_jax.genome.corpus import ChunkTable, Corpus, open_corpus, read_records

STRETCH = 32  # bases, which fill a word of 64 bits
_AT_ONCE = 64  # chunks
_TABLE_BITS = 28  # at most, of the table that most stretches of a corpus fall through
_MIXER = np.uint64(0x9E3779B97F4A7C15)
_EXAMPLES = 3


@dataclasses.dataclass(frozen=True)
class Found:
    """Of the test rows of a set: how many stand in a corpus whole, in half or more of their stretches, in any."""

    rows: int
    whole: int
    half: int
    any: int
    examples: list[str]  # of rows that stand there whole


def look_for(
    directory: str | os.PathLike, corpus: str | os.PathLike, names: Iterable[str] | None = None
) -> dict[str, Found]:
    """What of the test rows of each set in `directory` stands in what training reads of a corpus; in one pass over it.

    Sets that cannot be read, or have no test rows, are left out. Raises InputError as `find.find` does, and with
    StorageError as `open_corpus` and `read_records` do.
    """
    opened, sets = open_corpus(corpus), find.find(directory, names)
    rows = {name: rows for name, path in sets.items() if (rows := _test_rows(CARDS[name], path))}
    known = np.unique(np.concatenate([_stretches(bases) for each in rows.values() for bases in each] or [_NONE]))
    places = _places(opened, known) if known.size else _NOWHERE
    return {name: _found(each, known, places, opened) for name, each in rows.items()}


def _test_rows(card: Card, path: pathlib.Path) -> Sequence[np.ndarray]:
    try:
        splits = find.read(card, path).splits
    except InputError:  # `check` says what is wrong
        return ()
    return splits["test"].bases if "test" in splits else ()


_NONE, _NOWHERE = np.zeros(0, np.uint64), np.zeros(0, np.int64)


def _words(bases_S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the stretch that begins at each base as a number, the same for both strands; whether all of it is known)"""
    if bases_S.size < STRETCH:
        return _NONE, np.zeros(0, bool)
    forward, unknown = _packed(bases_S), np.cumsum(np.concatenate([[0], bases_S == N]))
    other = _packed(reverse_complement(bases_S))[::-1]
    return np.minimum(forward, other), unknown[STRETCH:] == unknown[:-STRETCH]


def _packed(bases_S: np.ndarray) -> np.ndarray:
    """Two bits a base, of every stretch: of 1, 2, 4, ... bases out of the two halves of each. N is as A."""
    word = np.where(bases_S == N, 0, bases_S).astype(np.uint64)
    size = 1
    while size < STRETCH:
        word = word[:-size] << np.uint64(2 * size) | word[size:]
        size *= 2
    return word


def _stretches(bases_S: np.ndarray) -> np.ndarray:
    words, known = _words(bases_S)
    return words[known]


def _places(corpus: Corpus, known: np.ndarray) -> np.ndarray:
    """Where each of `known`, sorted, first stands in the corpus, as a base counted over all chunks; -1: nowhere."""
    places, bits = np.full(known.size, -1), min(_TABLE_BITS, known.size.bit_length() + 4)
    shift = np.uint64(64 - bits)
    table = np.zeros(1 << bits, bool)
    table[known * _MIXER >> shift] = True
    for start, bases_S in _pieces(corpus):
        words, whole = _words(bases_S)
        likely = np.flatnonzero(table[words * _MIXER >> shift] & whole)
        at = np.searchsorted(known, words[likely])
        there = np.flatnonzero(np.take(known, at, mode="clip") == words[likely])
        new, first = np.unique(at[there], return_index=True)
        fresh = places[new] < 0
        places[new[fresh]] = start + likely[there][first][fresh]
    return places


def _pieces(corpus: Corpus, split: str = "train") -> Iterator[tuple[int, np.ndarray]]:
    """(bases before it, the bases of some chunks in a row, and the last 31 before them where these go on there)."""
    table = corpus.chunks(split)
    if not table.length.size:
        return
    records, begins = corpus.records(split), np.concatenate([[0], np.cumsum(table.length, dtype=np.int64)])
    tail = np.zeros(0, np.uint8)
    groups = range(0, table.length.size, _AT_ONCE)
    for first in tqdm.tqdm(groups, desc="reading the corpus", unit="block", disable=not sys.stderr.isatty()):
        numbers = np.arange(first, min(first + _AT_ONCE, table.length.size))
        for number, record in zip(numbers, read_records(corpus, records, numbers)):
            if not _goes_on(table, number):
                tail = tail[:0]
            bases = np.concatenate([tail, chunk_bases(parse_chunk(record))])
            yield int(begins[number]) - tail.size, bases
            tail = bases[-STRETCH + 1 :]


def _goes_on(table: ChunkTable, number: int) -> bool:
    """Whether a chunk begins where the one before it ends."""
    before = number - 1
    return bool(
        number
        and table.species[number] == table.species[before]
        and table.contig[number] == table.contig[before]
        and table.start[number] == table.start[before] + table.length[before]
    )


def _found(rows: Sequence[np.ndarray], known: np.ndarray, places: np.ndarray, corpus: Corpus) -> Found:
    shares, examples = list[float](), list[str]()
    for number, bases in enumerate(rows):
        at = places[np.searchsorted(known, _stretches(bases))]
        shares.append((at >= 0).mean() if at.size else 0.0)
        if shares[-1] == 1 and len(examples) < _EXAMPLES:
            examples.append(f"row {number + 1} at {_name(corpus, int(at[0]))}")
    counted = np.array(shares)
    whole, half, some = (int(np.count_nonzero(each)) for each in (counted == 1, counted >= 0.5, counted > 0))
    return Found(len(rows), whole, half, some, examples)


def _name(corpus: Corpus, place: int, split: str = "train") -> str:
    """SPECIES CONTIG:POSITION, from 1, of a base counted over all chunks."""
    table = corpus.chunks(split)
    ends = np.cumsum(table.length, dtype=np.int64)
    number = int(np.searchsorted(ends, place, side="right"))
    position = int(table.start[number]) + place - int(ends[number] - table.length[number]) + 1
    return f"{corpus.species[table.species[number]]} {corpus.contigs[table.contig[number]]}:{position:,}"


def describe(found: Mapping[str, Found]) -> str:
    """A table with a line for each set, what its columns mean, and examples."""
    header = ("set", "test rows", "whole", "half or more", "any")
    table = aligned([header, *((name, *(_cell(n, of.rows) for n in _counts(of))) for name, of in found.items())])
    examples = [f"{name}: {', '.join(of.examples)}" for name, of in found.items() if of.examples]
    return "\n".join([*table, "", _LEGEND, *examples])


_LEGEND = (
    f"In the corpus, on either strand: rows of which every stretch of {STRETCH} bases is there, half or more, any. "
    "A stretch alone may be a repeat."
)


def _counts(found: Found) -> Iterable[int]:
    return found.rows, found.whole, found.half, found.any


def _cell(count: int, rows: int) -> str:
    return f"{count:,}" if count in (0, rows) else f"{count:,} ({count / rows:.2%})"
