"""Several processes, and a work directory in a store."""

import pytest

from tools.chaos import CONFIG
from tools.processes import Processes, checkpoints, model, rows

STEPS = 8
SETTINGS = CONFIG | {"train.total_steps": STEPS, "train.checkpoint_every_steps": 3, "train.timeout_s": 60.0}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_they_work_in_one_directory_or_are_refused(tmp_path):
    run, here, elsewhere = tmp_path / "store/run", tmp_path / "here", tmp_path / "elsewhere"
    apart = {1: ["env", f"VQDNA_CACHE={elsewhere}"]}
    started = Processes(f"flaky://{run}", 2, SETTINGS, {"VQDNA_CACHE": str(here)}, under=apart)
    assert started.wait(500) == [43, 43]
    assert f"{here}/workdir-" in started.text() and "process 1 has another directory there" in started.text()
    assert [path.name for path in run.iterdir()] == ["run.json"]
    started = Processes(f"flaky://{run}", 2, SETTINGS, {"VQDNA_CACHE": str(here)})
    assert started.wait(500) == [0, 0]
    assert sorted(rows(run)) == list(range(1, STEPS + 1)) and model(run) and (run / "result.json").exists()
    assert {path.name for path in checkpoints(run)} == {"3", "6", "8"}
    assert not list(here.glob("workdir-*"))
