"""Downloads from servers that break off, stall, lie and refuse: the right file in the end, or one line."""

import hashlib
import random
import threading
from pathlib import Path

import pytest
import requests
from small_server import (
    calls_it_gzip,
    cut,
    ignores_range,
    no_length,
    other_bytes,
    says,
    short_length,
    silent,
    whole,
    wrong_range,
)

from vqdna_jax.errors import InputError, PeerError, StorageError
from vqdna_jax.genome import corpus
from vqdna_jax.runtime.remote import download
from vqdna_jax.runtime.remote.download import Patience, fetch
from vqdna_jax.runtime.remote.places import Checksum

CONTENT = random.Random(3).randbytes(700_000)
MD5 = Checksum("md5", hashlib.md5(CONTENT).hexdigest())
BUNDLED = Path(corpus.__file__).parent / "bundled"
HASTY = Patience(connect_s=2, stall_s=0.25, tries=4, pause_s=0.001, longest_pause_s=0.05)


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "downloads" / "genome.fa.gz"


def get(server, file, patience=HASTY, **options):
    fetch(server.url(), file, MD5, patience=patience, **options)
    assert file.read_bytes() == CONTENT
    assert {path.name for path in file.parent.iterdir()} == {file.name, f"{file.name}.lock"}


@pytest.mark.parametrize(
    "acts",
    [
        [whole],
        [no_length],
        [calls_it_gzip],
        [cut(300_000), whole],
        [cut(0), cut(500_000), cut(10), whole],
        [cut(400_000, stall=True), whole],
        [silent, whole],
        [cut(300_000), ignores_range],
        [cut(300_000), wrong_range, whole],
        [says(429, Retry_After=0), says(503), whole],
        [says(500), says(408), whole],
        [says(429, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"), whole],
        [says(302, Location="/moved"), whole],
    ],
)
def test_the_file_arrives_whole(server, file, acts):
    server.acts = acts
    get(server, file)


def test_after_any_faults_the_file_is_whole(server, tmp_path):
    rng = random.Random(5)
    for run in range(25):
        server.acts = [
            rng.choice([cut(rng.randrange(700_000)), silent, says(503), ignores_range, other_bytes, wrong_range])
            for _ in range(rng.randrange(4))
        ]
        server.acts.append(whole)
        try:
            get(server, tmp_path / str(run) / "file")
        except InputError as error:  # it sent wrong bytes without a fault between
            assert "md5" in str(error) and not (tmp_path / str(run) / "file").exists()


def test_a_later_run_goes_on_where_the_last_one_ended(server, file):
    moved = []
    server.acts = [cut(300_000)]
    with pytest.raises(PeerError, match="ended early .tries: 1."):
        get(server, file, HASTY._replace(tries=1))
    server.acts = [whole]
    get(server, file, advance=moved.append)
    assert server.requests[-1]["Range"] == "bytes=300000-" and server.requests[-1]["If-Range"].startswith('"')
    assert moved[0] == 300_000 and sum(moved) == len(CONTENT)
    get(server, file)
    assert len(server.requests) == 2  # what is there is not asked for again


def test_a_file_that_changes_between_two_tries_is_fetched_anew(server, file):
    server.acts = [lambda handler, content: cut(300_000)(handler, bytes(len(content))), whole]
    get(server, file)
    assert "If-Range" in server.requests[1]


def test_a_part_of_another_version_without_etag_is_found_out_by_the_checksum(server, file):
    file.parent.mkdir()
    Path(f"{file}.part").write_bytes(bytes(1000))
    get(server, file)
    Path(f"{file}.part").write_bytes(CONTENT)  # whole, but killed before it was renamed: the server says 416
    file.unlink()
    get(server, file)
    Path(f"{file}.part").write_bytes(CONTENT + b"more")
    file.unlink()
    get(server, file)


def test_a_file_that_was_damaged_here_is_fetched_again(server, file):
    get(server, file)
    file.write_bytes(CONTENT[:-1])
    get(server, file)


@pytest.mark.parametrize(
    ("acts", "kind", "word"),
    [
        ([other_bytes], InputError, "md5 is"),
        ([short_length], InputError, "md5 is"),
        ([says(404)], InputError, "404 Not Found"),
        ([says(403)], InputError, "403"),
        ([says(410)], InputError, "410"),
        ([says(302, Location="file:///etc/passwd")], InputError, "not safe"),
        ([says(302, Location="/genome.fa.gz")], InputError, "redirects"),
        ([says(429, Retry_After=1000)], PeerError, "429"),
        ([says(500)], PeerError, "500"),
        ([cut(1000, stall=True)], PeerError, "stalls"),
        ([silent], PeerError, "run it again"),
        ([wrong_range], PeerError, "range"),
    ],
)
def test_a_server_that_does_not_give_it_is_one_line(server, file, acts, kind, word):
    server.acts = acts if word != "range" else [cut(1000), *acts] * 9
    with pytest.raises(kind, match=word) as failed:
        get(server, file)
    assert "\n" not in str(failed.value) and server.url() in str(failed.value) and not file.exists()


@pytest.mark.parametrize(("size", "act"), [(699_999, whole), (700_001, whole), (699_999, no_length)])
def test_another_size_than_expected_is_refused(server, file, size, act):
    server.acts = [act]
    with pytest.raises(InputError, match="bytes"):
        get(server, file, size=size)


def test_from_https_there_is_no_way_back(file, monkeypatch):
    def send(self, request, **_):
        assert request.url.startswith("https://")
        response = requests.Response()
        response.status_code, response.url, response.request = 302, request.url, request
        response.headers["Location"], response.raw = "http://127.0.0.1/", None
        return response

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", send)
    with pytest.raises(InputError, match="not safe"):
        fetch("https://example.org/genome.fa", file, MD5, patience=HASTY)


def test_nobody_there_and_no_such_host(file):
    for url in ("http://127.0.0.1:9/genome.fa", "http://no-such-host.invalid/genome.fa"):
        with pytest.raises(PeerError, match="tries: 4.; run it again") as failed:
            fetch(url, file, MD5, patience=HASTY)
        assert "\n" not in str(failed.value)


def test_two_at_once_fetch_once(server, file):
    threads = [threading.Thread(target=get, args=(server, file)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 1 and file.read_bytes() == CONTENT


def test_a_full_disk_is_a_storage_error(server, file, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download._Download, "_append", full)
    with pytest.raises(StorageError, match="No space left"):
        get(server, file)
