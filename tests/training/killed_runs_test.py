"""A work directory, in a store or on a disk, is whole after any kill."""

import os
import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).resolve().parents[1] / "killed_runs.py"


LONG = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize(
    ("kills", "kind"), [(5, []), pytest.param(200, [], marks=LONG), pytest.param(100, ["disk"], marks=LONG)]
)
def test_what_was_saved_is_whole_after_any_kill_and_the_run_goes_on_from_it(tmp_path, kills, kind):
    command = [sys.executable, str(SCRIPT), str(tmp_path), str(kills), "0", *kind]
    ended = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"})
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(f"killed {kills}, step "), ended.stdout
