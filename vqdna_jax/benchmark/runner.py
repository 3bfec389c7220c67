"""Runs a benchmark: one run of the trainer, or one control, a job.

A finished job is a small file, a cell, so a benchmark that was stopped goes on at the job where it was, and that job at
its last checkpoint. Several processes may share the work (`Plan.shard`), also on several machines with one folder.
"""

import contextlib
import dataclasses
import json
import pathlib
import sys
import time
from collections.abc import Mapping

from ml_collections import ConfigDict

from vqdna_jax.benchmark import cells, controls
from vqdna_jax.benchmark.cells import Cell, Scores
from vqdna_jax.benchmark.jobs import Job, Plan, config_of, folders, jobs, role_of
from vqdna_jax.benchmark.sets import find
from vqdna_jax.benchmark.sets.cards import CARDS
from vqdna_jax.errors import EXIT_STOPPED, InputError, StorageError, VqdnaError
from vqdna_jax.runtime.files import behind_links, read_json, replacing
from vqdna_jax.training.settings import FinetuneSettings, read


def run(plan: Plan) -> int:
    """Runs all jobs of this shard that are not finished. Returns the exit code: 0, or 42 after a signal.

    Raises InputError: no sets, a model that is none, or `out` holds a benchmark with other settings.
    """
    sets = folders(plan)
    check(plan, sets)
    _keep_compiled(plan.out)
    mine = list(jobs(plan, list(sets)))
    waiting = [job for job in mine if not cells.path_of(plan.out, *job).exists()]
    start = time.monotonic()
    for done, job in enumerate(waiting, start=1):
        cell = run_job(plan, sets[job.dataset], job)
        if cell is None:
            print("stopped, all saved; run the same command to go on", file=sys.stderr)
            return EXIT_STOPPED
        cells.write(plan.out, cell)
        left_s = (time.monotonic() - start) / done * (len(waiting) - done)
        _say(cell, len(mine) - len(waiting) + done, len(mine), left_s)
    return 0


def check(plan: Plan, sets: Mapping[str, pathlib.Path]) -> None:
    """Every set and model is read before the first job, and `out` must hold the same benchmark or none."""
    from vqdna_jax.inference.saved import pretrained

    for name, path in sets.items():
        for model in plan.models or [""]:
            read(FinetuneSettings, config_of(plan, path, Job(model, name, 0)).to_dict())
        if "test" not in find.read(CARDS[name], path).splits:
            raise InputError(f"{path}: test.csv is missing; expected it beside train.csv; or leave {name} out")
    digests = {name: pretrained.load(path).digest for name, path in plan.models.items()}
    settings = {"models": digests, "preset": plan.preset, "settings": sorted(plan.settings)}
    path = plan.out / "settings.json"
    if path.exists():
        saved = read_json(path, "the settings of a benchmark; name a new --out")
        changed = [key for key in ("preset", "settings") if saved.get(key) != settings[key]]
        known = saved.get("models")
        if not isinstance(known, dict):
            raise InputError(
                f"{path}: key models is {known!r}, expected digests by name; remove it, or name a new --out"
            )
        changed += [f"model {name}" for name, digest in known.items() if digests.get(name, digest) != digest]
        if changed:
            raise InputError(f"{plan.out}: holds a benchmark with other {', '.join(changed)}; name a new --out")
        settings["models"] = known | digests
    behind_links(plan.out).mkdir(parents=True, exist_ok=True)
    with replacing(path) as new:
        new.write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n")


def run_job(plan: Plan, folder: pathlib.Path, job: Job) -> Cell | None:
    """The finished cell; None when a signal stopped it. An error that only this job has is its cell's `failed`."""
    started, config, metric = time.monotonic(), config_of(plan, folder, job), CARDS[job.dataset].metric
    found: _Outcome | None
    try:
        if job.model in controls.NAMES:
            found = _control(config, job, metric)
        else:
            found = _finetune(config, cells.path_of(plan.out, *job).with_suffix(""))
    except StorageError:
        raise
    except VqdnaError as error:
        found = _Outcome(failed=f"error: {error}")
    if found is None:
        return None
    test, failed = found.test.get(metric), found.failed
    if test is None and not found.is_error:  # test may have a single class
        failed = f"error: {metric} is not defined on the labels and answers of test"
    return Cell(
        job.model,
        role_of(job.model),
        job.dataset,
        metric,
        job.seed,
        test=test,
        dev=found.dev.get(metric),
        failed=failed,
        attempts=found.attempts,
        seconds=round(time.monotonic() - started, 1),
        train_rows=found.train_rows,
        dev_scores=found.dev or None,
        test_scores=found.test or None,
    )


@dataclasses.dataclass(frozen=True)
class _Outcome:
    """What came of a job. Scores by metric."""

    dev: Scores = dataclasses.field(default_factory=dict)
    test: Scores = dataclasses.field(default_factory=dict)
    train_rows: int = 0
    failed: str | None = None
    attempts: int = 1

    @property
    def is_error(self) -> bool:
        return (self.failed or "").startswith("error")


def _control(config: ConfigDict, job: Job, metric: str) -> _Outcome:
    from vqdna_jax.stages.finetune import read_labelled

    labelled_set = read_labelled(read(FinetuneSettings, config.to_dict()).data)
    found = controls.run(job.model, labelled_set, metric, job.seed)
    return _Outcome(found["dev"], found["test"], len(labelled_set.splits["train"].bases))


def _finetune(config: ConfigDict, workdir: pathlib.Path) -> _Outcome | None:
    """Trains, with another seed again where one class is predicted; its words go to log.txt."""
    from vqdna_jax.retries import train_with_retries

    workdir.mkdir(parents=True, exist_ok=True)
    with open(workdir / "log.txt", "a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        code, ended_in = train_with_retries(config, workdir)
    if code == EXIT_STOPPED:
        return None
    last = pathlib.Path(ended_in)
    result = read_json(last / "result.json", "the result of a run; remove it to run this again")
    dev, test = (
        {key.removeprefix(split): value for key, value in result.items() if key.startswith(split)}
        for split in ("dev_", "test_")
    )
    rows = result.get("train_rows")
    if type(rows) is not int:
        raise InputError(
            f"{last}/result.json: key train_rows is {rows!r}, expected a number; remove it to run this again"
        )
    return _Outcome(
        dev,
        test,
        rows,
        failed="collapsed: predicts one class on dev" if result.get("dev_collapsed") else None,
        attempts=1 if last == workdir else 1 + int(last.name.removeprefix("retry_")),
    )


def _keep_compiled(out: pathlib.Path) -> None:
    """Jobs of one shape compile the same programs: once is enough."""
    import jax

    if not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]  # jax sets it
        jax.config.update("jax_compilation_cache_dir", str(out / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def _say(cell: Cell, number: int, total: int, left_s: float) -> None:
    score = "failed"
    if cell.test is not None:
        dev = "" if cell.dev is None else f" (dev {100 * cell.dev:.1f})"
        score = f"{cell.metric} {100 * cell.test:.1f}{dev}"
    mark = f"  {cell.failed}" if cell.failed else ""
    text = f"cell {number}/{total}  {cell.dataset}  {cell.model}  seed {cell.seed}: {score}{mark}"
    print(f"{text}  {cell.seconds:.0f} s, ETA {left_s / 60:.0f} min", file=sys.stderr, flush=True)
