"""A run in a store: what is there is whole at any moment, and is what another machine goes on from."""

import contextlib
import json
import pathlib

import pytest
from small_store import Shaky, objects

from vqdna_jax.errors import InputError, StorageError
from vqdna_jax.runtime import files
from vqdna_jax.runtime.remote import store
from vqdna_jax.training import lease, workdir

URL = "shaky://bucket/run"


@pytest.fixture(autouse=True)
def place(monkeypatch, tmp_path) -> None:
    """An empty store, an empty machine, and no waiting."""
    monkeypatch.setattr(store, "PAUSE_S", 0.0)
    monkeypatch.setattr(lease, "_SETTLE_S", 0.0)
    monkeypatch.setenv("VQDNA_CACHE", str(tmp_path / "machine"))
    Shaky.anew()


class Killed(BaseException):
    pass


@contextlib.contextmanager
def machine(monkeypatch, name: pathlib.Path, fate: type[BaseException] | None = None):
    """A run in the store, on the machine with this cache, to its end or to what becomes of it: killed, it does nothing
    more."""
    monkeypatch.setenv("VQDNA_CACHE", str(name))
    with contextlib.suppress(fate or ()), monkeypatch.context() as patch, workdir.open_workdir(URL) as opened:
        yield opened
        if fate is Killed:
            patch.setattr(lease.Lease, "release", lambda self: None)
            patch.setattr(lease.Lease, "check", _dead)
        if fate:
            raise fate


def _dead(self) -> None:
    raise InputError("of a dead process")


def checkpoint(opened: workdir.Workdir, step: int, content: bytes = b"weights") -> pathlib.Path:
    """One that is whole and has its name, as orbax leaves it."""
    path = opened.path / "checkpoints" / str(step)
    (path / "state/d").mkdir(parents=True)
    (path / "state/d/array").write_bytes(content)
    files.seal(path)
    return path


def steps_there() -> set[str]:
    return {name.split("/")[1] for name in objects("bucket/run") if name.startswith("checkpoints/")}


def test_a_finished_run_is_all_in_the_store_and_nothing_is_left_here(monkeypatch, tmp_path):
    with machine(monkeypatch, tmp_path / "one") as opened:
        assert (opened.name, opened.path.parent) == (URL, tmp_path / "one")
        for name in ("metrics.jsonl", "result.json", "export/config.json", "export/model.safetensors", "tensorboard/x"):
            (opened.path / name).parent.mkdir(exist_ok=True)
            (opened.path / name).write_text(name)
        (opened.path / ".half-written").write_text("")
        opened.copy_save(checkpoint(opened, 3), 3, 2)
    assert objects("bucket/run").keys() == {
        *("run.json", "metrics.jsonl", "result.json", "export/config.json", "export/model.safetensors"),
        *("tensorboard/x", "checkpoints/3/state/d/array", "checkpoints/3/files.json"),
    }
    assert list(objects("bucket/run"))[-1] == "result.json"
    assert json.loads(objects("bucket/run")["run.json"])["run_id"] == opened.run_id
    assert list((tmp_path / "one").iterdir()) == []


def test_another_machine_goes_on_from_it(monkeypatch, tmp_path):
    with machine(monkeypatch, tmp_path / "one", RuntimeError) as first:
        (first.path / "metrics.jsonl").write_text("one row\n")
        first.copy_save(checkpoint(first, 3), 3, 2)
        (first.path / "goodput.jsonl").write_text("at its end\n")
    with machine(monkeypatch, tmp_path / "two") as second:
        assert second.run_id == first.run_id and second.path != first.path
        assert (second.path / "metrics.jsonl").read_text() == "one row\n"
        assert (second.path / "goodput.jsonl").read_text() == "at its end\n"
        assert (second.path / "checkpoints/3/state/d/array").read_bytes() == b"weights"
        assert files.broken(second.path / "checkpoints/3") == []


def test_what_only_the_killed_machine_has_does_not_count(monkeypatch, tmp_path):
    """It comes back after another one has gone on: the store is the run."""
    with machine(monkeypatch, tmp_path / "one", Killed) as first:
        first.copy_save(checkpoint(first, 3), 3, 2)
        checkpoint(first, 6, b"never copied")
        (first.path / "checkpoints/.7/state").mkdir(parents=True)  # being fetched
        (first.path / "curves.png").write_text("of nobody")
    with monkeypatch.context() as patch:
        patch.setattr(lease, "LEASE_S", 0.2)
        with machine(monkeypatch, tmp_path / "two", RuntimeError) as second:
            second.copy_save(checkpoint(second, 5, b"of the second"), 5, 2)
    with machine(monkeypatch, tmp_path / "one") as back:
        assert {path.name for path in (back.path / "checkpoints").iterdir()} == {"3", "5"}
        assert (back.path / "checkpoints/5/state/d/array").read_bytes() == b"of the second"
        assert not (back.path / "curves.png").exists()


def test_a_checkpoint_that_was_damaged_here_is_taken_from_the_store(monkeypatch, tmp_path):
    with machine(monkeypatch, tmp_path / "one", RuntimeError) as first:
        first.copy_save(checkpoint(first, 3), 3, 2)
        first.copy_save(checkpoint(first, 6), 6, 2)
        (first.path / "checkpoints/3/state/d/array").write_bytes(b"weighty")
    read = []
    monkeypatch.setattr(
        Shaky, "get_file", lambda self, *names: read.append(names[0]) or super(Shaky, self).get_file(*names)
    )
    with machine(monkeypatch, tmp_path / "one") as again:
        assert (again.path / "checkpoints/3/state/d/array").read_bytes() == b"weights"
    assert {name.split("checkpoints/")[1][0] for name in read if "checkpoints" in name} == {"3"}  # no more than needed


@pytest.mark.parametrize(
    ("fault", "name"), [("fails", "state/d/array"), ("cuts", "state/d/array"), ("fails", files.SEAL)]
)
def test_a_checkpoint_that_is_not_wholly_there_does_not_count(monkeypatch, tmp_path, fault, name):
    with machine(monkeypatch, tmp_path / "one", RuntimeError) as first:
        first.copy_save(checkpoint(first, 3), 3, 2)
        Shaky.of = f"6/{name}"
        setattr(Shaky, fault, store.TRIES)
        with pytest.raises(StorageError, match=f"checkpoints/6/{name} cannot be written"):
            first.copy_save(checkpoint(first, 6), 6, 2)
        assert "checkpoints/6/files.json" not in objects("bucket/run")
    with machine(monkeypatch, tmp_path / "two") as second:
        assert steps_there() == {"3"} and [path.name for path in (second.path / "checkpoints").iterdir()] == ["3"]


def test_as_many_checkpoints_stay_as_are_kept_and_none_that_the_run_left_behind(monkeypatch, tmp_path):
    with machine(monkeypatch, tmp_path / "one") as opened:
        for step in (3, 6, 9):
            opened.copy_save(checkpoint(opened, step), step, 2)
        assert steps_there() == {"6", "9"}
        opened.copy_save(checkpoint(opened, 8), 8, 2)  # 9 was damaged, and the run went on from 6
        assert steps_there() == {"6", "8"}


def test_a_run_that_was_taken_over_writes_nothing_more(monkeypatch, tmp_path):
    monkeypatch.setattr(lease, "LEASE_S", 0.2)
    monkeypatch.setattr(lease, "_BEATS", 0.001)  # it is as good as stopped: it does not renew its lease
    with machine(monkeypatch, tmp_path / "one", InputError) as frozen:
        frozen.copy_save(checkpoint(frozen, 3), 3, 2)
        with machine(monkeypatch, tmp_path / "two", RuntimeError) as second:
            before = objects("bucket/run")
            (frozen.path / "metrics.jsonl").write_text("of the frozen one")
            with pytest.raises(InputError, match="another run took it over"):
                frozen.copy_save(checkpoint(frozen, 6), 6, 2)
            assert objects("bucket/run") == before
            second.copy_save(checkpoint(second, 9), 9, 2)
    assert "metrics.jsonl" not in objects("bucket/run") and steps_there() == {"3", "9"}


def test_a_second_run_of_this_machine_is_kept_out_at_once(monkeypatch, tmp_path):
    refused = pytest.raises(InputError, match=f"^--workdir={URL}: another run is using it")
    with machine(monkeypatch, tmp_path / "one"), refused, workdir.open_workdir(URL):
        pass


def test_what_is_of_a_machine_alone_is_not_taken_from_the_store(monkeypatch, tmp_path):
    with machine(monkeypatch, tmp_path / "one", RuntimeError):
        pass
    for name in (".lease", "metrics.jsonl", "retry_1/metrics.jsonl", "checkpoints/../../escaped", "checkpoints/x/y"):
        store.Store(URL).write(name, b"")
    with machine(monkeypatch, tmp_path / "two") as opened:
        assert {path.name for path in opened.path.rglob("*")} == {"run.json", "metrics.jsonl", "lock", ".lease"}
        assert (opened.path / ".lease").read_text() != ""


def test_a_store_that_holds_a_model_and_no_run_is_not_written(monkeypatch, tmp_path):
    store.Store(URL).write("config.json", b"of a model")
    with pytest.raises(InputError, match="holds config.json, and that of no run"), workdir.open_workdir(URL):
        pass
    assert objects("bucket/run") == {"config.json": b"of a model"}
