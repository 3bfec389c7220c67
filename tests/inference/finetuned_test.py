"""Predictions in Python: a bad sequence is named by its index, and the others can be predicted all the same."""

import numpy as np
import pytest
from refusals import refusal
from tiny_finetuned import save_tiny_finetuned

import vqdna_jax

BAD = {
    "": "empty",
    "ACGXT": "position 3: 'X'",
    "AC GT": "position 2: ' '",
    "A" * 999: "longer than the",
    7: "found int",
}
GOOD = ["ACGT", "acgRYn", "NN"]  # what has no known base is refused in files alone


@pytest.fixture(scope="module")
def models(tmp_path_factory, pretrained_dir):
    place = tmp_path_factory.mktemp("finetuned")
    for strands in ("one", "both"):
        save_tiny_finetuned(place / strands, strands=strands, base=pretrained_dir)
    return {strands: vqdna_jax.load(place / strands) for strands in ("one", "both")}


@pytest.mark.parametrize("strands", ["one", "both"])
def test_a_bad_sequence_is_named_and_the_others_are_predicted_if_asked(models, strands):
    model, sequences = models[strands], [GOOD[0], *BAD, *GOOD[1:]]
    assert refusal(model.predict, sequences).startswith("sequence 1: is empty")
    found = model.predict(iter(sequences), errors="coerce")
    for i, (sequence, error, label) in enumerate(zip(sequences, found.errors, found.labels)):
        assert (error == "") == (sequence in GOOD) == (label != "") == bool(np.isfinite(found.values[i]).all())
        assert not error or (error.startswith(f"sequence {i}") and BAD[sequence] in error and "\n" not in error)
    good = [i for i, sequence in enumerate(sequences) if sequence in GOOD]
    assert np.array_equal(found.values[good], model.predict(GOOD).values)


def test_of_bad_sequences_alone_there_is_nothing(models):
    found = models["one"].predict(list(BAD), errors="coerce")
    assert np.isnan(found.values).all() and found.labels == [""] * len(BAD) and all(found.errors)
    assert list(models["one"].predict("ACGT").errors) == [""]
    assert "expected 'raise' or 'coerce'" in refusal(models["one"].predict, GOOD, errors="ignore")
