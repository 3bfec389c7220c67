"""Frozen dataclasses from the plain values of a config or of a JSON file, by rules that are part of the fields' types.

@dataclasses.dataclass(frozen=True)
class Window:
    bases: Positive
    stride: Annotated[int, Rule(lambda v: v in (1, 2), "1 or 2")] = 1

read(Window, {"bases": 0}, "data.")  # BadField: key data.bases: found 0, expected a positive integer
"""

import dataclasses
import difflib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    Protocol,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
    runtime_checkable,
)

from vqdna_jax.errors import InputError


class Rule(NamedTuple):
    """What a value must be beside of its type; `expected` ends the sentence "found 0, expected ..."."""

    holds: Callable[[Any], bool]
    expected: str


def one_of(*options: Any) -> Rule:
    return Rule(lambda value: value in options, f"one of {', '.join(map(str, options))}")


def joined(*options: str, alone: tuple[str, ...] = ()) -> Rule:
    """Of text: some of the options, joined by "+", or one of those that stand `alone`."""
    known = ", ".join(options) + "".join(f"; or {option}" for option in alone)
    return Rule(
        lambda text: text in alone or all(part in options for part in text.split("+")),
        f'some of {known}, several joined by "+"' if alone else f'one of {known}, or several joined by "+"',
    )


MOST = 1 << 56  # arrays of more cannot even be described

# Numbers are finite, and integers of no more than MOST, whatever the rule.
Positive = Annotated[int, Rule(lambda v: v > 0, "a positive integer")]
NonNegative = Annotated[int, Rule(lambda v: v >= 0, "an integer, 0 or more")]
OddSize = Annotated[int, Rule(lambda v: v > 0 and v % 2 == 1, "an odd size, at least 1")]
PositiveNumber = Annotated[float, Rule(lambda v: v > 0, "a positive number")]
NonNegativeNumber = Annotated[float, Rule(lambda v: v >= 0, "a number, 0 or more")]
Share = Annotated[float, Rule(lambda v: 0 <= v < 1, "a share, at least 0 and under 1")]
InnerShare = Annotated[float, Rule(lambda v: 0 < v < 1, "between 0 and 1, without the ends")]

_EXPECTED = {bool: "True or False", int: "an integer", float: "a number", str: "text", tuple: "a list", dict: "a table"}


class Key(NamedTuple):
    """A key that `read` takes: its name, what its value must be, and what its dataclass's docstring says of it."""

    name: str
    expected: str
    meaning: str


class BadField(InputError):
    """One line that begins with the key: "key model.width: found 0, expected a positive integer"."""


@runtime_checkable
class Checked(Protocol):
    """A dataclass some of whose fields must fit each other."""

    def check_fields(self, prefix: str) -> None:
        """Raises BadField; `prefix` goes before the names of the fields, as in `read`."""
        ...


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


Fields = TypeVar("Fields", bound=_Dataclass)


def expect(holds: bool, key: str, value: object, expected: str) -> None:
    """Raises BadField unless it `holds`."""
    if not holds:
        raise BadField(f"key {key}: found {value!r}, expected {expected}")


def read(kind: type[Fields], values: object, prefix: str = "", *, complete: bool = False) -> Fields:
    """The dataclass `kind` of a mapping that has its fields' names as keys, nested ones as mappings in it.

    Args:
        prefix: of the keys in complaints: "model.".
        complete: whether fields that have a default must be there too.

    Raises:
        BadField: a key is missing or unknown, a value has another type (an integer is a number, True is not) or breaks
            a rule, or the values do not fit together.
    """
    if not isinstance(values, Mapping):
        raise BadField(f"key {prefix[:-1]}: found {values!r}, expected a table of keys")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key in values:
        if key not in fields:
            raise BadField(f"key {prefix}{key} does not exist; the closest is {prefix}{closest(key, fields)}")
    given = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if name in values:
            given[name] = _value(hint, values[name], prefix + name, complete)
        elif name in fields and (complete or not _has_default(fields[name])):
            raise BadField(f"key {prefix}{name} is missing")
    result = kind(**given)
    if isinstance(result, Checked):
        result.check_fields(prefix)
    return result


def keys_of(kind: type, prefix: str = "") -> Iterator[Key]:
    """The keys of a dataclass and of those in it, in their order; `prefix` goes before their names."""
    hints, said = get_type_hints(kind, include_extras=True), _attributes(kind)
    for field in dataclasses.fields(kind):
        base, rules = _split(hints[field.name])
        if isinstance(base, type) and dataclasses.is_dataclass(base):
            yield from keys_of(base, f"{prefix}{field.name}.")
            continue
        base = get_origin(base) or base
        expected = rules[0].expected if rules else _EXPECTED.get(dict if base is Mapping else base, "")
        yield Key(prefix + field.name, expected, said.get(field.name, ""))


def defaults_of(kind: type, prefix: str = "") -> dict[str, Any]:
    """{key: value} of the fields of a dataclass, and of those in it, that have a default, as `flat` has them."""
    hints, values = get_type_hints(kind, include_extras=True), dict[str, Any]()
    for field in dataclasses.fields(kind):
        base, _ = _split(hints[field.name])
        if isinstance(base, type) and dataclasses.is_dataclass(base):
            values |= defaults_of(base, f"{prefix}{field.name}.")
        elif field.default is not dataclasses.MISSING:
            values |= flat({field.name: field.default}, prefix)
    return values


def _attributes(kind: type) -> dict[str, str]:
    """{name: text} of the docstring's section `Attributes:`, of the dataclasses that it extends too."""
    found: dict[str, str] = {}
    for owner in reversed(kind.__mro__):
        section = inspect.cleandoc(owner.__doc__ or "").partition("Attributes:\n")[2].partition("\n\n")[0]
        for name, text in re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section, re.MULTILINE):
            found[name] = " ".join(text.split())
    return found


def closest(name: str, known: Iterable[str]) -> str:
    """Which of the `known` names is most like this one."""
    return difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"data.window_bp": 512, ...}, with lists for tuples, as JSON has them."""
    values: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            values |= flat(value, f"{prefix}{key}.")
        else:
            values[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return values


def _has_default(field: dataclasses.Field) -> bool:
    return not (field.default is field.default_factory is dataclasses.MISSING)


def _value(hint: Any, value: Any, key: str, complete: bool) -> Any:
    kind, rules = _split(hint)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return read(kind, value, f"{key}.", complete=complete)
    base = get_origin(kind) or kind
    base = dict if base is Mapping else base
    expect(_is(base, value), key, value, rules[0].expected if rules else _EXPECTED.get(base, ""))
    expect(type(value) is not int or abs(value) <= MOST, key, value, f"at most {MOST}")
    for rule in rules:
        expect(rule.holds(value), key, value, rule.expected)
    if base is tuple:
        return tuple(_value(get_args(kind)[0], item, f"{key}[{i}]", complete) for i, item in enumerate(value))
    if base is dict:
        return {name: _value(get_args(kind)[1], item, f"{key}.{name}", complete) for name, item in value.items()}
    return float(value) if base is float else value


def _split(hint: Any) -> tuple[Any, tuple[Rule, ...]]:
    """A field's type and its rules; the options of a Literal are one."""
    if get_origin(hint) is Annotated:
        inner, *rules = get_args(hint)
        kind, more = _split(inner)
        return kind, (*more, *rules)
    if get_origin(hint) is Literal:
        return type(get_args(hint)[0]), (one_of(*get_args(hint)),)
    return hint, ()


def _is(kind: Any, value: Any) -> bool:
    if kind is float:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max
    if kind is tuple:
        return isinstance(value, (list, tuple))
    return kind is Any or (isinstance(value, Mapping) if kind is dict else type(value) is kind)
