"""What an export says of its networks is checked field by field before a tensor is read."""

import dataclasses
import pathlib

import pytest
import refusals

from vqdna_jax.models.lora import LoraConfig
from vqdna_jax.models.tokenizer import TokenizerConfig
from vqdna_jax.models.transformer import TransformerConfig
from vqdna_jax.runtime import exports

PATH = pathlib.Path("export/config.json")
KINDS = {"model": TokenizerConfig, "transformer": TransformerConfig, "lora": LoraConfig}
FIELDS = [(key, field.name) for key, kind in KINDS.items() for field in dataclasses.fields(kind)]


def refusal(key: str, values: object) -> str:
    return refusals.refusal(exports.typed, PATH, key, values, KINDS[key])


@pytest.mark.parametrize("key", KINDS)
def test_what_was_written_is_read(key):
    config = KINDS[key]()
    assert exports.typed(PATH, key, dataclasses.asdict(config), KINDS[key]) == config


@pytest.mark.parametrize(("key", "name"), FIELDS)
@pytest.mark.parametrize("value", [-1, "no", None, 0.5j])
def test_a_field_that_cannot_be_is_named(key, name, value):
    message = refusal(key, dataclasses.asdict(KINDS[key]()) | {name: value})
    assert message.startswith(f"{PATH}: key {key}.{name}: found {value!r}, expected ")


@pytest.mark.parametrize(("key", "name"), FIELDS)
def test_a_field_that_is_missing_or_unknown_is_named(key, name):
    values = dataclasses.asdict(KINDS[key]())
    value = values.pop(name)
    assert f"{PATH}: key {key}.{name} is missing" in refusal(key, values)
    assert f"key {key}.{name}_ does not exist; the closest is {key}.{name}" in refusal(
        key, values | {f"{name}_": value}
    )


@pytest.mark.parametrize(
    ("key", "changes", "says"),
    [
        ("model", {"blocks": 1}, "model.blocks: found 1, expected 2 or more"),
        ("transformer", {"heads": 7}, "transformer.width: found 768, expected a multiple of 2 x transformer.heads=7"),
    ],
)
def test_fields_that_do_not_fit_together(key, changes, says):
    assert says in refusal(key, dataclasses.asdict(KINDS[key]()) | changes)


@pytest.mark.parametrize("values", [None, 3, ["width"]])
def test_no_table_at_all(values):
    assert "key model: found" in refusal("model", values)
