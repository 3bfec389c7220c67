"""Embeddings by the suffix of their file: every form has the same vectors, names and places."""

import functools
import json

import numpy as np
import pyarrow.parquet
import pytest
from refusals import refusal
from small_sequences import random_sequences
from tiny_pretrained import save_tiny_over_fixed

from vqdna_jax.genome.alphabet import to_text
from vqdna_jax.genome.regions import of_option, read_bed
from vqdna_jax.inference import pretrained
from vqdna_jax.inference.jobs import embed, embedding_files, partial
from vqdna_jax.tokenizers.kmers import Kmers

LENGTHS = (1, 300, 70, 1000, 63, 255, 40)
WIDTH = 16


@pytest.fixture(scope="module")
def models(pretrained_dir, tmp_path_factory):
    """Of codes of four bases each, and of tokens that are not all alike."""
    place = tmp_path_factory.mktemp("kmers")
    save_tiny_over_fixed(place / "model", Kmers(3), 48, 15)
    return {"learned": pretrained_dir, "kmers": place / "model"}


@pytest.fixture
def fasta(tmp_path):
    texts = map(to_text, random_sequences(*LENGTHS))
    (tmp_path / "in.fa").write_text("".join(f">r{i} text\n{text}\n" for i, text in enumerate(texts)))
    return tmp_path / "in.fa"


def read_zip(path):
    with np.load(path, allow_pickle=False) as file:
        return json.loads(file["meta.json"]), {name: file[name] for name in file.files if name != "meta.json"}


@pytest.mark.parametrize("pool", ["mean", "none"])
@pytest.mark.parametrize("kind", ["learned", "kmers"])
def test_every_form_has_the_same_vectors_and_places(models, fasta, tmp_path, monkeypatch, kind, pool):
    monkeypatch.setattr(embedding_files, "ROW_GROUP_BYTES", 10 * 4 * WIDTH)  # ten rows, in many groups
    for name in ("zip", "x.npy", "x.parquet"):
        embed.embed_fasta(fasta, models[kind], tmp_path / name, pool, progress=False)
    meta, expected = read_zip(tmp_path / "zip")
    vectors = expected["embeddings"]
    assert len(vectors) > 30 or pool == "mean"

    plain = np.load(tmp_path / "x.npy", allow_pickle=False, mmap_mode="r")
    assert plain.dtype == np.float32 and np.array_equal(plain, vectors)
    beside = json.loads((tmp_path / "x.npy.json").read_text())
    places = {name: expected[name].tolist() for name in ("ids", "lengths", "offsets") if name in expected}
    assert beside == meta | places

    table = pyarrow.parquet.read_table(tmp_path / "x.parquet")
    assert table.schema.field("embedding").type == pyarrow.list_(pyarrow.float32(), WIDTH)
    assert json.loads(table.schema.metadata[b"vqdna"]) == meta
    assert np.array_equal(np.stack(table["embedding"].to_numpy()), vectors)
    counts = np.diff(expected["offsets"]) if pool == "none" else np.ones(len(LENGTHS), np.int64)
    assert table["id"].to_pylist() == np.repeat(expected["ids"], counts).tolist()
    assert table["length"].to_pylist() == np.repeat(expected["lengths"], counts).tolist()
    assert ("start" in table.column_names) == (pool == "none")
    if pool == "none":
        assert table["start"].to_pylist() == expected["starts"].tolist()
        assert pyarrow.parquet.ParquetFile(tmp_path / "x.parquet").num_row_groups == -(-len(vectors) // 10)


def test_what_bed_calls_its_regions_is_in_every_form(pretrained_dir, fasta, tmp_path):
    """Beside the ids, by which it is clear what was embedded; where nothing has a name there are none."""
    (tmp_path / "a.bed").write_text("r1\t0\t90\tpromoter\nr3\t5\t400\t.\nr1\t10\t80\tgene two\n")
    ids, names = ["r1:1-90", "r1:11-80", "r3:6-400"], ["promoter", "gene two", ""]
    run = functools.partial(embed.embed_fasta, fasta, pretrained_dir, progress=False)
    for name in ("zip", "x.npy", "x.parquet"):
        run(tmp_path / name, regions=read_bed(tmp_path / "a.bed"))
    arrays, beside = read_zip(tmp_path / "zip")[1], json.loads((tmp_path / "x.npy.json").read_text())
    table = pyarrow.parquet.read_table(tmp_path / "x.parquet")
    for found in (arrays["ids"].tolist(), beside["ids"], table["id"].to_pylist()):
        assert found == ids
    for found in (arrays["names"].tolist(), beside["names"], table["name"].to_pylist()):
        assert found == names
    run(tmp_path / "options", regions=[of_option("r1:1-90")])
    assert "names" not in read_zip(tmp_path / "options")[1]


@pytest.mark.parametrize("name", ["x.npy", "x.PARQUET"])
def test_a_stopped_job_goes_on_in_every_form(pretrained_dir, fasta, tmp_path, monkeypatch, name):
    monkeypatch.setattr(pretrained, "CALLS_A_GROUP", 1)
    monkeypatch.setitem(pretrained.SLOTS_PER_CALL, "cpu", 128)
    monkeypatch.setattr(partial, "SECONDS_A_COMMIT", 0)
    (tmp_path / "whole").mkdir()
    (tmp_path / "stopped").mkdir()
    run = functools.partial(embed.embed_fasta, fasta, pretrained_dir, progress=False)
    run(tmp_path / "whole" / name)
    write = partial.Partial.write

    def stop(partial, *arguments):
        write(partial, *arguments)
        if partial.records > 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(partial.Partial, "write", stop)
        run(tmp_path / "stopped" / name)
    assert [path.name for path in (tmp_path / "stopped").iterdir()] == [f"{name}.partial"]
    assert run(tmp_path / "stopped" / name)["resumed"] > 2
    whole, stopped = ({p.name: p.read_bytes() for p in (tmp_path / d).iterdir()} for d in ("whole", "stopped"))
    assert whole == stopped and set(whole) == ({name, f"{name}.json"} if name == "x.npy" else {name})


@pytest.mark.parametrize("suffix", embedding_files.OTHER_SUFFIXES)
def test_a_suffix_of_something_else_is_refused_before_anything_is_read(tmp_path, suffix):
    message = refusal(embed.embed_fasta, tmp_path / "absent.fa", tmp_path, tmp_path / f"out{suffix}")
    assert message.startswith(f"{tmp_path}/out{suffix}: ") and ".npy, .parquet" in message


def test_what_would_lie_beside_is_looked_at_first(pretrained_dir, fasta, tmp_path):
    (tmp_path / "x.npy.json").mkdir()
    assert "x.npy.json: is a directory" in refusal(embed.embed_fasta, fasta, pretrained_dir, tmp_path / "x.npy")
