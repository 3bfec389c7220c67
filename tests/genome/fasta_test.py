"""The FASTA reader: what it accepts comes out whole, what it does not is an error with its line."""

import gzip
import io
import re
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_fasta import bgzip, fails_at, read_text, write

from vqdna_jax.errors import InputError
from vqdna_jax.genome import fasta, streams
from vqdna_jax.genome.alphabet import to_bases, to_text

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads peak memory from /proc")
BUNDLED = Path(streams.__file__).parent / "bundled"


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


def line_by_line(data: bytes) -> list[tuple[str, str]] | int:
    """What a reader of single lines makes of a file: the records that have bases, if any, or the line that is wrong."""
    lines, records, names = data.split(b"\n"), [], set()
    for number, line in enumerate(lines, 1):
        if line.startswith(b">"):
            header = line[1:].decode("utf-8", "replace")
            name = header.replace("\t", " ").replace("\x01", " ").strip().partition(" ")[0]
            if not name or name in names or not header.replace("\x01", "").replace("\t", "").isprintable():
                return number
            names.add(name)
            records.append((name, ""))
        elif line.rstrip(b" \t"):
            if not records or line.rstrip(b" \t").strip(b"ACGTNRYacgtnry"):
                return number
            records[-1] = records[-1][0], records[-1][1] + line.rstrip(b" \t").decode()
    return [(name, re.sub("[RY]", "N", re.sub("[ry]", "n", text))) for name, text in records if text]


@given(
    st.lists(
        st.sampled_from(
            [b">", b">a", b">b", b"a", b"ACGT", b"gR", b"N", b"\n", b"\n", b" ", b"\t", b"\x01", b"\0", b"-"]
        ),
        max_size=25,
    ),
    st.integers(1, 30),
)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_reads_and_refuses_what_a_reader_of_single_lines_does(tmp_path, monkeypatch, pieces, chunk):
    monkeypatch.setattr(streams, "CHUNK_BYTES", chunk)
    data = b"".join(pieces)
    path = write(tmp_path, data)
    expected = line_by_line(data)
    if isinstance(expected, int):
        fails_at(path, expected)
    elif not expected:
        with pytest.raises(InputError, match="empty"):
            read_text(path)
    else:
        assert read_text(path) == expected


def test_iupac_letters_become_n_and_are_counted_in_both_cases(tmp_path):
    (batch,) = fasta.FastaReader(write(tmp_path, b">a\nACRrYGT\nNk\n>b\nA\n>c\nyM\n"))
    assert to_text(batch.bases) == "ACNNNGTNN" + "A" + "NN"
    assert np.flatnonzero(batch.soft_mask).tolist() == [3, 8, 10]
    assert batch.ambiguous == {1: {"R": 2, "Y": 1, "K": 1}, 3: {"Y": 1, "M": 1}}


@pytest.mark.parametrize("chunk", [1, 3, 1 << 20])
def test_empty_records_are_counted_and_left_out(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(streams, "CHUNK_BYTES", chunk)
    path = write(tmp_path, b">a\n>b\nAC\n>c\n\n>d")
    reader = fasta.FastaReader(path)
    assert [name for batch in reader for name in batch.ids] == ["a", "b", "c", "d"]
    assert reader.skipped == {"empty_records": 3, "renamed_records": 0}
    assert read_text(path) == [("b", "AC")]


@pytest.mark.parametrize("chunk", [1, 4, 1 << 20])
def test_repeated_ids_are_refused_or_numbered(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(streams, "CHUNK_BYTES", chunk)
    path = write(tmp_path, b">a\nAC\n>a_2\nCC\n> a\tb\nGG\n>a\nTT\n")
    fails_at(path, 5, "'a'", "rename")
    reader = fasta.FastaReader(path, on_duplicate="rename")
    found = list(fasta.whole_records(reader))
    assert [record.id for record in found] == ["a", "a_2", "a_3", "a_4"]
    assert [record.header for record in found] == ["a", "a_2", " a_3\tb", "a_4"]
    assert reader.skipped["renamed_records"] == 2


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
        (b">a\nAC GT\n", 2, "digit or blank"),
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


@pytest.mark.parametrize("chunk", [1, 5, 1 << 20])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_blanks_at_line_ends_are_left_out_and_counted(tmp_path, monkeypatch, chunk, newline):
    monkeypatch.setattr(streams, "CHUNK_BYTES", chunk)
    lines = [b" ", b">a x ", b"ACGT  ", b"GG\t \t", b"TT", b"\t", b">b", b"acn ", b"gt "]
    for end in (b"", newline):
        reader = fasta.FastaReader(write(tmp_path, newline.join(lines) + end))
        assert [(r.id, to_text(r.bases)) for r in fasta.whole_records(reader)] == [("a", "ACGTGGTT"), ("b", "ACNGT")]
        assert reader.skipped["lines_ending_in_blanks"] == 6


@pytest.mark.parametrize("blanks", [1, 60_000, 200_000])
def test_blanks_within_a_line_are_refused_however_many(tmp_path, monkeypatch, blanks):
    monkeypatch.setattr(streams, "CHUNK_BYTES", 1 << 15)
    fails_at(write(tmp_path, b">a\nAC \nAC" + b" " * blanks + b"GT\n"), 3, "digit or blank")


@pytest.mark.parametrize(
    ("header", "id", "description"),
    [
        ("chr1\tAC:CM01\tgi:5", "chr1", "AC:CM01 gi:5"),
        ("chr2   two  spaces ", "chr2", "two  spaces"),
        ("  chr3 x", "chr3", "x"),
        ("gi|1|gb|X2.1| one\x01gi|2|gb|X2.1| two", "gi|1|gb|X2.1|", "one\x01gi|2|gb|X2.1| two"),
        ("gi|1|\x01gi|2|", "gi|1|", "\x01gi|2|"),
        ("é>ü > 漢字", "é>ü", "> 漢字"),
    ],
)
def test_a_header_is_kept_as_it_stands(tmp_path, header, id, description):
    (record,) = fasta.load_fasta(write(tmp_path, f">{header}\nACGT\n".encode()))
    assert (record.id, record.description, record.header) == (id, description, header)


def test_the_line_is_counted_over_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "CHUNK_BYTES", 7)
    fails_at(write(tmp_path, b">a\r\n" + b"ACGTAC\r\n" * 500 + b"AC!\r\n"), 502, "'!'")


def test_a_path_that_is_not_a_file_is_an_error(tmp_path):
    fails_at(tmp_path / "absent.fa", 1, "No such file")
    fails_at(tmp_path, 1, "directory", "expected a FASTA file")


def test_whole_records_keep_their_description(tmp_path):
    (record,) = fasta.load_fasta(write(tmp_path, b">chr1  some words \nACGT\nAC\n"))
    assert (record.id, record.description) == ("chr1", "some words")
    np.testing.assert_array_equal(record.bases, to_bases("ACGTAC"))


def test_a_short_record_is_read_nearly_as_fast_as_by_the_plainest_loop(tmp_path):
    """In processor seconds, against lines to arrays without checks: 5 times; one record at a time it was 24 times."""
    count = 30_000
    path = write(tmp_path, b"".join(b">r%d text\n%s\n" % (index, b"ACGTTGCATTGACCA" * 4) for index in range(count)))

    def plainest() -> int:
        with open(path, "rb") as file:
            pairs = zip(file, file)
            return sum(np.frombuffer(line.strip(), np.uint8).size > 0 < len(head.split()) for head, line in pairs)

    def ours() -> int:
        return sum(record.bases.size > 0 for record in fasta.load_fasta(path))

    seconds = {}
    for work in (plainest, ours) * 3:
        start = time.process_time()
        assert work() == count
        seconds[work] = min(seconds.get(work, np.inf), time.process_time() - start)
    assert seconds[ours] < 12 * seconds[plainest], seconds
