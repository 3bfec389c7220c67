"""A run whose work directory is in a store is the run on a disk, bit for bit, whatever becomes of its machines."""

import pytest
from small_run import rows_of, run, small_config, stop_at
from small_store import Shaky, objects

from vqdna_jax.errors import EXIT_STOPPED, StorageError
from vqdna_jax.runtime.remote import store
from vqdna_jax.training.checkpoint import FAILURES

URL = "shaky://bucket/run"


@pytest.fixture(autouse=True)
def place(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(store, "PAUSE_S", 0.0)
    monkeypatch.setenv("VQDNA_CACHE", str(tmp_path / "one"))
    Shaky.anew()


def test_a_run_goes_on_on_another_machine_after_a_save_that_the_store_refused(finished, tmp_path, monkeypatch, capsys):
    Shaky.of, Shaky.fails = "checkpoints/3/", store.TRIES
    with monkeypatch.context() as patch:
        stop_at(patch, 6)
        assert run(small_config(), URL) == EXIT_STOPPED
    assert "checkpoint 3 could not be written: shaky://bucket/run: checkpoints/3/" in capsys.readouterr().err
    assert {name.split("/")[1] for name in objects("bucket/run") if name.startswith("checkpoints/")} == {"6", "7"}
    monkeypatch.setenv("VQDNA_CACHE", str(tmp_path / "two"))
    assert run(small_config(), URL) == 0
    for name, content in objects("bucket/run").items():
        (tmp_path / "there" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "there" / name).write_bytes(content)
    assert rows_of(tmp_path / "there") == rows_of(finished)
    assert (tmp_path / "there/export/model.safetensors").read_bytes() == (
        finished / "export/model.safetensors"
    ).read_bytes()
    assert "in shaky://bucket/run; the model in shaky://bucket/run/export" in capsys.readouterr().out
    assert run(small_config(), URL) == 0
    assert capsys.readouterr().out.startswith("shaky://bucket/run: this run is finished")


def test_a_store_that_stays_away_ends_the_run(monkeypatch):
    Shaky.of, Shaky.fails = "checkpoints/", FAILURES * store.TRIES + 1
    with pytest.raises(StorageError, match="run the same command again"):
        run(small_config(), URL)
    assert Shaky.fails == 1
