"""Directories that cannot be imported are refused in one line, before anything is compiled; others are told of."""

import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import safetensors.numpy
from refusals import refusal

from vqdna_jax.cli import main
from vqdna_jax.inference import load
from vqdna_jax.rivals.importing import import_model

GOLDEN = pathlib.Path(__file__).parent / "golden"
RATES = "hyena.backbone.layers.1.mixer.filter_fn.implicit_filter.3.freq"
TABLE = "bert.embeddings.word_embeddings.weight"
GAMMA = "bert.embeddings.LayerNorm.gamma"


def tensors(path: pathlib.Path, change) -> None:
    """Other tensors, after `change` of them."""
    stored = safetensors.numpy.load_file(path / "model.safetensors")
    change(stored)
    safetensors.numpy.save_file(stored, path / "model.safetensors")


def config(path: pathlib.Path, **values) -> None:
    stored = json.loads((path / "config.json").read_text()) | values
    kept = {key: value for key, value in stored.items() if value is not None}
    (path / "config.json").write_text(json.dumps(kept))


def words(path: pathlib.Path, change) -> None:
    lines = (path / "vocab.txt").read_text().splitlines()
    (path / "vocab.txt").write_text("\n".join(change(lines)) + "\n")


def twice(path: pathlib.Path) -> None:
    shutil.copy(path / "model.safetensors", path / "older.safetensors")


def piped(path: pathlib.Path) -> None:
    os.mkfifo(path / "more.safetensors")


def byte_pairs(path: pathlib.Path, change) -> None:
    stored = json.loads((path / "tokenizer.json").read_text())
    change(stored["model"])
    (path / "tokenizer.json").write_text(json.dumps(stored))


def without_dna(model: dict) -> None:
    model["vocab"] = {word if "[" in word else f"x{word}": id for word, id in model["vocab"].items()}
    model["merges"] = []


def characters(path: pathlib.Path, *found: str) -> None:
    (path / "tokenizer_config.json").write_text(json.dumps({"characters": found}))


def pickled(path: pathlib.Path) -> None:
    (path / "model.safetensors").rename(path / "pytorch_model.bin")


def cut(path: pathlib.Path) -> None:
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:500])


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("dnabert", lambda p: tensors(p, lambda t: t.pop("bert.encoder.layer.1.output.dense.bias")), "is missing"),
        ("dnabert", lambda p: tensors(p, lambda t: t.update(x=np.zeros(3))), "x is one of 1 that the network"),
        ("dnabert", lambda p: tensors(p, lambda t: t.update({TABLE: t[TABLE][:, :-1]})), "is [69, 11], config"),
        ("dnabert", lambda p: config(p, num_hidden_layers=3), "layer.2.attention.self.query.weight is missing"),
        ("dnabert", lambda p: config(p, num_hidden_layers=1), "that the network of config.json does not have"),
        ("dnabert", lambda p: config(p, model_type="gpt2"), "key model_type: found 'gpt2', expected one of bert"),
        ("dnabert", lambda p: config(p, hidden_act="relu"), "key hidden_act: found 'relu'"),
        ("dnabert", lambda p: config(p, hidden_size=None), "key hidden_size is missing"),
        ("dnabert", lambda p: config(p, num_attention_heads=5), "expected a multiple of 5"),
        ("dnabert", lambda p: words(p, lambda w: w[:-1]), "has no word GGG"),
        ("dnabert", lambda p: words(p, lambda w: [*w, "GGN"]), "has 70 words, and the config's vocab_size is 69"),
        ("dnabert", lambda p: words(p, lambda w: [*w[:-1], w[5]]), "has the word 'AAA' twice"),
        ("dnabert", lambda p: words(p, lambda w: [w[0], "y", *w[2:]]), "has none of [UNK]"),
        ("dnabert", lambda p: (p / "vocab.txt").unlink(), "vocab.txt: cannot be read"),
        ("dnabert", lambda p: (p / "config.json").unlink(), "config.json"),
        ("dnabert", pickled, "pytorch_model.bin: is a pickle"),
        ("dnabert", lambda p: (p / "model.safetensors").unlink(), "has no .safetensors file"),
        ("dnabert", cut, "is damaged"),
        ("nt", lambda p: config(p, emb_layer_norm_before=True), "key emb_layer_norm_before: found True"),
        ("nt", lambda p: tensors(p, lambda t: t.pop("lm_head.decoder.weight")), "lm_head.decoder.weight is missing"),
        ("dnabert2", lambda p: (p / "tokenizer.json").write_text("{}"), "vocabulary: the tokenizers library"),
        ("hyenadna", lambda p: config(p, hyena_order=3), "key hyena_order: found 3"),
        ("hyenadna", lambda p: config(p, max_seq_len=50), "pos_emb.z is [1, 40, 5], config.json asks for [1, 50, 5]"),
        ("hyenadna", lambda p: config(p, vocab_size=11), "vocab_size is 11"),
        ("hyenadna", lambda p: tensors(p, lambda t: t.update({RATES: np.ones((1, 8))})), "one for all sines"),
        ("hyenadna", lambda p: config(p, pad_vocab_size_multiple=10**12), "config.json asks for [1000000000000, 12]"),
        ("hyenadna", lambda p: characters(p, *"AACGT"), "tokenizer_config.json: vocabulary: has the word 'A' twice"),
        ("hyenadna", lambda p: characters(p, "A", "CG", *"GTN"), "tokenizer_config.json: vocabulary: has no word C"),
        ("dnabert", twice, "older.safetensors: tensor bert.embeddings.LayerNorm.bias is in model.safetensors too"),
        ("dnabert", lambda p: tensors(p, lambda t: t.update({GAMMA: np.ones(12)})), "LayerNorm.weight is in"),
        ("nt", piped, "more.safetensors: is no file"),
        ("nt", lambda p: (p / "more.safetensors").mkdir(), "more.safetensors: is no file"),
        ("dnabert2", lambda p: tensors(p, lambda t: t[TABLE].fill(np.nan)), f"tensor {TABLE} has values that are no"),
        ("dnabert2", lambda p: tensors(p, lambda t: t.update({TABLE: 1e300 + np.zeros((40, 12))})), "no finite"),
        ("dnabert2", lambda p: config(p, max_position_embeddings=2), "positions for 0 tokens"),
        ("dnabert2", lambda p: config(p, max_position_embeddings=2**55), "positions for 36,028,797,018,963,966 tokens"),
        ("nt", lambda p: config(p, position_embedding_type="rotary", max_position_embeddings=3), "for 0 tokens"),
        ("dnabert2", lambda p: byte_pairs(p, without_dna), "has no word of the letters A, C, G and T"),
        ("dnabert2", lambda p: byte_pairs(p, lambda m: m["vocab"].update(ZZ=10**9)), "'ZZ' has the id 1,000,000,000"),
        ("nt", lambda p: words(p, lambda w: [*map(str, range(200_000)), "199999"]), "has the word '199999' twice"),
        ("nt", lambda p: ((p / "vocab.txt").unlink(), os.mkfifo(p / "vocab.txt")), "vocab.txt: is no file"),
    ],
)  # fmt: skip
def test_a_directory_that_does_not_fit_is_refused(name, damage, said, tmp_path):
    directory = shutil.copytree(GOLDEN / name, tmp_path / name)
    damage(directory)
    assert said in refusal(import_model, name, directory, tmp_path / "export")
    assert not (tmp_path / "export").exists()


@pytest.mark.parametrize(("named", "of"), [("dnabert", "dnabert2"), ("dnabert2", "dnabert"), ("nt", "dnabert")])
def test_another_model_than_was_named_is_refused(named, of, tmp_path):
    refusal(import_model, named, GOLDEN / of, tmp_path / "export")


def test_the_command_tells_what_it_made_or_why_not(tmp_path, capsys):
    out = tmp_path / "export"
    main.main(["import", "nt", str(GOLDEN / "nt"), f"--out={out}", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert (told["vocabulary"], told["length"]) == (75, 37) and "CC BY-NC-SA" in told["licence"]
    assert "CC BY-NC-SA" in (out / "README.md").read_text()
    with pytest.raises(SystemExit) as stop:
        main.main(["import", "dnabert", str(GOLDEN / "nt"), f"--out={tmp_path / 'other'}"])
    assert stop.value.code == 43
    assert capsys.readouterr().err.startswith("error: ")


def test_old_names_and_names_without_the_trunk_are_known(tmp_path):
    directory = shutil.copytree(GOLDEN / "dnabert", tmp_path / "dnabert")
    made = import_model("dnabert", directory, tmp_path / "export")

    def rename(stored: dict) -> None:
        for name in list(stored):
            new = name.removeprefix("bert.").replace("LayerNorm.weight", "LayerNorm.gamma")
            stored[new] = stored.pop(name)

    tensors(directory, rename)
    assert import_model("dnabert", directory, tmp_path / "again")["digest"] == made["digest"]


@pytest.mark.parametrize("name", ["dnabert", "hyenadna"])
def test_weights_without_a_language_head_are_imported_without_it(name, tmp_path):
    directory = shutil.copytree(GOLDEN / name, tmp_path / name)
    tensors(directory, lambda t: [t.pop(key) for key in list(t) if key.startswith(("cls.", "lm_head."))])
    import_model(name, directory, tmp_path / "export")
    assert json.loads((tmp_path / "export/config.json").read_text())["transformer"]["head"] == "none"
    model = load.load(tmp_path / "export")
    assert "without the head of its language model" in refusal(model.score, "ACGT" * 9, "ACGT" * 8 + "ACGA")
    assert model.embed("ACGT" * 9).shape == (12,)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(network="mamba"), "key network is 'mamba', expected one of bert, hyena"),
        (lambda c: c["transformer"].update(layers=10**6), "key transformer.layers is 1000000"),
        (lambda c: c["transformer"].update(hidden=17), "config.json asks for"),
        (lambda c: c["transformer"].pop("norm"), "key transformer.norm is missing"),
        (lambda c: c["tokenizer"]["words"].pop(), "has no word GGG"),
        (lambda c: c["tokenizer"].update(kind="vocabulary"), "tokenizer kind: 'vocabulary'"),
        (lambda c: c.update(length=20), "the digest is"),
    ],
)
def test_an_export_that_was_changed_is_refused(change, said, tmp_path):
    import_model("dnabert", GOLDEN / "dnabert", tmp_path / "export")
    file = tmp_path / "export/config.json"
    described = json.loads(file.read_text())
    change(described)
    file.write_text(json.dumps(described))
    assert said in refusal(load.load, tmp_path / "export")
