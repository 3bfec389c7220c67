"""How a verb ends before its end: signals, closed streams. Processes, as users have them."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from vqdna_jax.inference.jobs import encode
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


IN_A_TERMINAL = """
import os, pathlib, pty, sys, time
process, terminal = pty.fork()
if not process:
    os.execv(sys.argv[2], sys.argv[2:])
while not list(pathlib.Path(sys.argv[1]).glob("vqdna-*")):
    time.sleep(0.02)
os.close(terminal)
print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
"""


@pytest.mark.parametrize("verb", ["embed", "corpus"])
def test_a_terminal_that_is_gone_stops_a_verb_as_a_signal_does(verb, pretrained_dir, tmp_path):
    """What it says then cannot be written any more, and that must not be how it ends."""
    os.mkfifo(tmp_path / "in.fa")
    keep = os.open(tmp_path / "in.fa", os.O_RDWR)
    os.write(keep, FASTA)
    command = [*VQDNA, *verb_on(verb, str(tmp_path / "in.fa"), pretrained_dir, tmp_path / "out")]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    wrapped = [sys.executable, "-c", IN_A_TERMINAL, str(tmp_path), *command]
    done = subprocess.run(wrapped, env=environment, capture_output=True, text=True, timeout=120)
    os.close(keep)
    assert done.stdout.split() == ["42" if verb == "embed" else str(128 + signal.SIGHUP)], done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.fa"]


def test_a_name_that_is_no_text_is_told_as_it_can_be(tokenizer_dir, tmp_path):
    name = os.fsdecode(b"no-text-\xff")
    (tmp_path / f"{name}.fa").write_bytes(FASTA)
    arguments = verb_on("encode", str(tmp_path / f"{name}.fa"), tokenizer_dir, tmp_path / name)
    done = subprocess.run([*VQDNA, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and f"codes written to {tmp_path}/no-text-\\udcff\n" in done.stdout, done
    assert (tmp_path / name).exists()


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


@pytest.mark.parametrize("closed", [(2,), (0, 1, 2)])
def test_a_verb_works_with_its_streams_closed(closed, tokenizer_dir, tmp_path):
    """The files it opens must not get their numbers: native code writes to standard error by its number."""
    (tmp_path / "in.fa").write_bytes(FASTA)
    close = " ".join(f"{number}>&-" for number in closed)
    arguments = verb_on("encode", str(tmp_path / "in.fa"), tokenizer_dir, tmp_path / "out")
    subprocess.run(["sh", "-c", f'exec "$@" {close}', "sh", *VQDNA, *arguments], check=True, timeout=120)
    encode.decode_to_fasta(tmp_path / "out", tokenizer_dir, tmp_path / "b.fa", progress=False)
    assert (tmp_path / "b.fa").read_bytes()[:3] == b">a\n"


def test_standard_output_that_is_closed_is_no_place_to_write(tokenizer_dir, tmp_path):
    (tmp_path / "in.fa").write_bytes(FASTA)
    encode.encode_fasta(tmp_path / "in.fa", tokenizer_dir, tmp_path / "out", progress=False)
    for name in ("-", "/dev/fd/1"):
        arguments = verb_on("decode", str(tmp_path / "out"), tokenizer_dir, pathlib.Path(name))
        command = ["sh", "-c", 'exec "$@" >&-', "sh", *VQDNA, *arguments]
        end = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=120)
        assert end.returncode == 43 and end.stderr.startswith(f"error: {name}: is not open for writing"), end.stderr
