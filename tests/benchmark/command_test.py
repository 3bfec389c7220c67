"""What rows the table of a benchmark has."""

import pathlib

import pytest
from small_labelled import write_splits

from vqdna_jax.benchmark import jobs
from vqdna_jax.benchmark.command import rows_of, say_unknown
from vqdna_jax.benchmark.jobs import Job
from vqdna_jax.errors import InputError

MODELS = {"a": pathlib.Path("A"), "b": pathlib.Path("B")}


def test_a_row_a_model_without_methods():
    rows, own = rows_of(MODELS)
    assert rows == MODELS
    assert not any(own.values())


def test_each_model_with_each_method_and_its_twin_with_the_same():
    rows, own = rows_of(MODELS, ["head", "full"], pathlib.Path("twins"))
    of_a = ["a, head", "a, head, untrained", "a, full", "a, full, untrained"]
    assert list(rows) == of_a + [name.replace("a,", "b,", 1) for name in of_a]
    assert (rows["b, full"], own["b, full"]) == (MODELS["b"], ["tuning.method=full"])
    assert (rows["b, full, untrained"], own["b, full, untrained"]) == (pathlib.Path("twins/b"), ["tuning.method=full"])
    assert [jobs.role_of(name) for name in of_a] == ["model", "control"] * 2


def test_a_method_that_there_is_not_is_refused():
    with pytest.raises(InputError, match="found 'some', expected some of lora, full, head"):
        rows_of(MODELS, ["head", "some"])


def test_the_settings_of_a_row_are_after_those_of_all():
    rows, own = rows_of(MODELS, ["head", "full"])
    settings = ["tuning.method=lora", "tuning.rank=4"]
    plan = jobs.Plan(pathlib.Path("GUE"), rows, pathlib.Path("out"), settings=settings, own=own)
    for name, directory in rows.items():
        config = jobs.config_of(plan, pathlib.Path("GUE/tf/0"), Job(name, "tf/0", 1))
        assert [f"tuning.method={config.tuning.method}"] == own[name]
        assert (config.pretrained, config.tuning.rank, config.seed) == (str(directory), 4, 1)


def test_folders_of_unknown_names_are_said_where_all_sets_are_wanted(tmp_path, capsys):
    for name in ("tf0", "mine"):
        write_splits(tmp_path / name, train=[("ACGT", 0), ("TTTT", 1)])
    say_unknown(tmp_path, [])
    printed = capsys.readouterr().err
    assert f"{tmp_path / 'mine'}; configs/finetune.py" in printed and "tf0" not in printed and printed.count("\n") == 1
    say_unknown(tmp_path, ["tf/0"])
    assert not capsys.readouterr().err
