"""The models that come with the package, as they lie there."""

import re

import numpy as np
import pytest
import safetensors.numpy

import vqdna_jax
from vqdna_jax.genome.alphabet import to_text
from vqdna_jax.genome.fasta import load_fasta
from vqdna_jax.inference.saved import listing
from vqdna_jax.runtime import shipped

NAMES = sorted({"mini", *shipped.names()})
MOST_BYTES = 12_000_000  # of all: they are in every clone and in the wheel


@pytest.fixture(scope="module", params=NAMES)
def name(request) -> str:
    return request.param


def test_they_are_small():
    assert "mini" in shipped.names()
    assert sum(model["bytes"] for model in listing.shipped_models()) < MOST_BYTES


def test_a_folder_has_a_model_in_float16_and_nothing_else(name):
    place = shipped.find(shipped.SHIPPED / name)
    assert sorted(path.name for path in place.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    tensors = safetensors.numpy.load_file(place / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values() if tensor.ndim > 1} == {np.dtype(np.float16)}


def test_it_knows_what_it_was_trained_on(name):
    (found,) = (model for model in listing.shipped_models() if model["name"] == name)
    card = (shipped.SHIPPED / name / "README.md").read_text()
    assert found["bases"] > 10**8 and len(found["species"]) > 10
    for species, bases in found["species"].items():
        assert re.search(rf"(?m)^\| {re.escape(species)} \|.*\| {bases:,} \|.*\| \S+ \|$", card), species
    for fact in (
        found["digest"],
        found["corpus_digest"],
        "## Licence\nApache-2.0",
        "## Limits",
        "## Metrics",
        "| seed |",
    ):
        assert fact in card
    assert not re.search(r"[ =`](/|~)\w+/", card)  # no place on the machine where it was made


def test_it_rebuilds_and_embeds_a_genome(name, bundled):
    model = vqdna_jax.load(name)
    bases = next(load_fasta(bundled / "phiX174.fa.gz")).bases[:1000]
    codes_LxN = model.encode(bases)
    decoded, text = model.decode(codes_LxN), to_text(bases)
    assert np.mean([a == b for a, b in zip(decoded, text)]) > 0.98
    assert model.tokenizer.hidden_share > 0  # or stage 2 would warn
    near, far = (model.embed(other) for other in (bases[:900], bases[::-1].copy()))
    whole = model.embed(bases)
    assert np.isfinite(whole).all() and np.abs(whole - near).max() < np.abs(whole - far).max()
