"""The benchmark: sets x seeds x models, one run of the trainer a cell, and controls beside them.

A finished cell is a small file, so a benchmark that was stopped goes on at the cell where it was, and that cell at its
last checkpoint. Several processes may share the work (`shard`), also on several machines with one folder.
"""

import contextlib
import dataclasses
import importlib.util
import json
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from vqdna_jax.benchmark import controls
from vqdna_jax.benchmark.sets import editing, find
from vqdna_jax.benchmark.sets.cards import CARDS
from vqdna_jax.errors import EXIT_STOPPED, InputError, StorageError, VqdnaError
from vqdna_jax.runtime.files import replacing
from vqdna_jax.stages import read_settings

CONFIG = pathlib.Path(__file__).parents[2] / "configs/finetune.py"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to run.

    Attributes:
        data: a folder of sets in any layout that `sets.find` knows. tasks: names of sets; empty: all found.
        models: name -> directory of a pretrained model. roles: name -> "model" or "control".
        settings: KEY=VALUE of configs/finetune.py for every cell, after the set's recipe.
        shard: (i, n): this process does every n-th cell from the i-th on.
    """

    data: pathlib.Path
    models: Mapping[str, pathlib.Path]
    out: pathlib.Path
    tasks: Sequence[str] = ()
    seeds: int = 3
    preset: str = "base"
    settings: Sequence[str] = ()
    roles: Mapping[str, str] = dataclasses.field(default_factory=dict)
    shard: tuple[int, int] = (0, 1)


def run(plan: Plan) -> int:
    """Runs all cells of this shard that are not finished. Returns the exit code: 0, or 42 after a signal.

    Raises InputError: no sets, a model that is none, or `out` holds a benchmark with other settings.
    """
    sets = prepare(plan)
    check(plan, sets)
    _keep_compiled(plan.out)
    cells = list(cells_of(plan, sets))
    mine = [cell for i, cell in enumerate(cells) if i % plan.shard[1] == plan.shard[0]]
    waiting = [cell for cell in mine if not path_of(plan, *cell).exists()]
    start = time.monotonic()
    for done, (dataset, model, seed) in enumerate(waiting):
        found = run_cell(plan, sets[dataset], dataset, model, seed)
        if found is None:
            print("stopped, all saved; run the same command to go on", file=sys.stderr)
            return EXIT_STOPPED
        _write(path_of(plan, dataset, model, seed), found)
        left = (time.monotonic() - start) / (done + 1) * (len(waiting) - done - 1)
        _say(found, len(mine) - len(waiting) + done + 1, len(mine), left)
    return 0


def prepare(plan: Plan) -> dict[str, pathlib.Path]:
    """Folders of the sets by name; editing tables are turned into such folders once."""
    sets = {}
    for name, path in find.find(plan.data, plan.tasks or None).items():
        if not path.is_dir():
            folder = plan.out / "data" / CARDS[name].key
            if not (folder / "train.csv").exists():
                editing.prepare(path, folder)
            path = folder
        sets[name] = path
    return sets


def check(plan: Plan, sets: Mapping[str, pathlib.Path]) -> None:
    """Every set and model is read before the first cell, and `out` must hold the same benchmark or none."""
    from vqdna_jax.inference import load as loading

    for name, path in sets.items():
        read_settings(cell_config(plan, path, name, "", 0))
        find.read(CARDS[name], path)
    digests = {name: loading.pretrained(path).pretrained_digest for name, path in plan.models.items()}
    settings = {"models": digests, "preset": plan.preset, "settings": sorted(plan.settings)}
    path = plan.out / "settings.json"
    if path.exists():
        saved = json.loads(path.read_text())
        changed = [key for key in ("preset", "settings") if saved[key] != settings[key]]
        changed += [f"model {name}" for name, digest in saved["models"].items() if digests.get(name, digest) != digest]
        if changed:
            raise InputError(f"{plan.out}: holds a benchmark with other {', '.join(changed)}; name a new --out")
        settings["models"] = saved["models"] | digests
    plan.out.mkdir(parents=True, exist_ok=True)
    _write(path, settings)


def cells_of(plan: Plan, sets: Mapping[str, pathlib.Path]):
    """(dataset, model, seed); seeds first, so that a benchmark stopped early has whole tables of fewer seeds. Controls
    are deterministic and have one."""
    for seed in range(plan.seeds):
        for dataset in sets:
            for model in plan.models:
                yield dataset, model, seed
            for control in controls.CONTROLS if seed == 0 else ():
                yield dataset, control, seed


def path_of(plan: Plan, dataset: str, model: str, seed: int) -> pathlib.Path:
    return plan.out / "cells" / model.replace(" ", "_") / CARDS[dataset].key / f"{seed}.json"


def run_cell(plan: Plan, path: pathlib.Path, dataset: str, model: str, seed: int) -> dict[str, Any] | None:
    """The finished cell, as `summaries` reads it; None when a signal stopped it."""
    started, config = time.monotonic(), cell_config(plan, path, dataset, model, seed)
    cell = {"model": model, "dataset": dataset, "seed": seed, "metric": CARDS[dataset].metric, "failed": None}
    cell |= {"role": "control" if model in controls.CONTROLS else plan.roles.get(model, "model"), "attempts": 1}
    try:
        if model in controls.CONTROLS:
            found = _control(config, model, cell["metric"])
        else:
            workdir = path_of(plan, dataset, model, seed).with_suffix("")
            found = _finetune(config, workdir)
    except StorageError:
        raise
    except VqdnaError as error:
        found = {"failed": f"error: {error}", "test": None, "dev": None, "train_rows": 0}
    if found is None:
        return None
    metric = cell["metric"]
    for split in ("dev", "test"):
        if split not in found:
            found[split] = found[f"{split}_scores"][metric]
    return cell | found | {"seconds": round(time.monotonic() - started, 1)}


def cell_config(plan: Plan, path: pathlib.Path, dataset: str, model: str, seed: int):
    """The config of a cell: preset, the set's recipe, the settings of the command line. Raises InputError."""
    card = CARDS[dataset]
    config = finetune_config(plan.preset)
    values = dict(card.recipe) | {
        "seed": seed,
        "data.labelled": str(path),
        "data.kind": card.kind,
        "data.long": "window",
    }
    values["data.label_names"] = card.label_names
    if model in plan.models:
        values["pretrained"] = str(plan.models[model])
    for setting in plan.settings:
        key, _, value = setting.partition("=")
        values[key] = value
    for key, value in values.items():
        _set(config, key, value)
    return config


def finetune_config(preset: str):
    spec = importlib.util.spec_from_file_location("finetune_config", CONFIG)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        return module.get_config(preset)
    except ValueError as error:
        raise InputError(str(error)) from error


def _set(config, key: str, value: Any) -> None:
    *parents, last = key.split(".")
    holder = config
    try:
        for part in parents:
            holder = holder[part]
        old = holder[last]
    except (KeyError, TypeError) as error:
        raise InputError(f"--set {key}: there is no such key; the keys are in configs/finetune.py") from error
    if isinstance(value, str) and not isinstance(old, str):
        try:
            value = {"True": True, "False": False}[value] if isinstance(old, bool) else type(old)(value)
        except (KeyError, ValueError) as error:
            raise InputError(f"--set {key}={value}: expected a value like {old!r}") from error
    holder[last] = value


def _control(config, name: str, metric: str) -> dict[str, Any]:
    from vqdna_jax.stages.finetune import read_labelled

    labelled_set = read_labelled(config.data)
    found = controls.run(name, labelled_set, metric)
    rows = len(labelled_set.splits["train"].bases)
    return {"dev_scores": found["dev"], "test_scores": found["test"], "train_rows": rows}


def _finetune(config, workdir: pathlib.Path) -> dict[str, Any] | None:
    """Trains, with another seed again where one class is predicted; its words go to log.txt."""
    from vqdna_jax.retries import train_with_retries

    workdir.mkdir(parents=True, exist_ok=True)
    with open(workdir / "log.txt", "a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        code, last = train_with_retries(config, workdir)
    if code == EXIT_STOPPED:
        return None
    result = json.loads((last / "result.json").read_text())
    by_split = {
        f"{split}_scores": {k.removeprefix(f"{split}_"): v for k, v in result.items() if k.startswith(f"{split}_")}
        for split in ("dev", "test")
    }
    failed = "collapsed: predicts one class on dev" if result["dev_collapsed"] else None
    attempts = 1 if last == workdir else 1 + int(last.name.removeprefix("retry_"))
    return by_split | {"failed": failed, "attempts": attempts, "train_rows": result["train_rows"]}


def finished(out: pathlib.Path) -> list[dict[str, Any]]:
    """All finished cells under `out`, in a fixed order."""
    return [json.loads(path.read_text()) for path in sorted((out / "cells").glob("*/*/*.json"))]


def _write(path: pathlib.Path, value: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as new:
        new.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


def _keep_compiled(out: pathlib.Path) -> None:
    """Cells of one shape compile the same programs: once is enough."""
    import jax

    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(out / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def _say(cell: dict, number: int, total: int, left_s: float) -> None:
    score = (
        "failed" if cell["test"] is None else f"{cell['metric']} {100 * cell['test']:.1f} (dev {100 * cell['dev']:.1f})"
    )
    text = f"cell {number}/{total}  {cell['dataset']}  {cell['model']}  seed {cell['seed']}: {score}"
    marks = f"  {cell['failed']}" if cell["failed"] else ""
    print(f"{text}{marks}  {cell['seconds']:.0f} s, ETA {left_s / 60:.0f} min", file=sys.stderr, flush=True)
