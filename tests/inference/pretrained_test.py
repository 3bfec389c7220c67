"""Embeddings: neighbours, batches and padding change nothing, and long sequences are covered once."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from refusals import refusal
from small_sequences import random_sequences
from tiny_pretrained import save_tiny_pretrained

from vqdna_jax import partition
from vqdna_jax.genome.alphabet import to_text
from vqdna_jax.inference import load as inference_load
from vqdna_jax.inference import pretrained
from vqdna_jax.inference.model import Model
from vqdna_jax.models import quantize
from vqdna_jax.models.layers import normalise
from vqdna_jax.models.quantize import code_vectors
from vqdna_jax.models.transformer import Transformer


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """(bases_per_code, context, changes of the transformer) to a loaded model."""

    @functools.cache
    def load(bases_per_code=1, context=64, **changes) -> Model:
        directory = tmp_path_factory.mktemp("models") / "export"
        save_tiny_pretrained(directory, bases_per_code, context, **changes)
        return inference_load.load(directory)

    return load


def bare(model: Model, codes_LxN: np.ndarray, layers: int | None = None):
    """(vectors [L, D], CLS [D]) of one pass over just these codes, neither padded nor told a length."""
    pretrained = model.pretrained

    @jax.jit
    def apply(params, codes_KxE, codes_BxLxN):
        vectors = code_vectors(tuple(quantize.standardised(e) for e in codes_KxE), codes_BxLxN.astype(jnp.int32))
        plain = codes_BxLxN[..., 0] < 0
        return Transformer(pretrained.transformer).apply({"params": params}, vectors, plain, plain[:, 0], None, layers)

    with jax.set_mesh(pretrained.mesh):
        codes_BxLxN = partition.batch_to_devices(codes_LxN[None], pretrained.mesh, 1)
        h, cls = apply(pretrained.weights["transformer"], pretrained.codes_KxE, codes_BxLxN)
    return np.asarray(h[0]), cls if cls is None else np.asarray(cls[0])


def same(first, second) -> bool:
    return len(first) == len(second) and all(np.array_equal(a, b) for a, b in zip(first, second))


@pytest.mark.parametrize(
    ("pool", "bases_per_code", "context", "dtype"),
    [
        ("mean", 1, 128, "float32"),
        ("none", 4, 64, "float32"),
        ("max", 4, 64, "float32"),
        ("cls", 4, 64, "float32"),
        ("mean", 4, 64, "bfloat16"),
    ],
)
def test_a_sequence_is_embedded_as_if_alone(models, pool, bases_per_code, context, dtype):
    model = models(bases_per_code, context, dtype=dtype)
    sequences = random_sequences(*(n * bases_per_code - (n > 1) for n in (1, 2, 40, 63, 64, 65, 127, 128, 129, 400)))
    alone = [model.embed(sequence, pool) for sequence in sequences]
    assert {vectors.dtype for vectors in alone} == {np.dtype(np.float32)}
    order = np.random.default_rng(1).permutation(len(sequences))
    crowd = model.embed([sequences[i] for i in [*order, *order]], pool)
    assert same(crowd, [alone[i] for i in [*order, *order]])


def test_groups_and_rows_a_call_change_nothing(models, monkeypatch):
    model, sequences = models(4, 64), random_sequences(*range(1, 800, 37))
    vectors = model.embed(sequences)
    monkeypatch.setattr(pretrained, "CALLS_A_GROUP", 1)
    assert same(model.embed(iter(sequences)), vectors)
    monkeypatch.setitem(pretrained.SLOTS_PER_CALL, "cpu", 128)
    np.testing.assert_allclose(model.embed(sequences), vectors, atol=1e-5)


@pytest.mark.parametrize(
    ("lengths", "changes"),
    [
        ((1, 64), {"context": 128}),
        ((40,), {"context": 64, "cls": False}),
        ((40,), {"context": 64, "window": 5}),
    ],
)
def test_padding_changes_nothing(models, lengths, changes):
    model = models(**changes)
    for bases in random_sequences(*lengths):
        vectors_LxD, cls_D = bare(model, model.encode(bases))
        np.testing.assert_allclose(model.embed(bases, "none"), vectors_LxD, rtol=1e-4, atol=1e-4)
        if cls_D is not None:
            np.testing.assert_allclose(model.embed(bases, "cls"), cls_D, rtol=1e-4, atol=1e-4)


def test_pools_are_of_the_vectors_of_codes_alone(models):
    model = models(4, 64)
    sequences = random_sequences(3, 200, 252, 256, 257, 1001)
    vectors = model.embed(sequences, "none")
    assert [v.shape for v in vectors] == [(-(-s.size // 4), 16) for s in sequences]
    np.testing.assert_allclose(model.embed(sequences), [v.mean(0) for v in vectors], atol=1e-6)
    assert same(model.embed(sequences, "max"), [v.max(0) for v in vectors])


@pytest.mark.parametrize("context", [5, 64, 97])
@pytest.mark.parametrize("cls", [True, False])
def test_windows_cover_every_code_once_with_context_on_both_sides(models, context, cls):
    size = context - cls
    model = dataclasses.replace(models(context=64, cls=cls).pretrained, length=size)
    for length in [*range(1, 6 * size, 7), size - 1, size, size + 1]:
        windows = list(model.windows_of(length))
        middles = [(w.start + w.stop - 1) / 2 for w in windows]
        assert [w.first for w in windows] == [0, *(w.last for w in windows[:-1])] and windows[-1].last == length
        assert len(windows) == 1 or {w.stop - w.start for w in windows} == {size}
        for number, w in enumerate(windows):
            assert w.start <= w.first <= w.last <= w.stop
            for code in range(w.first, w.last):
                assert number == np.argmin([abs(code - middle) for middle in middles])
            if w.start:
                assert w.first - w.start >= size // 4
            if w.stop < length:
                assert w.stop - w.last >= size // 4


def test_vectors_of_a_long_sequence_are_those_of_its_windows(models):
    model = models(4, 64)
    (bases,) = random_sequences(230 * 4 - 1)
    codes_LxN, vectors_LxD = model.encode(bases), model.embed(bases, "none")
    windows = list(model.pretrained.windows_of(len(codes_LxN)))
    parts, cls = zip(*(bare(model, codes_LxN[w.start : w.stop]) for w in windows))
    expected = np.concatenate([part[w.first - w.start : w.last - w.start] for part, w in zip(parts, windows)])
    np.testing.assert_allclose(vectors_LxD, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(model.embed(bases, "cls"), np.mean(cls, axis=0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(model.embed(bases), vectors_LxD.mean(0), atol=1e-6)


def test_layers_count_from_the_input_and_from_the_last_norm(models):
    model = models(4, 64, layers=2)
    params = jax.device_get(model.pretrained.weights["transformer"])
    (bases,) = random_sequences(200)
    layers = {layer: model.embed(bases, "none", layer) for layer in range(-3, 3)}
    standard = [np.asarray(quantize.standardised(e)) for e in model.pretrained.codes_KxE]
    levels = zip(standard, model.encode(bases).T, params["project"])
    projected = sum(e_KxE[codes_L] @ project_ExD for e_KxE, codes_L, project_ExD in levels)
    np.testing.assert_allclose(layers[0], projected, atol=1e-5)
    assert same([layers[-3], layers[-2]], [layers[0], layers[1]])
    np.testing.assert_allclose(layers[-1], normalise(layers[2][None])[0] * params["norm"][None], atol=1e-5)
    assert not np.allclose(layers[1], layers[2], atol=0.1)
    assert same([model.embed(bases, "cls", 0)], [params["cls"]])


def test_one_or_many_letters_or_numbers(models):
    model, (bases,) = models(4, 64), random_sequences(50)
    vector_D = model.embed(bases)
    assert vector_D.shape == (16,) and model.embed([bases] * 3).shape == (3, 16)
    assert all(np.array_equal(model.embed(text), vector_D) for text in (to_text(bases), to_text(bases).lower()))
    assert isinstance(model.embed([bases], "none"), list) and model.embed(bases, "none").shape == (13, 16)
    assert model.embed([]).shape == (0, 16) and model.embed([], "none") == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((["ACGT", ""],), ["sequence 1", "empty"]),
        ((["ACGT", "ACXT"],), ["sequence 1", "position 2"]),
        (("ACGT", "median"), ["'median'", "mean, max, segments:2, segments:4, segments:8", "words, pairs, some"]),
        (("ACGT", "cls"), ["without CLS"]),
        (("ACGT", "mean", 2), ["layer: 2", "-2 to 1"]),
        (("ACGT", "mean", -3), ["layer: -3"]),
        (("ACGT", "mean", 1.0), ["layer: 1.0"]),
    ],
)
def test_what_cannot_be_embedded_is_named(models, arguments, says):
    message = refusal(models(context=64, cls=False).embed, *arguments)
    assert all(word in message for word in says)
