"""The FASTA reader: what it accepts comes out whole, what it does not is an error with its line."""

import gzip
import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vqdna_jax.errors import InputError
from vqdna_jax.genome import fasta, streams
from vqdna_jax.genome.alphabet import to_bases, to_text

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads peak memory from /proc")
BUNDLED = Path(streams.__file__).parent / "bundled"


def write(tmp_path, data: bytes, name="x.fa") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


def read_text(path, **kwargs) -> list[tuple[str, str]]:
    """(id, sequence in the case of the file) of every record."""
    records = []
    for record in fasta.load_fasta(path, **kwargs):
        letters = np.frombuffer(to_text(record.bases).encode(), np.uint8)
        records.append((record.id, (letters | record.soft_mask.astype(np.uint8) << 5).tobytes().decode()))
    return records


def fails_at(path, line: int, *words: str, **kwargs):
    with pytest.raises(InputError) as caught:
        list(fasta.read_fasta(path, **kwargs))
    message = str(caught.value)
    assert message.startswith(f"{path}:{line}: ") and "\n" not in message, message
    for word in words:
        assert word in message, message


def bgzip(data: bytes, end_marker=True) -> bytes:
    blocks = []
    for at in range(0, len(data), 100):
        deflate = zlib.compressobj(6, zlib.DEFLATED, -15)
        body = deflate.compress(data[at : at + 100]) + deflate.flush()
        header = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x06\0BC\x02\0" + struct.pack("<H", len(body) + 25)
        blocks.append(header + body + struct.pack("<II", zlib.crc32(data[at : at + 100]), len(data[at : at + 100])))
    return b"".join(blocks) + (streams._BGZF_END if end_marker else b"")


records_strategy = st.lists(st.text("ACGTNacgtn", min_size=1, max_size=200), min_size=1, max_size=5)


@given(
    records_strategy,
    st.integers(1, 80),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.booleans(),
    st.integers(1, 50),
    st.sampled_from([lambda data: data, gzip.compress, bgzip]),
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_layout_of_the_same_records_reads_the_same(tmp_path, monkeypatch, seqs, width, newline, last, chunk, pack):
    monkeypatch.setattr(streams, "CHUNK_BYTES", chunk)  # borders fall everywhere, between CR and LF too
    lines = []
    for index, seq in enumerate(seqs):
        lines.append(b">r%d some text" % index)
        lines += [seq[at : at + width].encode() for at in range(0, len(seq), width)]
    data = newline.join(lines) + (newline if last else b"")
    path = write(tmp_path, pack(data))
    assert read_text(path) == [(f"r{index}", seq) for index, seq in enumerate(seqs)]


@pytest.mark.parametrize("name", ["phiX174", "arabidopsis_chloroplast", "h_pylori_G27"])
def test_agrees_with_biopython_on_real_genomes(name):
    seqio = pytest.importorskip("Bio.SeqIO.FastaIO")
    path = BUNDLED / f"{name}.fa.gz"
    with gzip.open(path, "rt") as file:
        expected = [(title.split()[0], seq) for title, seq in seqio.SimpleFastaParser(file)]
    assert read_text(path) == expected


def test_agrees_with_biopython_on_lower_case_blank_lines_and_uneven_lines(tmp_path):
    seqio = pytest.importorskip("Bio.SeqIO.FastaIO")
    data = b"\xef\xbb\xbf>a one\tmore text\n\nACGTnnnn\nac\n\ngt\n>b\nA\n\n>c\nNNNN"
    expected = [(t.split()[0], s) for t, s in seqio.SimpleFastaParser(io.StringIO(data.decode("utf-8-sig")))]
    assert read_text(write(tmp_path, data)) == expected


def test_iupac_letters_become_n_and_are_counted_in_both_cases(tmp_path):
    events = list(fasta.read_fasta(write(tmp_path, b">a\nACRrYGT\nNk\n")))
    assert isinstance(events[0], fasta.Record) and isinstance(events[1], fasta.Block)
    assert to_text(events[1].bases) == "ACNNNGTNN"
    assert events[1].soft_mask.tolist() == [False] * 3 + [True] + [False] * 4 + [True]
    assert events[1].ambiguous == {"R": 2, "Y": 1, "K": 1}


def test_empty_records_are_headers_without_blocks(tmp_path):
    path = write(tmp_path, b">a\n>b\nAC\n>c\n\n>d")
    kinds = [type(event) for event in fasta.read_fasta(path)]
    assert kinds == [fasta.Record, fasta.Record, fasta.Block, fasta.Record, fasta.Record]
    assert read_text(path) == [("b", "AC")]


def test_repeated_ids_are_refused_or_numbered(tmp_path):
    path = write(tmp_path, b">a\nAC\n>a_2\nCC\n>a\nGG\n>a\nTT\n")
    fails_at(path, 5, "'a'", "rename")
    assert [name for name, _ in read_text(path, on_duplicate="rename")] == ["a", "a_2", "a_3", "a_4"]
    records = [e for e in fasta.read_fasta(path, on_duplicate="rename") if isinstance(e, fasta.Record)]
    assert [record.renamed for record in records] == [False, False, True, True]


@pytest.mark.parametrize(
    ("data", "line", "word"),
    [
        (b"", 1, "empty"),
        (b"\n\n", 3, "empty"),
        (b"\xef\xbb\xbf", 1, "empty"),
        (b"ACGT\n", 1, "before any header"),
        (b"\n\nACGT\n", 3, "before any header"),
        (b">a\n>b\n", 3, "all 2 records are empty"),
        (b">a\nAC-GT\n", 2, "gap"),
        (b">a\nAC\nA.T\n", 3, "gap"),
        (b">a\r\nAC\r\nA*T\r\n", 3, "gap"),
        (b">a\nACGU\n", 2, "RNA"),
        (b">a\nACGT\n>p\nMKVLEF\n", 4, "protein"),
        (b">a\nACGTX\n", 2, "protein"),
        (b">a\n1 ACGT\n", 2, "digit or blank"),
        (b">a\nACGT \n", 2, "digit or blank"),
        (b">a\nAC\tGT\n", 2, "digit or blank"),
        (b">a\nAC\0GT\n", 2, "damaged"),
        (b">a\nAC>GT\n", 2, "'>' inside"),
        (b">a\nACGT>b\nACGT\n", 2, "'>' inside"),
        (b";c\n>a\nACGT\n", 1, "comments"),
        (b">a\nAC\n;c\nGT\n", 3, "comment"),
        (b"@r\nACGT\n+\nIIII\n", 1, "FASTQ"),
        (b">r\nACGT\n+\nIIII\n", 3, "FASTQ"),
        (">a\nACGT\n".encode("utf-16"), 1, "UTF-16"),
        (">a\nACGT\n".encode("utf-16-le"), 1, "UTF-16"),
        (bytes(range(256)), 1, "binary"),
        (b"\x89PNG\r\n\x1a\n", 1, "binary"),
        (b"PK\x03\x04", 1, "zip"),
        (b"BZh91AY", 1, "bzip2"),
        (b"\x28\xb5\x2f\xfd", 1, "zstd"),
        (b">\nACGT\n", 1, "no name"),
        (b"> \nACGT\n", 1, "no name"),
        (b">a\nAC\n>\xe9\xe9\nACGT\n", 3, "not UTF-8"),
        (b">a\x07b\nACGT\n", 1, "control"),
        (b">" + b"h" * 70000 + b"\nACGT\n", 1, "longer than 65536"),
        (b">" + b"h" * 3_000_000, 1, "longer than 65536"),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_what_is_not_dna_is_an_error_with_its_line(tmp_path, data, line, word, pack):
    fails_at(write(tmp_path, pack(data)), line, word)


def test_the_line_is_counted_over_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "CHUNK_BYTES", 7)
    fails_at(write(tmp_path, b">a\r\n" + b"ACGTAC\r\n" * 500 + b"AC!\r\n"), 502, "'!'")


def test_a_path_that_is_not_a_file_is_an_error(tmp_path):
    fails_at(tmp_path / "absent.fa", 1, "No such file")
    fails_at(tmp_path, 1, "directory", "expected a FASTA file")


FASTA = b">a\n" + b"ACGTTGCAAC\n" * 60 + b">b\n" + b"GGGTTTCCAA\n" * 40


def test_gzip_members_add_up(tmp_path):
    path = write(tmp_path, gzip.compress(FASTA[:100]) + gzip.compress(FASTA[100:]))
    assert read_text(path) == read_text(write(tmp_path, FASTA, "plain.fa"))


@pytest.mark.parametrize("packed", [gzip.compress(FASTA), bgzip(FASTA)], ids=["gzip", "bgzip"])
def test_every_truncation_of_a_compressed_file_is_an_error(tmp_path, packed):
    for size in range(3, len(packed)):
        with pytest.raises(InputError, match=r"x.fa:\d+: .*truncated"):
            list(fasta.read_fasta(write(tmp_path, packed[:size])))


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
        list(fasta.read_fasta(write(tmp_path, gzip.compress(FASTA) + junk)))


def test_bgzip_needs_its_end_marker(tmp_path):
    assert read_text(write(tmp_path, bgzip(FASTA))) == read_text(write(tmp_path, FASTA, "plain.fa"))
    fails_at(write(tmp_path, bgzip(FASTA, end_marker=False)), 1, "end marker")


def test_the_standard_gzip_does_where_isal_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "_open_gzip", gzip.open)
    assert len(read_text(write(tmp_path, gzip.compress(FASTA)))) == 2
    fails_at(write(tmp_path, gzip.compress(FASTA)[:-9]), 1, "truncated")


@needs_proc
def test_a_63_mb_line_and_a_gzip_bomb_stream_in_bounded_memory(tmp_path):
    child = """if True:
        import sys
        from vqdna_jax.genome.fasta import Block, read_fasta
        peak = lambda: int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])  # kB, of this process alone
        before = peak()
        bases = sum(event.bases.size for event in read_fasta(sys.argv[1]) if isinstance(event, Block))
        print(bases, (peak() - before) // 1000)
    """
    line = b"ACGTTGCAAC" * 6_300_000
    for data in (b">one\n" + line, gzip.compress(b">one\n" + line, 1)):
        path = write(tmp_path, data)
        printed = subprocess.run([sys.executable, "-c", child, path], capture_output=True, text=True, check=True).stdout
        bases, extra_mb = map(int, printed.split())
        assert bases == 63_000_000 and extra_mb < 40, extra_mb


def test_whole_records_keep_their_description(tmp_path):
    (record,) = fasta.load_fasta(write(tmp_path, b">chr1  some words \nACGT\nAC\n"))
    assert (record.id, record.description) == ("chr1", "some words")
    np.testing.assert_array_equal(record.bases, to_bases("ACGTAC"))
