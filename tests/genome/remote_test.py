"""Corpora that are elsewhere: the same bytes there as here, copied once, never half a corpus."""

import shutil
import threading
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from vqdna_jax.errors import InputError, PeerError, StorageError
from vqdna_jax.genome import corpus
from vqdna_jax.genome.build.build import build_corpus
from vqdna_jax.genome.corpus import open_corpus
from vqdna_jax.runtime.remote import cache, places

BUNDLED = Path(corpus.__file__).parent / "bundled"


class PluginError(Exception):
    """What an object store's library raises: none of Python's own errors."""


class Flaky(MemoryFileSystem):
    """memory:// that fails `failures` times when a shard is read, and damages what `damages` says is written."""

    protocol = "flaky"
    store, pseudo_dirs = {}, [""]
    failures, damages = 0, ""

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("flaky://", "memory://"))

    def _open(self, path, mode="rb", **options):
        if "array_record" in path and mode == "rb" and Flaky.failures:
            Flaky.failures -= 1
            raise PluginError("connection reset")
        return super()._open(path, mode, **options)

    def put_file(self, local, remote, **options):
        super().put_file(local, remote, **options)
        if Flaky.damages and Flaky.damages in remote:
            self.pipe_file(remote, self.cat_file(remote)[:-1])


fsspec.register_implementation("flaky", Flaky, clobber=True)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> fsspec.AbstractFileSystem:
    """An empty store, an empty cache, and no waiting."""
    monkeypatch.setenv("VQDNA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "PAUSE_S", 0.0)
    Flaky.failures, Flaky.damages = 0, ""
    Flaky.store.clear()
    Flaky.pseudo_dirs[:] = [""]
    return fsspec.filesystem("flaky", skip_instance_cache=True)


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("here") / "corpus"
    build_corpus([BUNDLED / "arabidopsis_chloroplast.fa.gz", BUNDLED / "phiX174.fa.gz"], out, progress=False)
    return out


@pytest.fixture
def far(here, place) -> str:
    """The same corpus in the store."""
    place.put(f"{here}/", "/bucket/corpus/", recursive=True)
    return "flaky://bucket/corpus"


def files_there(place) -> dict[str, bytes]:
    return {name.rpartition("/")[2]: place.cat_file(name) for name in place.find("/bucket/corpus")}


def files_in(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


@pytest.mark.parametrize(
    "inputs", [["flaky://in/*.gz"], ["flaky://in"], ["flaky://in/ara*", "flaky://in/phiX174.fa.gz"]]
)
def test_a_corpus_from_there_to_there_has_the_same_bytes(place, here, inputs):
    for name in ("phiX174.fa.gz", "arabidopsis_chloroplast.fa.gz"):
        place.put_file(BUNDLED / name, f"/in/{name}")
    manifest = build_corpus(inputs, "flaky://bucket/corpus", progress=False)
    assert files_there(place) == files_in(here)
    assert open_corpus("flaky://bucket/corpus").manifest == manifest
    assert not any("incomplete" in name for name in place.find("/"))


def test_a_message_names_the_file_that_is_there(place, tmp_path):
    place.pipe_file("/in/bad.fa", b">a\nAC-T\n")
    with pytest.raises(InputError, match=r"^flaky:///?in/bad\.fa:2: '-'"):
        build_corpus(["flaky://in/bad.fa"], tmp_path / "out", progress=False)


def test_an_upload_that_arrives_damaged_is_refused_and_taken_away(place):
    Flaky.damages = "validation"
    with pytest.raises(StorageError, match="differs from what was sent"):
        build_corpus([BUNDLED / "phiX174.fa.gz"], "flaky://bucket/corpus", progress=False)
    assert files_there(place) == {}


def test_the_manifest_goes_last_and_without_it_there_is_no_corpus(place, monkeypatch):
    sent = []
    monkeypatch.setattr(places, "upload", lambda file, url, upload=places.upload: (sent.append(url), upload(file, url)))
    build_corpus([BUNDLED / "phiX174.fa.gz"], "flaky://bucket/corpus", progress=False)
    assert len(sent) == 6 and sent[-1].endswith("/manifest.json")
    place.rm_file("/bucket/corpus/manifest.json")
    with pytest.raises(InputError, match=r"flaky://bucket/corpus/manifest\.json"):
        open_corpus("flaky://bucket/corpus")
    with pytest.raises(InputError, match="exists"):
        build_corpus([BUNDLED / "phiX174.fa.gz"], "flaky://bucket/corpus", progress=False)


def test_a_copy_is_made_once(far, here, monkeypatch):
    assert files_in(open_corpus(far).path) == files_in(here)
    monkeypatch.setattr(places, "download", None)
    again = open_corpus(far)
    assert again.manifest == open_corpus(here).manifest
    assert again.records("train")[0] == open_corpus(here).records("train")[0]


def test_a_copy_that_was_broken_off_goes_on_and_a_damaged_one_is_repaired(far, here, monkeypatch):
    copied = []

    def counted(url, file, advance, download=places.download):
        if len(copied) == 3:
            copied.append("interrupt")
            raise KeyboardInterrupt
        copied.append(url)
        return download(url, file, advance)

    monkeypatch.setattr(places, "download", counted)
    with pytest.raises(KeyboardInterrupt):
        open_corpus(far)
    (copy,) = (path for path in cache.cache_directory().iterdir() if path.is_dir())
    assert not (copy / "manifest.json").exists() and len(files_in(copy)) == 3
    (copy / ".chunks.npz.1234").write_bytes(b"of a process that was killed")
    open_corpus(far)
    assert files_in(copy) == files_in(here) and len(copied) == 6
    (copy / "chunks.npz").write_bytes(b"damaged")
    open_corpus(far)
    assert files_in(copy) == files_in(here) and copied[6:] == [f"{far}/chunks.npz"]


def test_several_at_once_copy_once(far, here, monkeypatch):
    copied, opened = [], []
    monkeypatch.setattr(
        places, "download", lambda url, *rest, download=places.download: (copied.append(url), download(url, *rest))[1]
    )
    threads = [threading.Thread(target=lambda: opened.append(open_corpus(far).path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 4 and len(set(opened)) == 1 and files_in(opened[0]) == files_in(here)
    assert sorted(copied) == sorted(f"{far}/{name}" for name in files_in(here) if name != "manifest.json")


def test_a_store_that_fails_now_and_then_is_asked_again(far, here):
    Flaky.failures = cache.TRIES - 1
    assert files_in(open_corpus(far).path) == files_in(here)
    shutil.rmtree(cache.cache_directory())
    Flaky.failures = 1000
    with pytest.raises(PeerError, match="connection reset") as failed:
        open_corpus(far)
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize(("change", "word"), [("damage", "damaged"), ("remove", "missing")])
def test_what_is_damaged_there_is_refused(far, place, change, word):
    shard = next(name for name in place.find("/bucket/corpus") if "train" in name)
    if change == "remove":
        place.rm_file(shard)
    else:
        content = place.cat_file(shard)
        place.pipe_file(shard, content[:100] + b"?" + content[101:])
    with pytest.raises(InputError, match=word):
        open_corpus(far)


def test_a_cache_that_is_too_small_is_a_storage_error(far, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1000, 990, 10))
    with pytest.raises(StorageError, match="VQDNA_CACHE"):
        open_corpus(far)


@pytest.mark.parametrize(
    ("address", "word"),
    [("nowhere://bucket", "nowhere"), ("flaky://absent", "manifest.json"), ("flaky://bucket/x.json", "manifest.json")],
)
def test_an_address_that_leads_nowhere_is_one_line(address, word, tmp_path):
    with pytest.raises((InputError, PeerError), match=word) as refused:
        open_corpus(address)
    assert "\n" not in str(refused.value)
    with pytest.raises((InputError, PeerError), match=address) as refused:
        build_corpus([address], tmp_path / "out", progress=False)
    assert "\n" not in str(refused.value)


def test_a_protocol_without_its_plugin_says_what_to_install(monkeypatch, tmp_path):
    def absent(url):
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr(fsspec, "url_to_fs", absent)
    for attempt in (lambda: open_corpus("gs://bucket/corpus"), lambda: build_corpus(["gs://a.fa"], tmp_path / "out")):
        with pytest.raises(InputError, match="pip install gcsfs"):
            attempt()
