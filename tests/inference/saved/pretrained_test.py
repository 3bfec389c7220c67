"""A pretrained model's export: what is loaded is what was saved, and a part of another model is refused."""

import json
import shutil

import chex
import jax
import numpy as np
import pytest
import safetensors.numpy
from refusals import refusal
from tiny_pretrained import random_weights, save_tiny_pretrained, tiny_transformer

from vqdna_jax import partition
from vqdna_jax.genome.alphabet import to_bases
from vqdna_jax.inference import load
from vqdna_jax.inference.saved import pretrained
from vqdna_jax.tokenizers.load import load as load_tokenizer


def test_what_is_loaded_is_what_was_saved_and_is_made_in_memory(pretrained_dir):
    tokenizer, model = (
        load_tokenizer(pretrained_dir.with_name("pretrained-tokenizer")),
        pretrained.load(pretrained_dir),
    )
    weights = random_weights(model.transformer, tokenizer.codebook_sizes, tokenizer.config.width, 4, seed=0)
    chex.assert_trees_all_equal(weights, model.weights)
    chex.assert_trees_all_equal(tokenizer.params, model.tokenizer.params)
    assert (model.tokenizer.digest, model.context, model.transformer) == (tokenizer.digest, 64, tiny_transformer())
    made = pretrained.in_memory(tokenizer, model.transformer, weights, 256, 63)
    assert made.digest == model.digest
    bases = [to_bases("ACGTTGCA" * 20)]
    np.testing.assert_array_equal(made.embed(bases), model.embed(bases))


def test_on_a_mesh_every_device_has_it_whole(pretrained_dir):
    mesh = partition.make_mesh(data=2, fsdp=2, tensor=2)
    model = pretrained.load(pretrained_dir, mesh)
    leaves = jax.tree.leaves((model.tokenizer.params, model.weights, model.codes_KxE))
    assert all(leaf.is_fully_replicated and len(leaf.sharding.device_set) == 8 for leaf in leaves)
    assert model.digest == pretrained.load(pretrained_dir).digest


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_export_has_nothing_of_the_devices_that_wrote_it(tmp_path, dtype):
    """Of arrays that lie in parts on eight devices, or of the host's, the same bytes. What was trained in bfloat16, on
    a GPU or a TPU, is computed here to that dtype's precision."""
    save_tiny_pretrained(tmp_path / "host", bases_per_code=4, dtype=dtype)
    model, mesh = pretrained.load(tmp_path / "host"), partition.make_mesh(data=2, fsdp=2, tensor=2)

    def in_parts(leaf):
        return jax.device_put(leaf, jax.NamedSharding(mesh, jax.P(None if leaf.shape[0] % 2 else ("fsdp",))))

    weights = jax.tree.map(in_parts, jax.device_get(model.weights))
    assert not all(leaf.is_fully_replicated for leaf in jax.tree.leaves(weights))
    pretrained.save(tmp_path / "parts", model.tokenizer, model.transformer, weights, 256, 63, {})
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "host" / name).read_bytes()
    exact = pretrained.in_memory(model.tokenizer, tiny_transformer(), jax.device_get(weights), 256, 63)
    bases = [to_bases("ACGTTGCA" * 20)]
    (found,), (expected,) = pretrained.load(tmp_path / "parts").embed(bases), exact.embed(bases)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=0.0 if dtype == "float32" else 0.1)


@pytest.mark.parametrize("reach", [0, 8])
def test_an_export_serves_as_a_tokenizer_too(tmp_path, reach):
    save_tiny_pretrained(tmp_path / "pretrained", bases_per_code=4, reach=reach)
    tokenizer, model = load.load(tmp_path / "pretrained-tokenizer"), load.load(tmp_path / "pretrained")
    codes_LxN = model.encode("ACGTTGCANNA")
    np.testing.assert_array_equal(codes_LxN, tokenizer.encode("ACGTTGCANNA"))
    assert model.decode(codes_LxN) == tokenizer.decode(codes_LxN)
    assert model.tokenizer_digest == tokenizer.digest != model.digest


@pytest.mark.parametrize(
    "name", ["transformer/qkv", "transformer/mask", "heads/base", "encoder/stem/bias", "codebook_1/codes"]
)
def test_a_changed_weight_is_refused(pretrained_dir, tmp_path, name):
    directory = shutil.copytree(pretrained_dir, tmp_path / "export")
    tensors = safetensors.numpy.load_file(directory / "model.safetensors")
    tensors[name].flat[0] += 1e-3
    safetensors.numpy.save_file(tensors, directory / "model.safetensors")
    assert "digest" in refusal(pretrained.load, directory)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c["transformer"].update(heads=4), "transformer/"),
        (lambda c: c["transformer"].update(window=3), "digest"),
        (lambda c: c["transformer"].pop("cls"), "transformer.cls is missing"),
        (lambda c: c.update(window_bp=512), "digest"),
        (lambda c: c.pop("pretrained_digest"), "no key 'pretrained_digest'"),
    ],
)
def test_another_config_is_refused(pretrained_dir, tmp_path, change, says):
    directory = shutil.copytree(pretrained_dir, tmp_path / "export")
    described = json.loads((directory / "config.json").read_text())
    change(described)
    (directory / "config.json").write_text(json.dumps(described))
    assert says in refusal(pretrained.load, directory)
