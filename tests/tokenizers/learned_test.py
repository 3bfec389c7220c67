"""Encode and decode: codes do not depend on windows, neighbours or padding, and bad input is named with its place."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from refusals import refusal
from tiny_tokenizer import save_tiny

from vqdna_jax.genome.alphabet import N, to_bases, to_text
from vqdna_jax.genome.fasta import load_fasta
from vqdna_jax.inference import load as inference_load
from vqdna_jax.inference.model import Model
from vqdna_jax.models import quantize
from vqdna_jax.models.context import rebuild
from vqdna_jax.models.tokenizer import Encoder

KINDS = [("hrq", 1), ("vqvae", 2), ("hrq", 8), ("hrq", 1, 24), ("hrq", 2, 4)]  # the last: the reach


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """(quantizer, bases_per_code, reach) to a loaded model."""

    @functools.cache
    def load(quantizer="hrq", bases_per_code=1, reach=0):
        directory = tmp_path_factory.mktemp("models") / "export"
        save_tiny(directory, quantizer, bases_per_code, reach=reach)
        return inference_load.load(directory)

    return load


@pytest.fixture(scope="module")
def real_bases(bundled) -> np.ndarray:
    """5,003 bases of phiX174 with a run of N: no multiple of anything."""
    (record,) = load_fasta(bundled / "phiX174.fa.gz")
    bases = record.bases[:5003].copy()
    bases[2000:2040] = N
    return bases


def with_tokenizer(model: Model, **changes) -> Model:
    return dataclasses.replace(model, tokenizer=dataclasses.replace(model.tokenizer, **changes))


def whole_codes(model, bases: np.ndarray) -> np.ndarray:
    """Codes of one pass over the bare sequence, without windows or masks."""
    tokenizer = model.tokenizer

    @jax.jit
    def codes(params, codes_KxD, bases_BxS):
        features = Encoder(tokenizer.config).apply({"params": params}, bases_BxS)
        return quantize.hierarchical(features, codes_KxD, np.dtype("float32")).codes_BxLxN

    padded = np.pad(bases, (0, -bases.size % tokenizer.bases_per_code), constant_values=N)
    with jax.set_mesh(tokenizer.mesh):
        return np.asarray(codes(tokenizer.params["encoder"], tokenizer.codes_KxD, padded[None])[0])


def whole_decoding(model, codes_LxN: np.ndarray) -> np.ndarray:
    """Most likely bases of one pass over the bare codes."""
    tokenizer = model.tokenizer

    @jax.jit
    def logits(params, codes_KxD, codes_BxLxN):
        return rebuild(tokenizer.config, params, quantize.embed(codes_BxLxN, codes_KxD))

    with jax.set_mesh(tokenizer.mesh):
        return np.asarray(logits(tokenizer.params["decoder"], tokenizer.codes_KxD, codes_LxN[None])).argmax(-1)[0]


@pytest.fixture(scope="module")
def whole(models, real_bases):
    """(quantizer, bases_per_code, reach) to (codes, rebuilt bases) of one pass over the whole sequence."""

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
        (("hrq", 1, 24), (57, 100)),
        (("hrq", 2, 4), (40,)),
    ],
)
def test_codes_and_bases_do_not_depend_on_where_windows_are_cut(models, whole, real_bases, kind, windows):
    model = with_tokenizer(models(*kind), windows=windows)
    codes_LxN, rebuilt = whole(*kind)
    assert len(np.unique(codes_LxN[:, -1])) > 2 and len(np.unique(rebuilt)) > 2, "constant codes would test nothing"
    assert np.array_equal(model.encode(real_bases), codes_LxN)
    assert np.array_equal(to_bases(model.decode(codes_LxN)), rebuilt)


@pytest.mark.parametrize("kind", KINDS)
def test_every_length_is_encoded_as_if_alone_and_whole(models, real_bases, kind):
    model, bases_per_code = models(*kind), kind[1]
    sequences = [real_bases[3 * length :][:length] for length in range(1, 41)]
    packed = model.encode(sequences)
    assert [len(codes) for codes in packed] == [-(-s.size // bases_per_code) for s in sequences]
    assert [len(codes) for codes in packed] == [model.tokenizer.codes_of(s.size) for s in sequences]
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
    model = with_tokenizer(model, config=dataclasses.replace(model.tokenizer.config, dtype=dtype))
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
