"""Downloads from servers that break off, stall, lie and refuse: the right file in the end, or one line."""

import hashlib
import http.server
import random
import threading
from pathlib import Path

import fsspec
import pytest
import requests

from vqdna_jax.cli.verbs import corpus as corpus_verb
from vqdna_jax.errors import InputError, PeerError, StorageError
from vqdna_jax.genome import corpus
from vqdna_jax.genome.build.assemblies import fetch_assemblies, read_assemblies
from vqdna_jax.genome.corpus import open_corpus
from vqdna_jax.genome.remote import download
from vqdna_jax.genome.remote.download import Patience, fetch
from vqdna_jax.genome.remote.places import Checksum

CONTENT = random.Random(3).randbytes(700_000)
MD5 = Checksum("md5", hashlib.md5(CONTENT).hexdigest())
BUNDLED = Path(corpus.__file__).parent / "bundled"
HASTY = Patience(connect_s=2, stall_s=0.25, tries=4, pause_s=0.001, longest_pause_s=0.05)


class Server(http.server.ThreadingHTTPServer):
    """Answers each request with the next of `acts`, the last for ever; `requests` are the headers that came."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.acts, self.requests = {"/genome.fa.gz": CONTENT}, [], []
        self.over = threading.Event()

    def url(self, path: str = "/genome.fa.gz") -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"

    def handle_error(self, request, client_address):
        pass  # a client that has had enough


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.requests.append(dict(self.headers))
        acts = self.server.acts
        act = acts.pop(0) if len(acts) > 1 else acts[0] if acts else whole
        act(self, self.server.files.get(self.path, CONTENT))

    def start(self, status: int, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()


def part_of(handler, content) -> tuple[int, dict, bytes]:
    """Status, headers and body that the request asks for."""
    etag = f'"{hashlib.md5(content).hexdigest()}"'
    asked, condition = handler.headers["Range"], handler.headers["If-Range"]
    if not asked or condition not in (None, etag):
        return 200, {"ETag": etag, "Content_Length": len(content)}, content
    start = int(asked.removeprefix("bytes=").removesuffix("-"))
    if start >= len(content):
        return 416, {"Content_Range": f"bytes */{len(content)}", "Content_Length": 0}, b""
    span = f"bytes {start}-{len(content) - 1}/{len(content)}"
    return 206, {"ETag": etag, "Content_Range": span, "Content_Length": len(content) - start}, content[start:]


def whole(handler, content):
    status, headers, body = part_of(handler, content)
    handler.start(status, **headers)
    handler.wfile.write(body)


def cut(size, stall=False):
    def act(handler, content):
        status, headers, body = part_of(handler, content)
        handler.start(status, **headers)
        handler.wfile.write(body[:size])
        handler.wfile.flush()
        if stall:
            handler.server.over.wait(5)

    return act


def ignores_range(handler, content):
    handler.start(200, Content_Length=len(content))
    handler.wfile.write(content)


def no_length(handler, content):
    handler.start(200)
    handler.wfile.write(content)


def short_length(handler, content):
    handler.start(200, Content_Length=len(content) - 1000)
    handler.wfile.write(content)


def wrong_range(handler, content):
    handler.start(206, Content_Range=f"bytes 0-{len(content) - 1}/{len(content)}", Content_Length=len(content))
    handler.wfile.write(content)


def calls_it_gzip(handler, content):
    handler.start(200, Content_Length=len(content), Content_Encoding="gzip")
    handler.wfile.write(content)


def other_bytes(handler, content):
    whole(handler, content[:-1] + b"?")


def says(status, **headers):
    return lambda handler, content: handler.start(status, Content_Length=0, **headers)


def silent(handler, content):
    handler.close_connection = True


@pytest.fixture(scope="module")
def running():
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def server(running):
    running.acts, running.requests = [], []
    return running


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


def listed(tmp_path, text: str) -> Path:
    path = tmp_path / "species.tsv"
    path.write_text(text.replace(" ", "\t"))
    return path


GOOD = f"a http://h/a.fa {MD5}"


@pytest.mark.parametrize(
    ("lines", "line", "word"),
    [
        (["name url"], 1, "no column 'checksum'"),
        (["name url checksum sha1"], 1, "'sha1'"),
        (["name url checksum name"], 1, "'name'"),
        (["a http://h/a.fa md5:00"], 1, "no column 'name'"),
        (["# of 2026", "", "name url checksum", GOOD, "b http://h/b.fa"], 5, "2 columns, expected 3"),
        (["name url checksum", GOOD, f"a http://h/b.fa {MD5}"], 3, "'a' is also in line 2"),
        (["name url checksum", GOOD, f"b http://h/a.fa {MD5}"], 3, "also in line 2"),
        (["name url checksum", f"../a http://h/a.fa {MD5}"], 2, "name is"),
        (["name url checksum", f" http://h/a {MD5}"], 2, "name"),
        (["name url checksum", "a http://h/a.fa md5:0123"], 2, "checksum is 'md5:0123'"),
        (["name url checksum", f"a http://h/a.fa {MD5.hex}"], 2, "expected md5: or sha256:"),
        (["name url checksum", "a http://h/a.fa sha1:" + "0" * 40], 2, "sha1"),
        (["name url checksum", f"a  {MD5}"], 2, "url is ''"),
        (["name url checksum bytes", f"{GOOD} many"], 2, "bytes is 'many'"),
        (["name url checksum bytes", f"{GOOD} 0"], 2, "bytes"),
    ],
)
def test_a_list_with_a_mistake_is_refused_by_line(tmp_path, lines, line, word):
    with pytest.raises(InputError) as refused:
        read_assemblies(listed(tmp_path, "\n".join(lines) + "\n"))
    assert f"species.tsv:{line}: " in str(refused.value) and word in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_is_no_list_is_refused(tmp_path):
    for content in (b"", b"# nothing\n", b"name\turl\tchecksum\n", b"\x1f\x8b\xff\x00", b"name\turl\n"):
        (tmp_path / "species.tsv").write_bytes(content)
        with pytest.raises(InputError, match=r"species\.tsv"):
            read_assemblies(tmp_path / "species.tsv")
    with pytest.raises(InputError, match="No such file"):
        read_assemblies(tmp_path / "absent.tsv")


def test_a_list_becomes_a_corpus(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VQDNA_CACHE", str(tmp_path / "cache"))
    phage, plant = ((BUNDLED / f"{name}.fa.gz").read_bytes() for name in ("phiX174", "arabidopsis_chloroplast"))
    server.files |= {"/phage.fa.gz": phage, "/a%20b/genome.fa.gz?v=1": plant}
    (tmp_path / "here.fa").write_text(">a\nACGTACGTACGT\n")
    sums = [hashlib.sha256(content).hexdigest() for content in (phage, plant, (tmp_path / "here.fa").read_bytes())]
    species = listed(
        tmp_path,
        f"# comment\nchecksum name bytes url\n"
        f"sha256:{sums[0].upper()} virus {len(phage)} {server.url('/phage.fa.gz')}\r\n\n"
        f"sha256:{sums[1]} plant  {server.url('/a%20b/genome.fa.gz?v=1')}\nsha256:{sums[2]} here  here.fa\n",
    )
    corpus_verb(str(tmp_path / "out"), species=species)
    entries = open_corpus(tmp_path / "out").manifest["species"]
    assert [entry["name"] for entry in entries] == ["virus", "plant", "here"]
    assert [entry["source"]["sha256"] for entry in entries] == sums
    assert [entry["source"]["name"] for entry in entries] == ["phage.fa.gz", "genome.fa.gz", "here.fa"]
    assert entries[0]["source"]["url"] == server.url("/phage.fa.gz") and "url" not in entries[2]["source"]
    before = len(server.requests)
    corpus_verb(str(tmp_path / "again"), species=species)
    assert len(server.requests) == before
    assert open_corpus(tmp_path / "again").digest == open_corpus(tmp_path / "out").digest


def test_a_list_may_name_a_store(tmp_path):
    fsspec.filesystem("memory").pipe_file("/species/genome.fa", CONTENT)
    lines = f"name url checksum\na memory://species/genome.fa {MD5}\n"
    for _ in range(2):  # the second time it is there
        (source,) = fetch_assemblies(read_assemblies(listed(tmp_path, lines)), tmp_path / "downloads", progress=False)
        assert Path(source.path).read_bytes() == CONTENT and source.name == "genome.fa"
    for url, word in [("memory://species/no.fa", "No such file"), ("htp://h/a.fa", "nothing is known of htp")]:
        with pytest.raises(InputError, match=rf"species\.tsv:2: {url}: .*{word}"):
            fetch_assemblies(read_assemblies(listed(tmp_path, f"name url checksum\na {url} {MD5}\n")), tmp_path / "d")


def test_all_others_are_fetched_before_the_first_failure_is_told(server, tmp_path):
    lines = [f"s{index} {server.url(f'/{index}')} {MD5}" for index in range(6)]
    lines[2] = f"s2 {server.url('/2')} md5:{'0' * 32}"
    lines[4] = f"s4 absent.fa {MD5}"
    assemblies = read_assemblies(listed(tmp_path, "\n".join(["name url checksum", *lines])))
    with pytest.raises(InputError, match=r"species\.tsv:4: .*md5 is .* \(and 1 more of 6 assemblies\)"):
        fetch_assemblies(assemblies, tmp_path / "downloads", HASTY, progress=False)
    whole_files = [path for path in (tmp_path / "downloads").iterdir() if not path.name.endswith(".lock")]
    assert len(whole_files) == 4 and all(path.read_bytes() == CONTENT for path in whole_files)
