"""Save and load: what is loaded is what was saved, and nothing else is loaded or overwritten."""

import dataclasses
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy
from refusals import refusal
from tiny_tokenizer import CARD, save_tiny, tiny_config, tiny_weights

from vqdna_jax import partition
from vqdna_jax.errors import StorageError
from vqdna_jax.inference.saved import cards, tokenizer
from vqdna_jax.tokenizers.load import load


@pytest.mark.parametrize("reach", [0, 5])
def test_what_is_loaded_is_what_was_saved(tmp_path, reach):
    config, (params, codebooks) = tiny_config(reach=reach), tiny_weights("hrq", 1, reach=reach)
    mesh = partition.make_mesh(data=4, fsdp=2)

    def place(x):
        split = x.ndim > 1 and x.shape[0] % 2 == 0
        return jax.device_put(x, jax.NamedSharding(mesh, jax.P("fsdp" if split else None)))

    sharded = jax.tree.map(place, (params, codebooks))
    assert not sharded[0]["encoder"]["block_1"]["mlp"]["up"].is_fully_replicated
    digest = tokenizer.save(tmp_path / "a/export", config, *sharded, CARD)
    model = load(tmp_path / "a/export")
    assert (model.config, model.digest, model.window_bp) == (config, digest, 64)
    assert jax.tree.structure(model.params) == jax.tree.structure(params)
    equal = jax.tree.map(lambda a, b: np.array_equal(a, b) and a.dtype == b.dtype, params, model.params)
    assert all(jax.tree.leaves(equal))
    for codebook, codes_KxD, counts_K in zip(codebooks, model.codes_KxD, model.counts_K):
        assert np.array_equal(counts_K, codebook.counts_K)
        np.testing.assert_array_max_ulp(np.asarray(codes_KxD), np.asarray(codebook.codes_KxD()), 2)  # XLA's division
    names = sorted(path.name for path in (tmp_path / "a").rglob("*"))
    assert names == ["README.md", "config.json", "export", "model.safetensors"]
    again = tokenizer.save(tmp_path / "b", config, params, codebooks, CARD)
    assert again == digest and _bytes(tmp_path / "b") == _bytes(tmp_path / "a/export")


def test_the_paper_s_decoder_is_written_as_it_was_before_there_was_another(tmp_path):
    """So digests stay, versions that know no reach read it, and what they wrote is read."""
    save_tiny(tmp_path / "plain")
    assert "reach" not in json.loads((tmp_path / "plain/config.json").read_text())["model"]
    assert load(tmp_path / "plain").config == tiny_config()
    save_tiny(tmp_path / "other", reach=5)
    assert json.loads((tmp_path / "other/config.json").read_text())["model"]["reach"] == 5


def _bytes(directory: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_the_digest_is_of_the_model_and_not_of_the_card(tmp_path):
    digest = save_tiny(tmp_path / "a")
    assert tokenizer.save(tmp_path / "b", tiny_config(), *tiny_weights("hrq", 1), {}) == digest
    assert save_tiny(tmp_path / "c", seed=1) != digest
    other = dataclasses.replace(tiny_config(), dtype="bfloat16")
    assert tokenizer.save(tmp_path / "d", other, *tiny_weights("hrq", 1), CARD) != digest
    described = json.loads((tmp_path / "a/config.json").read_text())
    assert described["tokenizer_digest"] == digest and described["schema"] == "vqdna-tokenizer/1"
    assert described["codebook_sizes"] == [16, 32] and described["window_bp"] == 64
    tensors = safetensors.numpy.load_file(tmp_path / "a/model.safetensors")
    assert tensors["encoder/block_1/mlp/up"].shape == (16, 32) and tensors["codebook_2/codes"].shape == (32, 16)


def test_the_card_tells_the_run(tokenizer_dir):
    card = (tokenizer_dir / "README.md").read_text()
    for fact in ["E. coli | 4,641,652", "all | 4,647,038", "reconstruction_accuracy | 0.987654", "steps | 600"]:
        assert fact in card
    assert CARD["command"] in card and CARD["date"] in card
    assert "Apache-2.0" in card and load(tokenizer_dir).digest in card
    assert "codebooks of 16 and 32 codes" in card
    assert "50 more at each side" in card  # 2 blocks of 3 codes of 8 bases, and 2 bases of the stem
    assert cards.of_tokenizer(tiny_config(), "0" * 64, {}).count("Not recorded.") == 2


def test_any_flipped_bit_in_the_tensors_is_refused(tokenizer_dir, tmp_path):
    directory = shutil.copytree(tokenizer_dir, tmp_path / "export")
    path = directory / "model.safetensors"
    good = path.read_bytes()
    for at in [*range(0, 2000, 191), *range(2000, len(good), len(good) // 20), len(good) - 1]:
        damaged = bytearray(good)
        damaged[at] ^= 1 << at % 8
        path.write_bytes(damaged)
        assert str(directory) in refusal(load, directory)
    path.write_bytes(good[:-4])
    assert str(path) in refusal(load, directory)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop("encoder/stem/bias"), "encoder/stem/bias is missing"),
        (lambda t: t.update(extra=np.zeros(3, np.float32)), "extra is float32[3]"),
        (lambda t: t.update({"codebook_1/codes": t["codebook_1/codes"][:4]}), "codebook_1/codes is float32[4, 16]"),
        (lambda t: t.update({"encoder/stem/bias": np.zeros(8)}), "encoder/stem/bias is float64[8]"),
    ],
)
def test_tensors_that_do_not_fit_the_config_are_named(tokenizer_dir, tmp_path, change, says):
    directory = shutil.copytree(tokenizer_dir, tmp_path / "export")
    tensors = safetensors.numpy.load_file(directory / "model.safetensors")
    change(tensors)
    safetensors.numpy.save_file(tensors, directory / "model.safetensors")
    assert says in refusal(load, directory)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("vqdna-tokenizer/1", "vqdna-tokenizer/9", "vqdna-tokenizer/9"),
        ('"kernel_size": 7', '"kernel_size": 5', "kernel_size|conv/kernel"),
        ('"dtype": "float32"', '"dtype": "bfloat16"', "digest"),
        ('"blocks": 2', '"blocs": 2', "model.blocks"),
        ('"tokenizer_digest"', '"digest"', "tokenizer_digest"),
        ("{", "", "not JSON"),
    ],
)
def test_another_config_is_refused(tokenizer_dir, tmp_path, old, new, says):
    directory = shutil.copytree(tokenizer_dir, tmp_path / "export")
    path = directory / "config.json"
    path.write_text(path.read_text().replace(old, new, 1))
    message = refusal(load, directory)
    assert str(directory) in message and any(word in message for word in says.split("|"))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(tokenizer_dir, tmp_path, name):
    directory = shutil.copytree(tokenizer_dir, tmp_path / "export")
    (directory / name).unlink()
    assert str(directory / name) in refusal(load, directory)
    assert str(tmp_path / "nowhere") in refusal(load, tmp_path / "nowhere")


def test_only_our_own_exports_are_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.txt").write_text("precious")
    assert "thesis" in refusal(save_tiny, tmp_path / "thesis")
    assert "chapter.txt" in refusal(save_tiny, tmp_path / "thesis/chapter.txt")
    (tmp_path / "empty").mkdir()
    save_tiny(tmp_path / "empty")
    (tmp_path / "empty/notes.txt").write_text("keep me")
    digest = save_tiny(tmp_path / "empty", seed=1)
    assert load(tmp_path / "empty").digest == digest
    assert (tmp_path / "empty/notes.txt").read_text() == "keep me"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "thesis"]


@pytest.mark.parametrize("broken", ["os.fsync", "pathlib.Path.rename"])
def test_a_failed_save_leaves_the_old_export(tmp_path, monkeypatch, broken):
    digest = save_tiny(tmp_path / "export")
    rename = pathlib.Path.rename

    def fail(source, *target):
        if target and source.name == "export" or ".old" in str(source):
            return rename(source, *target)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(broken, fail)
    assert "No space left" in refusal(save_tiny, tmp_path / "export", seed=1, error=StorageError)
    assert load(tmp_path / "export").digest == digest
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
