"""Every kind of file: what was found by fuzzing stays mended, and a few thousand wrong files find nothing new."""

import pytest
from fuzz_targets import TARGETS
from fuzzing import INPUTS, fuzz, smallest, tried

FOUND = sorted(path for path in INPUTS.glob("*/*"))


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_was_found_is_read_or_refused_as_it_should_be(path, tmp_path):
    tried(TARGETS[path.parent.name], path.read_bytes(), tmp_path)


@pytest.mark.parametrize("name", ["fasta", "gzip", "csv", "safetensors"])
def test_good_files_are_read(name, tmp_path):
    assert all(tried(TARGETS[name], seed, tmp_path) for seed in TARGETS[name].seeds())


@pytest.mark.parametrize("data", [b"XY", b"aXbbY", b"XXaaYYcc" * 9, b"-" * 99 + b"X" + b"-" * 1000 + b"Y"])
def test_what_is_kept_is_as_small_as_it_goes(data):
    assert smallest(data, lambda part: b"X" in part and b"Y" in part[part.index(b"X") :]) == b"XY"


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_two_minutes_find_nothing(name):
    inputs, read = fuzz(name, 120)
    assert inputs > read > 0
