"""A store that fails, stands still or cuts what it is given: written whole all the same, or said in one line."""

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from small_store import Shaky, objects

from vqdna_jax.errors import InputError, StorageError
from vqdna_jax.runtime.remote import store
from vqdna_jax.runtime.remote.store import TRIES, Store


@pytest.fixture(autouse=True)
def there(monkeypatch) -> Store:
    """An empty one, and no waiting."""
    monkeypatch.setattr(store, "PAUSE_S", 0.0)
    Shaky.anew()
    yield Store("shaky://bucket/run/")
    Shaky.released.set()


def written(there: Store, tmp_path, how: str) -> None:
    if how == "upload":
        (tmp_path / "file").write_bytes(b"content")
        there.upload("a/name", tmp_path / "file")
    elif how == "create":
        assert there.create("a/name", b"content")
    else:
        there.write("a/name", b"content")


# What is created is not read back: the lease, its only user, reads it.
FAULTS = [(fault, how) for fault in ("fails", "cuts") for how in ("upload", "create", "write")]
FAULTS.remove(("cuts", "create"))


@pytest.mark.parametrize(("fault", "how"), [*FAULTS, ("stalls", "upload"), ("stalls", "create"), ("stalls", "write")])
def test_what_goes_wrong_a_few_times_is_written_whole(there, tmp_path, monkeypatch, fault, how):
    monkeypatch.setattr(store, "STALL_S", 0.2)
    setattr(Shaky, fault, 2 if fault != "stalls" else 1)
    written(there, tmp_path, how)
    assert objects("bucket/run") == {"a/name": b"content"} and getattr(Shaky, fault) == 0


@pytest.mark.parametrize(("fault", "how"), FAULTS)
def test_what_goes_wrong_every_time_is_one_line(there, tmp_path, fault, how):
    setattr(Shaky, fault, TRIES)
    with pytest.raises(
        StorageError, match=rf"^shaky://bucket/run: a/name cannot be written, {TRIES} times \(.+\); run"
    ):
        written(there, tmp_path, how)
    assert getattr(Shaky, fault) == 0


def test_an_object_is_read_as_it_was_written_and_one_that_is_not_there_is_none(there, tmp_path):
    there.write("x/y", b"\0\xff")
    assert there.read("x/y") == b"\0\xff" and there.read("x/z") is None and there.read("x") is None
    there.download("x/y", tmp_path / "new/y", 2)
    assert (tmp_path / "new/y").read_bytes() == b"\0\xff"
    with pytest.raises(StorageError, match="2 of 3 bytes arrived"):
        there.download("x/y", tmp_path / "y", 3)


def test_only_one_creates(there):
    assert there.create("lock", b"one") and not there.create("lock", b"two")
    assert there.read("lock") == b"one"


def test_a_store_without_conditions_does_not_let_the_second_one_write(there, monkeypatch):
    monkeypatch.setattr(
        Shaky, "pipe_file", lambda self, path, value, mode="": MemoryFileSystem.pipe_file(self, path, value)
    )
    test_only_one_creates(there)


def test_objects_are_listed_below_it_alone_and_removed_once(there):
    for name in ("b", "a/b/c"):
        there.write(name, b"12")
    Store("shaky://bucket/runs").write("x", b"of another")
    assert there.sizes() == {"b": 2, "a/b/c": 2}
    there.remove(["b", "b", "never"])
    assert there.sizes() == {"a/b/c": 2} and Store("shaky://bucket/none").sizes() == {}


def test_names_that_lead_elsewhere_are_passed_over(there, monkeypatch):
    listed = [f"/bucket/run/{name}" for name in ("../run2/x", "a/../../x", "a//b", "./c", "good")]
    monkeypatch.setattr(Shaky, "find", lambda self, path, detail: {name: {"size": 1} for name in listed})
    assert there.sizes() == {"good": 1}


@pytest.mark.parametrize(
    ("url", "says"),
    [("htp://bucket/run", "nothing is known of htp://"), ("abfs://bucket/run", "pip install adlfs")],
)
def test_a_protocol_that_is_not_there_is_bad_input(url, says):
    with pytest.raises(InputError, match=says):
        Store(url)


@pytest.fixture(scope="module")
def s3():
    """A bucket of a local S3."""
    server_of = pytest.importorskip("moto.server", reason="moto and s3fs are not installed: no local S3")
    pytest.importorskip("s3fs", reason="moto and s3fs are not installed: no local S3")
    server = server_of.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "any")
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        fsspec.filesystem("s3").mkdir("bucket")
        yield "s3://bucket"
    server.stop()


def test_a_local_s3_does_the_same(s3, tmp_path):
    there = Store(f"{s3}/run")
    assert there.sizes() == {} and there.read("lock") is None
    assert there.create("lock", b"one") and not there.create("lock", b"two") and there.read("lock") == b"one"
    written(there, tmp_path, "upload")
    assert there.sizes() == {"lock": 3, "a/name": 7}
    there.download("a/name", tmp_path / "back", 7)
    there.remove(["lock", "lock"])
    assert (tmp_path / "back").read_bytes() == b"content" and there.sizes() == {"a/name": 7}


def test_a_bucket_that_is_not_there_is_bad_input(s3):
    assert Store("s3://nowhere/run").read("lock") is None
    with pytest.raises(InputError, match="is there such a bucket"):
        Store("s3://nowhere/run").create("lock", b"one")
