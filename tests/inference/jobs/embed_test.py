"""FASTA to a file of embeddings: every vector has its place, and killed jobs go on."""

import functools
import itertools
import json
import os
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from refusals import refusal
from small_sequences import random_sequences
from tiny_pretrained import save_tiny_pretrained
from tiny_tokenizer import save_tiny

from vqdna_jax import version
from vqdna_jax.cli import main
from vqdna_jax.errors import InputError, StorageError
from vqdna_jax.genome.alphabet import to_text
from vqdna_jax.inference import load, pretrained
from vqdna_jax.inference.jobs import embed, partial
from vqdna_jax.runtime import progress
from vqdna_jax.tokenizers.learned import LearnedTokenizer


def same(first, second) -> bool:
    return len(first) == len(second) and all(np.array_equal(a, b) for a, b in zip(first, second))


LENGTHS = (1, 300, 70, 1000, 63, 255, 40, 64, 9, 500, 81)
RECORDS = {f"r{i}": bases for i, bases in enumerate(random_sequences(*LENGTHS))}


@pytest.fixture
def fasta(tmp_path, monkeypatch):
    """Its records come in several groups, and each is on disk at once."""
    monkeypatch.setattr(pretrained, "CALLS_A_GROUP", 1)
    monkeypatch.setitem(pretrained.SLOTS_PER_CALL, "cpu", 128)
    monkeypatch.setattr(partial, "SECONDS_A_COMMIT", 0)
    path = tmp_path / "in.fa"
    path.write_text("".join(f">{name} text\n{to_text(bases)}\n" for name, bases in RECORDS.items()))
    return path


@pytest.mark.parametrize(("pool", "layer"), [("mean", 1), ("none", -1)])
def test_the_file_has_every_vector_and_its_place(pretrained_dir, fasta, tmp_path, pool, layer):
    summary = embed.embed_fasta(fasta, pretrained_dir, tmp_path / "out", pool, layer)
    model = load.load(pretrained_dir)
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
    expected = {"pretrained_digest": model.digest, "pool": pool, "layer": layer, "bases_per_code": 4}
    assert meta == {"schema": "vqdna-embeddings/1", "versions": version.versions()} | expected
    assert summary["vectors"] == len(arrays["embeddings"]) and summary["resumed"] == 0
    assert (summary["records"], summary["bases"]) == (len(RECORDS), sum(map(len, RECORDS.values())))
    assert {path.name for path in tmp_path.iterdir()} == {"in.fa", "out"}


def test_groups_do_not_change_the_file(pretrained_dir, fasta, tmp_path, monkeypatch):
    embed.embed_fasta(fasta, pretrained_dir, tmp_path / "few", "none", progress=False)
    monkeypatch.setattr(pretrained, "BYTES_A_GROUP", 1)  # every record alone, its windows written one by one
    embed.embed_fasta([fasta], pretrained_dir, tmp_path / "each", "none", progress=False)
    assert (tmp_path / "few").read_bytes() == (tmp_path / "each").read_bytes()


def stop_at(monkeypatch, call: int, stop) -> None:
    """Calls `stop` in the middle of the work."""
    encode, calls = LearnedTokenizer.encode, itertools.count()
    monkeypatch.setattr(LearnedTokenizer, "encode", lambda *a: stop() if next(calls) == call else encode(*a))


def interrupt() -> None:
    raise KeyboardInterrupt  # not by the signal: a shell in the background starts its children without it


@pytest.mark.parametrize(("pool", "seconds"), [("mean", 0), ("none", 0), ("mean", 3600)])
def test_a_stopped_job_goes_on_and_gives_the_same_file(pretrained_dir, fasta, tmp_path, monkeypatch, pool, seconds):
    run = functools.partial(embed.embed_fasta, fasta, pretrained_dir, pool=pool, progress=False)
    run(tmp_path / "at-once")
    monkeypatch.setattr(partial, "SECONDS_A_COMMIT", seconds)
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


def test_a_damaged_record_of_progress_is_named(pretrained_dir, fasta, tmp_path, monkeypatch):
    monkeypatch.setattr(partial, "SECONDS_A_COMMIT", 0)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(patch, 2, interrupt)
        embed.embed_fasta(fasta, pretrained_dir, tmp_path / "out", progress=False)
    done = tmp_path / "out.partial/done.json"
    done.write_text(done.read_text()[:-3])
    with pytest.raises(InputError, match="done.json: not JSON .*remove .*out.partial to begin again") as error:
        embed.embed_fasta(fasta, pretrained_dir, tmp_path / "out", progress=False)
    assert "\n" not in str(error.value)


KILLED = """
import os, sys
import embed_test
from vqdna_jax.cli import main
from vqdna_jax.inference import pretrained
from vqdna_jax.inference.jobs import embed, partial
pretrained.CALLS_A_GROUP, pretrained.SLOTS_PER_CALL["cpu"], partial.SECONDS_A_COMMIT = 1, 128, 0
import pytest
embed_test.stop_at(pytest.MonkeyPatch(), 4, lambda: os.kill(os.getpid(), 9))
main.main(sys.argv[1:])
"""


def test_a_killed_process_is_followed_up_by_the_command_line(pretrained_dir, fasta, tmp_path, capsys):
    arguments = ["embed", str(fasta), f"--model={pretrained_dir}", "--layer=1", "--json"]
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
def stopped(pretrained_dir, fasta, tmp_path, monkeypatch):
    """A job that was stopped, as a function that goes on with it with other arguments."""
    run = functools.partial(embed.embed_fasta, out=tmp_path / "out", progress=False)
    monkeypatch.setattr(partial, "SECONDS_A_COMMIT", 0)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(patch, 2, interrupt)
        run(fasta, pretrained_dir)
    return run


def test_unfinished_work_of_another_job_is_refused(pretrained_dir, fasta, stopped, tmp_path):
    save_tiny_pretrained(tmp_path / "other", 4, 64, seed=1)
    (tmp_path / "other.fa").write_text(fasta.read_text() + ">more\nACGT\n")
    changes = [
        (stopped, (fasta, pretrained_dir, {"pool": "max"}), ["pool mean", "max"]),
        (stopped, (fasta, pretrained_dir, {"layer": 0}), ["layer -1", "not 0"]),
        (stopped, (fasta, tmp_path / "other", {}), ["pretrained_digest"]),
        (stopped, (tmp_path / "other.fa", pretrained_dir, {}), ["sequences"]),
    ]
    for run, (source, model, keywords), says in changes:
        message = refusal(run, source, model, **keywords)
        assert all(word in message for word in [*says, str(tmp_path / "out.partial"), "remove"])
    with partial.Partial(tmp_path / "busy", {}, np.zeros(1)):
        assert "another process" in refusal(partial.Partial, tmp_path / "busy", {}, np.zeros(1))
    os.truncate(tmp_path / "out.partial/vectors.bin", 10)
    assert "cut short" in refusal(stopped, fasta, pretrained_dir)


@pytest.mark.parametrize(
    "name", ["schema", "pretrained_digest", "pool", "layer", "sequences", "records", "bytes", "crc32"]
)
def test_a_progress_that_is_not_of_the_job_is_named_whatever_is_wrong(pretrained_dir, fasta, stopped, tmp_path, name):
    done = tmp_path / "out.partial/done.json"
    known = json.loads(done.read_text())
    found = [known | {name: value} for value in (None, True, -1, 0, 1, 3, 2.0, 10**30, "3", [], {})]
    found.append({key: value for key, value in known.items() if key != name})
    for changed in {json.dumps(record) for record in found} - {json.dumps(known)}:
        done.write_text(changed)
        message = refusal(stopped, fasta, pretrained_dir)
        assert f"{tmp_path}/out.partial" in message and "remove" in message, changed


def test_a_flipped_bit_of_what_was_done_is_found(pretrained_dir, fasta, stopped, tmp_path):
    vectors = tmp_path / "out.partial/vectors.bin"
    content = bytearray(vectors.read_bytes())
    for at in (0, len(content) // 2, json.loads((tmp_path / "out.partial/done.json").read_text())["bytes"] - 1):
        content[at] ^= 4
        vectors.write_bytes(content)
        message = refusal(stopped, fasta, pretrained_dir)
        assert f"{vectors}: is damaged" in message and "remove" in message
        content[at] ^= 4
    vectors.write_bytes(content)
    assert stopped(fasta, pretrained_dir)["resumed"] > 0


@pytest.mark.parametrize("name", ["out.partial", "out.partial/vectors.bin", "out.partial/done.json"])
def test_what_lies_in_the_place_of_progress_is_named(pretrained_dir, fasta, tmp_path, name):
    if name == "out.partial":
        (tmp_path / name).write_text("a file")
    else:
        (tmp_path / name).mkdir(parents=True)
    assert f"{tmp_path}/out.partial" in refusal(embed.embed_fasta, fasta, pretrained_dir, tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f">a\nACGT\n>{'b' * 256}\nACGT\n", ["in.fa:3", "255"]),
        (">a\nACGT\n>b\nAC-T\n", ["in.fa:4", "'-'"]),
        (">a\nACGT\n>a\nACGT\n", ["in.fa:3", "'a'"]),
    ],
)
def test_a_bad_record_is_named_before_the_work_begins(pretrained_dir, tmp_path, text, says):
    (tmp_path / "in.fa").write_text(text)
    message = refusal(embed.embed_fasta, tmp_path / "in.fa", pretrained_dir, tmp_path / "out")
    assert all(word in message for word in says)
    assert [path.name for path in tmp_path.iterdir()] == ["in.fa"]


def test_what_a_corpus_skips_is_skipped_and_counted(pretrained_dir, tmp_path):
    (tmp_path / "in.fa").write_text(">a x\nACGTACGT \n>b\n>c\nACGT\n>a\nGG\n")
    summary = embed.embed_fasta(
        tmp_path / "in.fa", pretrained_dir, tmp_path / "out", progress=False, on_duplicate="rename"
    )
    assert summary["skipped"] == {"empty_records": 1, "renamed_records": 1, "lines_ending_in_blanks": 1}
    with np.load(tmp_path / "out", allow_pickle=False) as file:
        assert file["ids"].tolist() == ["a", "c", "a_2"] and file["lengths"].tolist() == [8, 4, 2]


def test_a_pipe_is_embedded_as_a_file_is_and_cannot_be_written_to(pretrained_dir, fasta, tmp_path):
    embed.embed_fasta(fasta, pretrained_dir, tmp_path / "of-file", progress=False)
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cp", fasta, tmp_path / "pipe"]):
        embed.embed_fasta(tmp_path / "pipe", pretrained_dir, tmp_path / "of-pipe", progress=False)
    assert (tmp_path / "of-file").read_bytes() == (tmp_path / "of-pipe").read_bytes()
    assert "is no stream" in refusal(embed.embed_fasta, fasta, pretrained_dir, "-")


def test_places_that_cannot_be_are_named(pretrained_dir, fasta, tmp_path, monkeypatch):
    for out in (tmp_path, fasta, tmp_path / "no/such/out"):
        assert str(out) in refusal(embed.embed_fasta, fasta, pretrained_dir, out)
    assert "absent.fa" in refusal(embed.embed_fasta, tmp_path / "absent.fa", pretrained_dir, tmp_path / "out")
    save_tiny(tmp_path / "tokenizer", "hrq", 4)
    message = refusal(embed.embed_fasta, fasta, tmp_path / "tokenizer", tmp_path / "out")
    assert "is a tokenizer" in message and "configs/mcm.py" in message
    usage = partial.shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(partial.shutil, "disk_usage", lambda path: usage)
    assert "free" in refusal(embed.embed_fasta, fasta, pretrained_dir, tmp_path / "out", error=StorageError)


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_a_bar_or_lines(pretrained_dir, fasta, tmp_path, monkeypatch, capsys, terminal):
    monkeypatch.setattr(progress, "SECONDS_A_LINE", 0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    embed.embed_fasta(fasta, pretrained_dir, tmp_path / "out")
    text = capsys.readouterr().err
    lines = text.splitlines()
    if terminal:
        assert text.count("\r") > 2 and "100%" in lines[-1]
    else:
        assert "\r" not in text and len(lines) > 3
        assert all("% of" in line and "to go" in line for line in lines) and lines[-1].startswith("embedding")
