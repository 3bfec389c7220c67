"""One run at a time in a workdir, with an id that stays; a full disk is said before the first step."""

import shutil
import subprocess
import sys

import pytest

from vqdna_jax.errors import InputError, StorageError
from vqdna_jax.training import workdir

HOLDS = """
import pathlib, sys, time
from vqdna_jax.training.workdir import open_workdir
with open_workdir(pathlib.Path(sys.argv[1])) as opened:
    print(opened.run_id, flush=True)
    time.sleep(60)
"""


def test_the_run_id_is_made_once_and_stays(tmp_path):
    with workdir.open_workdir(tmp_path / "new/run") as first:
        pass
    with workdir.open_workdir(tmp_path / "new/run") as second, workdir.open_workdir(tmp_path / "other") as other:
        assert first.run_id == second.run_id != other.run_id


def test_a_second_run_is_kept_out_for_as_long_as_the_first_lives(tmp_path):
    refused = pytest.raises(InputError, match="another run is using it .process [0-9]+ on ")
    with workdir.open_workdir(tmp_path), refused, workdir.open_workdir(tmp_path):
        pass
    with workdir.open_workdir(tmp_path):
        pass


def test_the_lock_goes_with_a_killed_process(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    run_id = holder.stdout.readline().strip()
    with pytest.raises(InputError, match=f"process {holder.pid} on "), workdir.open_workdir(tmp_path):
        pass
    holder.kill()
    holder.wait()
    with workdir.open_workdir(tmp_path) as same:
        assert same.run_id == run_id


@pytest.mark.parametrize("content", ["", "{", "[]", '{"id": 1}'])
def test_a_damaged_run_json_is_said_and_kept(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match="run.json: is not what a run writes"), workdir.open_workdir(tmp_path):
        pass
    assert (tmp_path / "run.json").read_text() == content


@pytest.mark.parametrize("name", ["config.json", "result.json", "metrics.jsonl", "export"])
def test_what_is_not_of_a_run_is_not_written_over(tmp_path, name):
    (tmp_path / name).write_text("a model's")
    (tmp_path / "train.csv").write_text("of somebody")
    with pytest.raises(InputError, match=f"holds {name}, and that of no run"), workdir.open_workdir(tmp_path):
        pass
    assert (tmp_path / name).read_text() == "a model's" and len(list(tmp_path.iterdir())) == 2
    (tmp_path / name).unlink()
    with workdir.open_workdir(tmp_path):
        (tmp_path / name).write_text("the run's")
    with workdir.open_workdir(tmp_path):
        assert (tmp_path / name).read_text() == "the run's"


def test_two_checkpoints_must_fit(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    workdir.make_room(tmp_path, free // 4)
    with pytest.raises(StorageError, match="two checkpoints of"):
        workdir.make_room(tmp_path, free)
