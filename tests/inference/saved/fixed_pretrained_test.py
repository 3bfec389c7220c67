"""Exports over fixed tokenizers: what is loaded is what was saved, and fine-tuning reads it as pretraining did."""

import functools
import json
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from tiny_pretrained import over_fixed, save_tiny_over_fixed, tiny_transformer

from vqdna_jax import partition
from vqdna_jax.errors import InputError
from vqdna_jax.genome.alphabet import to_bases
from vqdna_jax.inference.saved import pretrained
from vqdna_jax.labels.batches import Shape, fill
from vqdna_jax.models.classifier import Classifier
from vqdna_jax.models.transformer import Compute
from vqdna_jax.tasks.finetune import Finetune, FrozenBase
from vqdna_jax.tokenizers.batches import layout
from vqdna_jax.tokenizers.byte_pairs import BytePairs
from vqdna_jax.tokenizers.kmers import Kmers

TOKENIZERS = {
    "kmer": Kmers(2),
    "bpe": BytePairs((("A", "C"), ("AC", "G"), ("T", "T"), ("ACG", "TT"))),
}
LAYOUT = layout(TOKENIZERS["kmer"], 50, True)


@pytest.fixture(scope="module", params=TOKENIZERS)
def export(request, tmp_path_factory):
    """Read-only."""
    directory, tokenizer = tmp_path_factory.mktemp("exports") / request.param, TOKENIZERS[request.param]
    card = {"result": {"loss": 1.25}, "steps": 7, "species": {"phiX174": 5386}}
    save_tiny_over_fixed(directory, tokenizer, LAYOUT.window_bp, LAYOUT.length, card)
    return directory


def test_what_is_loaded_is_what_was_saved(export):
    model, tokenizer = pretrained.load(export), TOKENIZERS[export.name]
    _, params = over_fixed(tokenizer, LAYOUT)
    chex.assert_trees_all_equal(params, model.weights)
    assert (model.tokenizer, model.transformer) == (tokenizer, tiny_transformer())
    assert (model.tokenizer.digest, model.context, model.window_bp) == (tokenizer.digest, 26, 50)
    assert model.codes_KxE[0] is model.vectors_KxE()[0] is model.weights["table"]
    card = (export / "README.md").read_text()
    assert model.digest in card and "loss 1.25" in card and "7 steps, on phiX174" in card


def test_on_a_mesh_every_device_has_it_whole(export):
    model = pretrained.load(export, partition.make_mesh(data=2, fsdp=2, tensor=2))
    leaves = jax.tree.leaves(model.weights)
    assert all(leaf.is_fully_replicated and len(leaf.sharding.device_set) == 8 for leaf in leaves)


def test_fine_tuning_reads_the_vectors_that_pretraining_read(export):
    """Mean features of padded sequences, beside the pretraining task's network on each sequence alone."""
    model, (task, params) = pretrained.load(export), over_fixed(TOKENIZERS[export.name], LAYOUT)
    codes = model.tokenizer.encode([to_bases(text) for text in ("ACGTTNACGACC", "TTACG", "ACGNNNACGTACGT")])
    finetune = Finetune(Classifier(model.transformer, Compute(), 2, model.sizes), "classification", "head")
    batch = fill(codes, Shape(1, 16), model.context - 1)
    frozen = FrozenBase(model.vectors_KxE(), model.weights["transformer"])
    with jax.set_mesh(model.mesh):
        on_device = partition.batch_to_devices(batch, model.mesh, 3)
        features_BxP = jax.jit(functools.partial(finetune.features, {"head": {}}))(frozen, on_device)

        def alone(tokens_1xL):
            plain = tokens_1xL < 0
            vectors = task.vectors(jnp.asarray(params["table"]), tokens_1xL)
            return task.transformer.apply({"params": params["transformer"]}, vectors, plain, plain[:, 0])[0]

        for features_P, tokens_Lx1 in zip(np.asarray(features_BxP), codes):
            h_LxD = jax.jit(alone)(jnp.asarray(tokens_Lx1.T))[0]
            np.testing.assert_allclose(features_P, np.asarray(h_LxD).mean(axis=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["table", "transformer/qkv", "heads/project"])
def test_a_changed_weight_is_refused(export, tmp_path, name):
    directory = shutil.copytree(export, tmp_path / "export")
    tensors = safetensors.numpy.load_file(directory / "model.safetensors")
    tensors[name].flat[0] += 1e-3
    safetensors.numpy.save_file(tensors, directory / "model.safetensors")
    with pytest.raises(InputError, match="model.safetensors: the digest is"):
        pretrained.load(directory)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c["transformer"].update(heads=4), "tensor transformer/"),
        (lambda c: c["transformer"].update(window=3), "digest"),
        (lambda c: c["transformer"].pop("cls"), "transformer.cls is missing"),
        (lambda c: c.update(window_bp=51), "digest"),
        (lambda c: c.update(length=26), "digest"),
        (lambda c: c.update(length="26"), "key length is '26', expected a positive integer"),
        (lambda c: c.update(table_width=9), "tensor heads/project"),
        (lambda c: c.pop("layout", c.pop("length")), "no key 'length'"),
        (lambda c: c["tokenizer"].update(k=0, kind="one_hot"), "key tokenizer"),
        (lambda c: c["tokenizer"].pop("k"), "key tokenizer: expected kind, k and merges"),
        (lambda c: c.update(tokenizer=Kmers(4).described()), "digest"),
        (lambda c: c.update(schema="vqdna-pretrained/1"), "no key .model."),
        (lambda c: c.update(schema="vqdna-tokenizer/1"), "schema is"),
        (lambda c: c.update(schema="vqdna-fixed-pretrained/9"), "newer than the vqdna-fixed-pretrained/2"),
    ],
)
def test_another_config_is_refused(export, tmp_path, change, says):
    directory = shutil.copytree(export, tmp_path / "export")
    described = json.loads((directory / "config.json").read_text())
    change(described)
    (directory / "config.json").write_text(json.dumps(described))
    with pytest.raises(InputError, match=says) as error:
        pretrained.load(directory)
    assert "\n" not in str(error.value) and str(directory) in str(error.value)


def test_a_directory_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is not an exported model"):
        save_tiny_over_fixed(tmp_path, TOKENIZERS["kmer"])
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
