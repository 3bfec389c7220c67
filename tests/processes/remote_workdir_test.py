"""Several processes, and a work directory in a store."""

import pytest

from tools.chaos import CONFIG
from tools.processes import Processes, checkpoints, model, rows

STEPS = 8
SETTINGS = CONFIG | {"train.total_steps": STEPS, "train.checkpoint_every_steps": 3, "train.timeout_s": 60.0}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_on_machines_that_share_no_directory_they_are_refused_before_anything_is_compiled(tmp_path):
    run, here, elsewhere = tmp_path / "store/run", tmp_path / "here", tmp_path / "elsewhere"
    apart = {1: ["env", f"VQDNA_CACHE={elsewhere}"]}
    caches = {"VQDNA_CACHE": str(here), "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled")}
    started = Processes(f"flaky://{run}", 2, SETTINGS, caches, under=apart)
    assert started.wait(300) == [43, 43]
    for place, said in zip((here, elsewhere), started.said):
        (line,) = [line for line in said if line.startswith("error: ")]
        assert line.startswith(f"error: {place}/workdir-") and "process 1 has another directory there" in line
        assert not any(line.startswith("Traceback") for line in said)
    assert not list(tmp_path.glob("compiled/*")) and not run.exists()
    assert [path.name for path in tmp_path.glob("*/workdir-*/*")] == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_where_they_share_one_process_0_copies_for_all(tmp_path):
    run, here = tmp_path / "store/run", tmp_path / "here"
    started = Processes(f"flaky://{run}", 2, SETTINGS, {"VQDNA_CACHE": str(here)})
    assert started.wait(500) == [0, 0]
    assert sorted(rows(run)) == list(range(1, STEPS + 1)) and model(run) and (run / "result.json").exists()
    assert {path.name for path in checkpoints(run)} == {"3", "6", "8"}
    assert not list(here.glob("workdir-*"))
