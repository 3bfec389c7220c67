"""A run that does nothing but save, killed again and again.

    python tests/killed_runs.py DIR KILLS SEED [disk]

Each start is a process forked of this one, on either of two machines, and its work directory is in a store that fails
now and then; with `disk` it is on a disk, written by orbax, and after some kills a bit of the newest checkpoint flips.
After each kill what is there must be whole: prints how often it was killed and how far the run came, or raises.
"""

import itertools
import json
import os
import pathlib
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator

import fsspec
import jax
import numpy as np

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[1]), str(pathlib.Path(__file__).resolve().parent)]

from small_checkpoints import abstract, scaled  # noqa: E402

from tools.chaos import damage  # noqa: E402
from tools.processes import Flaky  # noqa: E402
from vqdna_jax.runtime import files  # noqa: E402
from vqdna_jax.runtime.remote import store  # noqa: E402
from vqdna_jax.training import lease, mirror, workdir  # noqa: E402
from vqdna_jax.training.checkpoint import Checkpoints  # noqa: E402

KEEP = 2
SHORT_S = 1.5  # the longest that a start is left alone for where there is a core for it
DAMAGED = 0.1  # of the kills on a disk


def content(step: int) -> bytes:
    return random.Random(step).randbytes(10_000)


def go_on(url: str) -> None:
    """From the newest checkpoint, without an end."""
    with workdir.open_workdir(url) as opened:
        checkpoints = opened.path / "checkpoints"
        done = max((int(path.name) for path in checkpoints.glob("*") if not files.broken(path)), default=0)
        assert done == 0 or (checkpoints / str(done) / "state").read_bytes() == content(done)
        for step in logged(opened.path / "metrics.jsonl", done):
            unnamed = checkpoints / f"{step}.tmp"
            (unnamed / "d").mkdir(parents=True)
            (unnamed / "state").write_bytes(content(step))
            (unnamed / "d/more").write_bytes(content(-step))
            files.seal(unnamed)
            opened.copy_save(unnamed, step, KEEP)
            unnamed.rename(checkpoints / str(step))


def go_on_on_a_disk(path: str) -> None:
    """As `go_on`, with a run's checkpoints."""
    with workdir.open_workdir(path) as opened:
        checkpoints = Checkpoints(opened.path / "checkpoints", KEEP, opened.run_id)
        state, meta = checkpoints.restore(abstract(scaled(1))) or (None, {"next_step": 0})
        done = meta["next_step"]
        if done:
            jax.tree.map(np.testing.assert_array_equal, state, scaled(done))
        for step in logged(opened.path / "metrics.jsonl", done):
            checkpoints.save(step, scaled(step), {"config": {}})


def logged(log: pathlib.Path, done: int) -> Iterator[int]:
    """The steps after `done`, each in the log, which is cut behind `done` before."""
    rows = log.read_text().splitlines()[:done] if log.exists() else []
    assert [json.loads(row)["step"] for row in rows] == list(range(1, done + 1)), (done, rows)
    with files.replacing(log) as new:
        new.write_text("".join(f"{row}\n" for row in rows))
    for step in itertools.count(done + 1):
        with log.open("a") as file:
            file.write(json.dumps({"step": step}) + "\n")
        yield step


def newest(place: pathlib.Path, damaged: int | None = None) -> int:
    """Of the whole checkpoints. Raises AssertionError where another one than `damaged` is not whole but sealed, though
    a seal may be on its way to a store, or where the log before it is cut."""
    sealed = [path.parent for path in place.glob("checkpoints/*/files.json") if path.parent.name.isdigit()]
    problems = {int(path.name): files.broken(path) for path in sealed}
    for step, lines in problems.items():
        assert step == damaged or all(line.startswith(files.SEAL) for line in lines), (step, lines)
    step = max((step for step, lines in problems.items() if not lines), default=0)
    rows = (place / "metrics.jsonl").read_text().splitlines() if step else []
    assert len(rows) >= step, (step, len(rows))
    return step


def start(run: Callable[[str], None], url: str, machine: pathlib.Path) -> int:
    if child := os.fork():
        return child
    os.environ["VQDNA_CACHE"] = str(machine)
    code = 1
    try:
        random.seed()  # of what fails: another one than this process's
        run(url)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        code = getattr(error, "exit_code", 1)
    finally:
        os._exit(code)


def killed(place: pathlib.Path, kills: int, seed: int, disk: bool) -> tuple[int, int, int]:
    """(kills, the newest step, how many were damaged); on a busy machine starts are given longer, so that every third
    or so comes to a save."""
    draw, done, step, longest, damaged, flips = random.Random(seed), 0, 0, SHORT_S, None, 0
    run, url = (go_on_on_a_disk, f"{place}/run") if disk else (go_on, f"flaky://{place}/run")
    while done < kills:
        child = start(run, url, place / f"machine_{draw.randrange(2)}")
        time.sleep(draw.uniform(0.0, longest))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        done += os.WIFSIGNALED(status)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 45, status
        now = newest(place / "run", damaged)
        assert now >= step, f"{now} after {step}"
        longest = max(SHORT_S, longest * (0.7 if now > step else 1.2))
        step = now
        if disk and draw.random() < DAMAGED and (hit := damage("flip", place / "run", {damaged}, draw)):
            damaged, flips = hit, flips + 1
            step = newest(place / "run", damaged)
    return done, step, flips


if __name__ == "__main__":
    fsspec.register_implementation("flaky", Flaky)
    store.PAUSE_S, lease.LEASE_S, lease._SETTLE_S, mirror._PUSH_S = 0.0, 0.2, 0.0, 0.05
    found = killed(pathlib.Path(sys.argv[1]).resolve(), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:] == ["disk"])
    print("killed {}, step {}, damaged {}".format(*found))
