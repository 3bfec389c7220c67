"""Places to write: what is whole takes them, links stay links, pipes and devices are written through or refused."""

import os
import stat
import subprocess
import sys
import threading

import pytest
from refusals import refusal

from vqdna_jax.errors import InputError, StorageError
from vqdna_jax.runtime.files import check_directory, check_output, replace_directory, replacing, writing

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes device nodes")


def put(path, content: bytes = b"whole") -> None:
    with writing(path) as file:
        file.write(content)


def replace(path, content: bytes = b"whole") -> None:
    with replacing(path) as new:
        new.write_bytes(content)


@pytest.mark.parametrize("write", [put, replace])
def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path, write):
    (tmp_path / "far").mkdir()
    (tmp_path / "far/old").write_bytes(b"old")
    for name, target in [("whole", "far/old"), ("dangling", "far/new"), ("twice", "whole")]:
        (tmp_path / name).symlink_to(target)
        check_output(tmp_path / name)
        write(tmp_path / name, name.encode())
        assert os.readlink(tmp_path / name) == target
        assert (tmp_path / name).read_bytes() == name.encode()
    assert sorted(path.name for path in (tmp_path / "far").iterdir()) == ["new", "old"]


@pytest.mark.parametrize("write", [put, replace])
def test_the_mode_of_what_was_there_is_kept(tmp_path, write):
    write(tmp_path / "new")
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o666 & ~umask
    for mode in (0o600, 0o640, 0o444):
        (tmp_path / "new").chmod(mode)
        write(tmp_path / "new", str(mode).encode())
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == mode
        assert (tmp_path / "new").read_bytes() == str(mode).encode()


def test_what_was_there_stays_where_the_work_fails(tmp_path):
    (tmp_path / "x").write_bytes(b"old")
    for write in (writing, replacing):
        with pytest.raises(ZeroDivisionError), write(tmp_path / "x"):
            raise ZeroDivisionError
        message = refusal(_fail_inside, write, tmp_path / "x", error=StorageError)
        assert message.startswith(f"{tmp_path}/x: ")
    assert [path.name for path in tmp_path.iterdir()] == ["x"] and (tmp_path / "x").read_bytes() == b"old"


def _fail_inside(write, path) -> None:
    with write(path):
        raise OSError(28, "No space left on device")


def test_a_pipe_is_written_through_or_refused(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    check_output(pipe, streams=True)  # must not open it: its reader would see an end
    put(pipe, b"x" * 200_000)
    reader.join(60)
    assert read == [b"x" * 200_000]
    assert "no stream" in refusal(check_output, pipe) == refusal(replace, pipe)
    assert stat.S_ISFIFO(pipe.stat().st_mode) and [path.name for path in tmp_path.iterdir()] == ["pipe"]


@as_root
def test_a_device_stays_a_device(tmp_path):
    device, full = tmp_path / "null", tmp_path / "full"
    for node, minor in ((device, 3), (full, 7)):
        os.mknod(node, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
    put(device)
    assert "No space left" in refusal(put, full, error=StorageError)
    assert "no stream" in refusal(replace, device)
    assert all(stat.S_ISCHR(node.stat().st_mode) for node in (device, full))


@pytest.mark.parametrize("spelling", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_standard_output_by_any_name_is_written_through(tmp_path, spelling, kind):
    """To a file it adds, as >> asks for: the file is neither emptied nor replaced."""
    (tmp_path / "link").symlink_to("/dev/stdout")
    program = "import sys\nfrom vqdna_jax.runtime.files import writing\nprint('before')\nsys.stdout.flush()\n"
    program += f"with writing({spelling!r}) as file:\n    file.write(b'through\\n')\nprint('after')"
    command = [sys.executable, "-c", program]
    (tmp_path / "out").write_bytes(b"old\n")
    if kind == "pipe":
        said = b"old\n" + subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=tmp_path).stdout
    else:
        with open(tmp_path / "out", "ab") as out:
            subprocess.run(command, check=True, stdout=out, cwd=tmp_path)
        said = (tmp_path / "out").read_bytes()
    assert said == b"old\nbefore\nthrough\nafter\n"


def test_a_file_that_is_not_open_for_writing_is_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"old")
    with open(tmp_path / "x", "rb") as file:
        for path in (f"/dev/fd/{file.fileno()}", "/dev/fd/999"):
            assert path in refusal(check_output, path, streams=True) == refusal(put, path)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("new/", "names a directory"),
        ("folder", "is a directory"),
        ("folder/", "names a directory"),
        ("to_folder", "is a directory"),
        ("absent/x", "No such file"),
        ("file/x", "Not a directory"),
        ("loop", "symbolic links"),
        ("y" * 256, "name too long"),
        ("input", "is the input"),
        ("to_input", "is the input"),
    ],
)
def test_what_can_be_no_file_is_refused_before_the_work(tmp_path, name, says):
    (tmp_path / "folder").mkdir()
    for link, target in [("to_folder", "folder"), ("loop", "loop"), ("to_input", "input")]:
        (tmp_path / link).symlink_to(target)
    for file in ("file", "input"):
        (tmp_path / file).write_bytes(b"old")
    before = sorted(os.listdir(tmp_path))
    message = refusal(check_output, f"{tmp_path}/{name}", [tmp_path / "input"])
    assert says in message and message.startswith(f"{tmp_path}/{name[:3]}"), message  # a long one is cut short
    assert sorted(os.listdir(tmp_path)) == before and (tmp_path / "input").read_bytes() == b"old"


def test_a_name_that_is_empty_is_refused():
    assert refusal(check_output, "") == "the name of the output is empty; name a file to write"


def test_the_longest_name_is_good(tmp_path):
    put(tmp_path / ("ä" * 127))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"whole"]


@pytest.mark.parametrize("target", ["far", "absent"])
def test_a_directory_is_replaced_behind_a_link(tmp_path, target):
    (tmp_path / "far").mkdir()
    (tmp_path / "far/kept").write_bytes(b"kept")
    (tmp_path / "link").symlink_to(target)
    check_directory(tmp_path / "link")
    replace_directory(tmp_path / "link", {"new": b"1"})
    assert os.readlink(tmp_path / "link") == target
    assert sorted(os.listdir(tmp_path / "link")) == (["kept", "new"] if target == "far" else ["new"])


@pytest.mark.parametrize("name", ["file", "file/below", "loop", "y" * 256])
def test_what_can_be_no_directory_is_refused_before_the_work(tmp_path, name):
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "loop").symlink_to("loop")
    assert f"{tmp_path}/{name[:3]}" in refusal(check_directory, tmp_path / name, error=InputError)
    check_directory(tmp_path / "new/and/below")
    assert sorted(os.listdir(tmp_path)) == ["file", "loop"]
