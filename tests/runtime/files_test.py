"""JSON files: what has no number in JSON is null, and what is no JSON object is refused in one line."""

import json

import pytest

from vqdna_jax.errors import InputError
from vqdna_jax.runtime.files import read_json, write_json


def test_what_is_not_finite_is_null_at_any_depth(tmp_path):
    nan, inf = float("nan"), float("inf")
    write_json(tmp_path / "x.json", {"a": nan, "b": [1.5, -inf, {"c": (inf, 2)}], "d": {"e": True, "f": "nan"}})
    assert read_json(tmp_path / "x.json", "it") == {
        "a": None,
        "b": [1.5, None, {"c": [None, 2]}],
        "d": {"e": True, "f": "nan"},
    }


def test_what_is_finite_is_read_back_exactly(tmp_path):
    value = {"third": 1 / 3, "big": 2**70, "none": None, "list": [], "text": "ä"}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json", "it") == value == json.loads((tmp_path / "x.json").read_text())


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "No such file or directory"),
        (b"", "not JSON"),
        (b'{"a": 1', "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1]", "holds a list, not a JSON object"),
        (b"null", "holds a NoneType, not a JSON object"),
    ],
)
def test_what_is_no_object_is_refused_in_one_line(tmp_path, content, problem):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_json(path, "the result of a run")
    assert str(error.value).startswith(f"{path}: {problem}") and "\n" not in str(error.value)
    assert str(error.value).endswith("; expected the result of a run")


def test_a_directory_is_no_file(tmp_path):
    with pytest.raises(InputError, match="Is a directory; expected it"):
        read_json(tmp_path, "it")
