"""The command line of a run: both spellings of an option, every key of the config, what is refused."""

import os
import sys

import pytest

from vqdna_jax import main
from vqdna_jax.errors import InputError


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config=hrq:tiny", "--workdir=runs/x", "--config.train.total_steps=7", "--processes=2"],
        ["--config", "hrq:tiny", "--workdir", "runs/x", "--config.train.total_steps", "7", "--processes", "2"],
        ["--processes=2", "--config.train.total_steps=7", "--workdir=runs/x", "--config=configs/hrq.py:tiny"],
    ],
)
def test_options_are_spelled_in_either_way_and_order(arguments):
    command = main.parse(["main.py", *arguments])
    assert (command.workdir, command.config.train.total_steps) == ("runs/x", 7)
    assert (command.coordinator, command.processes, command.process, command.found_by) == ("", 2, -1, "")


def test_a_command_line_leaves_nothing_for_the_next_one():
    main.parse(["main.py", "--config=hrq:tiny", "--workdir=x", "--config.seed=5", "--multihost=slurm"])
    command = main.parse(["main.py", "--config=hrq:tiny", "--workdir=y"])
    assert (command.config.seed, command.found_by) == (0, "")


@pytest.mark.parametrize(
    "arguments, says",
    [
        ([], "--config is missing, for example --config=hrq:tiny"),
        (["--config=hrq:tiny"], "--workdir is missing, for example --workdir=runs/hrq"),
        (["--config=hrq:tiny", "--workdri=x"], "Did you mean: workdir ?"),
        (["--config=hrq:tiny", "--workdir=x", "stray", "words"], "unexpected stray words"),
        (["--config=hrq:tiny", "--workdir=x", "--process=-2"], "process=-2"),
        (["--config=hrq:tiny", "--workdir=x", "--multihost=moon"], "moon"),
        (["--config=hrq:tiny", "--workdir=x", "--config.seed"], "config key seed=: expected a whole number"),
    ],
)
def test_what_it_does_not_understand_is_refused_in_one_line(arguments, says):
    with pytest.raises(InputError) as refused:
        main.parse(["main.py", *arguments])
    assert says in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["file", "file/below", "loop", "y" * 300, os.fsdecode(b"no-text-\xff"), "null"])
def test_a_workdir_that_cannot_be_is_refused_before_anything_is_prepared(tmp_path, name, capsys):
    sys.stderr.reconfigure(errors="backslashreplace")  # as that of a process
    (tmp_path / "file").write_text("old")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "null").symlink_to("/dev/null")
    with pytest.raises(SystemExit) as stop:
        main.main(["main.py", "--config=hrq:tiny", "--config.data.corpus=/absent", f"--workdir={tmp_path / name}"])
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 43 and f"{tmp_path}/{name[:7]}" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "loop", "null"]
