"""Experiments: the file that a name means, and its config with KEY=VALUE overrides.

An experiment is a Python file with `get_config(preset)`. Those of configs/ come with the package, and lie in it where
it is installed. No jax in here: a mistyped command line is answered before jax is imported.
"""

import ast
import importlib.util
import operator
import pathlib
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any, Protocol

from ml_collections.config_dict import ConfigDict

from vqdna_jax.errors import InputError, first_line, shown
from vqdna_jax.runtime.typed import closest

_PACKAGE = pathlib.Path(__file__).parents[1]
_INSTALLED = _PACKAGE / "configs"
_SHIPPED = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent / "configs"  # of a clone
# Keys that say the same in two ways, of which one is above 0: who sets one by hand need not know that of the other.
_INSTEAD = {"train.total_steps": "train.total_epochs", "train.total_epochs": "train.total_steps"}
_TRUTH = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


def find(name: str) -> pathlib.Path:
    """The file of an experiment: a path, or one that comes with the package, named `hrq` or `configs/hrq.py`.

    Raises:
        InputError: there is none.
    """
    path = pathlib.Path(name)
    if path.suffix == ".py" and path.is_file():
        return path
    if path in (pathlib.Path(path.stem), pathlib.Path("configs", f"{path.stem}.py")) and path.stem in shipped():
        return _SHIPPED / f"{path.stem}.py"
    raise InputError(
        f"--config={shown(name)}: there is no Python file {shown(name)}; expected one, or one of {', '.join(shipped())}"
    )


def shipped() -> list[str]:
    """The names of the experiments that come with the package."""
    return sorted(file.stem for file in _SHIPPED.glob("[!_]*.py"))


def beside(file: str | pathlib.Path, name: str) -> pathlib.Path:
    """The experiment `name` that lies beside `file`, or else the one that comes with the package."""
    path = pathlib.Path(file).with_name(f"{name}.py")
    return path if path.is_file() else find(name)


def read_config(source: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """The config of FILE or FILE:PRESET, where FILE is what `find` takes, with KEY=VALUE overrides in their order.

    train.total_steps above 0 puts train.total_epochs at 0, and the other way round.

    Raises:
        InputError: no such file, preset or key, or a value of another type.
    """
    name, _, preset = source.partition(":")
    path = find(name)
    try:
        config = _get_config(path)(*filter(None, [preset]))
    except (ImportError, SyntaxError, TypeError, ValueError, OSError) as error:
        raise InputError(f"--config={source}: {first_line(error)}") from error
    for override in overrides:
        _set(config, override, path)
    return config


class _GetConfig(Protocol):
    def __call__(self, preset: str = ...) -> ConfigDict: ...


def _get_config(path: pathlib.Path) -> _GetConfig:
    spec = importlib.util.spec_from_file_location(f"experiment_{path.stem}", path)
    assert spec and spec.loader  # of a name that ends in .py, as `find` has it
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        return module.get_config
    except AttributeError as error:
        raise InputError(f"{path}: is no experiment, it has no function get_config(preset)") from error


def _set(config: ConfigDict, override: str, path: pathlib.Path) -> None:
    """Sets a key to its VALUE, read as one of the type that is there."""
    key, equals, text = override.partition("=")
    if not equals:
        raise InputError(f"config key {override!r}: expected KEY=VALUE, for example mesh.fsdp=16")
    known = dict(_entries(config))
    if key not in known:
        raise InputError(
            f"config key {key!r} does not exist, the closest is {closest(key, known)}; all keys are in {path}"
        )
    try:
        value = _parse(text, known[key])
        _put(config, key, value)
    except (KeyError, SyntaxError, ValueError) as error:
        raise InputError(f"config key {key}={text}: expected {_expected(key, known[key])}") from error
    if (other := _INSTEAD.get(key)) in known and value > 0:
        _put(config, other, type(known[other])(0))


def _put(config: ConfigDict, key: str, value: Any) -> None:
    *parents, last = key.split(".")
    reduce(operator.getitem, parents, config)[last] = value


def _entries(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All keys with their values, parents among them."""
    for name, value in config.items():
        yield f"{prefix}{name}", value
        if isinstance(value, ConfigDict):
            yield from _entries(value, f"{prefix}{name}.")


def _parse(text: str, like: Any) -> Any:
    """`text` as a value of the type of `like`. Raises KeyError, SyntaxError or ValueError where it is none."""
    if isinstance(like, bool):
        return _TRUTH[text.lower()]
    if isinstance(like, ConfigDict):
        return _parse_table(text, like)
    if isinstance(like, tuple):
        return tuple(ast.literal_eval(text) if text[:1] in ("(", "[") else filter(None, text.split(",")))
    return type(like)(text)


def _parse_table(text: str, like: ConfigDict) -> ConfigDict:
    value = ast.literal_eval(text)
    if like or not isinstance(value, dict):
        raise ValueError("only a table without names of its own may be given as a whole")
    return ConfigDict(value)


def _expected(key: str, like: Any) -> str:
    if isinstance(like, ConfigDict):
        return f"one of its keys, such as {key}.{next(iter(like))}" if like else "{'NAME': NUMBER, ...}"
    if isinstance(like, tuple):
        return "values with commas between them"
    kinds = {bool: "True or False", int: f"a whole number, such as {like}", float: f"a number, such as {like}"}
    return kinds[type(like)]
