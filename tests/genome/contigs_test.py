"""Names of contigs: which are taken for others, and that no two become one."""

import pytest

from vqdna_jax.genome.contigs import describe, resolve


@pytest.mark.parametrize(
    "used, known, found",
    [
        (["chr20"], ["chr20", "20"], {"chr20": "chr20"}),
        (["chr20"], ["20", "21"], {"chr20": "20"}),
        (["20", "X"], ["chr20", "chrX"], {"20": "chr20", "X": "chrX"}),
        (["Chr1"], ["chr1"], {"Chr1": "chr1"}),
        (["1"], ["chr1", "Chr1"], {}),  # either may be meant
        (["chr20", "20"], ["20"], {"20": "20"}),  # who writes both means two
        (["chr20", "Chr20"], ["20"], {}),
        (["chrM"], ["MT"], {}),
        (["chr"], [""], {}),
        (["2", "2"], ["chr2"], {"2": "chr2"}),
        (["NC_000962"], ["NC_000962.3"], {}),
    ],
)
def test_names_that_can_be_told(used, known, found):
    assert resolve(used, known) == found
    assert resolve(reversed(used), reversed(known)) == found


def test_only_changes_are_told():
    assert describe({"20": "20"}) == []
    (line,) = describe({f"chr{i}": f"{i}" for i in range(1, 6)} | {"X": "X"})
    assert line == "names of contigs: chr1 is read as 1, chr2 is read as 2, chr3 is read as 3 and 2 more"
