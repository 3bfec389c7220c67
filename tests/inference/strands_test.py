"""Models of both strands say the same of a sequence and of its reverse complement; exports without the key read one."""

import json

import numpy as np
import pytest
from refusals import refusal
from small_sequences import random_sequences
from tiny_finetuned import save_tiny_finetuned
from tiny_pretrained import save_tiny_over_fixed, save_tiny_pretrained

import vqdna_jax
from vqdna_jax.genome.alphabet import reverse_complement
from vqdna_jax.runtime import exports
from vqdna_jax.tokenizers.byte_pairs import BytePairs
from vqdna_jax.tokenizers.kmers import Kmers

PAIRS = BytePairs((("A", "C"), ("AC", "G"), ("T", "T"), ("ACG", "TT")))  # whose strands differ in their number of codes
FIXED = {"bpe": PAIRS, "kmer": Kmers(3)}
KINDS = {"classification": 3, "multilabel": 3, "regression": 1}
BASES = random_sequences(15, 16, 40, 63, 64, 200)  # the last ones are longer than the training windows
OTHER = list(map(reverse_complement, BASES))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A base over learned codes, and over fixed tokens of each kind. Read-only."""
    place = tmp_path_factory.mktemp("models")
    save_tiny_pretrained(place / "learned", 4, 16)
    for name, tokenizer in FIXED.items():
        save_tiny_over_fixed(place / name, tokenizer, 48, 15)
    return place


def saved(place, directory, base="learned", kind="classification", **how):
    """A model of any lengths, loaded again."""
    save_tiny_finetuned(directory, kind, KINDS[kind], base=place / base, long="window", **how)
    return vqdna_jax.load(directory)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base", ["learned", *FIXED])
def test_both_strands_are_one_to_the_model(place, tmp_path, base, kind):
    """And what it says is of the mean of what the same weights say of each."""
    both = saved(place, tmp_path / "both", base, kind, strands="both")
    one = saved(place, tmp_path / "one", base, kind)
    np.testing.assert_allclose(both.predict(BASES).values, both.predict(OTHER).values, rtol=1e-5, atol=1e-6)
    of_each = [one.finetuned.logits(one.finetuned.encode(bases)) for bases in (BASES, OTHER)]
    found = both.finetuned.logits(both.finetuned.encode(BASES))
    np.testing.assert_allclose(found, np.mean(of_each, axis=0), rtol=1e-5, atol=1e-6)
    assert np.abs(of_each[0] - of_each[1]).max() > 0.01


def test_an_export_says_it_only_where_it_is_not_one(place, tmp_path):
    """So one of one strand is what it was before there were two: it has no key, and none is asked for."""
    one, both = (saved(place, tmp_path / name, strands=name) for name in ("one", "both"))
    described = {name: json.loads((tmp_path / name / "config.json").read_text()) for name in ("one", "both")}
    assert described["one"].keys() == described["both"].keys() - {"strands"} and described["both"]["strands"] == "both"
    assert (one.finetuned.strands, both.finetuned.strands) == ("one", "both") and one.digest != both.digest
    assert "the mean of their logits" in (tmp_path / "both/README.md").read_text()
    assert "the mean of their logits" not in (tmp_path / "one/README.md").read_text()
    for name, change in {"one": {"strands": "both"}, "both": {"strands": "one"}}.items():
        path = tmp_path / name / "config.json"
        path.write_text(json.dumps(described[name] | change))
        assert "digest" in refusal(vqdna_jax.load, tmp_path / name)


@pytest.mark.parametrize("value", ["two", 2, None])
def test_another_value_is_refused(place, tmp_path, value):
    """Of an export whose digest is right, as one of a newer version would be."""
    saved(place, tmp_path / "model", strands="both")
    path = tmp_path / "model/config.json"
    described = json.loads(path.read_text()) | {"strands": value}
    decides = exports.SCHEMAS[exports.FINETUNED].keys - {"base", "finetuned_digest"} | {"strands"}
    tensors = exports.read_tensors(tmp_path / "model/model.safetensors")
    digest = exports.digest({key: described[key] for key in decides}, tensors)
    path.write_text(json.dumps(described | {"finetuned_digest": digest}))
    assert f"key strands is {value!r}, expected one of one, both" in refusal(vqdna_jax.load, tmp_path / "model")
