"""Streams without an end: what they bring is refused at the first block that shows that it is not FASTA or CSV."""

import gzip
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from vqdna_jax.errors import InputError
from vqdna_jax.genome.fasta import FastaReader
from vqdna_jax.genome.stream_check import fasta_check
from vqdna_jax.inference.jobs.sequence_rows import stream_check

GOOD = [b">a one\nACGT\n", b"\n\n>a\nACGT \n", b"\xef\xbb\xbf>a\r\nACGTN\r\nRYK", b">a\rACGT\r"]
GOOD += [b">" + b"a" * 60_000 + b"\n" + b"ACGT" * 500_000, b">a\nAC", b">", b"", b"\n", b">a\n\n>b\nEFIL"]
MEGABYTE = 1 << 20


def refused_after(blocks: Iterator[bytes], check, most: int = 40) -> tuple[int, str]:
    """(blocks that were taken, why no more of them were)"""
    for count, block in enumerate(itertools.islice(blocks, most)):
        if reason := check(block):
            return count, reason
    return most, ""


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("content", GOOD)
def test_what_may_be_fasta_is_taken(content, pack):
    packed, check = pack(content), fasta_check()
    assert [check(packed[at : at + MEGABYTE]) for at in range(0, len(packed), MEGABYTE)] == [""] * -(
        -len(packed) // MEGABYTE
    )


@pytest.mark.parametrize(
    ("first", "then", "says"),
    [
        (b"\0" * MEGABYTE, b"\0", "binary"),
        (b"y\n" * MEGABYTE, b"", "sequence before any header"),
        (b"\n" * MEGABYTE, b"", "expected FASTA"),
        (b"@read\nACGT\n", b"", "FASTQ"),
        (b">" + b"a" * MEGABYTE, b"", "header line is longer"),
        (b"\r\n>a\r\nACGT\r\nhello\r\n", b"hello\n", "4: 'e'"),
        (">a\nACGT\nAÄ\n".encode(), b"", "3: 'Ä'"),
        (b">a\nACGT\nA\xe4\n", b"", r"3: '\xe4'"),
        (gzip.compress(b"hello\n" * 1000, mtime=0), b"", "sequence before any header"),
    ],
)
def test_a_stream_that_is_no_fasta_is_refused_at_its_first_block(first, then, says):
    count, reason = refused_after(itertools.chain([first], itertools.repeat(then)), fasta_check())
    assert count == 0 and says in reason and "\n" not in reason


def test_a_zero_byte_ends_a_stream_of_text_wherever_it_comes():
    blocks = itertools.chain([b">a\nACGT\n"] * 7, itertools.repeat(b"\0" * MEGABYTE))
    assert refused_after(blocks, fasta_check()) == (7, "15: a zero byte; this is binary, not text")
    packed = gzip.compress(b">a\n" + b"ACGTTGCA" * 1000)
    assert b"\0" in packed
    check = fasta_check()
    assert [check(packed[:30]), check(packed[30:])] == ["", ""]


def test_a_line_of_csv_has_an_end():
    csv, fasta = itertools.repeat(b"A" * MEGABYTE), itertools.repeat(b"A" * MEGABYTE)
    assert 10 < refused_after(itertools.chain([b"sequence,label\n"], csv), stream_check())[0] < 20
    assert refused_after(itertools.chain([b">a\n"], fasta), stream_check()) == (40, "")
    lines = itertools.repeat(b"ACGT,1\n" * 100_000)
    assert refused_after(itertools.chain([b"sequence,label\n"], lines), stream_check()) == (40, "")
    assert refused_after(itertools.repeat(b"hello\n"), stream_check())[0] == 0


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="has no end")
def test_nothing_of_an_endless_pipe_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    program = "from vqdna_jax.genome.fasta_files import FastaFiles\nFastaFiles(['-']).__enter__()"
    with open("/dev/zero", "rb") as endless:
        end = subprocess.run([sys.executable, "-c", program], stdin=endless, capture_output=True, text=True, timeout=60)
    assert "InputError: standard input:1: this is binary" in end.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("raw", "shown"), [("é".encode(), "'é'"), ("𝒜".encode(), "'𝒜'"), (b"\xe9", r"'\xe9'"), (b"\xff\xfe", r"'\xff'")]
)
def test_a_letter_outside_ascii_is_shown_as_it_is(tmp_path, raw, shown):
    (tmp_path / "x.fa").write_bytes(b">a\nACGT" + raw + b"T\n")
    with pytest.raises(InputError) as refused:
        list(FastaReader(tmp_path / "x.fa"))
    assert f"x.fa:2: {shown} is not DNA" in str(refused.value)
