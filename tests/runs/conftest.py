"""What whole runs share."""

import pathlib

import pytest
from small_run import run, small_config


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> pathlib.Path:
    """The workdir of one undisturbed run of `small_config`. Read-only."""
    workdir = tmp_path_factory.mktemp("undisturbed")
    assert run(small_config(), workdir) == 0
    return workdir


@pytest.fixture(scope="session")
def place(tmp_path_factory) -> pathlib.Path:
    """Where configs of stages 2 and 3 put their inputs."""
    return tmp_path_factory.mktemp("inputs")
