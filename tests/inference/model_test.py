"""One class for whatever was trained: every saved model does what it can, and says in one line what it cannot."""

import json
import pathlib
import shutil
import traceback

import jax
import numpy as np
import pytest
from refusals import refusal
from tiny_finetuned import save_tiny_finetuned
from tiny_pretrained import save_tiny_over_fixed, save_tiny_pretrained
from tiny_tokenizer import save_tiny

import vqdna_jax
from vqdna_jax.cli import main
from vqdna_jax.errors import InputError
from vqdna_jax.genome.alphabet import to_bases
from vqdna_jax.inference.jobs import embed
from vqdna_jax.inference.model import Model
from vqdna_jax.inference.saved import pretrained
from vqdna_jax.runtime.exports import SCHEMAS
from vqdna_jax.tokenizers.byte_pairs import BytePairs
from vqdna_jax.tokenizers.kmers import Kmers, OneHot, OverlappingKmers

PAIRS = BytePairs((("A", "C"), ("AC", "G"), ("T", "T"), ("ACG", "TT")))
FIXED = {"one_hot": OneHot(), "overlapping": OverlappingKmers(3), "kmer": Kmers(3), "bpe": PAIRS}
TEXTS = ["ACGTTGCATTGACCA", "T", "ACG" * 40]  # the last is longer than the training windows


def embeds(name: str) -> bool:
    return not name.startswith("tokenizer")


def predicts(name: str) -> bool:
    return name.startswith("finetuned")


NAMES = [f"{what}-{kind}" for what in ("tokenizer", "pretrained", "finetuned") for kind in ("learned", *FIXED)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory of every kind of saved model, by the NAMES. Read-only."""
    place = tmp_path_factory.mktemp("models")
    save_tiny(place / "tokenizer-learned", "hrq", 4)
    save_tiny_pretrained(place / "pretrained-learned", 4, 16)
    for kind, tokenizer in FIXED.items():
        tokenizer.save(place / f"tokenizer-{kind}")
        save_tiny_over_fixed(place / f"pretrained-{kind}", tokenizer, 48, 15)
    for kind in ("learned", *FIXED):
        save_tiny_finetuned(place / f"finetuned-{kind}", long="window", base=place / f"pretrained-{kind}")
    return place


@pytest.fixture(scope="module", params=NAMES)
def named(request, place) -> tuple[str, Model]:
    return request.param, vqdna_jax.load(place / request.param)


def test_a_model_in_a_notebook_is_a_line_and_its_parts_show_no_arrays(named):
    name, model = named
    assert name in repr(model) and model.kind in repr(model) and model.digest[:12] in repr(model)
    assert "\n" not in repr(model)
    parts = (model.tokenizer, model.pretrained, model.finetuned)
    assert [part for part in parts if "rray(" in repr(part)] == []


def test_it_encodes_and_decodes(named):
    name, model = named
    codes = model.encode(TEXTS)
    np.testing.assert_array_equal(model.encode(TEXTS[0]), codes[0])
    for text, codes_LxN in zip(TEXTS, codes):
        assert codes_LxN.dtype == np.int32 and codes_LxN.shape[1] == len(model.codebook_sizes)
        assert (codes_LxN < np.array(model.codebook_sizes)[None]).all()
        assert model.tokenizer.codes_of(len(text)) in (None, len(codes_LxN))
    known = [0, 2] if name.endswith("overlapping") else [0, 1, 2]  # one base is no word of three
    back = model.decode([codes[i] for i in known], [len(TEXTS[i]) for i in known])
    assert [len(text) for text in back] == [len(TEXTS[i]) for i in known]
    if not name.endswith("learned"):
        assert back == [TEXTS[i] for i in known]


@pytest.mark.parametrize("pool", ["mean", "max", "cls", "none"])
def test_it_embeds_or_says_what_could(named, place, pool):
    name, model = named
    if not embeds(name):
        message = refusal(model.embed, TEXTS, pool)
        assert str(place / name) in message and "is a tokenizer" in message and "configs/mcm.py" in message
        return
    vectors = model.embed(TEXTS, pool)
    if pool == "none":
        assert [v.shape for v in vectors] == [(len(codes), 16) for codes in model.encode(TEXTS)]
    else:
        assert vectors.shape == (3, 16) and vectors.dtype == np.float32
    for alone, together in zip((model.embed(text, pool) for text in TEXTS), vectors):
        np.testing.assert_array_equal(alone, together)
    assert np.ptp(np.concatenate([np.ravel(v) for v in vectors])) > 0.1


def test_it_predicts_or_says_what_could(named, place):
    name, model = named
    if predicts(name):
        assert model.predict(TEXTS).values.shape == (3, len(model.label_names))
        return
    for call in (lambda: model.predict(TEXTS), lambda: model.label_names):
        message = refusal(call)
        assert str(place / name) in message and "not fine-tuned" in message and "configs/finetune.py" in message


@pytest.mark.parametrize(
    "call",
    [
        lambda model: vqdna_jax.load("nope"),
        lambda model: model.encode("ACGT!"),
        lambda model: model.decode(model.encode("ACGT") - 99),
        lambda model: model.embed(""),
        lambda model: model.predict(["ACGT", 7]),
        lambda model: model.with_batch(0),
    ],
)
def test_an_error_is_one_line_below_the_users_own_call(place, call):
    """Of what led to it nothing is shown: no chain of exceptions, no frames of this package but one."""
    model = vqdna_jax.load(place / "finetuned-learned")
    with pytest.raises(InputError) as refused:
        call(model)
    shown = "".join(traceback.format_exception(refused.value))
    assert shown.count("Traceback") == 1 and "\n" not in str(refused.value)
    assert shown.endswith(f"\nvqdna_jax.errors.InputError: {refused.value}\n")
    own = pathlib.Path(vqdna_jax.__file__).parent
    frames = traceback.extract_tb(refused.tb)
    assert [frame.name for frame in frames if own in pathlib.Path(frame.filename).parents] == ["call"]


def test_it_knows_what_it_is(named, place):
    name, model = named
    tokenizer = vqdna_jax.load(place / f"tokenizer-{name.partition('-')[2]}")
    assert model.tokenizer_digest == tokenizer.digest == tokenizer.tokenizer_digest
    assert (model.digest == tokenizer.digest) == (not embeds(name))
    assert model.bases_per_code == {"learned": 4, "one_hot": 1}.get(name.partition("-")[2])
    assert model.kind.replace("-", "").split()[1].startswith(name.partition("-")[0])
    if embeds(name):
        assert model.context == 16
    else:
        assert "context needs a pretrained model" in refusal(lambda: model.context)


def test_a_fine_tuned_model_embeds_with_what_was_tuned_and_its_base_without(place):
    base, tuned = (vqdna_jax.load(place / name) for name in ("pretrained-learned", "finetuned-learned"))
    assert np.abs(tuned.embed(TEXTS) - base.embed(TEXTS)).max() > 0.01
    bases = [np.array([0, 1, 2, 3], np.uint8)]
    np.testing.assert_array_equal(tuned.pretrained.embed(bases), base.pretrained.embed(bases))


def test_embeddings_over_fixed_tokens_are_of_the_network_that_was_trained(place):
    """By layer 0: the table's vectors, projected."""
    model = vqdna_jax.load(place / "pretrained-kmer")
    weights = jax.device_get(model.pretrained.weights)
    expected = weights["table"][model.encode(TEXTS[0])[:, 0]] @ weights["transformer"]["project"][0]
    np.testing.assert_allclose(model.embed(TEXTS[0], "none", 0), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_verbs_do_what_the_model_does_or_say_why_not(place, name, tmp_path, capsys):
    (tmp_path / "in.fa").write_text("".join(f">r{i}\n{text}\n" for i, text in enumerate(TEXTS)))
    able = {
        "encode": name.endswith(("learned", "one_hot")),
        "embed": embeds(name),
        "predict": predicts(name),
    }
    for verb, can in able.items():
        arguments = [verb, str(tmp_path / "in.fa"), f"--model={place / name}", f"--out={tmp_path / verb}"]
        if can:
            main.main(arguments)
            assert (tmp_path / verb).exists()
            continue
        with pytest.raises(SystemExit) as stop:
            main.main(arguments)
        assert stop.value.code == 43 and not (tmp_path / verb).exists()
        assert str(place / name) in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("name", ["pretrained-kmer", "finetuned-bpe", "finetuned-learned"])
def test_a_file_of_embeddings_has_every_codes_place(place, name, tmp_path):
    (tmp_path / "in.fa").write_text("".join(f">r{i}\n{text}\n" for i, text in enumerate(TEXTS)))
    embed.embed_fasta(tmp_path / "in.fa", place / name, tmp_path / "out", "none", progress=False)
    model = vqdna_jax.load(place / name)
    with np.load(tmp_path / "out", allow_pickle=False) as file:
        meta, arrays = json.loads(file["meta.json"]), {key: file[key] for key in ("embeddings", "offsets", "starts")}
    np.testing.assert_array_equal(arrays["embeddings"], np.concatenate(model.embed(TEXTS, "none")))
    spans = [model.tokenizer.spans(to_bases(text)) for text in TEXTS]
    np.testing.assert_array_equal(arrays["starts"], np.concatenate(spans)[:, 0])
    np.testing.assert_array_equal(arrays["offsets"], np.cumsum([0, *map(len, spans)]))
    assert meta["bases_per_code"] == model.bases_per_code
    assert meta["pretrained_digest"] == model.pretrained.digest
    assert meta.get("finetuned_digest") == (model.digest if model.finetuned else None)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_an_export_of_a_newer_version_says_to_upgrade(schema, tmp_path, capsys):
    newer = f"{schema.rpartition('/')[0]}/9"
    (tmp_path / "config.json").write_text(json.dumps({"schema": newer}))
    message = refusal(vqdna_jax.load, tmp_path)
    assert repr(newer) in message and "pip install -U vqdna_jax" in message
    (tmp_path / "in.fa").write_text(">a\nACGT\n")
    with pytest.raises(SystemExit) as stop:
        main.main(["embed", str(tmp_path / "in.fa"), f"--model={tmp_path}", f"--out={tmp_path}/out"])
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 43 and message in line


def test_a_workdir_in_the_place_of_its_export_is_told(place, tmp_path):
    shutil.copytree(place / "tokenizer-learned", tmp_path / "run/export")
    (tmp_path / "run/config.json").write_text(json.dumps({"task": "vocabulary"}))
    for load in (vqdna_jax.load, pretrained.load):
        message = refusal(load, tmp_path / "run")
        assert "workdir of a run" in message and str(tmp_path / "run/export") in message
    (tmp_path / "other").mkdir()
    (tmp_path / "other/config.json").write_text("{}")
    assert "schema is None" in refusal(vqdna_jax.load, tmp_path / "other")


def test_a_pretrained_model_as_a_tokenizer_and_the_reverse(place):
    assert "expected a pretrained model" in refusal(pretrained.load, place / "tokenizer-learned")
    assert "no base" in refusal(vqdna_jax.load, place / "pretrained-bpe", base=place / "pretrained-bpe")


@pytest.mark.parametrize("length", [14, 16])
def test_a_length_that_its_tokens_do_not_have_is_refused(place, length):
    bases, kmers = (vqdna_jax.load(place / f"tokenizer-{kind}") for kind in ("one_hot", "kmer"))
    message = refusal(bases.decode, bases.encode(TEXTS[0]), length)
    assert f"sequence 0: {length}, but 15 codes stand for 15 to 15 bases" in message
    assert "another number of bases" in refusal(kmers.decode, kmers.encode(TEXTS[0]), length)


def test_an_unknown_token_has_no_bases(place):
    model = vqdna_jax.load(place / "tokenizer-kmer")
    message = refusal(model.decode, model.encode(["ACGACG", "ACGANG"]))
    assert "codes 1" in message and "token 1" in message and "not known" in message
    assert model.decode(np.zeros((3, 1), int)) == "A" * 9
