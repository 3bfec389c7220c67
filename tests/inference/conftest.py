"""Exports of random weights, made once."""

import pathlib

import pytest
from tiny_pretrained import save_tiny_pretrained
from tiny_tokenizer import save_tiny


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory) -> pathlib.Path:
    """Of HRQ, eight bases per code. Read-only."""
    directory = tmp_path_factory.mktemp("exports") / "tokenizer"
    save_tiny(directory, "hrq", 8)
    return directory


@pytest.fixture(scope="session")
def pretrained_dir(tmp_path_factory) -> pathlib.Path:
    """Over a tokenizer of four bases per code, which lies beside it as "pretrained-tokenizer". Read-only."""
    directory = tmp_path_factory.mktemp("exports") / "pretrained"
    save_tiny_pretrained(directory, bases_per_code=4)
    return directory
