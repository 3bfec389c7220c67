"""Every verb on a file system that is read-only and on one that is full, in a mount namespace of its own."""

import contextlib
import io
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

import pytest
from small_verbs import VERBS, make_inputs, run, start_benchmark

WRITERS = [name for name, verb in VERBS.items() if verb.writes != "nothing"]
PIPED = ("corpus", "encode", "decode", "embed", "predict", "species")
ALONE = ["unshare", "--mount"]


def alone_possible() -> bool:
    """Whether this process may have mounts that no other sees."""
    if not shutil.which("unshare"):
        return False
    command = [*ALONE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return not subprocess.run(command, capture_output=True).returncode


pytestmark = pytest.mark.skipif(not alone_possible(), reason="only root mounts file systems")


@pytest.fixture(scope="module")
def ends(tmp_path_factory) -> dict[str, dict[str, tuple[int, str, list[str]]]]:
    """What came of each verb by file system: exit code, standard error, what lies there; a process makes them all."""
    directory = tmp_path_factory.mktemp("mounts")
    make_inputs(directory)
    start_benchmark(directory / "begun")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [*ALONE, sys.executable, __file__, str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def make_them(directory: pathlib.Path) -> None:
    """Prints `ends`."""
    found: dict[str, dict] = {}
    for kind in ("read-only", "full"):
        place = directory / kind
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], check=True)
        shutil.copytree(directory / "begun", place / "begun")
        if kind == "full":
            with contextlib.suppress(OSError), open(place / "filler", "wb", buffering=0) as filler:
                while filler.write(b"x" * 4096):
                    pass
        else:
            subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        found[kind] = {name: end_of(name, directory, place) for name in WRITERS}
        if kind == "full":
            found["TMPDIR"] = {name: end_of_pipe(name, directory, place) for name in PIPED}
    (place := directory / "small").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", place], check=True)
    found["endless"] = {"encode": end_of_pipe("encode", directory, place, "echo '>a'; yes ACGTTGCA")}
    print(json.dumps(found))


def end_of(name: str, inputs: pathlib.Path, place: pathlib.Path) -> tuple[int, str, list[str]]:
    verb, told = VERBS[name], io.TextIOWrapper(io.BytesIO())
    out = place / ("begun" if name == "benchmark" else name)
    with contextlib.redirect_stderr(told):
        code = run(verb.call(name, str(inputs / verb.reads), str(out), inputs))
    told.seek(0)
    return code, told.read(), sorted(path.name for path in place.iterdir())


def end_of_pipe(
    name: str, inputs: pathlib.Path, place: pathlib.Path, source: str | None = None
) -> tuple[int, str, list[str]]:
    """Of a verb that reads a pipe, of what it reads or what a `source` says, with no room for a copy of it."""
    tempfile.tempdir = str(place)
    pipe = inputs / f"pipe-{name}-{place.name}"
    os.mkfifo(pipe)
    command = source or f"cat {shlex.quote(str(inputs / VERBS[name].reads))}"
    writer = subprocess.Popen(["sh", "-c", f"({command}) > {shlex.quote(str(pipe))}"], stderr=subprocess.DEVNULL)
    told, out = io.TextIOWrapper(io.BytesIO()), inputs / f"out-{name}"
    with contextlib.redirect_stderr(told):
        code = run(VERBS[name].call(name, str(pipe), str(out), inputs))
    writer.wait()
    told.seek(0)
    return code, told.read(), [out.name] if out.exists() else []


@pytest.mark.parametrize("name", PIPED)
def test_a_full_place_for_temporary_files_is_named(ends, name):
    code, told, left = ends["TMPDIR"][name]
    *notes, line = told.splitlines()
    assert code == 45 and "TMPDIR=" in line and "/full: " in line and "No space left" in line, told
    assert left == [] and not any("rror" in note for note in notes)


def test_a_pipe_without_end_leaves_room_on_the_disk(ends):
    code, told, left = ends["endless"]["encode"]
    (line,) = told.splitlines()
    copied, free = (int(number) for number in re.findall(r"(\d+) MiB", line))
    assert code == 45 and "TMPDIR=" in line and "without an end" in line and left == [], told
    assert 16 <= free <= copied < 32


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize(("kind", "exit_code", "says"), [("read-only", 43, "Read-only"), ("full", 45, "No space left")])
def test_it_is_said_in_one_line_and_nothing_is_left(ends, name, kind, exit_code, says):
    code, told, left = ends[kind][name]
    *notes, line = told.splitlines()
    assert code == exit_code and says in line and f"/{kind}" in line, told
    assert line.startswith("error: ") and not any("error" in note or "Traceback" in note for note in notes), told
    assert left == sorted(["begun", *(["filler"] if kind == "full" else [])])


if __name__ == "__main__":
    make_them(pathlib.Path(sys.argv[1]))
