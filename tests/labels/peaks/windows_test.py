"""Windows of intervals: the base they are around lies at the same place in each, on either strand."""

import pytest

from vqdna_jax.genome.bed import Interval
from vqdna_jax.labels.peaks.windows import Window, around, free_of

LENGTH = 1000


def mirrored(one: Interval) -> Interval:
    """The same of the other strand, counted from the other end."""
    strand = {"+": "-", "-": "+", ".": "."}[one.strand]
    others = one.others[:2] + (strand,) + one.others[3:]
    if one.summit not in (None, "-1"):
        others = others[:-1] + (str(one.stop - one.start - 1 - int(one.summit)),)
    return one._replace(start=LENGTH - one.stop, stop=LENGTH - one.start, others=others)


@pytest.mark.parametrize("width", [1, 2, 9, 10])
@pytest.mark.parametrize("at", ["auto", "centre", "start"])
@pytest.mark.parametrize("size", [1, 2, 7, 20])
@pytest.mark.parametrize("summit", [None, "-1", "0"])
def test_the_other_strand_is_the_mirror(width, at, size, summit):
    others = ("p", "0", "+") + (("1", "1", "1", summit) if summit else ())
    one = Interval("a", 400, 400 + size, others, "x:1")
    window, back = around(one, width, at), around(mirrored(one), width, at)
    assert (back.start, back.stop) == (LENGTH - window.stop, LENGTH - window.start)
    anchor = 400 if at == "start" or (at == "auto" and summit == "0") else 400 + size // 2
    assert window == Window("a", anchor - width // 2, anchor - width // 2 + width, "+")


def test_a_summit_counts_from_the_start_whatever_the_strand():
    for strand in "+-.":
        window = around(Interval("a", 100, 200, ("p", "0", strand, "1", "1", "1", "30"), "x:1"), 1, "auto")
        assert (window.start, window.stop) == (130, 131)


@pytest.mark.parametrize("claimed", [[(10, 20)], [(10, 12), (0, 20)], [(15, 16), (3, 4)]])
def test_what_overlaps_is_not_free(claimed):
    windows = [Window("a", start, start + 5, ".") for start in range(40)] + [Window("b", 10, 15, ".")]
    expected = [one for one in windows if one.contig == "b" or all(e <= one.start or one.stop <= s for s, e in claimed)]
    assert free_of(windows, {"a": claimed}) == expected
