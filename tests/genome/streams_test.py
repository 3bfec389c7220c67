"""Compressed files: members and blocks add up, whatever is cut or flipped is an error, memory is bounded."""

import gzip
import subprocess
import sys
from pathlib import Path

import pytest
from small_fasta import bgzip, fails_at, read_text, write

from vqdna_jax.errors import InputError
from vqdna_jax.genome import fasta, streams

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads peak memory from /proc")


FASTA = b">a\n" + b"ACGTTGCAAC\n" * 60 + b">b\n" + b"GGGTTTCCAA\n" * 40


def test_gzip_members_add_up(tmp_path):
    path = write(tmp_path, gzip.compress(FASTA[:100]) + gzip.compress(FASTA[100:]))
    assert read_text(path) == read_text(write(tmp_path, FASTA, "plain.fa"))


@pytest.mark.parametrize("packed", [gzip.compress(FASTA), bgzip(FASTA)], ids=["gzip", "bgzip"])
def test_every_truncation_of_a_compressed_file_is_an_error(tmp_path, packed):
    for size in range(3, len(packed)):
        with pytest.raises(InputError, match=r"x.fa:\d+: .*truncated"):
            list(fasta.FastaReader(write(tmp_path, packed[:size])))


def test_every_flipped_bit_is_an_error_or_harmless(tmp_path):
    packed = gzip.compress(FASTA, mtime=0)
    whole = read_text(write(tmp_path, packed))
    for at in range(2, len(packed)):
        damaged = bytearray(packed)
        damaged[at] ^= 1 << at % 8
        try:
            assert read_text(write(tmp_path, bytes(damaged))) == whole  # the time stamp, or padding bits
        except InputError as error:
            assert "x.fa:" in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("junk", [b"junk", b"\x1f", b"\x1f\x8b", b"ACGT\n" * 10])
def test_bytes_after_the_last_member_are_an_error(tmp_path, junk):
    with pytest.raises(InputError, match="damaged or truncated"):
        list(fasta.FastaReader(write(tmp_path, gzip.compress(FASTA) + junk)))


def test_bgzip_needs_its_end_marker(tmp_path):
    assert read_text(write(tmp_path, bgzip(FASTA))) == read_text(write(tmp_path, FASTA, "plain.fa"))
    fails_at(write(tmp_path, bgzip(FASTA, end_marker=False)), 1, "end marker")


def test_bgzip_and_gzip_members_may_follow_each_other(tmp_path):
    whole = read_text(write(tmp_path, FASTA, "plain.fa"))
    first, second = FASTA[:200], FASTA[200:]
    for packed in (
        bgzip(first) + gzip.compress(second),
        bgzip(first) + bgzip(second),
        gzip.compress(first) + bgzip(second),
        bgzip(first) + gzip.compress(second[:50]) + bgzip(second[50:]),
    ):
        assert read_text(write(tmp_path, packed)) == whole
    fails_at(write(tmp_path, bgzip(first) + gzip.compress(second)[:-9]), 1, "truncated")
    fails_at(write(tmp_path, bgzip(first, end_marker=False) + gzip.compress(second)), 1, "end marker")
    fails_at(write(tmp_path, bgzip(first) + bgzip(second, end_marker=False)), 1, "end marker")
    fails_at(write(tmp_path, bgzip(first) + b"junk"), 1, "end marker")


def test_the_standard_gzip_does_where_isal_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "_open_gzip", gzip.open)
    assert len(read_text(write(tmp_path, gzip.compress(FASTA)))) == 2
    fails_at(write(tmp_path, gzip.compress(FASTA)[:-9]), 1, "truncated")


@needs_proc
def test_a_63_mb_line_and_a_gzip_bomb_stream_in_bounded_memory(tmp_path):
    child = """if True:
        import sys
        from vqdna_jax.genome.fasta import FastaReader
        peak = lambda: int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])  # kB, of this process alone
        before = peak()
        bases = sum(batch.bases.size for batch in FastaReader(sys.argv[1]))
        print(bases, (peak() - before) // 1000)
    """
    line = b"ACGTTGCAAC" * 6_300_000
    for data in (b">one\n" + line, gzip.compress(b">one\n" + line, 1)):
        path = write(tmp_path, data)
        printed = subprocess.run([sys.executable, "-c", child, path], capture_output=True, text=True, check=True).stdout
        bases, extra_mb = map(int, printed.split())
        assert bases == 63_000_000 and extra_mb < 40, extra_mb
