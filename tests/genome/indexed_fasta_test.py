"""Stretches of a genome by an index: those that reading all of it gives, however it is written and indexed."""

import gzip
import os
import re
import threading

import numpy as np
import pysam
import pytest
from refusals import refusal
from small_two_bit import two_bit

from vqdna_jax.genome import fasta
from vqdna_jax.genome.fasta_files import FastaFiles
from vqdna_jax.genome.indexed_fasta import IndexedFasta

GENOME = "human_chr20_30-31Mb.fa.gz"  # soft-masked
LINE = 61


@pytest.fixture(scope="module")
def records(bundled) -> dict[str, str]:
    (record,) = fasta.load_fasta(bundled / GENOME)
    letters = np.frombuffer(b"ACGTN", np.uint8)[record.bases] | record.soft_mask.astype(np.uint8) << 5
    text = letters.tobytes().decode()
    return {"20": text[:40_000], "one": "g", "odd|name:1-2": "NNNNRYacgtK" + text[50_000:50_500]}


def text_of(records: dict[str, str], end: str = "\n", width: int = LINE) -> bytes:
    lines = []
    for name, letters in records.items():
        lines += [f">{name} words", *(letters[at : at + width] for at in range(0, len(letters), width))]
    return "".join(line + end for line in lines).encode()


def write(records, kind: str, directory) -> os.PathLike:
    path = directory / ("x.fa.gz" if "gzip" in kind else "x.2bit" if kind == "2bit" else "x.fa")
    texts = {"crlf": text_of(records, "\r\n"), "cr": text_of(records, "\r"), "mark": b"\xef\xbb\xbf" + text_of(records)}
    text = texts.get(kind, text_of(records))
    if kind == "blanks":
        text = text.replace(b"\n", b" \n", 3)
    if kind == "uneven":
        text = text[:200] + b"\n" + text[200:]
    if kind == "bgzip":
        (directory / "plain.fa").write_bytes(text)
        pysam.tabix_compress(str(directory / "plain.fa"), str(path))
    elif kind == "2bit":
        path.write_bytes(two_bit({name: re.sub("[RYK]", "N", letters) for name, letters in records.items()}))
    else:
        path.write_bytes(gzip.compress(text) if kind == "gzip" else text)
    return path


KINDS = ["plain", "bgzip", "gzip", "2bit", "crlf", "cr", "mark", "uneven", "blanks"]


def check(genome: IndexedFasta, path) -> None:
    """All of it, and stretches at the ends and across lines, are as the strict reader has them."""
    with FastaFiles([path]) as files:
        whole = {record.id: record.bases for record in files.read()}
    assert genome.lengths == {name: bases.size for name, bases in whole.items()}
    rng = np.random.default_rng(0)
    for name, bases in whole.items():
        np.testing.assert_array_equal(genome.bases(name, 0, bases.size), bases)
        for start, stop in np.sort(rng.integers(0, bases.size + 1, (20, 2)), axis=1):
            np.testing.assert_array_equal(genome.bases(name, start, stop), bases[start:stop])


@pytest.mark.parametrize("kind", KINDS)
def test_stretches_are_those_of_the_whole(records, kind, tmp_path):
    path = write(records, kind, tmp_path)
    with IndexedFasta(path) as genome:
        check(genome, path)
    indexed = kind in ("plain", "bgzip", "crlf")
    assert (tmp_path / f"{path.name}.fai").exists() == indexed
    assert bool(genome.notes) != indexed
    with IndexedFasta(path) as again:  # by the index that is there now
        check(again, path)


def test_an_index_that_is_there_is_used_as_it_is(records, tmp_path):
    path = write(records, "plain", tmp_path)
    pysam.faidx(str(path))
    path.write_bytes(path.read_bytes().replace(b">one words\ng", b">one words\n!"))  # which reading all would find
    os.utime(path, (1, 1))
    with IndexedFasta(path) as genome:
        assert genome.bases("20", 0, 40_000).size == 40_000 and genome.notes == []


def entered(path) -> str:
    """Why it cannot be."""
    return refusal(IndexedFasta(path).__enter__)


OTHERS = {
    "name": lambda lines: lines[1].replace("one", "uno"),
    "length": lambda lines: lines[0].replace("40000", "39999"),
    "longer": lambda lines: lines[-1].replace("511", "512"),
    "line": lambda lines: lines[0].replace("\t61\t", "\t60\t"),
    "one is missing": lambda lines: "",
    "one more": lambda lines: lines[0] + lines[0].replace("20", "21"),
}


@pytest.mark.parametrize("end", ["plain", "crlf"])
@pytest.mark.parametrize("change", OTHERS)
def test_an_index_that_says_other_places_is_refused_however_new(records, change, end, tmp_path):
    path = write(records, end, tmp_path)
    pysam.faidx(str(path))
    index = tmp_path / "x.fa.fai"
    lines = index.read_text().splitlines(keepends=True)
    which = {"name": 1, "longer": -1}.get(change, 0)
    assert (changed := OTHERS[change](lines)) != lines[which]
    lines[which] = changed
    index.write_text("".join(lines))
    assert re.match(r".*x.fa: .*x.fa.fai says another place for .*; fetch the file again, or", entered(path))
    assert index.read_text() == "".join(lines)


@pytest.mark.parametrize("harm", ["old", "damaged"])
def test_an_index_that_is_of_another_file_is_not_used_and_not_touched(records, harm, tmp_path):
    path = write(records, "plain", tmp_path)
    index = tmp_path / "x.fa.fai"
    index.write_text("20\t10\t3\t5\t6\n" if harm == "old" else "no index\n")
    before = index.read_text()
    if harm == "old":
        os.utime(index, (1, 1))
    with IndexedFasta(path) as genome:
        check(genome, path)
    assert index.read_text() == before and "x.fa.fai" in genome.notes[0]


def test_where_no_index_can_be_put_beside_it_it_is_made_elsewhere(records, tmp_path):
    path = write(records, "plain", tmp_path).rename(tmp_path / ("x" * 253))  # and .fai is beyond a name's 255
    with IndexedFasta(path) as genome:
        check(genome, path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_pipe_is_read(records, tmp_path):
    path, pipe = write(records, "plain", tmp_path), tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(path.read_bytes(),))
    writer.start()
    with IndexedFasta(pipe) as genome:
        check(genome, path)
    writer.join()
    assert not (tmp_path / "pipe.fai").exists()


@pytest.mark.parametrize(
    "text, words",
    [
        (b"", "is empty"),
        (b">a\nACGU\n", ":2: "),
        (b">a\nAC\n>a\nAC\n", ":3: "),
        (b"@a\nAC\n+\nII\n", "FASTQ"),
        (gzip.compress(b">a\nACGT\n" * 99, mtime=0)[:-9], "damaged"),
    ],
)
def test_what_is_no_fasta_is_refused_as_it_always_is(text, words, tmp_path):
    (tmp_path / "x.fa").write_bytes(text)
    message = refusal(IndexedFasta(tmp_path / "x.fa").__enter__)
    assert message.startswith(f"{tmp_path}/x.fa") and words in message
    assert [file.name for file in tmp_path.iterdir()] == ["x.fa"]


def test_no_file_is_refused(tmp_path):
    assert refusal(IndexedFasta(tmp_path / "x.fa").__enter__).startswith(f"{tmp_path}/x.fa: cannot be read")


def test_a_file_that_ends_before_its_index_says_is_refused(records, tmp_path):
    path = write(records, "plain", tmp_path)
    pysam.faidx(str(path))
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.truncate(size - 400)
    os.utime(path, (1, 1))
    assert "says another place" in (message := entered(path)) and message.startswith(f"{path}: ")
