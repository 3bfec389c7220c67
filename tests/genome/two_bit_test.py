"""A .2bit file gives what the FASTA file of the same sequences gives, and a damaged one is one line."""

import json
import resource
import struct

import numpy as np
import pytest
from Bio import SeqIO
from refusals import refusal
from small_two_bit import two_bit

from vqdna_jax.genome import two_bit as reader
from vqdna_jax.genome.build.build import build_corpus
from vqdna_jax.genome.fasta import load_fasta, whole_records
from vqdna_jax.genome.fasta_files import FastaFiles, open_reader
from vqdna_jax.genome.regions import of_option

SEQUENCES = {
    "chr1": "acgtNNNNNacgtACGTTGCATTGACCAgggtttaaacccN" * 9,
    "one": "a",
    "none": "",
    "hole": "n" * 85,
    "gi|1|": "NNNNGATTACA" * 23 + "tt",
}


def write(path, content: bytes):
    path.write_bytes(content)
    return path


def read(path, **how):
    return list(whole_records(open_reader(path, **how)))


def same(first, second) -> bool:
    return len(first) == len(second) and all(
        (a.id, a.header, a.ambiguous) == (b.id, b.header, b.ambiguous)
        and np.array_equal(a.bases, b.bases)
        and np.array_equal(a.soft_mask, b.soft_mask)
        for a, b in zip(first, second)
    )


@pytest.fixture
def fasta(tmp_path):
    return write(tmp_path / "x.fa", "".join(f">{name}\n{text}\n" for name, text in SEQUENCES.items()).encode())


@pytest.mark.parametrize("piece", [4, 64, 1 << 20])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("version", [0, 1])
def test_it_is_read_as_the_fasta_of_the_same_sequences(fasta, tmp_path, monkeypatch, order, version, piece):
    monkeypatch.setattr(reader, "PIECE", piece)
    path, seen = write(tmp_path / "x.2bit", two_bit(SEQUENCES, order, version)), []
    found = read(path, advance=seen.append)
    assert same(found, list(load_fasta(fasta)))
    assert [record.line for record in found] == [1, 2, 4, 5]
    assert sum(seen) == path.stat().st_size


def test_what_is_written_here_is_what_others_read(tmp_path):
    path = write(tmp_path / "x.2bit", two_bit({name: text for name, text in SEQUENCES.items() if text}))
    with open(path, "rb") as file:
        others = {record.id: bytes(record.seq).decode() for record in SeqIO.parse(file, "twobit")}
    assert others == {name: text for name, text in SEQUENCES.items() if text}


def test_a_genome_is_the_same_in_both_forms(bundled, tmp_path):
    genome = bundled / "human_chr20_30-31Mb.fa.gz"
    (record,) = load_fasta(genome)
    record.soft_mask[300_000:700_000] = True  # this slice has none
    letters = np.frombuffer(b"ACGTN", np.uint8)[record.bases] | np.where(record.soft_mask, 0x20, 0).astype(np.uint8)
    path = write(tmp_path / "x.2bit", two_bit({record.id: letters.tobytes().decode()}))
    (found,) = read(path)
    assert np.array_equal(found.bases, record.bases) and np.array_equal(found.soft_mask, record.soft_mask)
    region = of_option(f"{record.id}:500,001-500,200")
    with FastaFiles([path], regions=[region]) as files:
        (part,) = files.read()
    assert np.array_equal(part.bases, record.bases[500_000:500_200])


def test_a_corpus_is_built_of_it(fasta, tmp_path):
    for name, path in (("a", fasta), ("b", write(tmp_path / "y.2bit", two_bit(SEQUENCES)))):
        (tmp_path / name).mkdir()
        path.rename(tmp_path / name / f"x{path.suffix}")
    manifests = [build_corpus([tmp_path / name], tmp_path / f"{name}.corpus", progress=False) for name in "ab"]
    assert manifests[0]["digest"] == manifests[1]["digest"]
    assert manifests[1]["species"][0]["name"] == "x" and manifests[1]["species"][0]["skipped"]["empty_records"] == 1
    assert json.loads((tmp_path / "b.corpus/manifest.json").read_text()) == manifests[1]


def test_every_cut_is_noticed(tmp_path):
    content = two_bit(SEQUENCES)
    path = tmp_path / "x.2bit"
    for size in [*range(4, 400, 7), len(content) - 1]:
        write(path, content[:size])
        assert refusal(read, path).startswith(f"{path}: ")


def test_no_damage_is_worse_than_other_bases_or_one_line(tmp_path):
    """Files have no checksum: what lies among the bases cannot be noticed."""
    content, rng = two_bit(SEQUENCES), np.random.default_rng(0)
    path, refused = tmp_path / "x.2bit", 0
    for at in rng.integers(4, len(content), 300):
        write(path, content[:at] + bytes([content[at] ^ (1 << rng.integers(8))]) + content[at + 1 :])
        try:
            read(path)
        except reader.InputError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    assert 50 < refused < 300


@pytest.mark.parametrize(
    "sequences, says",
    [
        ({"": "ACGT"}, "is named ''; expected one word"),
        ({"a b": "ACGT"}, "is named 'a b'; expected one word"),
        ({"a\x07": "ACGT"}, "expected one word"),
        ({"a": "", "b": ""}, "all 2 sequences are empty"),
        ({}, "all 0 sequences are empty"),
    ],
)
def test_names_are_words_and_something_is_there(tmp_path, sequences, says):
    assert says in refusal(read, write(tmp_path / "x.2bit", two_bit(sequences)))


def test_a_file_of_another_version_is_named(tmp_path):
    content = two_bit(SEQUENCES)
    path = write(tmp_path / "x.2bit", content[:4] + b"\x07" + content[5:])
    assert "version 0 or 1 but 7" in refusal(read, path)


def test_numbers_beyond_the_file_take_no_memory(tmp_path):
    content = two_bit({"a": "ACGT"})
    at = content.index(struct.pack("<2I", 4, 0))  # four bases, no run of N
    path = write(tmp_path / "x.2bit", content[:at] + struct.pack("<2I", 2**32 - 1, 2**32 - 2) + content[at + 8 :])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "is cut short or damaged" in refusal(read, path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # kilobytes


def test_names_are_unique_over_all_files_or_numbered(fasta, tmp_path):
    path = write(tmp_path / "x.2bit", two_bit(SEQUENCES))
    with FastaFiles([fasta, path]) as files:
        assert f"{path}: a second record is named 'chr1'" in refusal(lambda: list(files.read()))
    with FastaFiles([fasta, path], "rename") as files:
        assert [r.id for r in files.read()] == [n + s for s in ("", "_2") for n in ("chr1", "one", "hole", "gi|1|")]
        assert files.skipped == {"empty_records": 2, "renamed_records": 5}
