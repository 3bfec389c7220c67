"""`vqdna benchmark`: a folder of sets, models, and what comes out of them."""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence

from vqdna_jax.benchmark import jobs, runner
from vqdna_jax.benchmark.cells import finished
from vqdna_jax.benchmark.controls import Controls
from vqdna_jax.benchmark.jobs import UNTRAINED
from vqdna_jax.benchmark.report import publish
from vqdna_jax.benchmark.sets import check, contamination, find
from vqdna_jax.benchmark.untrained import save_untrained
from vqdna_jax.errors import InputError
from vqdna_jax.models.classifier import METHODS
from vqdna_jax.runtime import shipped
from vqdna_jax.runtime.files import behind_links
from vqdna_jax.training import workdir


def run(
    data: pathlib.Path,
    models: Sequence[str],
    out: pathlib.Path,
    tasks: Sequence[str],
    seeds: int,
    preset: str,
    settings: Sequence[str],
    untrained: bool,
    shard: str,
    controls: Controls = "linear",
    methods: Sequence[str] = (),
    as_json: bool = False,
) -> int:
    """Runs the benchmark and writes its table and page. Returns the exit code, 0 or 42. Raises InputError, also where
    no cell has a score.

    Args:
        models: as `shipped.find` takes them, or NAME=MODEL. untrained: also each model's untrained twin, as a control.
        shard: "i/n". controls: as `jobs.Plan` has them. methods: of tuning, each a row; none: as the settings say.
        as_json: print results.json on stdout, not the table.
    """
    workdir.check(out)
    say_unknown(data, tasks)
    named = names_of(models)
    rows, own = rows_of(named, methods, out / "untrained" if untrained else None)
    plan = jobs.Plan(data, rows, out, tasks, seeds, preset, settings, shard_of(shard), controls, own)
    for name in named if untrained else ():
        save_untrained(named[name], out / "untrained" / name)
    code = runner.run(plan)
    if not code:
        facts = {"fine-tuning": f"preset {preset} of configs/finetune.py, {' '.join(settings) or 'as it is'}"}
        page = publish.publish(out, " ".join(["vqdna", *sys.argv[1:]]), facts)
        print((out / ("results.json" if as_json else "table.md")).read_text())
        where = sys.stderr if as_json else sys.stdout
        print(f"page {page}, table.md, results.json and cells.csv in {out}", file=where)
        _check_any(out)
    return code


def _check_any(out: pathlib.Path) -> None:
    cells = finished(out)
    if cells and all(cell.is_error for cell in cells):
        advice = "mend that, and name a new --out"
        raise InputError(f"{out}: none of its {len(cells)} cells has a score, the first: {cells[0].failed}; {advice}")


def run_check(data: pathlib.Path, tasks: Sequence[str], as_json: bool, corpus: pathlib.Path | None = None) -> int:
    """Says what is wrong with a folder of sets, and what of their test rows is in `corpus`. Returns 43 if anything is
    wrong, else 0."""
    say_unknown(data, tasks)
    found = contamination.look_for(data, corpus, tasks or None) if corpus else {}
    reports = check.check(data, tasks or None)
    rows = [dataclasses.asdict(report) | {"status": report.status} for report in reports]
    for row in rows if corpus else ():
        row["in_corpus"] = dataclasses.asdict(found[row["name"]]) if row["name"] in found else None
    told = [check.describe(reports), *([contamination.describe(found)] if corpus else [])]
    print(json.dumps(rows, indent=2) if as_json else "\n\n".join(told))
    return InputError.exit_code if any(report.status == "error" for report in reports) else 0


def say_unknown(data: pathlib.Path, tasks: Sequence[str]) -> None:
    """One line on stderr, where all sets of a folder are wanted and some in it are none of the benchmark's."""
    others = [] if tasks else find.unknown(data)
    if others:
        named = ", ".join(str(path) for path in others[:3]) + (" and others" if len(others) > 3 else "")
        advice = "configs/finetune.py takes any labelled folder (data.labelled)"
        print(f"passed over, no set of the benchmark has such a name: {named}; {advice}", file=sys.stderr)


def names_of(models: Sequence[str]) -> dict[str, pathlib.Path]:
    """Directories by the names they were given, else that of the run they were exported from, or that they ship under.

    Raises InputError: there is no such model, or a name is taken.
    """
    named: dict[str, pathlib.Path] = {}
    for model in models:
        name, _, path = model.rpartition("=")
        directory = shipped.find(path)
        resolved = behind_links(directory)
        name = name or (resolved.parent.name if resolved.name == "export" else resolved.name)
        if name in named or "/" in name:
            raise InputError(f"--model={model}: the name {name!r} is taken or has a /; expected --model=NAME=MODEL")
        named[name] = directory
    return named


def rows_of(
    models: Mapping[str, pathlib.Path], methods: Sequence[str] = (), untrained: pathlib.Path | None = None
) -> tuple[dict[str, pathlib.Path], dict[str, Sequence[str]]]:
    """(directories, KEY=VALUE of fine-tuning) by row: each model with each method, and after each its twin, which lies
    in `untrained` under the model's name.

    Raises InputError: there is no such method.
    """
    for method in methods:
        if method not in METHODS:
            raise InputError(f"--methods={','.join(methods)}: found {method!r}, expected some of {', '.join(METHODS)}")
    rows: dict[str, pathlib.Path] = {}
    own: dict[str, Sequence[str]] = {}
    for name, directory in models.items():
        for method in methods or [""]:
            row, settings = (f"{name}, {method}", [f"tuning.method={method}"]) if method else (name, [])
            twin = {row + UNTRAINED: untrained / name} if untrained else {}
            rows |= {row: directory} | twin
            own |= dict.fromkeys([row, *twin], settings)
    return rows, own


def shard_of(text: str) -> tuple[int, int]:
    """The numbers of "i/n"; `jobs.Plan` checks that they fit each other. Raises InputError."""
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit()):
        raise InputError(f"--shard={text}: expected i/n, for example 0/2")
    return int(index), int(count)
