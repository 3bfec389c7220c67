"""The saved tokenizer: what is loaded is what was saved, and codes do not depend on windows, neighbours or padding."""

import dataclasses
import functools
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy

from vqdna_jax import hub, partition, stitch
from vqdna_jax.errors import InputError, StorageError
from vqdna_jax.genome.alphabet import N, to_bases, to_text
from vqdna_jax.genome.fasta import load_fasta
from vqdna_jax.models import quantize
from vqdna_jax.models.quantize import Codebook
from vqdna_jax.models.tokenizer import Decoder, Encoder, TokenizerConfig

CARD = {
    "result": {"reconstruction_accuracy": 0.987654, "codebook_1_perplexity": 7.5},
    "config": {"data": {"window_bp": 64, "global_batch": 16}, "seed": 3},
    "species": {"E. coli": 4641652, "phiX174": 5386},
    "steps": 600,
    "date": "2026-11-22",
    "command": "python -m vqdna_jax.main --config=configs/hrq.py:tiny",
    "throughput": 1.5e5,
}
KINDS = [("hrq", 1), ("vqvae", 2), ("hrq", 8)]


def tiny_config(quantizer: str = "hrq", bases_per_code: int = 1) -> TokenizerConfig:
    return TokenizerConfig(
        quantizer, code_size=8, bases_per_code=bases_per_code, width=16, blocks=2, expansion=2, stem_channels=8,
        dtype="float32",
    )  # fmt: skip


def random_weights(config: TokenizerConfig, seed: int = 0):
    """(params, codebooks), with noise on every parameter: a bias of zero hides what leaks in from beyond the ends."""
    bases, embedding = np.zeros((1, config.bases_per_code), np.uint8), np.zeros((1, 1, config.width), np.float32)
    modules = {"encoder": (Encoder(config), bases), "decoder": (Decoder(config), embedding)}
    key, rng = jax.random.key(seed), np.random.default_rng(seed)
    shapes = {name: jax.eval_shape(module.init, key, x)["params"] for name, (module, x) in modules.items()}
    noisy = jax.tree.map(lambda p: 0.4 * rng.standard_normal(p.shape, np.float32), shapes)
    counts = [rng.uniform(0.5, 5, size).astype(np.float32) for size in config.codebook_sizes]
    return noisy, tuple(Codebook(c, 2 * rng.standard_normal((len(c), config.width), np.float32)) for c in counts)


@functools.cache
def tiny_weights(quantizer: str, bases_per_code: int, seed: int = 0):
    with jax.set_mesh(partition.make_mesh(devices=jax.devices()[:1])):
        return random_weights(tiny_config(quantizer, bases_per_code), seed)


def save_tiny(directory: pathlib.Path, quantizer: str = "hrq", bases_per_code: int = 1, seed: int = 0) -> str:
    return hub.save(
        directory, tiny_config(quantizer, bases_per_code), *tiny_weights(quantizer, bases_per_code, seed), CARD
    )


@pytest.fixture(scope="session")
def exports(tmp_path_factory):
    """(quantizer, bases_per_code) to an export directory; read-only."""
    root = tmp_path_factory.mktemp("exports")
    for quantizer, bases_per_code in KINDS:
        save_tiny(root / f"{quantizer}{bases_per_code}", quantizer, bases_per_code)
    return lambda quantizer="hrq", bases_per_code=1: root / f"{quantizer}{bases_per_code}"


@pytest.fixture(scope="session")
def models(exports):
    return functools.cache(lambda quantizer="hrq", bases_per_code=1: hub.load(exports(quantizer, bases_per_code)))


@pytest.fixture(scope="session")
def real_bases(bundled) -> np.ndarray:
    """5,003 bases of phiX174 with a run of N: no multiple of anything."""
    (record,) = load_fasta(bundled / "phiX174.fa.gz")
    bases = record.bases[:5003].copy()
    bases[2000:2040] = N
    return bases


def whole_codes(model, bases: np.ndarray) -> np.ndarray:
    """Codes of one pass over the bare sequence, without windows or masks."""

    @jax.jit
    def codes(params, codes_KxD, bases_BxS):
        features = Encoder(model.config).apply({"params": params}, bases_BxS)
        return quantize.hierarchical(features, codes_KxD, np.dtype("float32")).codes_BxLxN

    padded = np.pad(bases, (0, -bases.size % model.config.bases_per_code), constant_values=N)
    with jax.set_mesh(model.mesh):
        return np.asarray(codes(model.params["encoder"], model.codes_KxD, padded[None])[0])


def whole_decoding(model, codes_LxN: np.ndarray) -> np.ndarray:
    """Most likely bases of one pass over the bare codes."""

    @jax.jit
    def logits(params, codes_KxD, codes_BxLxN):
        return Decoder(model.config).apply({"params": params}, quantize.embed(codes_BxLxN, codes_KxD))

    with jax.set_mesh(model.mesh):
        return np.asarray(logits(model.params["decoder"], model.codes_KxD, codes_LxN[None])).argmax(-1)[0]


def refusal(call, *arguments, error=InputError, **keywords) -> str:
    with pytest.raises(error) as refused:
        call(*arguments, **keywords)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_what_is_loaded_is_what_was_saved(tmp_path):
    config, (params, codebooks) = tiny_config(), tiny_weights("hrq", 1)
    mesh = partition.make_mesh(data=4, fsdp=2)

    def place(x):
        split = x.ndim > 1 and x.shape[0] % 2 == 0
        return jax.device_put(x, jax.NamedSharding(mesh, jax.P("fsdp" if split else None)))

    sharded = jax.tree.map(place, (params, codebooks))
    assert not sharded[0]["encoder"]["block_1"]["mlp"]["up"].is_fully_replicated
    digest = hub.save(tmp_path / "a/export", config, *sharded, CARD)
    model = hub.load(tmp_path / "a/export")
    assert (model.config, model.digest, model.window_bp) == (config, digest, 64)
    assert jax.tree.structure(model.params) == jax.tree.structure(params)
    equal = jax.tree.map(lambda a, b: np.array_equal(a, b) and a.dtype == b.dtype, params, model.params)
    assert all(jax.tree.leaves(equal))
    for codebook, codes_KxD, counts_K in zip(codebooks, model.codes_KxD, model.counts_K):
        assert np.array_equal(counts_K, codebook.counts_K)
        np.testing.assert_array_max_ulp(np.asarray(codes_KxD), np.asarray(codebook.codes_KxD()), 2)  # XLA's division
    names = sorted(path.name for path in (tmp_path / "a").rglob("*"))
    assert names == ["README.md", "config.json", "export", "model.safetensors"]
    again = hub.save(tmp_path / "b", config, params, codebooks, CARD)
    assert again == digest and _bytes(tmp_path / "b") == _bytes(tmp_path / "a/export")


def _bytes(directory: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_the_digest_is_of_the_model_and_not_of_the_card(tmp_path):
    digest = save_tiny(tmp_path / "a")
    assert hub.save(tmp_path / "b", tiny_config(), *tiny_weights("hrq", 1), {}) == digest
    assert save_tiny(tmp_path / "c", seed=1) != digest
    other = dataclasses.replace(tiny_config(), dtype="bfloat16")
    assert hub.save(tmp_path / "d", other, *tiny_weights("hrq", 1), CARD) != digest
    described = json.loads((tmp_path / "a/config.json").read_text())
    assert described["tokenizer_digest"] == digest and described["schema"] == "vqdna-tokenizer/1"
    assert described["codebook_sizes"] == [16, 32] and described["window_bp"] == 64
    tensors = safetensors.numpy.load_file(tmp_path / "a/model.safetensors")
    assert tensors["encoder/block_1/mlp/up"].shape == (16, 32) and tensors["codebook_2/codes"].shape == (32, 16)


def test_the_card_tells_the_run(exports):
    card = (exports("hrq", 8) / "README.md").read_text()
    for fact in ["E. coli | 4,641,652", "all | 4,647,038", "reconstruction_accuracy | 0.987654", "steps | 600"]:
        assert fact in card
    assert CARD["command"] in card and CARD["date"] in card
    assert "Apache-2.0" in card and hub.load(exports("hrq", 8)).digest in card
    assert "codebooks of 16 and 32 codes" in card
    assert "50 more at each side" in card  # 2 blocks of 3 codes of 8 bases, and 2 bases of the stem
    assert hub.model_card.write(tiny_config(), "0" * 64, {}).count("Not recorded.") == 2


def test_any_flipped_bit_in_the_tensors_is_refused(exports, tmp_path):
    directory = shutil.copytree(exports(), tmp_path / "export")
    path = directory / "model.safetensors"
    good = path.read_bytes()
    for at in [*range(0, 2000, 97), *range(2000, len(good), len(good) // 40), len(good) - 1]:
        damaged = bytearray(good)
        damaged[at] ^= 1 << at % 8
        path.write_bytes(damaged)
        assert str(directory) in refusal(hub.load, directory)
    path.write_bytes(good[:-4])
    assert str(path) in refusal(hub.load, directory)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop("encoder/stem/bias"), "encoder/stem/bias is missing"),
        (lambda t: t.update(extra=np.zeros(3, np.float32)), "extra is float32[3]"),
        (lambda t: t.update({"codebook_1/codes": t["codebook_1/codes"][:4]}), "codebook_1/codes is float32[4, 16]"),
        (lambda t: t.update({"encoder/stem/bias": np.zeros(8)}), "encoder/stem/bias is float64[8]"),
    ],
)
def test_tensors_that_do_not_fit_the_config_are_named(exports, tmp_path, change, says):
    directory = shutil.copytree(exports(), tmp_path / "export")
    tensors = safetensors.numpy.load_file(directory / "model.safetensors")
    change(tensors)
    safetensors.numpy.save_file(tensors, directory / "model.safetensors")
    assert says in refusal(hub.load, directory)


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
def test_another_config_is_refused(exports, tmp_path, old, new, says):
    directory = shutil.copytree(exports(), tmp_path / "export")
    path = directory / "config.json"
    path.write_text(path.read_text().replace(old, new, 1))
    message = refusal(hub.load, directory)
    assert str(directory) in message and any(word in message for word in says.split("|"))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(exports, tmp_path, name):
    directory = shutil.copytree(exports(), tmp_path / "export")
    (directory / name).unlink()
    assert str(directory / name) in refusal(hub.load, directory)
    assert str(tmp_path / "nowhere") in refusal(hub.load, tmp_path / "nowhere")


def test_only_our_own_exports_are_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.txt").write_text("precious")
    assert "thesis" in refusal(save_tiny, tmp_path / "thesis")
    assert "chapter.txt" in refusal(save_tiny, tmp_path / "thesis/chapter.txt")
    (tmp_path / "empty").mkdir()
    save_tiny(tmp_path / "empty")
    (tmp_path / "empty/notes.txt").write_text("keep me")
    digest = save_tiny(tmp_path / "empty", seed=1)
    assert hub.load(tmp_path / "empty").digest == digest
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
    assert hub.load(tmp_path / "export").digest == digest
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


@pytest.fixture(scope="session")
def whole(models, real_bases):
    """(quantizer, bases_per_code) to (codes, rebuilt bases) of one pass over the whole sequence."""

    @functools.cache
    def passes(*kind):
        codes_LxN = whole_codes(models(*kind), real_bases)
        return codes_LxN, whole_decoding(models(*kind), codes_LxN)

    return passes


@pytest.mark.parametrize(
    ("kind", "windows"),
    [
        (("hrq", 1), (24,)),
        (("hrq", 1), (33, 100)),
        (("hrq", 1), (256, 2048)),
        (("vqvae", 2), (40,)),
        (("hrq", 8), (27,)),
    ],
)
def test_codes_and_bases_do_not_depend_on_where_windows_are_cut(models, whole, real_bases, kind, windows):
    model = dataclasses.replace(models(*kind), windows=windows)
    codes_LxN, rebuilt = whole(*kind)
    assert len(np.unique(codes_LxN[:, -1])) > 2 and len(np.unique(rebuilt)) > 2, "constant codes would test nothing"
    assert np.array_equal(model.encode(real_bases), codes_LxN)
    assert np.array_equal(to_bases(model.decode(codes_LxN)), rebuilt)


@pytest.mark.parametrize(("quantizer", "bases_per_code"), KINDS)
def test_every_length_is_encoded_as_if_alone_and_whole(models, real_bases, quantizer, bases_per_code):
    model = models(quantizer, bases_per_code)
    sequences = [real_bases[3 * length :][:length] for length in range(1, 41)]
    packed = model.encode(sequences)
    assert [len(codes) for codes in packed] == [-(-s.size // bases_per_code) for s in sequences]
    assert all(np.array_equal(codes_LxN, model.encode(s)) for s, codes_LxN in zip(sequences, packed))
    for length in (1, 17):  # each costs the compilation of a whole pass
        assert np.array_equal(packed[length - 1], whole_codes(model, sequences[length - 1]))
    lengths = [s.size for s in sequences]
    texts = model.decode(packed, lengths)
    assert [len(text) for text in texts] == lengths
    assert texts == [model.decode(codes_LxN)[:length] for codes_LxN, length in zip(packed, lengths)]
    assert model.decode(packed[16], 17) == texts[16] == to_text(whole_decoding(model, packed[16])[:17])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])  # in bf16 another compiled shape rounds differently
def test_neighbours_in_a_batch_change_nothing(models, real_bases, dtype):
    model, rng = models("hrq", 8), np.random.default_rng(0)
    model = dataclasses.replace(model, config=dataclasses.replace(model.config, dtype=dtype))
    starts, lengths = rng.integers(0, 4000, 50), rng.integers(1, 900, 50)
    sequences = [real_bases[start:][:length] for start, length in zip(starts, lengths)]
    alone = [model.encode(sequence) for sequence in sequences]
    order = rng.permutation(50)
    for i, codes_LxN in zip(order, model.encode([*(sequences[i] for i in order), real_bases])):
        assert np.array_equal(codes_LxN, alone[i])


def test_text_bytes_and_arrays_are_the_same_sequence(models, real_bases):
    model, bases = models(), real_bases[1990:2050]
    text = to_text(bases)
    codes_LxN = model.encode(bases)
    assert codes_LxN.dtype == np.int32 and codes_LxN.shape == (60, 2)
    spellings = [text, text.lower(), text.encode(), np.str_(text), text.replace("N", "R")]
    assert all(np.array_equal(model.encode(spelling), codes_LxN) for spelling in spellings)
    assert all(np.array_equal(codes, codes_LxN) for codes in model.encode(np.array(spellings[:2])))
    assert model.encode([]) == [] and model.decode([]) == []
    assert isinstance(model.decode(codes_LxN), str) and model.decode([codes_LxN]) == [model.decode(codes_LxN)]


@pytest.mark.parametrize(
    ("sequences", "says"),
    [
        (["ACGT", ""], ["sequence 1", "empty"]),
        ("", ["sequence 0", "empty"]),
        (["A", "ACGTXA"], ["sequence 1", "position 4", "'X'"]),
        (["ACGU"], ["sequence 0", "position 3", "'U'"]),
        (np.array([0, 1, 5], np.uint8), ["sequence 0", "position 2", "5"]),
        (np.array([0, 1, 2]), ["int64[3]"]),
        (np.zeros((2, 3), np.uint8), ["uint8[2, 3]"]),
        ([None], ["sequence 0", "NoneType"]),
    ],
)
def test_what_is_not_dna_is_refused_with_its_place(models, sequences, says):
    message = refusal(models().encode, sequences)
    assert all(word in message for word in says)


@pytest.mark.parametrize(
    ("codes", "lengths", "says"),
    [
        (np.array([[0, 0], [15, 32]]), None, ["codes 0", "position 1", "level 2", "32"]),
        ([np.array([[0, 0]]), np.array([[-1, 0]])], None, ["codes 1", "position 0", "level 1", "-1"]),
        (np.zeros((4, 3), int), None, ["[L, 2]", "[4, 3]"]),
        (np.zeros((0, 2), int), None, ["[0, 2]"]),
        (np.zeros((4, 2)), None, ["float64"]),
        (np.zeros((4, 2), int), 33, ["33", "25 to 32"]),
        (np.zeros((4, 2), int), 24, ["24", "25 to 32"]),
        ([np.zeros((4, 2), int)], [32, 32], ["2 for 1"]),
    ],
)
def test_what_are_no_codes_is_refused_with_its_place(models, codes, lengths, says):
    message = refusal(models("hrq", 8).decode, codes, lengths)
    assert all(word in message for word in says)


def test_windows_are_at_least_half_core_and_short_ones_exist():
    for halo in (1, 8, 20, 64, 65, 300):
        short, long = stitch.window_sizes(halo)
        assert 4 * halo <= short < long and short & (short - 1) == 0
    assert stitch.window_sizes(20) == (256, 2048)
