"""A run that does nothing but save to a store that fails now and then, killed again and again.

    python tests/killed_runs.py DIR KILLS SEED

Each start is a process forked of this one, on either of two machines. After each kill what is in the store must be
whole: prints how often it was killed and how far the run came, or raises.
"""

import json
import os
import pathlib
import random
import signal
import sys
import time

import fsspec

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools.processes import Flaky  # noqa: E402
from vqdna_jax.runtime import files  # noqa: E402
from vqdna_jax.runtime.remote import store  # noqa: E402
from vqdna_jax.training import lease, mirror, workdir  # noqa: E402

KEEP = 2


def content(step: int) -> bytes:
    return random.Random(step).randbytes(10_000)


def go_on(url: str) -> None:
    """From the newest checkpoint, without an end."""
    with workdir.open_workdir(url) as opened:
        checkpoints = opened.path / "checkpoints"
        done = max((int(path.name) for path in checkpoints.glob("*") if not files.broken(path)), default=0)
        log = opened.path / "metrics.jsonl"
        rows = log.read_text().splitlines()[:done] if log.exists() else []
        assert done == 0 or (checkpoints / str(done) / "state").read_bytes() == content(done)
        assert [json.loads(row)["step"] for row in rows] == list(range(1, done + 1)), (done, rows)
        with files.replacing(log) as new:
            new.write_text("".join(f"{row}\n" for row in rows))
        while True:
            done += 1
            with log.open("a") as file:
                file.write(json.dumps({"step": done}) + "\n")
            unnamed = checkpoints / f"{done}.tmp"
            (unnamed / "d").mkdir(parents=True)
            (unnamed / "state").write_bytes(content(done))
            (unnamed / "d/more").write_bytes(content(-done))
            files.seal(unnamed)
            opened.copy_save(unnamed, done, KEEP)
            unnamed.rename(checkpoints / str(done))


def newest(place: pathlib.Path) -> int:
    """Of the checkpoints in the store. Raises AssertionError where one of them, or the log before it, is not whole."""
    steps = {int(path.parent.name) for path in place.glob("checkpoints/*/files.json")}
    for step in steps:
        directory = place / f"checkpoints/{step}"
        cut = [problem for problem in files.broken(directory) if not problem.startswith(files.SEAL)]
        assert not cut, cut
    rows = (place / "metrics.jsonl").read_text().splitlines() if steps else []
    assert len(rows) >= max(steps, default=0), (steps, len(rows))
    return max(steps, default=0)


def start(url: str, machine: pathlib.Path) -> int:
    if child := os.fork():
        return child
    os.environ["VQDNA_CACHE"] = str(machine)
    code = 1
    try:
        random.seed()  # of what fails: another one than this process's
        go_on(url)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        code = getattr(error, "exit_code", 1)
    finally:
        os._exit(code)


def killed(place: pathlib.Path, kills: int, seed: int) -> tuple[int, int]:
    """(kills, the newest step)"""
    draw, done, step = random.Random(seed), 0, 0
    while done < kills:
        child = start(f"flaky://{place}/run", place / f"machine_{draw.randrange(2)}")
        time.sleep(draw.uniform(0.0, 1.5))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        done += os.WIFSIGNALED(status)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 45, status
        now = newest(place / "run")
        assert now >= step, f"{now} after {step}"
        step = now
    return done, step


if __name__ == "__main__":
    fsspec.register_implementation("flaky", Flaky)
    store.PAUSE_S, lease.LEASE_S, lease._SETTLE_S, mirror._PUSH_S = 0.0, 0.2, 0.0, 0.05
    found = killed(pathlib.Path(sys.argv[1]).resolve(), int(sys.argv[2]), int(sys.argv[3]))
    print("killed {}, step {}".format(*found))
