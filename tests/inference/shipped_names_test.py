"""A model that ships, by its name: in Python, in the verbs, as the base of fine-tuned models that go elsewhere."""

import json
import pathlib
import shutil

import numpy as np
import pytest
import safetensors.numpy
from refusals import refusal
from small_finetune import small_config as finetune_config
from small_mcm import small_config as mcm_config
from small_mesh import mesh_of
from small_run import run
from tiny_finetuned import save_tiny_finetuned
from tiny_pretrained import save_tiny_pretrained

import vqdna_jax
from vqdna_jax import stages
from vqdna_jax.benchmark.command import names_of
from vqdna_jax.cli import main
from vqdna_jax.inference.saved import listing
from vqdna_jax.inference.saved.copies import copy_model
from vqdna_jax.runtime import shipped
from vqdna_jax.runtime.exports import read_config

DNA = "ACGTTGCATTGACCAGGTACCATTGGCA"


@pytest.fixture(scope="module")
def ships(tmp_path_factory) -> pathlib.Path:
    """A folder of one model, "mini"."""
    place = tmp_path_factory.mktemp("ships")
    save_tiny_pretrained(place / "original", context=32)
    facts = {"species": {"human": 1_500_000, "mouse": 500_000}, "corpus_digest": "abc", "steps": 7}
    copy_model(place / "original", place / "shipped/mini", facts=facts)
    return place / "shipped"


@pytest.fixture(autouse=True)
def there(ships, tmp_path, monkeypatch):
    """It is what ships; the test runs in an empty folder."""
    monkeypatch.setattr(shipped, "SHIPPED", ships)
    monkeypatch.chdir(tmp_path)


def test_in_python(ships):
    model = vqdna_jax.load("mini")
    assert model.name == "mini" and model.digest == vqdna_jax.load(ships / "mini").digest
    np.testing.assert_array_equal(model.embed(DNA), vqdna_jax.load(ships / "mini").embed(DNA))
    assert "(mini)" in refusal(vqdna_jax.load, "maxi")


def call(*arguments) -> int | None:
    try:
        main.main(list(map(str, arguments)))
    except SystemExit as stop:
        return stop.code
    return 0


def test_in_the_verbs(tmp_path, capsys):
    (tmp_path / "in.fa").write_text(f">a\n{DNA * 3}\n")
    assert not call("encode", "in.fa", "--model=mini", "--out=codes")
    assert not call("decode", "codes", "--model=mini", "--out=back.fa")
    assert not call("embed", "in.fa", "--model=mini", "--out=vectors.npy")
    np.testing.assert_array_equal(np.load("vectors.npy")[0], vqdna_jax.load("mini").embed(DNA * 3))
    assert not call("export", "mini", "--out=mine", "--dtype=float32")
    assert vqdna_jax.load("mine").digest == vqdna_jax.load("mini").digest
    capsys.readouterr()
    for verb, file in (("encode", "in.fa"), ("decode", "codes"), ("embed", "in.fa"), ("predict", "in.fa")):
        assert call(verb, file, "--model=maxi", "--out=new") == 43
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: maxi: no such file or directory; ") and line.endswith("(mini)")
        assert not (tmp_path / "new").exists()


def test_the_files_of_a_model_that_ships_are_not_written(ships, tmp_path, capsys):
    (tmp_path / "in.fa").write_text(f">a\n{DNA}\n")
    before = {path: path.read_bytes() for path in (ships / "mini").iterdir()}
    assert call("encode", "in.fa", "--model=mini", f"--out={ships / 'mini/model.safetensors'}") == 43
    assert "is the input" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (ships / "mini").iterdir()} == before


def test_in_the_benchmark(ships, tmp_path):
    (tmp_path / "runs/mine/export").mkdir(parents=True)
    named = names_of(["mini", "other=mini", "runs/mine/export"])
    assert named == {"mini": ships / "mini", "other": ships / "mini", "mine": pathlib.Path("runs/mine/export")}
    assert "(mini)" in refusal(names_of, ["other=maxi"])


def test_stage_two_opens_its_tokenizer(ships, tmp_path):
    config = mcm_config(tmp_path)
    config.tokenizer = "mini"
    stage = stages.make_stage(stages.read_settings(config), mesh_of())
    assert stage.tokenizer.digest == read_config(ships / "mini/config.json")["tokenizer_digest"]
    config.tokenizer = "maxi"
    assert "(mini)" in refusal(stages.make_stage, stages.read_settings(config), mesh_of())


def test_a_fine_tuned_model_finds_it_on_any_machine(ships, tmp_path, monkeypatch):
    """And no other that ships under that name, and none that lies in a folder of that name beside it."""
    config = finetune_config(tmp_path)
    config.pretrained = "mini"
    config.tuning.method, config.head.pool = "head", "mean"
    config.train.total_steps = 2
    assert run(config, tmp_path / "run") == 0
    assert read_config(tmp_path / "run/export/config.json")["base"] == "mini"
    expected = vqdna_jax.load(tmp_path / "run/export").predict(DNA).values
    elsewhere = shutil.copytree(tmp_path / "run/export", tmp_path / "a/b/c/export")
    monkeypatch.setattr(shipped, "SHIPPED", shutil.copytree(ships, tmp_path / "installed/elsewhere/shipped"))
    np.testing.assert_array_equal(vqdna_jax.load(elsewhere).predict(DNA).values, expected)
    np.testing.assert_array_equal(vqdna_jax.load(elsewhere, base="mini").predict(DNA).values, expected)
    save_tiny_pretrained(tmp_path / "updated/mini", context=32, seed=1)
    monkeypatch.setattr(shipped, "SHIPPED", tmp_path / "updated")
    assert "trained on a base whose" in refusal(vqdna_jax.load, elsewhere)
    monkeypatch.setattr(shipped, "SHIPPED", tmp_path / "nothing")
    assert "its base model is not in" in refusal(vqdna_jax.load, elsewhere)


def test_a_fine_tuned_model_on_the_path_of_what_ships_has_its_name(ships, tmp_path):
    """As the benchmark trains it, which has found the directory."""
    save_tiny_finetuned(tmp_path / "export", base=ships / "mini")
    assert read_config(tmp_path / "export/config.json")["base"] == "mini"
    copy_model(tmp_path / "export", tmp_path / "elsewhere/half")
    assert vqdna_jax.load(tmp_path / "elsewhere/half").pretrained.digest == vqdna_jax.load("mini").digest


def test_what_ships_is_listed(ships, capsys):
    assert not call("models", "--json")
    (found,) = json.loads(capsys.readouterr().out)
    tensors = safetensors.numpy.load_file(ships / "mini/model.safetensors")
    assert found["parameters"] == sum(t.size for name, t in tensors.items() if not name.endswith("/counts"))
    assert found["bytes"] == sum(file.stat().st_size for file in (ships / "mini").iterdir())
    expected = {"name": "mini", "kind": "a pretrained model", "stored": "float16", "bases_per_code": 1, "steps": 7}
    expected |= {"window_bp": 32, "bases": 2_000_000, "species": {"human": 1_500_000, "mouse": 500_000}}
    expected |= {"corpus_digest": "abc", "digest": vqdna_jax.load("mini").digest, "path": str(ships / "mini")}
    assert expected.items() <= found.items()
    assert not call("models")
    words = capsys.readouterr().out
    assert all(word in words for word in ("mini ", "2.0 Mb of 2 genomes: human, mouse", "1 base a code", "float16"))
    assert found["digest"][:12] in words and listing.describe([]) == "no model comes with this installation"
