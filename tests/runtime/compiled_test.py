"""Compiled programs kept for the next process: in real processes, whatever the folder is like."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import pytest

from vqdna_jax.runtime import compiled

PROGRAM = """
import json, resource, sys
from vqdna_jax.runtime import compiled
compiled.keep()
import jax, jax.monitoring
import jax.numpy as jnp
found = []
jax.monitoring.register_event_listener(lambda name, **_: found.append(name.rsplit("/", 1)[-1]))
if "full" in sys.argv:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
numbers, x = map(int, sys.argv[1].split(",")), jnp.arange(8.0)
answers = [float(jax.jit(lambda x, n=n: jnp.sin(n * x).sum())(x)) for n in numbers]
counts = [found.count("cache_hits"), found.count("cache_misses")]
print(json.dumps([answers, *counts, jax.config.jax_compilation_cache_dir]))
"""
NAMES = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")  # that tests set


def start(home: pathlib.Path, *arguments: str, **variables: str) -> subprocess.Popen:
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    environment |= {"XDG_CACHE_HOME": str(home), "JAX_PLATFORMS": "cpu"} | variables
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.Popen(command, env=environment, stdout=-1, stderr=-1, text=True)


def result(process: subprocess.Popen):
    """(answers, programs found, programs not found, folder), and what was said."""
    out, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    return json.loads(out), said


def run(home, *arguments, **variables):
    return result(start(home, *arguments, **variables))


def files(folder):
    return {path.name for path in pathlib.Path(folder).iterdir() if path.name.endswith(("-cache", "-atime"))}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """(the home of a process that compiled two programs, its result). Read-only."""
    home = tmp_path_factory.mktemp("first")
    return home, run(home, "1,2")


@pytest.fixture
def home(first, tmp_path) -> pathlib.Path:
    """A copy of it, in which nothing is found: jax's keys are of the folder, too."""
    return shutil.copytree(first[0], tmp_path / "home")


def folder_in(home: pathlib.Path) -> pathlib.Path:
    (folder,) = (home / "vqdna_jax/compiled").iterdir()
    return folder


def test_the_next_process_finds_what_the_first_compiled(first):
    place, ((answers, hits, misses, folder), said) = first
    assert (hits, said) == (0, "") and misses >= 2
    assert pathlib.Path(folder) == folder_in(place) and len(files(folder)) == 2 * misses
    assert pathlib.Path(folder).stat().st_mode & 0o077 == 0
    (second, hits, again, _), said = run(place, "1,2")
    assert (second, hits, again, said) == (answers, misses, 0, "")


@pytest.mark.parametrize(
    "name, value", [("JAX_ENABLE_COMPILATION_CACHE", "0"), ("JAX_COMPILATION_CACHE_DIR", "own"), (NAMES[0], "")]
)
def test_what_the_environment_says_counts(tmp_path, name, value):
    value = str(tmp_path / value) if value == "own" else value
    (_, hits, _, folder), said = run(tmp_path / "home", "1", **{name: value})
    assert (hits, said) == (0, "") and not (tmp_path / "home").exists()
    assert folder == (value if name == NAMES[0] else None)


def test_processes_that_start_together_share_one_folder(tmp_path):
    processes = [start(tmp_path, numbers) for numbers in ("1,2,3", "3,2,1", "2,3,1")]
    found = [result(process) for process in processes]
    assert [said for _, said in found] == [""] * 3
    assert {tuple(sorted(answers)) for (answers, *_), _ in found} == {tuple(sorted(found[0][0][0]))}
    (_, _, misses, _), _ = run(tmp_path, "1,2,3")
    assert misses == 0


def test_what_was_not_used_for_longest_makes_room(tmp_path):
    bound = 30_000
    (_, _, _, folder), said = run(tmp_path, ",".join(map(str, range(1, 25))), JAX_COMPILATION_CACHE_MAX_SIZE=str(bound))
    sizes = [path.stat().st_size for path in pathlib.Path(folder).glob("*-cache")]
    assert said == "" and bound / 2 < sum(sizes) <= bound


def test_what_a_killed_process_left_is_removed_and_the_rest_serves(tmp_path):
    """And folders of another jax go once they are old."""
    (_, _, misses, _), _ = run(tmp_path, "1")
    folder = folder_in(tmp_path)
    whole = files(folder)
    for name in ("jit_f-12-cache", "jit_g-34-atime"):
        (folder / name).write_bytes(b"torn")
    for name, age_s in (("old", 2 * compiled.STALE_S), ("young", compiled.STALE_S / 2)):
        folder.with_name(name).mkdir()
        os.utime(folder.with_name(name), (time.time() - age_s,) * 2)
    (_, hits, _, _), said = run(tmp_path, "1,2")
    assert (hits, said) == (misses, "") and whole < files(folder)
    assert not files(folder) & {"jit_f-12-cache", "jit_g-34-atime"}
    assert {path.name for path in folder.parent.iterdir()} == {folder.name, "young"}


def no_folder(home):
    shutil.rmtree(home)
    home.write_text("a file")


def of_all(home):
    os.chmod(folder_in(home), 0o777)


@pytest.mark.parametrize("spoil, says", [(no_folder, "Not a directory"), (of_all, "others may write to")])
def test_a_folder_that_cannot_be_used_is_one_warning(home, spoil, says):
    spoil(home)
    (answers, hits, _, folder), said = run(home, "1,2,3")
    assert len(answers) == 3 and (hits, folder) == (0, None)
    assert said.count("\n") == 1 and says in said and "JAX_ENABLE_COMPILATION_CACHE=0" in said


def test_a_disk_that_fills_up_on_the_way_is_one_warning(tmp_path):
    (answers, *_), said = run(tmp_path, "1,2,3", "full")
    assert len(answers) == 3 and said.count("\n") == 1 and "File too large" in said
