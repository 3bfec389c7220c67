"""Models in an object store are those on a disk: loaded, trained on, refused where they are none."""

import pathlib

import numpy as np
import pytest
from refusals import refusal
from small_store import Shaky, objects
from tiny_finetuned import save_tiny_finetuned
from tiny_pretrained import save_tiny_pretrained

import vqdna_jax
from vqdna_jax.runtime import shipped
from vqdna_jax.runtime.remote import store
from vqdna_jax.runtime.remote.store import Store

DNA = "ACGTTGCATTGACCAGGTACCATTGGCA"
URL = "shaky://bucket/run/export"


@pytest.fixture(autouse=True)
def cache(pretrained_dir, tmp_path, monkeypatch) -> pathlib.Path:
    """An empty cache, and a store with an export in it."""
    monkeypatch.setenv("VQDNA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "PAUSE_S", 0.0)
    Shaky.anew()
    put(pretrained_dir, URL)
    return tmp_path / "cache"


def put(directory: pathlib.Path, url: str) -> None:
    for file in directory.iterdir():
        Store(url).upload(file.name, file)


def test_it_is_the_model_on_the_disk_and_is_copied_once(pretrained_dir, cache, monkeypatch):
    there, here = vqdna_jax.load(URL), vqdna_jax.load(pretrained_dir)
    assert there.name == URL and there.pretrained.digest == here.pretrained.digest
    np.testing.assert_array_equal(there.embed(DNA), here.embed(DNA))
    monkeypatch.setattr(Store, "download", lambda *_: pytest.fail("copied again"))
    assert shipped.find(f"{URL}/") == shipped.find(URL) and len(list(cache.glob("model-*[!k]"))) == 1


def test_another_model_at_its_place_is_another_copy(tmp_path):
    before = shipped.find(URL)
    digest = save_tiny_pretrained(tmp_path / "other", seed=1)
    put(tmp_path / "other", URL)
    assert shipped.find(URL) != before and vqdna_jax.load(URL).pretrained.digest == digest


def test_a_model_fine_tuned_of_it_says_where_it_is_and_never_fetches_by_itself(tmp_path):
    save_tiny_finetuned(tmp_path / "tuned", base=URL)
    assert f"its base model is at {URL}; name it (--base={URL})" in refusal(vqdna_jax.load, tmp_path / "tuned")
    assert vqdna_jax.load(tmp_path / "tuned", base=URL).predict([DNA]).labels


def test_what_is_no_export_is_refused(cache):
    assert f"there is no config.json; expected the export directory of a run, like {URL}s/export" in refusal(
        vqdna_jax.load, f"{URL}s"
    )
    del Shaky.store["/bucket/run/export/model.safetensors"]
    assert "model.safetensors" in refusal(vqdna_jax.load, URL)
    assert "model.safetensors" not in objects("bucket/run/export")
