"""No input can execute code: a pickle that would leave a trace is refused wherever a file is read, and leaves none."""

import hashlib
import io
import json
import os
import pathlib
import pickle
import shutil
import zipfile

import numpy as np
import pytest
from refusals import refusal
from tiny_tokenizer import save_tiny

from vqdna_jax.genome.build.build import build_corpus
from vqdna_jax.genome.corpus import open_corpus
from vqdna_jax.genome.fasta import load_fasta
from vqdna_jax.genome.regions import read_bed
from vqdna_jax.inference.jobs import embedding_files, encode
from vqdna_jax.inference.load import load
from vqdna_jax.labels.csv_rows import read_rows


class Payload:
    """Unpickled, it makes a directory."""

    def __init__(self, place: pathlib.Path):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (os.fspath(self.place),)


def plain(payload: Payload) -> bytes:
    return pickle.dumps(payload)


def as_npy(payload: Payload) -> bytes:
    np.save(file := io.BytesIO(), np.array([payload], dtype=object), allow_pickle=True)
    return file.getvalue()


def as_zip(*names: str, **others: bytes):
    def make(payload: Payload) -> bytes:
        with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
            for name in names:
                archive.writestr(f"{name}.npy", as_npy(payload))
            for name, content in others.items():
                archive.writestr(f"{name}.json", content)
        return file.getvalue()

    return make


META = {"schema": "vqdna-codes/1", "tokenizer_digest": "x", "codebook_sizes": [2], "bases_per_code": 1}
RECORD = {"id": "a", "description": "", "header": "a", "length": 1, "codes": 1, "mismatches": 0, "ambiguous": {}}
CODES = as_zip("0/codes", meta=json.dumps(META | {"records": [RECORD]}).encode())


def in_model(path: pathlib.Path) -> None:
    load(path.parent)


def in_corpus(path: pathlib.Path) -> None:
    manifest = path.with_name("manifest.json")
    said = json.loads(manifest.read_text())
    content = path.read_bytes()
    said["files"][path.name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest.write_text(json.dumps(said))
    open_corpus(path.parent).chunks("train")


def all_of(read):
    return lambda path: list(read(path))


CASES = {
    "model/model.safetensors": (plain, in_model),
    "model/config.json": (plain, in_model),
    "corpus/chunks.npz": (as_zip("train_start", "contig_names"), in_corpus),
    "x.codes": (CODES, lambda path: encode.open_codes(path).record("a")),
    "x.npy": (as_npy, embedding_files.read),
    "x.embeddings": (as_zip("embeddings", "ids"), embedding_files.read),
    "x.parquet": (plain, embedding_files.read),
    "x.fa": (plain, all_of(load_fasta)),
    "x.csv": (plain, all_of(read_rows)),
    "x.bed": (plain, all_of(read_bed)),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory, bundled) -> pathlib.Path:
    place = tmp_path_factory.mktemp("pickles")
    save_tiny(place / "model")
    build_corpus([bundled / "phiX174.fa.gz"], place / "corpus", progress=False)
    return place


def test_the_payload_works_where_it_is_let(tmp_path):
    pickle.loads(plain(Payload(tmp_path / "trace")))  # noqa: S301
    assert (tmp_path / "trace").is_dir()


@pytest.mark.parametrize("name", CASES)
def test_a_pickle_is_refused_and_runs_nothing(place, tmp_path, name):
    copy = shutil.copytree(place, tmp_path / "copy")
    make, read = CASES[name]
    (copy / name).write_bytes(make(Payload(tmp_path / "trace")))
    (copy / "x.npy.json").write_text(json.dumps({"ids": ["a"]}))
    said = refusal(read, copy / name)
    assert str(copy / name) in said and ("meta.json" not in said)
    assert not (tmp_path / "trace").exists()
