"""Embeddings: neighbours, batches and padding change nothing, long sequences are covered once, killed jobs go on."""

import dataclasses
import functools
import itertools
import json
import os
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_pretrained import save_tiny_pretrained
from tiny_tokenizer import refusal, save_tiny

from vqdna_jax import partition, version
from vqdna_jax.cli import main
from vqdna_jax.genome.alphabet import to_text
from vqdna_jax.inference import pretrained as inference_pretrained
from vqdna_jax.inference.jobs import embed
from vqdna_jax.inference.pretrained import Pretrained
from vqdna_jax.inference.saved import pretrained
from vqdna_jax.models import quantize
from vqdna_jax.models.layers import normalise
from vqdna_jax.models.quantize import code_vectors
from vqdna_jax.models.transformer import Transformer
from vqdna_jax.runtime import progress

POOLS = ("mean", "max", "cls", "none")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """(bases_per_code, context, changes of the transformer) to a loaded model."""

    @functools.cache
    def load(bases_per_code=1, context=64, **changes) -> Pretrained:
        directory = tmp_path_factory.mktemp("models") / "export"
        save_tiny_pretrained(directory, bases_per_code, context, **changes)
        return pretrained.load(directory)

    return load


def random_bases(*lengths: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 5, length).astype(np.uint8) for length in lengths]


def bare(model: Pretrained, codes_LxN: np.ndarray, layers: int | None = None):
    """(vectors [L, D], CLS [D]) of one pass over just these codes, neither padded nor told a length."""

    @jax.jit
    def apply(params, codes_KxE, codes_BxLxN):
        vectors = code_vectors(tuple(quantize.standardised(e) for e in codes_KxE), codes_BxLxN.astype(jnp.int32))
        plain = codes_BxLxN[..., 0] < 0
        return Transformer(model.transformer).apply({"params": params}, vectors, plain, plain[:, 0], None, layers)

    with jax.set_mesh(model.mesh):
        batch = partition.batch_to_devices({"codes": codes_LxN[None]}, model.mesh, 1)
        h, cls = apply(model.weights["transformer"], model.codes_KxD, batch["codes"])
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
    sequences = random_bases(*(n * bases_per_code - (n > 1) for n in (1, 2, 40, 63, 64, 65, 127, 128, 129, 400)))
    alone = [model.embed(sequence, pool) for sequence in sequences]
    assert {vectors.dtype for vectors in alone} == {np.dtype(np.float32)}
    order = np.random.default_rng(1).permutation(len(sequences))
    crowd = model.embed([sequences[i] for i in [*order, *order]], pool)
    assert same(crowd, [alone[i] for i in [*order, *order]])


def test_groups_and_rows_a_call_change_nothing(models, monkeypatch):
    model, sequences = models(4, 64), random_bases(*range(1, 800, 37))
    vectors = model.embed(sequences)
    monkeypatch.setattr(inference_pretrained, "CALLS_A_GROUP", 1)
    assert same(model.embed(iter(sequences)), vectors)
    monkeypatch.setitem(inference_pretrained.SLOTS_PER_CALL, "cpu", 128)
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
    for bases in random_bases(*lengths):
        vectors_LxD, cls_D = bare(model, model.encode(bases))
        np.testing.assert_allclose(model.embed(bases, "none"), vectors_LxD, rtol=1e-4, atol=1e-4)
        if cls_D is not None:
            np.testing.assert_allclose(model.embed(bases, "cls"), cls_D, rtol=1e-4, atol=1e-4)


def test_pools_are_of_the_vectors_of_codes_alone(models):
    model = models(4, 64)
    sequences = random_bases(3, 200, 252, 256, 257, 1001)
    vectors = model.embed(sequences, "none")
    assert [v.shape for v in vectors] == [(-(-s.size // 4), 16) for s in sequences]
    np.testing.assert_allclose(model.embed(sequences), [v.mean(0) for v in vectors], atol=1e-6)
    assert same(model.embed(sequences, "max"), [v.max(0) for v in vectors])


@pytest.mark.parametrize("context", [5, 64, 97])
@pytest.mark.parametrize("cls", [True, False])
def test_windows_cover_every_code_once_with_context_on_both_sides(models, context, cls):
    model = dataclasses.replace(models(context=64, cls=cls), window_bp=context)
    size = context - cls
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
    (bases,) = random_bases(230 * 4 - 1)
    codes_LxN, vectors_LxD = model.encode(bases), model.embed(bases, "none")
    windows = list(model.windows_of(len(codes_LxN)))
    parts, cls = zip(*(bare(model, codes_LxN[w.start : w.stop]) for w in windows))
    expected = np.concatenate([part[w.first - w.start : w.last - w.start] for part, w in zip(parts, windows)])
    np.testing.assert_allclose(vectors_LxD, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(model.embed(bases, "cls"), np.mean(cls, axis=0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(model.embed(bases), vectors_LxD.mean(0), atol=1e-6)


def test_layers_count_from_the_input_and_from_the_last_norm(models):
    model = models(4, 64, layers=2)
    params = jax.device_get(model.weights["transformer"])
    (bases,) = random_bases(200)
    layers = {layer: model.embed(bases, "none", layer) for layer in range(-3, 3)}
    standard = [np.asarray(quantize.standardised(e)) for e in model.codes_KxD]
    levels = zip(standard, model.encode(bases).T, params["project"])
    projected = sum(e_KxE[codes_L] @ project_ExD for e_KxE, codes_L, project_ExD in levels)
    np.testing.assert_allclose(layers[0], projected, atol=1e-5)
    assert same([layers[-3], layers[-2]], [layers[0], layers[1]])
    np.testing.assert_allclose(layers[-1], normalise(layers[2][None])[0] * params["norm"][None], atol=1e-5)
    assert not np.allclose(layers[1], layers[2], atol=0.1)
    assert same([model.embed(bases, "cls", 0)], [params["cls"]])


def test_one_or_many_letters_or_numbers(models):
    model, (bases,) = models(4, 64), random_bases(50)
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
        (("ACGT", "median"), ["'median'", "mean, max, cls, none"]),
        (("ACGT", "cls"), ["without CLS"]),
        (("ACGT", "mean", 2), ["layer: 2", "-2 to 1"]),
        (("ACGT", "mean", -3), ["layer: -3"]),
        (("ACGT", "mean", 1.0), ["layer: 1.0"]),
    ],
)
def test_what_cannot_be_embedded_is_named(models, arguments, says):
    message = refusal(models(context=64, cls=False).embed, *arguments)
    assert all(word in message for word in says)


LENGTHS = (1, 300, 70, 1000, 63, 255, 40, 64, 9, 500, 81)
RECORDS = {f"r{i}": bases for i, bases in enumerate(random_bases(*LENGTHS))}


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    directory = tmp_path_factory.mktemp("export") / "export"
    save_tiny_pretrained(directory, 4, 64)
    return directory


@pytest.fixture
def fasta(tmp_path, monkeypatch):
    """Its records come in several groups, and each is on disk at once."""
    monkeypatch.setattr(inference_pretrained, "CALLS_A_GROUP", 1)
    monkeypatch.setitem(inference_pretrained.SLOTS_PER_CALL, "cpu", 128)
    monkeypatch.setattr(embed, "SECONDS_A_COMMIT", 0)
    path = tmp_path / "in.fa"
    path.write_text("".join(f">{name} text\n{to_text(bases)}\n" for name, bases in RECORDS.items()))
    return path


@pytest.mark.parametrize(("pool", "layer"), [("mean", 1), ("none", -1)])
def test_the_file_has_every_vector_and_its_place(export, fasta, tmp_path, pool, layer):
    summary = embed.embed_fasta(fasta, export, tmp_path / "out", pool, layer)
    model = pretrained.load(export)
    vectors = [model.embed(bases, pool, layer) for bases in RECORDS.values()]
    with np.load(tmp_path / "out", allow_pickle=False) as file:
        meta, arrays = json.loads(file["meta.json"]), {name: file[name] for name in file.files if name != "meta.json"}
    assert arrays["ids"].tolist() == list(RECORDS)
    assert arrays["lengths"].tolist() == [bases.size for bases in RECORDS.values()]
    assert arrays["embeddings"].dtype == np.float32
    if pool == "mean":
        assert set(arrays) == {"embeddings", "ids", "lengths"}
        assert same(arrays["embeddings"], vectors)
    else:
        spans = list(itertools.pairwise(arrays["offsets"]))
        assert same([arrays["embeddings"][start:stop] for start, stop in spans], vectors)
        for (start, stop), bases in zip(spans, RECORDS.values()):
            assert arrays["starts"][start:stop].tolist() == list(range(0, bases.size, 4))
    expected = {"pretrained_digest": model.pretrained_digest, "pool": pool, "layer": layer, "bases_per_code": 4}
    assert meta == {"schema": "vqdna-embeddings/1", "versions": version.versions()} | expected
    assert summary["vectors"] == len(arrays["embeddings"]) and summary["resumed"] == 0
    assert (summary["records"], summary["bases"]) == (len(RECORDS), sum(map(len, RECORDS.values())))
    assert {path.name for path in tmp_path.iterdir()} == {"in.fa", "out"}


def test_groups_do_not_change_the_file(export, fasta, tmp_path, monkeypatch):
    embed.embed_fasta(fasta, export, tmp_path / "few", "none", progress=False)
    monkeypatch.setattr(inference_pretrained, "BYTES_A_GROUP", 1)  # every record alone, its windows written one by one
    embed.embed_fasta([fasta], export, tmp_path / "each", "none", progress=False)
    assert (tmp_path / "few").read_bytes() == (tmp_path / "each").read_bytes()


def stop_at(monkeypatch, call: int, stop) -> None:
    """Calls `stop` in the middle of the work."""
    encode, calls = Pretrained.encode_bases, itertools.count()
    monkeypatch.setattr(
        Pretrained, "encode_bases", lambda *a: stop() if next(calls) == call else encode(*a), raising=True
    )


def interrupt() -> None:
    raise KeyboardInterrupt  # not by the signal: a shell in the background starts its children without it


@pytest.mark.parametrize(("pool", "seconds"), [("mean", 0), ("none", 0), ("mean", 3600)])
def test_a_stopped_job_goes_on_and_gives_the_same_file(export, fasta, tmp_path, monkeypatch, pool, seconds):
    run = functools.partial(embed.embed_fasta, fasta, export, pool=pool, progress=False)
    run(tmp_path / "at-once")
    monkeypatch.setattr(embed, "SECONDS_A_COMMIT", seconds)
    for call in (2, 1):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            stop_at(patch, call, interrupt)
            run(tmp_path / "out")
        assert not (tmp_path / "out").exists()
    with open(tmp_path / "out.partial/vectors.bin", "ab") as file:
        file.write(b"of a group that was not finished")
    (tmp_path / "out.partial/.done.json.123").write_text("")
    summary = run(tmp_path / "out")
    assert (summary["resumed"] > 0) == (seconds == 0)
    assert (tmp_path / "out").read_bytes() == (tmp_path / "at-once").read_bytes()
    assert not (tmp_path / "out.partial").exists()


KILLED = """
import os, sys
import embed_test
from vqdna_jax.cli import main
from vqdna_jax.inference import pretrained
from vqdna_jax.inference.jobs import embed
pretrained.CALLS_A_GROUP, pretrained.SLOTS_PER_CALL["cpu"], embed.SECONDS_A_COMMIT = 1, 128, 0
import pytest
embed_test.stop_at(pytest.MonkeyPatch(), 4, lambda: os.kill(os.getpid(), 9))
main.main(sys.argv[1:])
"""


def test_a_killed_process_is_followed_up_by_the_command_line(export, fasta, tmp_path, capsys):
    arguments = ["embed", str(fasta), f"--model={export}", "--layer=1", "--json"]
    main.main([*arguments, f"--out={tmp_path}/at-once"])
    command = [sys.executable, "-c", KILLED, *arguments, f"--out={tmp_path}/out"]
    environment = {
        "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path]),
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        "JAX_NUM_CPU_DEVICES": str(jax.device_count()),
    }
    assert subprocess.run(command, env=os.environ | environment, timeout=250).returncode == -signal.SIGKILL
    capsys.readouterr()
    main.main([*arguments, f"--out={tmp_path}/out"])
    summary = json.loads(capsys.readouterr().out)
    assert 0 < summary["resumed"] < len(RECORDS) and summary["width"] == 16
    assert (tmp_path / "out").read_bytes() == (tmp_path / "at-once").read_bytes()


@pytest.fixture
def stopped(export, fasta, tmp_path, monkeypatch):
    """A job that was stopped, as a function that goes on with it with other arguments."""
    run = functools.partial(embed.embed_fasta, out=tmp_path / "out", progress=False)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(patch, 2, interrupt)
        run(fasta, export)
    return run


def test_unfinished_work_of_another_job_is_refused(export, fasta, stopped, tmp_path):
    save_tiny_pretrained(tmp_path / "other", 4, 64, seed=1)
    (tmp_path / "other.fa").write_text(fasta.read_text() + ">more\nACGT\n")
    changes = [
        (stopped, (fasta, export, {"pool": "max"}), ["pool mean", "max"]),
        (stopped, (fasta, export, {"layer": 0}), ["layer -1", "not 0"]),
        (stopped, (fasta, tmp_path / "other", {}), ["pretrained_digest"]),
        (stopped, (tmp_path / "other.fa", export, {}), ["sequences"]),
    ]
    for run, (source, model, keywords), says in changes:
        message = refusal(run, source, model, **keywords)
        assert all(word in message for word in [*says, str(tmp_path / "out.partial"), "remove"])
    with embed.Partial(tmp_path / "busy", {}):
        assert "another process" in refusal(embed.Partial, tmp_path / "busy", {})
    os.truncate(tmp_path / "out.partial/vectors.bin", 10)
    assert "cut short" in refusal(stopped, fasta, export)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (">a\nACGT\n>b\n>c\nACGT\n", ["in.fa:3", "'b'", "empty"]),
        (f">a\nACGT\n>{'b' * 256}\nACGT\n", ["in.fa:3", "255"]),
        (">a\nACGT\n>b\nAC-T\n", ["in.fa:4", "'-'"]),
        (">a\nACGT\n>a\nACGT\n", ["in.fa:3", "'a'"]),
    ],
)
def test_a_bad_record_is_named_before_the_work_begins(export, tmp_path, text, says):
    (tmp_path / "in.fa").write_text(text)
    message = refusal(embed.embed_fasta, tmp_path / "in.fa", export, tmp_path / "out")
    assert all(word in message for word in says)
    assert [path.name for path in tmp_path.iterdir()] == ["in.fa"]


def test_places_that_cannot_be_are_named(export, fasta, tmp_path, monkeypatch):
    for out in (tmp_path, fasta, tmp_path / "no/such/out"):
        assert str(out) in refusal(embed.embed_fasta, fasta, export, out)
    assert "absent.fa" in refusal(embed.embed_fasta, tmp_path / "absent.fa", export, tmp_path / "out")
    save_tiny(tmp_path / "tokenizer", "hrq", 4)
    message = refusal(embed.embed_fasta, fasta, tmp_path / "tokenizer", tmp_path / "out")
    assert "holds a tokenizer" in message and "configs/mcm.py" in message
    usage = embed.shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(embed.shutil, "disk_usage", lambda path: usage)
    assert "free" in refusal(embed.embed_fasta, fasta, export, tmp_path / "out", error=embed.StorageError)


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_a_bar_or_lines(export, fasta, tmp_path, monkeypatch, capsys, terminal):
    monkeypatch.setattr(progress, "SECONDS_A_LINE", 0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    embed.embed_fasta(fasta, export, tmp_path / "out")
    text = capsys.readouterr().err
    lines = text.splitlines()
    if terminal:
        assert text.count("\r") > 2 and "100%" in lines[-1]
    else:
        assert "\r" not in text and len(lines) > 3
        assert all("% of" in line and "to go" in line for line in lines) and lines[-1].startswith("embedding")
