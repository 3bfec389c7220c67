"""The corpus: what went in comes out, splits are whole, damage is refused, nothing half-written stays."""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from vqdna_jax.errors import InputError, StorageError
from vqdna_jax.genome import corpus as corpus_lib
from vqdna_jax.genome import fasta
from vqdna_jax.genome.build import bundled, spool, writer
from vqdna_jax.genome.build.build import build_corpus
from vqdna_jax.genome.chunks import CHUNK_BP, chunk_bases, parse_chunk
from vqdna_jax.genome.corpus import open_corpus
from vqdna_jax.genome.runs import spread_runs
from vqdna_jax.genome.windows import WindowBatches, train_iterator

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads peak memory from /proc")
BUNDLED = Path(corpus_lib.__file__).parent / "bundled"


def contigs_of(corpus) -> dict[tuple[str, str], list]:
    """(start, split, chunk) of every record, by species and contig."""
    found = {}
    for split in ("train", "validation"):
        table, records = corpus.chunks(split), corpus.records(split)
        for index in range(len(records)):
            key = corpus.species[table.species[index]], corpus.contigs[table.contig[index]]
            chunk = parse_chunk(records[index])
            np.testing.assert_array_equal(table.n_runs[slice(*table.n_offset[index : index + 2])], chunk.n_runs)
            assert table.length[index] == chunk.length <= CHUNK_BP
            found.setdefault(key, []).append((int(table.start[index]), split, chunk))
    return found


def test_the_fasta_can_be_rebuilt_from_the_chunks(built, genomes):
    found = contigs_of(open_corpus(built))
    expected = {
        (species, record.id): record
        for species, name in [("long", "long.fa"), ("many", "many.fasta.gz"), ("phiX174", "phiX174.fa.gz")]
        for record in fasta.load_fasta(genomes / name)
    }
    assert set(found) == set(expected)
    for key, pieces in found.items():
        pieces.sort(key=lambda piece: piece[0])
        bases = np.concatenate([chunk_bases(chunk) for _, _, chunk in pieces])
        np.testing.assert_array_equal(bases, expected[key].bases)
        mask = np.zeros(bases.size, bool)
        for start, _, chunk in pieces:
            mask[spread_runs(chunk.soft_mask_runs, start)] = True
        np.testing.assert_array_equal(mask, expected[key].soft_mask)


def test_a_split_is_whole_contigs_or_the_end_of_the_longest(built):
    found = contigs_of(open_corpus(built))
    for (species, _), pieces in found.items():
        splits = [split for _, split, _ in sorted(pieces, key=lambda piece: piece[0])]
        if species == "many":
            assert len(set(splits)) == 1
        else:
            assert splits == sorted(splits) and set(splits) == {"train", "validation"}
    for entry in open_corpus(built).manifest["species"]:
        sizes = {split: counts["bases"] for split, counts in entry["splits"].items()}
        assert 0.05 < sizes["validation"] / sum(sizes.values()) <= 0.101


def test_no_contig_is_taken_that_is_longer_than_the_share():
    starts = spool.validation_starts(["chr1", "chr2"], [1_000_000, 500_000], 0.1)
    assert starts.tolist() == [850_000, 500_000]  # the longest loses its end, the other is untouched
    assert spool.validation_starts(["a"], [100], 0.0).tolist() == [100]


def test_the_manifest_counts_what_is_there_and_what_was_skipped(built, genomes):
    manifest = open_corpus(built).manifest
    long, many, _ = manifest["species"]
    assert sum(counts["n"] for counts in long["splits"].values()) == 7 + 1 + 2000 + 8 + 11
    assert sum(counts["soft_masked"] for counts in long["splits"].values()) == 65_900
    assert many["skipped"] == {"empty_records": 1, "renamed_records": 0} and many["contigs"] == 61
    assert many["ambiguous"] == {"R": 1, "Y": 1}
    assert long["source"]["sha256"] == writer.sha256_of(genomes / "long.fa")
    assert manifest["splits"]["train"]["bases"] == open_corpus(built).chunks("train").length.sum()


def test_skipped_things_are_printed_even_without_progress(genomes, tmp_path, capsys):
    build_corpus([genomes / "many.fasta.gz"], tmp_path / "out", progress=False)
    printed = capsys.readouterr().err
    assert "empty records: 1" in printed and "R:1 Y:1" in printed


def test_the_same_input_gives_the_same_files_in_another_process(built, genomes, tmp_path):
    child = (
        "import sys; from vqdna_jax.genome.build.build import build_corpus; build_corpus([sys.argv[1]], sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", child, genomes, tmp_path / "out"], check=True, capture_output=True)
    assert open_corpus(tmp_path / "out").manifest == open_corpus(built).manifest


def test_the_digest_follows_the_bases_and_not_the_way_they_are_stored(genomes, tmp_path, built):
    (tmp_path / "in").mkdir()
    record = next(fasta.load_fasta(genomes / "phiX174.fa.gz"))
    text = "".join("ACGT"[base] for base in record.bases)
    digests = []
    for suffix, sequence in [("fa", text), ("fna", text), ("fas", text[:-1] + "C")]:
        path = tmp_path / "in" / f"phiX174.{suffix}"
        path.write_text(f">{record.id}\n{sequence}\n")
        digests.append(build_corpus([path], tmp_path / suffix, progress=False)["digest"])
    assert text[-1] != "C" and digests[0] == digests[1] != digests[2]


def test_no_process_but_this_one_reads_and_could_be_killed(built):
    readers = set()

    class Noted(WindowBatches):
        def __getitem__(self, step):
            readers.add((os.getpid(), threading.get_ident()))
            return super().__getitem__(step)

    iterator = train_iterator(Noted(open_corpus(built), "train", 128, 4, seed=0))
    for _ in range(5):
        next(iterator)
    assert {process for process, _ in readers} == {os.getpid()}
    assert threading.get_ident() not in {thread for _, thread in readers}


def test_tfds_reads_it_and_tensorflow_is_never_imported(built):
    child = """if True:
        import sys
        import tensorflow_datasets as tfds
        from vqdna_jax.genome import corpus, windows
        source = tfds.builder_from_directory(sys.argv[1]).as_data_source("train")
        first = source[0]
        assert first["contig"] == b"chr1" and first["start"] == 0 and first["length"] == 65536, first
        assert first["n_runs"].tolist() == [[0, 7], [500, 1], [65000, 536]]
        batches = windows.WindowBatches(corpus.open_corpus(sys.argv[1]), "train", 128, 4, seed=0)
        next(windows.train_iterator(batches))
        assert "tensorflow" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", child, built], check=True, capture_output=True)


@pytest.fixture
def copy(built, tmp_path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "copy"))


def refused(path, *words: str):
    with pytest.raises(InputError) as caught:
        open_corpus(path)
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value), caught.value


def test_every_damaged_file_is_refused_by_name(copy):
    for name in json.loads((copy / "manifest.json").read_text())["files"]:
        whole = (copy / name).read_bytes()
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 1
        for damaged in (bytes(flipped), whole[:-1], b""):
            (copy / name).write_bytes(damaged)
            refused(copy, name, "damaged")
        (copy / name).unlink()
        refused(copy, name, "No such file")
        (copy / name).write_bytes(whole)
    open_corpus(copy)


def test_a_shard_that_is_damaged_under_a_run_ends_it_and_gives_no_other_batch(copy):
    """Whichever bytes of it: the batches are the right ones, or the run ends."""
    corpus = open_corpus(copy)
    (shard,) = copy.glob("*-train.array_record-*")
    whole = shard.read_bytes()
    expected = WindowBatches(corpus, "train", 64, 8, seed=0)[0].bases_BxS
    ended = 0
    for at in range(0, len(whole), len(whole) // 12):
        shard.write_bytes(whole[:at] + bytes(64) + whole[at + 64 :])
        try:
            found = WindowBatches(corpus, "train", 64, 8, seed=0)[0].bases_BxS
            np.testing.assert_array_equal(found, expected)  # where no record is
        except StorageError as error:
            assert str(error).startswith(f"{copy}: was whole when it was opened") and "\n" not in str(error)
            ended += 1
    assert ended > 3


def test_another_version_and_what_is_no_corpus_are_refused(copy, tmp_path):
    manifest = copy / "manifest.json"
    manifest.write_text(manifest.read_text().replace("vqdna-corpus/1", "vqdna-corpus/9"))
    refused(copy, "vqdna-corpus/9", "vqdna-corpus/1")
    for content in ("", "[]", "{}", "{", '{"schema": "vqdna-corpus/1", "files": {"a": {"bytes": "1"}}}'):
        manifest.write_text(content)
        refused(copy, "manifest.json")
    refused(tmp_path / "absent", "manifest.json")


def test_the_bundled_corpus_is_built_once_and_processes_may_race(tmp_path, monkeypatch):
    monkeypatch.setenv("VQDNA_CACHE", str(tmp_path / "cache"))
    child = "from vqdna_jax.genome.build.bundled import bundled_corpus; print(bundled_corpus())"
    children = [subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    printed = {process.communicate()[0].strip() for process in children}
    assert printed == {str(bundled.bundled_corpus())} and len(list((tmp_path / "cache").iterdir())) == 1
    corpus = open_corpus(printed.pop())
    assert len(corpus.species) == 8 and corpus.manifest["splits"]["train"]["bases"] > 11e6
