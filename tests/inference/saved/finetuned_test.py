"""Saved fine-tuned models: they know their base and refuse another, and what was changed is refused."""

import json
import os
import pathlib
import shutil

import pytest
import safetensors.numpy
from refusals import refusal
from tiny_finetuned import save_tiny_finetuned
from tiny_pretrained import save_tiny_pretrained
from tiny_tokenizer import save_tiny

from vqdna_jax.inference import load
from vqdna_jax.inference.saved import finetuned, pretrained


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> pathlib.Path:
    """Holds base, its tokenizer and a classifier. Read-only."""
    directory = tmp_path_factory.mktemp("models")
    save_tiny_pretrained(directory / "base", 4, 64)
    save_tiny_finetuned(directory / "classification", base=directory / "base")
    return directory


@pytest.fixture(scope="module")
def base(made):
    return pretrained.load(made / "base")


@pytest.fixture
def export(made, tmp_path) -> pathlib.Path:
    """A copy of the classifier beside its base, to be moved or spoilt."""
    return shutil.copytree(made, tmp_path / "runs") / "classification"


def test_another_base_or_tokenizer_is_refused(export, tmp_path):
    save_tiny_pretrained(tmp_path / "other", 4, 64, seed=1)
    assert "pretrained_digest" in refusal(load.load, export, base=tmp_path / "other")
    save_tiny_pretrained(tmp_path / "bases", 1, 64)
    assert "tokenizer_digest" in refusal(load.load, export, base=tmp_path / "bases")
    save_tiny(tmp_path / "tokenizer", "hrq", 4)
    assert "expected a pretrained model" in refusal(load.load, export, base=tmp_path / "tokenizer")
    assert "expected a pretrained model" in refusal(load.load, export, base=export)
    assert "no base" in refusal(load.load, export.with_name("base"), base=export)


def test_a_changed_tensor_is_refused(export, base):
    path = export / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    for name, tensor in tensors.items():
        changed = tensor.copy()
        changed.flat[0] += 1e-3
        for spoilt in (tensors | {name: changed}, tensors | {name: tensor[..., :1]}, tensors | {"another": tensor}):
            safetensors.numpy.save_file(spoilt, path)
            assert str(path) in refusal(finetuned.load, export, base)
        safetensors.numpy.save_file({key: tensor for key, tensor in tensors.items() if key != name}, path)
        assert str(path) in refusal(finetuned.load, export, base)
    path.write_bytes(path.read_bytes()[:-1])
    assert "damaged" in refusal(finetuned.load, export, base)
    os.remove(path)
    assert str(path) in refusal(finetuned.load, export, base)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("kind", "multilabel", "digest"),
        ("label_names", ["label-1", "label-0", "label-2"], "digest"),
        ("label_names", ["label-0", "label-1"], "model.safetensors"),
        ("target", [0.0, 2.0], "digest"),
        ("long", "window", "digest"),
        ("pool", "max", "digest"),
        ("hidden", 4, "model.safetensors"),
        ("method", "full", "model.safetensors"),
        ("method", "magic", "digest"),
        ("hidden", "8", "digest"),
        ("pool", 3, "digest"),
        ("target", None, "digest"),
        ("label_names", 5, "digest"),
        ("lora", {"rank": 2, "alpha": 8.0, "dropout": 0.05, "targets": "q|k|v|out"}, "digest"),
        ("lora", {"rank": 2}, "digest"),
        ("lora", None, "digest"),
        ("pretrained_digest", "0" * 64, "digest"),
        ("finetuned_digest", None, "digest"),
        ("finetuned_digest", "0" * 64, "digest"),
        ("schema", "vqdna-finetuned/9", "schema"),
    ],
)
def test_a_changed_config_is_refused(export, base, key, value, says):
    path = export / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    assert says in refusal(finetuned.load, export, base)
