"""The `vqdna` command: tyro turns the functions of verbs.py into it. `vqdna VERB --help` prints their docstrings."""

import contextlib
import functools
import inspect
import io
import itertools
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

import tyro

from vqdna_jax import errors
from vqdna_jax.cli.verbs import GO_ON, GROUPS, VERBS
from vqdna_jax.runtime.files import is_stream
from vqdna_jax.runtime.leaving import leave_with
from vqdna_jax.runtime.stopping import Stopped, StopRequest
from vqdna_jax.version import __version__

_DESCRIPTION = (
    "A genome tokenizer learned by vector quantization. `vqdna VERB --help` explains a verb,"
    " `vqdna --version` says which version this is."
)
EXIT_UNREAD = 128 + signal.SIGPIPE  # as a shell says of a process that wrote to a closed pipe


def parse(argv: Sequence[str]) -> Callable[[], None]:
    """The call that `argv` asks for, not yet made. Raises InputError, one line, where that is no usage."""
    if list(argv) == ["--version"]:
        return functools.partial(print, f"vqdna {__version__}")
    _refuse_empty(argv)
    printed, group = io.StringIO(), [word for word in argv[:1] if word in GROUPS]
    try:
        # Of standard output, which may be closed, tyro asks what it can show.
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(sys.stdout or io.StringIO()):
            return tyro.extras.subcommand_cli_from_dict(
                {name: _deferred(verb) for name, verb in _choices(*group).items()},
                prog=" ".join(["vqdna", *group]),
                description=f"{GROUPS[group[0]]}." if group else _DESCRIPTION,
                args=argv[len(group) :],
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
    raise errors.InputError(_one_line(printed.getvalue(), argv))


def _refuse_empty(argv: Sequence[str]) -> None:
    """Raises InputError: a value is empty that may not be. A path of no letters would be the folder that one is in."""
    verb = next((name for name in (" ".join(argv[:2]), *argv[:1]) if name in VERBS), None)
    if verb is None:
        return
    parameters = inspect.signature(VERBS[verb]).parameters
    for before, argument in itertools.pairwise(argv):
        option, equals, value = argument.partition("=")
        name = option if equals else before
        if argument and (value or not equals or not option.startswith("--")):
            continue
        parameter = parameters.get(name.removeprefix("--").replace("-", "_"))
        if parameter is None or parameter.default != "":
            what = f"{name}: what follows" if name.startswith("--") else "the name of a file"
            raise errors.InputError(f"{what} is empty; is it of a variable that is not set? (see vqdna {verb} --help)")


def _choices(group: str = "") -> Mapping[str, Callable[..., None]]:
    """The verbs by what comes next on the command line: their names, of a group the words after its own."""
    if group:
        return {name.removeprefix(f"{group} "): verb for name, verb in VERBS.items() if name.startswith(f"{group} ")}
    return {name.split()[0]: _listed(name.split()[0]) if " " in name else verb for name, verb in VERBS.items()}


def _listed(group: str) -> Callable[..., None]:
    """A group as the list of all verbs has it; what it is called with, `_choices` of the group reads."""

    def verb() -> None: ...

    verb.__doc__ = f"{GROUPS[group]}: {', '.join(_choices(group))}."
    return verb


def main(argv: Sequence[str] | None = None) -> None:
    """Does what `argv`, by default the command line, asks for. Exits where that fails, after one line on stderr."""
    goes_on = False
    with errors.report_and_exit(), StopRequest() as stop:
        try:
            call = parse(sys.argv[1:] if argv is None else argv)
            goes_on = _goes_on(call)
            call()
        except BrokenPipeError:  # who reads standard output has read enough
            sys.exit(EXIT_UNREAD)
        except Stopped:
            what = "run the same command to go on" if goes_on else "what was begun is removed"
            print(f"stopped by {stop.name}; {what}", file=sys.stderr)
            sys.exit(errors.EXIT_STOPPED if goes_on else 128 + signal.Signals[stop.name])


def _goes_on(call: Callable[[], None]) -> bool:
    """Whether the verb keeps what it has done when it is stopped; nothing is kept beside a stream."""
    out = getattr(call, "keywords", {}).get("out", "")
    return getattr(call, "func", None) in GO_ON and not (out and is_stream(out))


def command() -> NoReturn:
    """The `vqdna` command: a process of its own."""
    leave_with(main)


def _deferred(verb: Callable[..., None]) -> Callable[..., Callable[[], None]]:
    """Same signature and help, but called later: what a verb prints and raises is not a usage error."""

    @functools.wraps(verb)
    def bind(*args, **kwargs):
        return functools.partial(verb, *args, **kwargs)

    # tyro would break lines where the source does; Python 3.13 has taken the indentation of the whole away before.
    bind.__doc__ = re.sub(r"\n {8,}", " ", inspect.getdoc(verb) or "")
    vars(bind)["__signature__"] = inspect.signature(verb)
    del vars(bind)["__wrapped__"]  # of which tyro would read the docstring
    return bind


def _one_line(message: str, argv: Sequence[str]) -> str:
    """tyro draws a box with a title, sections and a hint; keeps the words of the sections, of missing options names."""
    title, *rows = re.sub(r"\x1b\[[0-9;]*m", "", message).splitlines()
    if title.startswith("╭"):
        rows = [row.strip("│").rstrip() for row in rows if "│" in row]
    else:  # standard output is not UTF-8: there are lines for the sections, and blanks for the box
        rows = [row[1:].rstrip() for row in rows[1:]]
    sections = "\n".join("" if set(row.strip()) in ({"─"}, {"-"}) else row for row in rows).split("\n\n")
    said = [_words(section) for section in sections if "helptext" not in section]
    begun = (" ".join(argv[:words]) for words in (2, 1))
    verb = next((f"{name} " for name in begun if name in VERBS or name in GROUPS), "")
    return "; ".join(filter(None, said)) + f" (see vqdna {verb}--help)"


def _words(section: str) -> str:
    """What a section says, in one line. What is missing is listed by name: its help is `--help`'s."""
    first, *rows = section.splitlines() or [""]
    if first.strip().startswith("Missing"):
        rows = [", ".join(row.strip() for row in rows if not row.startswith(" " * 9))]
    return " ".join(row.strip() for row in (first, *rows)).rstrip(".")


if __name__ == "__main__":
    command()
