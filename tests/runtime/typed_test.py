"""Values become a dataclass only if every field is there, of its type, within its rule; complaints name the key."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vqdna_jax.runtime import typed
from vqdna_jax.runtime.typed import BadField, NonNegative, OddSize, Positive, PositiveNumber, Rule, Share, read

FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@dataclasses.dataclass(frozen=True)
class Inner:
    low: int
    high: int

    def check_fields(self, prefix: str) -> None:
        typed.expect(self.low <= self.high, f"{prefix}high", self.high, f"at least {prefix}low={self.low}")


@dataclasses.dataclass(frozen=True)
class Outer:
    count: Positive
    rate: PositiveNumber
    name: str
    on: bool
    kind: Literal["a", "b"]
    sizes: tuple[Positive, ...]
    weights: Mapping[str, Share]
    inner: Inner
    step: Annotated[NonNegative, Rule(lambda v: v % 2 == 0, "an even number")] = 2


WHOLE = {
    "count": 3,
    "rate": 0.5,
    "name": "x",
    "on": True,
    "kind": "b",
    "sizes": (1, 2),
    "weights": {"e": 0.5},
    "inner": {"low": 1, "high": 2},
    "step": 4,
}


def test_a_whole_mapping_is_read_field_by_field():
    outer = read(Outer, WHOLE)
    assert dataclasses.asdict(outer) == WHOLE and outer.inner == Inner(1, 2)
    assert read(Outer, WHOLE | {"sizes": [1, 2]}) == outer  # as JSON has it


def test_an_integer_is_a_number():
    outer = read(Outer, WHOLE | {"rate": 2})
    assert outer.rate == 2.0 and type(outer.rate) is float


def test_a_default_may_be_left_out_unless_all_is_asked_for():
    less = {key: value for key, value in WHOLE.items() if key != "step"}
    assert read(Outer, less).step == 2
    with pytest.raises(BadField, match="^key step is missing$"):
        read(Outer, less, complete=True)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Outer) if field.name != "step"])
def test_a_field_without_default_may_not(name):
    with pytest.raises(BadField, match=f"^key at.{name} is missing$"):
        read(Outer, {key: value for key, value in WHOLE.items() if key != name}, "at.")


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("count", 0, "key at.count: found 0, expected a positive integer"),
        ("count", True, "key at.count: found True, expected a positive integer"),
        ("count", 1.0, "key at.count: found 1.0, expected a positive integer"),
        ("count", None, "key at.count: found None, expected a positive integer"),
        ("rate", float("nan"), "key at.rate: found nan, expected a positive number"),
        ("rate", float("inf"), "key at.rate: found inf, expected a positive number"),
        ("count", 10**30, f"key at.count: found {10**30}, expected at most {2**56}"),
        ("rate", 10**400, "expected a positive number"),
        ("rate", "fast", "key at.rate: found 'fast', expected a positive number"),
        ("name", 3, "key at.name: found 3, expected text"),
        ("name", ["a\nb"], r"key at.name: found ['a\nb'], expected text"),
        ("on", 1, "key at.on: found 1, expected True or False"),
        ("kind", "c", "key at.kind: found 'c', expected one of a, b"),
        ("kind", ["a"], "key at.kind: found ['a'], expected one of a, b"),
        ("sizes", 1, "key at.sizes: found 1, expected a list"),
        ("sizes", "12", "key at.sizes: found '12', expected a list"),
        ("sizes", (1, 0), "key at.sizes[1]: found 0, expected a positive integer"),
        ("weights", 1, "key at.weights: found 1, expected a table"),
        ("weights", {"e": 1}, "key at.weights.e: found 1, expected a share"),
        ("inner", 1, "key at.inner: found 1, expected a table of keys"),
        ("inner", {"low": 1}, "key at.inner.high is missing"),
        ("inner", {"low": 3, "high": 2}, "key at.inner.high: found 2, expected at least at.inner.low=3"),
        ("inner", {"low": 1, "hihg": 2}, "key at.inner.hihg does not exist; the closest is at.inner.high"),
        ("step", -2, "key at.step: found -2, expected an integer, 0 or more"),
        ("step", 3, "key at.step: found 3, expected an even number"),
    ],
)
def test_what_cannot_be_is_one_line_with_its_key(name, value, complaint):
    with pytest.raises(BadField) as caught:
        read(Outer, WHOLE | {name: value}, "at.")
    assert complaint in str(caught.value) and "\n" not in str(caught.value) and caught.value.exit_code == 43


@given(st.integers() | FLOATS | st.booleans() | st.text() | st.none() | st.lists(st.integers()))
@example(typed.MOST - 1)
@example(typed.MOST + 1)
def test_a_value_is_of_its_type_and_rule_or_refused(value):
    @dataclasses.dataclass(frozen=True)
    class One:
        size: OddSize
        share: Share = 0.0

    for name, holds in (
        ("size", type(value) is int and 0 < value <= typed.MOST and value % 2 == 1),
        ("share", type(value) in (int, float) and 0 <= value < 1),
    ):
        values = {"size": 1} | {name: value}
        if holds:
            assert getattr(read(One, values), name) == value
        else:
            with pytest.raises(BadField, match=f"key {name}: found"):
                read(One, values)


@given(st.lists(st.sampled_from(["mean", "max", "cls", "sum", ""]), max_size=4).map("+".join))
def test_joined_options(text):
    rule = typed.joined("mean", "max", "cls")
    assert rule.holds(text) == all(part in ("mean", "max", "cls") for part in text.split("+"))


def test_flat_names_every_leaf():
    assert typed.flat({"a": 1, "b": {"c": (1, 2), "d": {"e": "x"}}}) == {"a": 1, "b.c": [1, 2], "b.d.e": "x"}


@pytest.mark.parametrize(("name", "known"), [("windw_bp", "window_bp"), ("bach", "batch"), ("zzz", "batch")])
def test_there_is_always_a_closest_name(name, known):
    found = typed.closest(name, ["batch", "window_bp"])
    assert found in ("batch", "window_bp") and (name == "zzz" or found == known)
