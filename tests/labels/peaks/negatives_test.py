"""Candidates for negatives: all free windows, each once, the nearest in G and C first."""

import numpy as np
import pytest

from vqdna_jax.genome.alphabet import to_text
from vqdna_jax.genome.indexed_fasta import IndexedFasta
from vqdna_jax.labels.peaks import negatives
from vqdna_jax.labels.peaks.negatives import Candidates
from vqdna_jax.labels.peaks.splits import Stretch

WIDTH, CLAIMED = 12, [(100, 130), (0, 3), (120, 125), (390, 400)]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    rng = np.random.default_rng(0)
    bases = rng.integers(0, 4, 500).astype(np.uint8)
    bases[200:210] = 4
    return to_text(bases)


@pytest.fixture(scope="module")
def genome(text, tmp_path_factory):
    path = tmp_path_factory.mktemp("candidates") / "x.fa"
    path.write_text(f">a\n{text}\n")
    with IndexedFasta(path) as found:
        yield found


def free(text, first, last) -> dict[int, int]:
    """{start: its G and C}, the slow and obvious way."""
    windows = {start: text[start : start + WIDTH] for start in range(first, last - WIDTH + 1)}
    return {
        start: sum(word.count(letter) for letter in "GC")
        for start, word in windows.items()
        if "N" not in word and all(stop <= start or start + WIDTH <= begin for begin, stop in CLAIMED)
    }


@pytest.mark.parametrize(("first", "last"), [(0, 500), (50, 300), (200, 210), (5, 6)])
@pytest.mark.parametrize("block", [None, 7, 64])
def test_all_free_windows_are_there_nearest_first(text, genome, first, last, block, monkeypatch):
    if block:
        monkeypatch.setattr(negatives, "_BLOCK", block)
    found = list(Candidates(genome, Stretch("a", first, last, "train"), CLAIMED, WIDTH, 1).near(6))
    expected = free(text, first, last)
    assert sorted(found) == sorted(expected)
    apart = [abs(expected[start] - 6) for start in found]
    assert apart == sorted(apart)


def test_none_is_given_twice_and_a_seed_gives_one_order(text, genome):
    stretch = Stretch("a", 0, 500, "train")
    one, same, other = (Candidates(genome, stretch, CLAIMED, WIDTH, seed) for seed in (1, 1, 2))
    draws = [next(one.near(6)) for _ in range(20)]
    assert len(set(draws)) == 20
    assert draws == [next(same.near(6)) for _ in range(20)] != [next(other.near(6)) for _ in range(20)]


def test_of_a_long_stretch_they_are_evenly_spaced(text, genome, monkeypatch):
    monkeypatch.setattr(negatives, "MOST_CANDIDATES", 50)
    found = set(Candidates(genome, Stretch("a", 0, 500, "train"), CLAIMED, WIDTH, 1).near(6))
    assert found == {start for start in free(text, 0, 500) if start % 9 == 0}
