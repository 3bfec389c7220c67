"""A corpus built in pieces, by hand or by Beam, is byte for byte the corpus that is built at once."""

import gzip
import random
import sys
from pathlib import Path

import pytest

from vqdna_jax.errors import InputError, StorageError
from vqdna_jax.genome import chunks
from vqdna_jax.genome.build import beam as pieces
from vqdna_jax.genome.build import shards, staging
from vqdna_jax.genome.build.build import build_corpus
from vqdna_jax.genome.build.sources import find_sources
from vqdna_jax.genome.corpus import open_corpus


def sequence(rng: random.Random, length: int) -> str:
    """Bases with stretches of N, of lower case and a few IUPAC letters."""
    text = rng.choices("ACGT", k=length)
    for start in rng.choices(range(length), k=length // 3000 + 1):
        stop = start + rng.choice([1, 2, 70, 3000])
        text[start:stop] = rng.choice(["N" * len(text[start:stop]), "".join(text[start:stop]).lower()])
    text[rng.randrange(length)] = "R"
    return "".join(text)


@pytest.fixture(scope="module")
def genomes(tmp_path_factory) -> Path:
    """Seven species: one base, one long contig, many contigs of which two share a name, one that is all N, ..."""
    directory, rng = tmp_path_factory.mktemp("genomes"), random.Random(7)
    contigs = {
        "one": [1],
        "long": [300_001],
        "exact": [65_536, 131_072],
        "many": [rng.randrange(1, 9000) for _ in range(40)],
        "mixed": [70_000, 3, 140_000, 65_537],
        "two": [1000, 1000],
    }
    for name, lengths in contigs.items():
        with gzip.open(directory / f"{name}.fa.gz", "wt", compresslevel=1) as file:
            for index, length in enumerate(lengths):
                file.write(f">chr{index // 2 if name == 'many' else index}\n{sequence(rng, length)}\n")
            file.write(">empty\n")
    (directory / "unknown.fa").write_text(">a\n" + "N" * 70_000 + "\n>b\nacgt\n")
    return directory


def content(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def build_by_hand(genomes: Path, out: Path, share: float, seed: int) -> None:
    """What the pipeline does, in any order and everything twice, as a runner may."""
    work, rng = out.with_name("work"), random.Random(seed)
    out.mkdir()
    work.mkdir()
    run = pieces.Run(find_sources([genomes]), staging.Staging(out, str(out), str(work)), share, "rename")
    parsed = dict(pieces.parse(job) for job in rng.sample(run.jobs * 2, 2 * len(run.jobs)))
    jobs = list(pieces.plan(list(parsed.items()), shards.RECORDS_PER_SHARD))
    for job in rng.sample(jobs * 2, 2 * len(jobs)):
        pieces.write_shard(job, str(out), str(work))
    (out / ".half-a-shard").write_bytes(b"of a worker that was killed")
    header = {"schema": chunks.SCHEMA, "chunk_bp": chunks.CHUNK_BP, "validation_share": share}
    run.finish(header, lambda entry: None)


@pytest.mark.parametrize(
    ("share", "records_per_shard"), [(0.1, 1), (0.1, 3), (0.1, 8192), (0.0, 5), (0.5, 7), (0.97, 4), (0.001, 6)]
)
def test_pieces_make_the_same_bytes(genomes, tmp_path, monkeypatch, share, records_per_shard):
    monkeypatch.setattr(shards, "RECORDS_PER_SHARD", records_per_shard)
    build_corpus([genomes], tmp_path / "once", validation_share=share, on_duplicate="rename", progress=False)
    build_by_hand(genomes, tmp_path / "pieces", share, seed=records_per_shard)
    once, by_hand = content(tmp_path / "once"), content(tmp_path / "pieces")
    assert once.keys() == by_hand.keys() and [name for name in once if once[name] != by_hand[name]] == []
    corpus = open_corpus(tmp_path / "pieces")
    for split in chunks.SPLITS:
        names = [name for name in once if f"-{split}." in name]
        assert len(names) == -(-len(corpus.chunks(split).start) // records_per_shard)


def test_a_bad_species_makes_no_shards_and_is_named(genomes, tmp_path):
    (tmp_path / "bad.fa").write_text(">a\nAC-T\n")
    work = tmp_path / "work"
    work.mkdir()
    sources = find_sources([genomes / "one.fa.gz", tmp_path / "bad.fa"])
    run = pieces.Run(sources, staging.Staging(tmp_path, str(tmp_path), str(work)), 0.1, "error")
    assert list(pieces.plan([pieces.parse(job) for job in run.jobs], 10)) == []
    with pytest.raises(InputError, match="bad.fa:2: '-' is an alignment gap"):
        run.finish({}, lambda entry: None)


@pytest.mark.skipif("apache_beam" in sys.modules, reason="Apache Beam is imported already")
def test_without_beam_it_is_one_line_and_nothing_stays(genomes, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(InputError) as refused:
        build_corpus([genomes], tmp_path / "out", beam_runner="DirectRunner", progress=False)
    assert "vqdna-jax[beam]" in str(refused.value) and "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


class TestBeam:
    """With the real thing, which is an extra."""

    @pytest.fixture(autouse=True)
    def needs_beam(self):
        pytest.importorskip("apache_beam", reason="Apache Beam is not installed: pip install 'vqdna-jax[beam]'")

    def test_direct_runner_makes_the_same_bytes(self, genomes, tmp_path, monkeypatch):
        monkeypatch.setattr(shards, "RECORDS_PER_SHARD", 4)
        options = {"on_duplicate": "rename", "progress": False}
        once = build_corpus([genomes], tmp_path / "once", **options)
        assert build_corpus([genomes], tmp_path / "beam", beam_runner="DirectRunner", **options) == once
        assert content(tmp_path / "beam") == content(tmp_path / "once")
        assert sorted(tmp_path.iterdir()) == [tmp_path / "beam", tmp_path / "once"]
        build_corpus([f"local://{genomes}"], f"local://{tmp_path}/far", beam_runner="DirectRunner", **options)
        assert content(tmp_path / "far") == content(tmp_path / "once")
        assert len(list(tmp_path.iterdir())) == 3

    @pytest.mark.parametrize(
        ("runner", "flags", "word"),
        [
            ("NoRunner", [], "NoRunner"),
            ("no.such.Runner", [], "No module named 'no'"),
            ("json.loader", [], "no attribute 'loader'"),
            ("json.loads", [], "json.loads"),
            ("", ["--project=mine"], "--beam-option: .* set --beam-runner"),
            ("DirectRunner", ["--direct_num_workers=few"], "'few'"),
        ],
    )
    def test_a_runner_that_beam_refuses_is_one_line(self, genomes, tmp_path, runner, flags, word):
        with pytest.raises(InputError, match=word) as refused:
            build_corpus([genomes], tmp_path / "out", beam_runner=runner, beam_options=flags, progress=False)
        assert "\n" not in str(refused.value) and list(tmp_path.iterdir()) == []

    def test_bad_input_and_a_failing_disk_are_one_line(self, genomes, tmp_path, monkeypatch):
        (tmp_path / "bad.fa").write_text(">a\nAC-T\n")
        with pytest.raises(InputError, match="bad.fa:2"):
            build_corpus([tmp_path / "bad.fa"], tmp_path / "out", beam_runner="DirectRunner", progress=False)

        def full(self, *_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(shards.Shard, "add", full)
        with pytest.raises(StorageError, match="No space left") as failed:
            build_corpus([genomes / "one.fa.gz"], tmp_path / "out", beam_runner="DirectRunner", progress=False)
        assert "\n" not in str(failed.value) and list(tmp_path.iterdir()) == [tmp_path / "bad.fa"]
