"""Every verb and every kind of place, to read from and to write to: it works, or one line names the place.

`small_verbs` has the verbs. What is refused leaves everything as it was; what is written through a link, a pipe or into
a name that is no text is what would be in a plain file.
"""

import itertools
import os
import pathlib
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator

import pytest
from small_verbs import VERBS, make_inputs, run, start_benchmark

NOBODY = 65534
LONG = "y" * 300
READERS, WRITERS = list(VERBS), [name for name, verb in VERBS.items() if verb.writes != "nothing"]
NOT_UTF8 = os.fsdecode(b"not-utf8-\xff")


@pytest.fixture(scope="module")
def inputs() -> Iterator[pathlib.Path]:
    """Where another user may look, which pytest's own folders forbid."""
    with tempfile.TemporaryDirectory(prefix="vqdna-places-") as directory:
        place = pathlib.Path(directory)
        place.chmod(0o755)
        make_inputs(place)
        yield place


@pytest.fixture
def place(inputs) -> Iterator[pathlib.Path]:
    with tempfile.TemporaryDirectory(dir=inputs) as directory:
        pathlib.Path(directory).chmod(0o755)
        yield pathlib.Path(directory)


@pytest.fixture(scope="module")
def plain(inputs) -> dict[str, pathlib.Path]:
    """What each verb writes into a plain place. Also imports all that they import, which another user may not read."""
    made = {}
    for name in WRITERS:
        made[name] = inputs / "plain" / name
        made[name].parent.mkdir(exist_ok=True)
        if name == "benchmark":
            start_benchmark(made[name])
        assert run(VERBS[name].call(name, str(inputs / VERBS[name].reads), str(made[name]), inputs)) == 0
    return made


def listing(directory: pathlib.Path) -> dict[str, tuple]:
    """Everything below it: kinds, modes, contents."""
    found = {}
    for path in sorted(directory.rglob("*")):
        mode = path.lstat().st_mode
        found[str(path)] = mode, path.read_bytes() if stat.S_ISREG(mode) else b""
    return found


def refused(arguments: list[str], capsys, code: int = 43) -> str:
    """The one line of a call that must fail with this code."""
    capsys.readouterr()
    found, said = run(arguments), capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and said.err.startswith("error: "), said
    assert found == code, said.err
    return said.err


def contents(path: pathlib.Path) -> dict[str, bytes]:
    """Of a file or of all files of a folder, but for what says where or when."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return {
        file.name if file != path else "": file.read_bytes() for file in files if file.suffix not in (".html", ".json")
    }


def device(path: pathlib.Path, minor: int = 3) -> pathlib.Path:
    if os.geteuid():
        pytest.skip("only root makes device nodes")
    os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
    return path


def fifo(path: pathlib.Path) -> pathlib.Path:
    os.mkfifo(path)
    return path


def link(path: pathlib.Path, target: str) -> pathlib.Path:
    path.symlink_to(target)
    return path


def closed(path: pathlib.Path) -> pathlib.Path:
    """A folder of root's."""
    path.mkdir(mode=0o700)
    return path


def full_folder(path: pathlib.Path) -> pathlib.Path:
    path.mkdir()
    (path / "kept").write_text("kept")
    return path


# Places where a verb cannot write, and where one that writes a folder can or cannot.
NO_OUTPUT: dict[str, Callable[[pathlib.Path], object]] = {
    "a device": lambda place: device(place / "null"),
    "a link to a device": lambda place: link(place / "link", str(device(place / "null"))),
    "a pipe": lambda place: fifo(place / "fifo"),
    "a folder": lambda place: full_folder(place / "folder"),
    "a link to a folder": lambda place: link(place / "link", str(full_folder(place / "folder"))),
    "a slash": lambda place: f"{place / 'new'}/",
    "a slash after a file": lambda place: f"{shutil.copy('/etc/hostname', place / 'old')}/",
    "a long name": lambda place: place / LONG,
    "below a long name": lambda place: place / LONG / "x",
    "below a file": lambda place: f"{shutil.copy('/etc/hostname', place / 'old')}/x",
    "a link to itself": lambda place: link(place / "link", "link"),
    "a file": lambda place: shutil.copy("/etc/hostname", place / "old"),
}
GOOD_FOR = {
    "stream": {"a device", "a link to a device", "a pipe", "a file"},
    "file": {"a file"},
    "directory": {"a slash"},
}
GOES_ON = {"a folder", "a link to a folder"}  # of the benchmark, which may share one


def is_refused(name: str, kind: str) -> bool:
    return kind not in GOOD_FOR[VERBS[name].writes] and not (name == "benchmark" and kind in GOES_ON)


@pytest.mark.parametrize(
    ("name", "kind"), [pair for pair in itertools.product(WRITERS, NO_OUTPUT) if is_refused(*pair)]
)
def test_where_nothing_can_be_written_it_is_said_before_the_work(name, kind, inputs, plain, place, capsys):
    verb = VERBS[name]
    out = NO_OUTPUT[kind](place)
    before = listing(place)
    assert str(out).rstrip("/")[:60] in refused(verb.call(name, str(inputs / verb.reads), str(out), inputs), capsys)
    assert listing(place) == before


@pytest.mark.parametrize("name", WRITERS)
def test_where_another_user_may_not_write_it_is_said(name, inputs, plain, place, capsys):
    verb = VERBS[name]
    for out in (closed(place / "closed") / "x", place / "x"):
        with as_nobody():
            assert str(out) in refused(verb.call(name, str(inputs / verb.reads), str(out), inputs), capsys)
    assert [path.name for path in place.rglob("*")] == ["closed"]


class as_nobody:
    """The effective user of this process is another one meanwhile, who is not let into what is root's."""

    def __enter__(self):
        if os.geteuid():
            pytest.skip("only root becomes another user")
        os.seteuid(NOBODY)

    def __exit__(self, *_):
        os.seteuid(0)


def good_kinds(name: str) -> list[str]:
    """A benchmark behind a dangling link would train."""
    kinds = ["link", "dangling", "not UTF-8", "slash" if VERBS[name].writes == "directory" else "old"]
    return [kind for kind in kinds if (name, kind) != ("benchmark", "dangling")]


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name in WRITERS for kind in good_kinds(name)])
def test_where_it_can_be_written_it_is_what_a_plain_place_has(name, kind, inputs, plain, place, capsys):
    verb = VERBS[name]
    if name in ("corpus", "tracks", "benchmark") and kind == "not UTF-8":
        assert "UTF-8" in refused(verb.call(name, str(inputs / verb.reads), str(place / NOT_UTF8), inputs), capsys)
        return
    real, out = place / "real", {"slash": f"{place}/real/", "not UTF-8": place / NOT_UTF8}.get(kind, place / "link")
    if kind in ("link", "old") and verb.writes == "directory":
        real.mkdir()
    elif kind in ("link", "old"):
        real.write_text("old")
    if kind in ("link", "dangling"):
        link(place / "link", "real")
    if kind == "old":
        out = real
    real = place / NOT_UTF8 if kind == "not UTF-8" else real
    if name == "benchmark":
        start_benchmark(real)
    assert run(verb.call(name, str(inputs / verb.reads), str(out), inputs)) == 0
    assert contents(real) == contents(plain[name])
    assert not (place / "link").exists() or os.readlink(place / "link") == "real"
    assert not list(place.rglob(".*"))


@pytest.mark.parametrize("name", [name for name in WRITERS if VERBS[name].writes == "stream"])
def test_a_stream_goes_through_pipes_and_devices(name, inputs, plain, place):
    verb, read = VERBS[name], []
    pipe = fifo(place / "fifo")
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    assert run(verb.call(name, str(inputs / verb.reads), str(pipe), inputs)) == 0
    reader.join(60)
    assert read == [plain[name].read_bytes()] and stat.S_ISFIFO(pipe.stat().st_mode)
    null = device(place / "null")
    assert run(verb.call(name, str(inputs / verb.reads), str(null), inputs)) == 0
    assert stat.S_ISCHR(null.stat().st_mode)


# Places that cannot be read: each verb says so, of its input and of its model.
NO_INPUT: dict[str, Callable[[pathlib.Path], object]] = {
    "absent": lambda place: place / "absent",
    "a dangling link": lambda place: link(place / "link", "absent"),
    "a link to itself": lambda place: link(place / "link", "link"),
    "an endless device": lambda place: device(place / "zero", 5),
    "an empty device": lambda place: device(place / "null"),
    "an empty folder": lambda place: (place / "folder").mkdir() or place / "folder",
    "a long name": lambda place: place / LONG,
    "a sequence": lambda place: "ACGT" * 100,
    "below a file": lambda place: f"{shutil.copy('/etc/hostname', place / 'old')}/x",
    "not UTF-8": lambda place: place / NOT_UTF8,
}


@pytest.mark.parametrize("kind", NO_INPUT)
@pytest.mark.parametrize("name", READERS)
def test_what_cannot_be_read_is_named(name, kind, inputs, plain, place, capsys):
    verb = VERBS[name]
    source = str(NO_INPUT[kind](place))
    before = listing(place)
    message = refused(verb.call(name, source, str(place / "out"), inputs), capsys)
    assert source.encode("utf-8", "backslashreplace").decode()[:60] in message
    if verb.model:
        message = refused(verb.call(name, str(inputs / verb.reads), str(place / "out"), inputs, source), capsys)
        assert source.encode("utf-8", "backslashreplace").decode()[:60] in message
    assert listing(place) == before


@pytest.mark.parametrize("name", READERS)
def test_what_another_user_may_not_read_is_named(name, inputs, plain, place, capsys):
    verb, hidden, out = VERBS[name], closed(place / "closed") / "x", place / "open" / "out"
    copy = shutil.copytree if (inputs / verb.reads).is_dir() else shutil.copy
    copy(inputs / verb.reads, hidden)
    (place / "open").mkdir()
    (place / "open").chmod(0o777)
    unreadable = place / "unreadable.py"
    unreadable.write_bytes(b">a\nACGT\n")
    unreadable.chmod(0o600)
    for source in (hidden, unreadable):
        with as_nobody():
            assert str(source) in refused(verb.call(name, str(source), str(out), inputs), capsys)
            if verb.model:
                message = refused(verb.call(name, str(inputs / verb.reads), str(out), inputs, str(hidden)), capsys)
                assert str(hidden) in message
    assert list((place / "open").iterdir()) == []


READS_FILES = [name for name in WRITERS if name not in ("benchmark", "export")]


@pytest.mark.parametrize(
    ("name", "kind"),
    [pair for pair in itertools.product(READS_FILES, ("link", "not UTF-8", "pipe")) if pair != ("map", "pipe")],
)
def test_what_can_be_read_by_any_name_is_read(name, kind, inputs, plain, place):
    verb = VERBS[name]
    original, out = inputs / verb.reads, place / "out"
    source = place / {"link": "in.fa", "not UTF-8": f"{NOT_UTF8}.fa", "pipe": "in.fa"}[kind]
    if kind == "pipe":
        os.mkfifo(source)
        threading.Thread(target=lambda: source.write_bytes(original.read_bytes()), daemon=True).start()
    elif kind == "link":
        source.symlink_to(original)
    else:
        shutil.copy(original, source)
    assert run(verb.call(name, str(source), str(out), inputs)) == 0
    found, expected = contents(out), contents(plain[name])
    if name == "map" or kind == "not UTF-8" and name in ("corpus", "species"):  # the file's name is in what is written
        found, expected = found.keys(), expected.keys()
    assert found == expected
