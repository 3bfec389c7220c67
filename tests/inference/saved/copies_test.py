"""Copies in float16: half the room, the same numbers to float16's precision, and digests that belong together."""

import json
import pathlib
import shutil

import numpy as np
import pytest
import safetensors.numpy
from refusals import refusal
from tiny_finetuned import save_tiny_finetuned
from tiny_pretrained import save_tiny_over_fixed, save_tiny_pretrained
from tiny_tokenizer import save_tiny

from vqdna_jax.inference import load
from vqdna_jax.inference.saved.copies import copy_model, read_sections
from vqdna_jax.runtime import exports
from vqdna_jax.tokenizers.kmers import Kmers

KINDS = ["words", "words-model", "kmers-model", "full"]
DNA = "ACGTTGCATTGACCAGGTACCATTGGCA" * 5


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> pathlib.Path:
    """One of each kind; the fine-tuned ones beside their bases. Read-only."""
    place = tmp_path_factory.mktemp("models")
    save_tiny(place / "words", "hrq", 4)
    save_tiny_pretrained(place / "words-model", 4)
    save_tiny_over_fixed(place / "kmers-model", Kmers(3))
    save_tiny_finetuned(place / "lora", base=place / "words-model")
    save_tiny_finetuned(place / "full", method="full", strands="both", base=place / "words-model")
    return place


def tensors_in(directory: pathlib.Path) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(directory / "model.safetensors")


@pytest.mark.parametrize("kind", KINDS)
def test_matrices_are_rounded_once_and_nothing_else_changes(models, tmp_path, kind):
    told = copy_model(models / kind, tmp_path / "half")
    before, stored = tensors_in(models / kind), tensors_in(tmp_path / "half")
    read = exports.read_tensors(tmp_path / "half/model.safetensors")
    assert before.keys() == stored.keys() and any(tensor.ndim > 1 for tensor in before.values())
    for name, tensor in before.items():
        expected = np.float16 if tensor.ndim > 1 else np.float32
        assert stored[name].dtype == expected and read[name].dtype == np.float32
        np.testing.assert_array_equal(read[name], tensor.astype(expected))
        np.testing.assert_allclose(read[name], tensor, rtol=2**-11, atol=2**-24)
    size = sum(tensor.nbytes for tensor in before.values())
    assert sum(tensor.nbytes for tensor in stored.values()) < 0.7 * size  # vectors weigh much in models so small
    assert told["bytes"] == sum(file.stat().st_size for file in (tmp_path / "half").iterdir())
    copy_model(tmp_path / "half", tmp_path / "again")
    assert (tmp_path / "again/model.safetensors").read_bytes() == (tmp_path / "half/model.safetensors").read_bytes()
    assert told["digest"] == exports.last_digest(exports.read_config(tmp_path / "again/config.json"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_loads_as_another_model_that_computes_almost_the_same(models, tmp_path, kind):
    told = copy_model(models / kind, tmp_path / "half")
    whole, half = load.load(models / kind), load.load(tmp_path / "half")
    assert told["digest"] == half.digest != whole.digest
    assert half.digest in (tmp_path / "half/README.md").read_text()
    assert whole.digest not in (tmp_path / "half/README.md").read_text()
    if whole.finetuned:
        np.testing.assert_allclose(half.predict(DNA).values, whole.predict(DNA).values, atol=0.02)
        assert half.tokenizer_digest == whole.tokenizer_digest and half.pretrained.digest == whole.pretrained.digest
    elif whole.pretrained and kind.startswith("kmers"):
        assert half.tokenizer_digest == whole.tokenizer_digest  # it has no tensors
        np.testing.assert_allclose(half.embed(DNA), whole.embed(DNA), atol=0.02)
    else:
        assert half.tokenizer_digest != whole.tokenizer_digest
        assert (half.encode(DNA) == whole.encode(DNA)).mean() > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_in_float32_is_the_model_itself(models, tmp_path, kind):
    told = copy_model(models / kind, tmp_path / "copy", "float32")
    assert told["digest"] == load.load(models / kind).digest == load.load(tmp_path / "copy").digest
    assert tensors_in(tmp_path / "copy").keys() == tensors_in(models / kind).keys()
    copy_model(models / kind, tmp_path / "half")
    copy_model(tmp_path / "half", tmp_path / "whole", "float32")
    assert load.load(tmp_path / "whole").digest == load.load(tmp_path / "half").digest
    assert {tensor.dtype for tensor in tensors_in(tmp_path / "whole").values()} == {np.dtype(np.float32)}
    original, half, whole = (
        json.loads((place / "config.json").read_text())["schema"]
        for place in (models / kind, tmp_path / "half", tmp_path / "whole")
    )
    # Versions that know no float16 read the number after the slash, and say that it is newer than theirs.
    assert original == whole and original in exports.SCHEMAS and half not in exports.SCHEMAS
    assert half.rpartition("/")[0] == whole.rpartition("/")[0] and int(half[-1]) > int(whole[-1])


def test_a_rounded_model_has_the_rounded_tokenizer(models, tmp_path):
    """Codes of the one are codes of the other, and a model of the chain refuses what is not rounded alike."""
    copy_model(models / "words-model-tokenizer", tmp_path / "words")
    copy_model(models / "words-model", tmp_path / "model")
    words, model = load.load(tmp_path / "words"), load.load(tmp_path / "model")
    assert words.tokenizer_digest == model.tokenizer_digest != load.load(models / "words").tokenizer_digest
    np.testing.assert_array_equal(words.encode(DNA), model.encode(DNA))
    assert "tokenizer_digest" in refusal(load.load, models / "lora", base=tmp_path / "model")


def test_facts_of_the_original_are_kept(models, tmp_path):
    copy_model(models / "words", tmp_path / "half", facts={"corpus_digest": "abc"})
    before, after = (json.loads((place / "config.json").read_text()) for place in (models / "words", tmp_path / "half"))
    assert after == before | {
        "tokenizer_digest": after["tokenizer_digest"],
        "stored": "float16",
        "schema": "vqdna-tokenizer/2",
        "corpus_digest": "abc",
    }
    assert before["species"] == {"E. coli": 4641652, "phiX174": 5386} and before["steps"] == 600


def test_a_flipped_bit_of_a_copy_is_refused(models, tmp_path):
    copy_model(models / "words-model", tmp_path / "half")
    path = tmp_path / "half/model.safetensors"
    good = path.read_bytes()
    for at in range(len(good) - 1, 0, -len(good) // 6):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :])
        assert str(tmp_path / "half") in refusal(load.load, tmp_path / "half")


@pytest.mark.parametrize("value", [65520.0, np.inf, np.nan])
def test_what_float16_does_not_hold_is_refused(models, tmp_path, value):
    tensors = tensors_in(models / "words")
    vector, matrix = (next(n for n, t in tensors.items() if t.ndim == size) for size in (1, 2))
    assert exports.in_half({vector: np.full(3, value, np.float32)})[vector].dtype == np.float32
    assert refusal(exports.in_half, {matrix: np.full((1, 2), value, np.float32)}).startswith(f"tensor {matrix}: ")
    assert exports.in_half({matrix: np.full((1, 2), 65504, np.float32)})[matrix].dtype == np.float16


def test_neither_the_model_nor_what_is_none_is_replaced(models, tmp_path):
    model = shutil.copytree(models / "words", tmp_path / "words")
    (tmp_path / "link").symlink_to(model)
    before = {path: path.read_bytes() for path in model.iterdir()}
    for out in (model, tmp_path / "link", f"{model}/"):
        assert f"{out}: is the model that is copied" in refusal(copy_model, model, out)
    assert "exists and is not such a model" in refusal(copy_model, models / "lora", model)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter").write_text("precious")
    assert "exists and is not such a model" in refusal(copy_model, model, tmp_path / "thesis")
    assert {path: path.read_bytes() for path in model.iterdir()} == before
    Kmers(3).save(tmp_path / "kmers")
    assert "has no tensors" in refusal(copy_model, tmp_path / "kmers", tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kmers", "link", "thesis", "words"]


def test_sections_of_a_card_take_the_place_of_those_of_their_title_or_come_before_the_licence(models, tmp_path):
    (tmp_path / "more.md").write_text("## Licence\nMine.\n\n## Not good for\nBread.\n")
    copy_model(models / "words-model", tmp_path / "half", sections=read_sections(tmp_path / "more.md"))
    before, after = ((place / "README.md").read_text() for place in (models / "words-model", tmp_path / "half"))
    titles = [[line for line in text.splitlines() if line.startswith("## ")] for text in (before, after)]
    assert titles[1] == [*titles[0][:-1], "## Stored in float16", "## Not good for", "## Licence"]
    assert after.endswith("## Not good for\nBread.\n\n## Licence\nMine.\n") and "Whoever trained it decides" in before
    (tmp_path / "odd.md").write_text("words\n## Licence\n")
    assert f"{tmp_path / 'odd.md'}: begins with 'words" in refusal(read_sections, tmp_path / "odd.md")
