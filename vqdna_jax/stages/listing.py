"""Every key of the configs with what it must be, its value in the experiments and its meaning, as Markdown."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from vqdna_jax.runtime.typed import Key, keys_of
from vqdna_jax.stages import SETTINGS, kind_of
from vqdna_jax.training import experiments

WIDTH = 120
_STAGES = list(SETTINGS.values())
_TASK = Key("task", f"one of {', '.join(SETTINGS)}", "the stage.")
_TOP = "The whole run"
_INTRODUCTION = (
    "`--config.KEY=VALUE` sets a key for a run of `python -m vqdna_jax.main`; `--help-config` prints this list, with"
    " `--config=NAME:PRESET` that of one experiment. In brackets: what a value must be, and what it is in"
)


def describe(sources: Sequence[str] = ()) -> str:
    """The keys of these experiments, FILE:PRESET each, by default of all that come with the package.

    Raises InputError as `experiments.read_config`, and for a stage that there is not.
    """
    configs = {source: experiments.read_config(source) for source in sources or experiments.shipped()}
    configs = dict(sorted(configs.items(), key=lambda named: _STAGES.index(kind_of(named[1]))))
    values: dict[Key, dict[str, str]] = {}
    for source, config in configs.items():
        for key in _keys(config):
            values.setdefault(key, {})[source] = _shown(_value(config, key.name))
    groups: dict[str, list[str]] = {}
    for key, found in values.items():
        group = key.name.rpartition(".")[0] or _TOP
        groups.setdefault(group, []).append(_line(key, found, len(configs)))
    introduction = textwrap.fill(f"{_INTRODUCTION} {_listed(list(configs))}.", WIDTH)
    sections = [f"## {group}\n" + "\n".join(lines) for group, lines in groups.items()]
    return "\n\n".join(["# Every key of a config", introduction, *sections])


def _keys(config: ConfigDict) -> Iterator[Key]:
    """Those that the config has."""
    yield _TASK
    for key in keys_of(kind_of(config)):
        if _value(config, key.name) is not None:
            yield key


def _value(config: ConfigDict, name: str) -> Any:
    """None where there is no such key."""
    value: Any = config
    for part in name.split("."):
        value = value.get(part) if isinstance(value, ConfigDict) else None
    return value


def _shown(value: Any) -> str:
    if isinstance(value, ConfigDict | tuple):
        value = ",".join(value)
    return f"`{value}`" if str(value) else "empty"


def _line(key: Key, found: Mapping[str, str], experiments_listed: int) -> str:
    of: dict[str, list[str]] = {}
    for source, value in found.items():
        of.setdefault(value, []).append(source)
    everywhere = len(of) == 1 and len(found) == experiments_listed
    told = [value if everywhere else f"{value} in {_listed(sources)}" for value, sources in of.items()]
    text = f"`{key.name}`: {key.meaning.removesuffix('.')} ({key.expected}; {'; '.join(told)})"
    return textwrap.fill(text, WIDTH, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
