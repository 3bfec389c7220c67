"""How a verb ends before its end: signals, closed streams. Processes, as users have them."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from vqdna_jax.runtime.stopping import SIGNALS

VQDNA = [sys.executable, "-m", "vqdna_jax.cli.main"]
FASTA = b">a\nACGTTGCATTGACCA\n"
DEFAULT = "import os, signal, sys\nfor n in ({}): signal.signal(n, signal.SIG_DFL)\nos.execv(sys.argv[1], sys.argv[1:])"


def start(arguments: list[str], directory: pathlib.Path, **streams) -> subprocess.Popen:
    """A verb that heeds signals, also where a background shell ignores some, with `directory` for temporary files."""
    defaults = DEFAULT.format(", ".join(str(int(number)) for number in SIGNALS))
    environment = os.environ | {"TMPDIR": str(directory), "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen([sys.executable, "-c", defaults, *VQDNA, *arguments], env=environment, **streams)


def verb_on(verb: str, source: str, model: pathlib.Path, out: pathlib.Path) -> list[str]:
    return [verb, source, *([f"--model={model}"] if verb != "corpus" else []), f"--out={out}"]


@pytest.mark.parametrize(
    ("verb", "number"),
    [("encode", signal.SIGINT), ("corpus", signal.SIGTERM), ("embed", signal.SIGHUP), ("encode", signal.SIGHUP)],
)
def test_a_verb_that_is_stopped_says_so_in_one_line_and_leaves_nothing(verb, number, pretrained_dir, tmp_path):
    """While it waits for the rest of its input, with a part of that in a temporary file."""
    model = pretrained_dir.with_name("pretrained-tokenizer") if verb == "encode" else pretrained_dir
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    arguments = verb_on(verb, "-", model, tmp_path / "out")
    with start(arguments, temporary, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdin.write(FASTA)
        process.stdin.flush()
        while not list(temporary.glob("vqdna-*")):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        process.send_signal(number)
        said, told = process.communicate(timeout=60)
    goes_on = verb == "embed"
    what = "run the same command to go on" if goes_on else "what was begun is removed"
    assert (said, told.decode()) == (b"", f"stopped by {number.name}; {what}\n")
    assert process.returncode == (42 if goes_on else 128 + number)
    assert list(temporary.iterdir()) == [] and [path.name for path in tmp_path.iterdir()] == ["temporary"]


def test_a_verb_outlives_its_terminal_where_that_was_asked_for(tmp_path):
    """nohup lets a program ignore SIGHUP."""
    command = ["nohup", *VQDNA, *verb_on("corpus", "-", tmp_path, tmp_path / "out")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, env=os.environ | {"TMPDIR": str(tmp_path)}) as process:
        process.stdin.write(FASTA)
        process.stdin.flush()
        while not list(tmp_path.glob("vqdna-*")):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        process.send_signal(signal.SIGHUP)
        told = process.communicate(timeout=60)[1]
    assert process.returncode == 0, told
    assert (tmp_path / "out/manifest.json").exists()


@pytest.mark.parametrize("closed", [(2,), (1, 2), (0, 1, 2)])
def test_a_verb_works_with_its_streams_closed(closed, tokenizer_dir, tmp_path):
    """The files it opens must not get their numbers: native code writes to standard error by its number."""
    (tmp_path / "in.fa").write_bytes(FASTA)
    close = " ".join(f"{number}>&-" for number in closed)
    arguments = verb_on("encode", str(tmp_path / "in.fa"), tokenizer_dir, tmp_path / "out")
    subprocess.run(["sh", "-c", f'exec "$@" {close}', "sh", *VQDNA, *arguments], check=True, timeout=120)
    subprocess.run([*VQDNA, *verb_on("decode", str(tmp_path / "out"), tokenizer_dir, tmp_path / "b.fa")], check=True)
    assert (tmp_path / "b.fa").read_bytes()[:3] == b">a\n"


def test_standard_output_that_is_closed_is_no_place_to_write(tokenizer_dir, tmp_path):
    (tmp_path / "in.fa").write_bytes(FASTA)
    subprocess.run(
        [*VQDNA, *verb_on("encode", str(tmp_path / "in.fa"), tokenizer_dir, tmp_path / "out")], check=True, timeout=120
    )
    for name in ("-", "/dev/stdout", "/dev/fd/1"):
        arguments = verb_on("decode", str(tmp_path / "out"), tokenizer_dir, pathlib.Path(name))
        command = ["sh", "-c", 'exec "$@" >&-', "sh", *VQDNA, *arguments]
        end = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=120)
        assert end.returncode == 43 and end.stderr.startswith(f"error: {name}: is not open for writing"), end.stderr
