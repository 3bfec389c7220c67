"""Inputs larger than anyone means them: a line that says so, in bounded memory, long before the machine is full."""

import gzip
import json
import shutil
import subprocess
import sys
import tracemalloc

import pytest
from refusals import refusal

from vqdna_jax.genome import fasta, streams
from vqdna_jax.genome.build.build import build_corpus
from vqdna_jax.genome.corpus import open_corpus
from vqdna_jax.genome.regions import read_bed
from vqdna_jax.labels.csv_rows import read_rows

MB = 1 << 20
BOMBS = {
    "x.fa": (fasta.load_fasta, b">a\n" + b"A" * 3 * MB),
    "x.csv.gz": (read_rows, b"sequence,label\n" + b"ACGT,0\n" * 200_000),
    "x.bed": (read_bed, b"chr1\t0\t100\n" * 40_000),
}


def read_all(read, path) -> int:
    return sum(1 for _ in read(path))


@pytest.mark.parametrize("name", BOMBS)
def test_gzip_that_becomes_very_much_text_is_refused_unless_it_is_meant(tmp_path, monkeypatch, name):
    monkeypatch.setattr(streams, "_FREE_BYTES", MB >> 2)
    read, text = BOMBS[name]
    path = tmp_path / name
    path.write_bytes(gzip.compress(text))
    message = refusal(read_all, read, path)
    assert message.startswith(f"{path}:") and "200 times as much text" in message and f"${streams.RATIO}" in message
    monkeypatch.setenv(streams.RATIO, "2000")
    assert read_all(read, path) > 0
    monkeypatch.setenv(streams.RATIO, "many")
    assert f"${streams.RATIO}=many" in refusal(read_all, read, path)


def test_little_text_may_be_as_repetitive_as_it_likes(tmp_path):
    path = tmp_path / "x.fa"
    path.write_bytes(gzip.compress(b">a\n" + b"N" * 3 * MB))
    (record,) = fasta.load_fasta(path)
    assert record.bases.size == 3 * MB


@pytest.mark.parametrize("before, told", [(b"", "the first record"), (b">a\nAC\n>b\nAC\n", "after that of line 3")])
def test_a_record_that_memory_does_not_hold_is_named(tmp_path, before, told):
    path = tmp_path / "x.fa"
    path.write_bytes(before + b">long\n" + b"ACGTTGCAAC" * 6 * MB)
    child = """if True:
        import resource, sys
        from vqdna_jax.errors import report_and_exit
        from vqdna_jax.genome.fasta import load_fasta
        pages = int(open("/proc/self/statm").read().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (80 << 20),) * 2)
        with report_and_exit():
            print(sum(record.bases.size for record in load_fasta(sys.argv[1])))
    """
    done = subprocess.run([sys.executable, "-c", child, path], capture_output=True, text=True)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 43 and line.startswith(f"error: {path}: ") and told in line, done.stderr


def test_of_many_records_no_more_than_their_names_is_kept(tmp_path):
    """10 million such take 0.9 GB and 13 s of one core."""
    count, path = 200_000, tmp_path / "x.fa"
    path.write_bytes(b"".join(b">r%d\nACGTAC\n" % number for number in range(count)))
    tracemalloc.start()
    found = sum(len(batch.ids) for batch in fasta.FastaReader(path))
    kept = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == count and kept < 120 * count + 40 * MB


@pytest.mark.parametrize("quote", [b"", b'"'])
def test_a_field_of_a_gigabyte_ends_at_the_limit(tmp_path, quote):
    path = tmp_path / "x.csv"
    path.write_bytes(b"sequence,label\n" + quote)
    with open(path, "r+b") as file:
        file.truncate(1 << 30)  # takes no room on the disk
    tracemalloc.start()
    message = refusal(read_all, read_rows, path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert message.startswith(f"{path}:2:1: ") and "characters" in message and peak < 200 * MB


NOT_HERE = ["../x", "/etc/passwd", "a/b", "..", ".", "", "a\0b", "./manifest.json"]


@pytest.fixture(scope="module")
def built(bundled, tmp_path_factory):
    place = tmp_path_factory.mktemp("limits") / "corpus"
    build_corpus([bundled / "phiX174.fa.gz"], place, progress=False)
    return place


@pytest.mark.parametrize("name", NOT_HERE)
def test_a_manifest_that_names_a_file_elsewhere_is_refused(built, tmp_path, name):
    copy = shutil.copytree(built, tmp_path / "copy")
    (tmp_path / "x").write_bytes(b"outside")
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"][name] = {"bytes": 7, "sha256": "0" * 64}
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert "is not a file of this directory" in refusal(open_corpus, copy)
