"""A stranger's model directory may hold links: what is no file is never read to its end, and nothing behind one is
written."""

import os
import shutil

import pytest
from refusals import refusal
from tiny_tokenizer import save_tiny

from vqdna_jax.inference.load import load
from vqdna_jax.inference.saved.copies import copy_model

FILES = ["config.json", "model.safetensors", "README.md"]
TARGETS = ["/dev/zero", "/dev/full", "absent", "loop", "pipe", ".."]
DNA = "ACGTTGCATTGACCAGGTACC"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    save_tiny(place := tmp_path_factory.mktemp("links") / "model")
    return place


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("target", TARGETS)
def test_a_link_to_what_is_no_file_is_refused(model, tmp_path, name, target):
    copy = shutil.copytree(model, tmp_path / "model")
    (copy / name).unlink()
    (copy / name).symlink_to(name if target == "loop" else target)
    if target == "pipe":
        os.mkfifo(copy / "pipe")
    read = load if name != "README.md" else lambda path: copy_model(path, tmp_path / "new")
    assert refusal(read, copy).startswith(str(copy / name))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", FILES)
def test_a_link_to_a_file_elsewhere_is_read_and_never_written_through(model, tmp_path, name):
    """Caches of model hubs are made of such links."""
    copy, elsewhere = shutil.copytree(model, tmp_path / "model"), tmp_path / "elsewhere"
    shutil.move(copy / name, elsewhere)
    (copy / name).symlink_to("../elsewhere")
    before = elsewhere.read_bytes()
    assert (load(copy).encode(DNA) == load(model).encode(DNA)).all()
    copy_model(model, copy, dtype="float16")
    assert elsewhere.read_bytes() == before and not (copy / name).is_symlink()
