"""`--help-config`: every key has a meaning, and docs/configs.md is what it prints."""

import dataclasses
import pathlib
from collections.abc import Iterator

import pytest
from ml_collections import ConfigDict
from refusals import refusal

from vqdna_jax import main
from vqdna_jax.runtime.typed import Positive, keys_of
from vqdna_jax.stages import SETTINGS, listing
from vqdna_jax.training import experiments

ROOT = pathlib.Path(__file__).resolve().parents[2]
RECORDED = "recorded"  # the config itself, no key of it


def leaves(config: ConfigDict, prefix: str = "") -> Iterator[str]:
    """Every key that a command line can set, tables with names of their own as one."""
    for name, value in config.items():
        if isinstance(value, ConfigDict) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name


@pytest.mark.parametrize("task", SETTINGS)
def test_every_setting_says_what_it_must_be_and_what_it_means(task):
    keys = [key for key in keys_of(SETTINGS[task]) if key.name != RECORDED]
    assert len(keys) > 30
    assert [key.name for key in keys if not key.meaning or not key.expected] == []


@pytest.mark.parametrize(
    "source", [f"{name}:{preset}" for name in experiments.shipped() for preset in ("base", "tiny")]
)
def test_an_experiment_lists_its_keys_with_its_values(source):
    config, text = experiments.read_config(source), " ".join(listing.describe([source]).split())
    listed = {line.split("`")[1] for line in text.split(" - ")[1:]}
    assert listed == set(leaves(config))
    assert f"(a positive integer; `{config.data.global_batch}`)" in text


def test_values_of_several_experiments_say_whose_they_are():
    text = " ".join(listing.describe().split())
    rates = [experiments.read_config(name).optimizer.learning_rate for name in ("hrq", "mcm", "finetune")]
    said = "`{}` in hrq and vqvae; `{}` in mcm; `{}` in finetune".format(*rates)
    assert f"by what is tuned and the width of the base (a number, 0 or more; {said})" in text
    assert text.count("`model.width`") == 2 and text.count("`optimizer.b1`") == 1  # a key of two meanings, and of one


def test_the_page_is_current():
    """If it is not: `python -m vqdna_jax.main --help-config > docs/configs.md`."""
    assert (ROOT / "docs/configs.md").read_text() == f"{listing.describe()}\n"


def test_the_trainer_prints_it_without_a_workdir(capsys):
    assert main.main(["main.py", "--help-config", "--config=mcm:tiny"]) == 0
    assert capsys.readouterr().out == f"{listing.describe(['mcm:tiny'])}\n"
    with pytest.raises(SystemExit) as stop:
        main.main(["main.py", "--help-config", "--config", "mcn"])
    assert stop.value.code == 43 and "mcn" in capsys.readouterr().err


def test_a_stage_that_there_is_not_is_refused(tmp_path):
    text = (
        "from ml_collections import ConfigDict\ndef get_config(preset='base'):\n    return ConfigDict({'task': 'mlm'})"
    )
    (tmp_path / "own.py").write_text(text)
    assert "found 'mlm', expected one of vocabulary" in refusal(listing.describe, [f"{tmp_path}/own.py"])


def test_meanings_of_extended_and_of_nested_settings_are_found():
    @dataclasses.dataclass
    class Inner:
        """Attributes: none here."""

        size: Positive

    @dataclasses.dataclass
    class Base:
        """What is there.

        Attributes:
            width: in bases, over
                two lines.

        More words: not of an attribute.
        """

        width: int

    @dataclasses.dataclass
    class Extended(Base):
        """Attributes follow.

        Attributes:
            inner: has its own.
            name: of it: a: b.
        """

        inner: Inner
        name: str

    keys = [(key.name, key.expected, key.meaning) for key in keys_of(Extended, "x.")]
    assert keys == [
        ("x.width", "an integer", "in bases, over two lines."),
        ("x.inner.size", "a positive integer", ""),
        ("x.name", "text", "of it: a: b."),
    ]
