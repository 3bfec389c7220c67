"""Published networks agree with their authors' code, on random weights: tokens, every layer, logits, gradients.

golden/ was made by `python tools/rivals_reference.py tests/rivals/golden` with the versions that golden/*.json name
(torch 2.13.0, transformers 5.24.0, multimolecule 0.2.2), of networks 12 wide with two layers. Make it anew where that
tool or what it writes has changed, and never because a number here has.
"""

import json
import os
import pathlib
import subprocess

import numpy as np
import pytest

from tools.compare_rivals import compare
from vqdna_jax.inference import load
from vqdna_jax.rivals.importing import import_model

GOLDEN = pathlib.Path(__file__).parent / "golden"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.npz"))
REFERENCE = os.environ.get("VQDNA_RIVALS_PYTHON")  # of an environment with torch, transformers and multimolecule
CLOSE = 1e-4


def check(out: pathlib.Path, name: str) -> None:
    found = compare(out, name)
    assert found.tokens == 0
    assert max(*found.hidden, found.last, found.logits) < CLOSE
    assert found.gradient < CLOSE


@pytest.mark.parametrize("name", NAMES)
def test_a_small_network_agrees_at_every_layer(name):
    check(GOLDEN, name)


@pytest.mark.slow
@pytest.mark.skipif(not REFERENCE, reason="VQDNA_RIVALS_PYTHON names no Python with torch, transformers, multimolecule")
@pytest.mark.parametrize("name", NAMES)
def test_a_larger_one_agrees_with_the_reference_of_now(name, tmp_path):
    tool = pathlib.Path(__file__).parents[2] / "tools/rivals_reference.py"
    options = [f"--rival={name}", "--width=96", "--layers=4", "--seed=1"]
    subprocess.run([REFERENCE, tool, tmp_path, *options], check=True)
    check(tmp_path, name)


@pytest.mark.parametrize("name", NAMES)
def test_embed_gives_the_vectors_of_the_sequences_own_tokens(name, tmp_path):
    """The second sequence, of which nothing is masked."""
    import_model(name.partition("_")[0], GOLDEN / name, tmp_path / "export")
    model, told = load.load(tmp_path / "export"), json.loads((GOLDEN / f"{name}.json").read_text())
    sequence, first = told["sequences"][1], int(model.pretrained.transformer.cls)
    ids = [id for id in told["tokens"][1] if model.tokenizer.words[id].isalpha()]
    last_TxD = np.load(GOLDEN / f"{name}.npz")["last"][1]
    vectors_LxD = last_TxD[first : first + len(ids)]
    np.testing.assert_array_equal(model.encode(sequence)[:, 0], ids)
    assert model.decode(model.encode(sequence)) == sequence
    np.testing.assert_allclose(model.embed(sequence, "none"), vectors_LxD, atol=CLOSE)
    np.testing.assert_allclose(model.embed(sequence), vectors_LxD.mean(axis=0), atol=CLOSE)
    if first:
        np.testing.assert_allclose(model.embed(sequence, "cls"), last_TxD[0], atol=CLOSE)
    crowd = model.embed([sequence, told["sequences"][0] * 30], "none")
    np.testing.assert_array_equal(crowd[0], model.embed(sequence, "none"))
    assert len(crowd[1]) == len(model.encode(told["sequences"][0] * 30)) > model.pretrained.length
