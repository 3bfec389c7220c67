"""BED files: what the columns after the third are, in each of its kinds. What is refused: regions_test.py."""

import hashlib

import pytest

from vqdna_jax.genome.bed import read


@pytest.mark.parametrize(
    ("line", "name", "strand", "summit"),
    [
        ("chr1\t5\t9", "", ".", None),
        ("chr1\t5\t9\tpeak", "peak", ".", None),
        ("chr1\t5\t9\t.\t7\t-", "", "-", None),
        ("chr1 5 9 p 7 +", "p", "+", None),
        ("chr1\t5\t9\tp\t0\t+\t1.5\t2\t3", "p", "+", None),  # broadPeak
        ("chr1\t5\t9\tp\t0\t.\t1.5\t2\t3\t2", "p", ".", "2"),  # narrowPeak
        ("chr1\t5\t9\tp\t0\t.\t1.5\t2\t3\t-1", "p", ".", "-1"),
        ("chr1\t5\t9\tp\t0\t-\t5\t9\t0\t2\t1,1\t0,3", "p", "-", None),  # BED12
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", ""])
def test_columns_of_each_kind(line, name, strand, summit, end, tmp_path):
    content = f"track name=x{end or chr(10)}#c{end or chr(10)}{line}{end}".encode()
    (tmp_path / "x.bed").write_bytes(content)
    found = read(tmp_path / "x.bed")
    (one,) = found.intervals
    assert one[:3] == ("chr1", 5, 9) and one.place == f"{tmp_path}/x.bed:3"
    assert (one.name, one.strand, one.summit) == (name, strand, summit)
    assert (found.settings, found.sha256) == (1, hashlib.sha256(content).hexdigest())
