"""A work directory in a store is whole after any kill."""

import os
import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).resolve().parents[1] / "killed_runs.py"


@pytest.mark.parametrize("kills", [5, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_the_store_is_whole_after_any_kill_and_the_run_goes_on_from_it(tmp_path, kills):
    command = [sys.executable, str(SCRIPT), str(tmp_path), str(kills), "0"]
    ended = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"})
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(f"killed {kills}, step "), ended.stdout
