"""Kills the processes of small training runs at random moments, until none of it matters.

    python tools/chaos.py --kills=200 --seed=0 --out=DIR     [--processes=2,4] [--minutes=N] [--stage=3] [--remote]

Runs are of stage 1, with --stage=2 of a masked model, or with --stage=3 of one that is fine-tuned. With --remote their
work directories are in an object store that fails now and then; every start may be on another machine, and a run on a
second machine is a fault, too: one of the two has to be kept out. CHAOS_TIMEOUT_S=30 in the environment gives each step
so many seconds, in place of 10, where other programs keep the machine busy.

Runs are of several local processes. A fault comes at a random moment: start, compile, step, save, evaluation or
export. What must hold, checked after every fault:
- every process ends, with the exit code of its fault, within a bound: nobody waits for the dead;
- the log of (step, batch digest, loss) is a function of the step: equal, bit for bit, to that of an undisturbed run;
- so are the digests of all leaves in every checkpoint that got its final name;
- in the end the exported model is the same file, byte for byte.
"""

import argparse
import collections
import contextlib
import dataclasses
import json
import math
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from typing import Self

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # the repository is no package

import numpy as np  # noqa: E402

from tools.processes import CONFIG as SMALL  # noqa: E402
from tools.processes import TIMEOUT_S, Processes, checkpoints, leaf_digests, model, rows  # noqa: E402
from vqdna_jax.genome.alphabet import to_text  # noqa: E402
from vqdna_jax.genome.build.bundled import bundled_corpus  # noqa: E402
from vqdna_jax.genome.corpus import open_corpus  # noqa: E402
from vqdna_jax.genome.windows import evaluation_windows  # noqa: E402

BOUND_S = 8 * TIMEOUT_S  # a compile may take 6; everything else is over within 2
STEPS = 60
EVERY = {"train.total_steps": STEPS, "train.checkpoint_every_steps": 6, "eval.every_steps": 25}
CONFIG = SMALL | EVERY
LOGGED = {"optimizer.warmup_steps": 2, "train.log_every_steps": 1, "train.timeout_s": float(TIMEOUT_S)}
MASKED = {"data.window_bp": 64, "data.global_batch": 8, "model.layers": 2, "model.width": 16, "model.heads": 2}
MASKED |= {"model.hidden": 32, "eval.windows": 16, "eval.batch": 8} | LOGGED
LABELLED = {"data.global_batch": 8, "head.pool": "mean", "data.strands": "both", "tuning.rank": 4}
LABELLED |= {"train.retries": 0, "eval.batch": 64} | LOGGED
MACHINES = 2  # of a remote run
GONE = {0, 46, -signal.SIGABRT}  # how the others end; the last is jax's way
UNSEALED = ("_CHECKPOINT_METADATA", "commit_success.txt")  # checkpoint.py does not read them
# How often each fault is drawn, and the exit codes with which some process must end because of it.
FAULTS = {
    "kill": (6, {-signal.SIGKILL}),
    "term": (4, {42, -signal.SIGTERM, -signal.SIGINT}),  # the latter before the interpreter can heed them
    "stop": (2, {46, -signal.SIGKILL}),
    "gil": (2, {46}),
    "disk": (2, {45}),
    "flip": (2, {-signal.SIGKILL}),
    "truncate": (2, {-signal.SIGKILL}),
}
SECOND = {"second": (2, {43})}  # with --remote


@dataclasses.dataclass(frozen=True)
class Reference:
    """What an undisturbed run wrote, and how long another one took that saved as often as those to be disturbed."""

    rows: dict[int, tuple]  # by step
    digests: dict[int, dict]  # of the leaves of checkpoints, by step
    model: bytes
    seconds: float

    @classmethod
    def of(cls, workdir: pathlib.Path, seconds: float) -> Self:
        digests = {int(path.name): leaf_digests(path) for path in checkpoints(workdir)}
        return cls(rows(workdir), digests, model(workdir), seconds)


def reference(workdir: pathlib.Path, count: int, settings: dict) -> Reference:
    every = {"train.keep_checkpoints": STEPS, "train.checkpoint_every_steps": 1}  # a signal may come at any step
    often, seldom = (workdir.with_name(f"{workdir.name}_{name}") for name in ("often", "seldom"))
    undisturbed(often, count, settings | every)
    seconds = undisturbed(seldom, count, settings)
    assert rows(often) == rows(seldom) and model(often) == model(seldom), "two undisturbed runs differ"
    return Reference.of(often, seconds)


def own_cache(workdir: pathlib.Path) -> dict[str, str]:
    """Compiled programs that are cut short or damaged here are of no other process."""
    return {"JAX_COMPILATION_CACHE_DIR": str(workdir.parent / "compiled")}


def masked(out: pathlib.Path) -> dict:
    """The settings of a run of stage 2 on a small tokenizer, which is made here."""
    undisturbed(out / "words", 1, SMALL | {"train.total_steps": 20, "train.timeout_s": 600.0})
    return {"config": "configs/mcm.py:tiny", "tokenizer": out / "words/export"} | MASKED


def labelled(out: pathlib.Path) -> dict:
    """The settings of a run that fine-tunes a small model, which is made here, on windows that are rich or poor in G
    and C."""
    undisturbed(out / "base", 1, masked(out) | {"train.total_steps": 20, "train.timeout_s": 600.0})
    windows = evaluation_windows(open_corpus(bundled_corpus()), "train", 48, 400).bases_BxS
    rows = [f"{to_text(bases)},{int(np.isin(bases, (1, 2)).mean() > 0.45)}" for bases in windows]
    (out / "labelled.csv").write_text("\n".join(["sequence,label", *rows, ""]))
    places = {"pretrained": out / "base/export", "data.labelled": out / "labelled.csv"}
    return {"config": "configs/finetune.py:tiny"} | places | LABELLED


def settings_of(stage: int, out: pathlib.Path) -> dict:
    """Of the runs; what a stage needs of those before it is made in `out`."""
    return (SMALL if stage == 1 else {2: masked, 3: labelled}[stage](out)) | EVERY


def undisturbed(workdir: pathlib.Path, count: int, settings: dict) -> float:
    """Its seconds."""
    began, started = time.monotonic(), Processes(workdir, count, settings, own_cache(workdir))
    if any(codes := started.wait(600)):
        raise RuntimeError(f"the undisturbed run ended with {codes}\n{started.text()}")
    return time.monotonic() - began


def differences(workdir: pathlib.Path, expected: Reference, damaged: set[int]) -> list[str]:
    """Where the run is not what it should be; `damaged` are checkpoints that were damaged on purpose."""
    wrong = [
        f"step {step}: {row}, not {expected.rows.get(step)}"
        for step, row in rows(workdir).items()
        if row != expected.rows.get(step)
    ]
    for path in checkpoints(workdir):
        step = int(path.name)
        if step and step not in damaged and leaf_digests(path) != expected.digests[step]:  # there is no save before 1
            wrong.append(f"checkpoint {step} is not that of the undisturbed run")
    return wrong


def strike(fault: str, started: Processes, draw: random.Random) -> None:
    """One fault, now, to one process that still runs.

    A process that is stopped in its first second, before it has a watchdog, is for its launcher to end: not done here.
    """
    victim = draw.choice([process for process in started.all if process.poll() is None] or started.all)
    children = pathlib.Path(f"/proc/{victim.pid}/task/{victim.pid}/children")
    with contextlib.suppress(OSError):
        while fault in ("stop", "gil") and victim.poll() is None and not children.read_text():
            time.sleep(0.05)
        if fault == "term":
            victim.send_signal(draw.choice([signal.SIGTERM, signal.SIGINT]))
        elif fault == "stop":
            victim.send_signal(signal.SIGSTOP)
        elif fault == "gil":
            victim.send_signal(signal.SIGUSR1)
        elif fault == "disk":
            resource.prlimit(victim.pid, resource.RLIMIT_FSIZE, (2048, 2048))
        else:
            victim.kill()


def damage(fault: str, workdir: pathlib.Path, damaged: set[int], draw: random.Random) -> int | None:
    """A bit or the end of a file of the newest checkpoint; a file is drawn with the square root of its size.

    None, and nothing is done, where no older one is whole: there a run rightly stops.
    """
    whole = sorted({int(path.name) for path in checkpoints(workdir)} - damaged)
    if len(whole) < 2:
        return None
    directory = workdir / "checkpoints" / str(whole[-1])
    files = [path for path in sorted(directory.rglob("*")) if path.is_file() and path.stat().st_size]
    files = [path for path in files if path.relative_to(directory).as_posix() not in UNSEALED]
    file = draw.choices(files, [path.stat().st_size ** 0.5 for path in files])[0]
    data = bytearray(file.read_bytes())
    if fault == "flip":
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    else:
        del data[draw.randrange(len(data)) :]
    file.write_bytes(data)
    return whole[-1]


def _within(fault: str | None, expected: Reference) -> float:
    """Seconds after which all have to be gone; a full disk is seen by the next write, and steps may come before it."""
    if fault in (None, "second"):
        return 600
    return BOUND_S + (expected.seconds if fault == "disk" else 0)


class Chaos:
    """Runs one after the other, faults by `draw`, and what came of them."""

    def __init__(self, out: pathlib.Path, counts: list[int], seed: int, settings: dict, remote: bool):
        self.out, self.counts, self.draw = out, counts, random.Random(seed)
        self.settings, self.remote = settings, remote
        self.references = {count: reference(out / f"undisturbed_{count}", count, settings) for count in set(counts)}
        self.wrong, self.ends, self.longest = [], collections.Counter(), collections.Counter()
        self.faults, self.found, self.finished, self.starts = collections.Counter(), 0, 0, 0
        self._begin()

    def _begin(self) -> None:
        self.count = self.counts[self.finished % len(self.counts)]
        self.workdir, self.damaged = self.out / f"run_{self.finished}", set()

    def _start(self, machine: int) -> Processes:
        workdir = f"flaky://{self.workdir}" if self.remote else self.workdir
        cache = {"VQDNA_CACHE": str(self.out / f"machine_{machine}")}
        return Processes(workdir, self.count, self.settings, own_cache(self.workdir) | cache)

    def step(self, fault: str | None) -> None:
        """One start of the run and, unless `fault` is None, one fault."""
        expected = self.references[self.count]
        self.starts += 1
        machine = self.draw.randrange(MACHINES)
        started = self._start(machine)
        if fault:
            delay = self.draw.uniform(0.0, 0.8 * expected.seconds)  # what goes on takes less than a whole run
            with contextlib.suppress(subprocess.TimeoutExpired):
                started.all[0].wait(delay)
            if any(process.poll() is None for process in started.all):
                self._strike(fault, started, machine)
                self.faults[fault] += 1
            else:
                fault = None  # too late
        began = time.monotonic()
        try:
            codes = started.wait(_within(fault, expected))
        except TimeoutError as error:
            self.wrong.append(f"{self.workdir.name}, {fault}: {error}")
            return
        self._judge(fault, codes, time.monotonic() - began, started.text(lines=60))
        if not any(codes):
            self._finish(expected)
        elif fault in ("flip", "truncate"):
            self.damaged |= {damage(fault, self.workdir, self.damaged, self.draw)} - {None}

    def _strike(self, fault: str, started: Processes, machine: int) -> None:
        if fault != "second":
            return strike(fault, started, self.draw)
        second = self._start((machine + 1) % MACHINES)
        codes = second.wait(600)
        if set(codes) not in ({0}, {43}):
            self.wrong.append(f"{self.workdir.name}: a second run ended with {codes}\n{second.text(lines=60)}")

    def _judge(self, fault: str | None, codes: list[int], seconds: float, said: str) -> None:
        name = fault or "no fault"
        self.ends[f"{name}: {' '.join(map(str, sorted(codes)))}"] += 1
        step = max(rows(self.workdir), default=0)
        print(f"{self.workdir.name}, step {step}: {name}, {codes} after {seconds:.1f} s", file=sys.stderr, flush=True)
        self.longest[name] = max(self.longest[name], round(seconds, 1))
        # A process that was just ending may not notice; else the one that was hit must have said so, and the others
        # nothing but that one is gone.
        expected = (FAULTS | SECOND).get(fault, (0, set()))[1]
        if any(codes) and not (set(codes) & expected and set(codes) <= expected | GONE):
            self.wrong.append(f"{self.workdir.name}: {name} ended with {codes}\n{said}")
        self._count_found()
        found = differences(self.workdir, self.references[self.count], self.damaged)
        self.wrong += [f"{self.workdir.name}, after {name}: {line}" for line in found]

    def _count_found(self) -> None:
        """Those that were set aside: in the work directory, or on the machine that worked on it."""
        set_aside = [*self.workdir.glob("checkpoints/damaged-*"), *self.out.glob("machine_*/*/checkpoints/damaged-*")]
        steps = {int(path.name.split("-")[1]) for path in set_aside}
        self.found += len(self.damaged & steps)
        if not self.remote:  # there it is written anew only when the run comes to it
            self.damaged -= steps
        for path in set_aside:
            shutil.rmtree(path)

    def _finish(self, expected: Reference) -> None:
        if rows(self.workdir) != expected.rows or model(self.workdir) != expected.model:
            self.wrong.append(f"{self.workdir.name}: the finished run is not the undisturbed one")
        for place in (self.workdir, *self.out.glob("machine_*/workdir-*")):
            shutil.rmtree(place)
        self.finished += 1
        self._begin()

    def report(self) -> dict:
        return {
            "faults": dict(self.faults),
            "starts": self.starts,
            "finished runs": self.finished,
            "damaged checkpoints found": self.found,
            "exit codes": dict(sorted(self.ends.items())),
            "longest end in s": dict(self.longest),
            "wrong": self.wrong,
        }


def chaos(
    out: pathlib.Path,
    kills: int,
    seed: int,
    counts: list[int],
    minutes: float = math.inf,
    stage: int = 1,
    remote: bool = False,
) -> dict:
    """The report after `kills` faults, or as many as fit; the last run is left to finish. `out` must not exist."""
    out.mkdir(parents=True)
    all_of_it = Chaos(out, counts, seed, settings_of(stage, out), remote)
    deadline = time.monotonic() + 60 * minutes
    draw, faults = all_of_it.draw, FAULTS | (SECOND if remote else {})
    weights = [weight for weight, _ in faults.values()]
    first = draw.sample(list(faults), len(faults))  # each once
    while all_of_it.faults.total() < kills and time.monotonic() < deadline and len(all_of_it.wrong) < 10:
        all_of_it.step(first.pop() if first else draw.choices(list(faults), weights)[0])
        (out / "report.json").write_text(json.dumps(all_of_it.report(), indent=2))
        print(f"{all_of_it.faults.total()}/{kills} faults, {len(all_of_it.wrong)} wrong", file=sys.stderr, flush=True)
    done = all_of_it.finished
    while all_of_it.finished == done and len(all_of_it.wrong) < 10:
        all_of_it.step(None)
    return all_of_it.report()


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", default="2,4", help="of the runs, in turn")
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--stage", type=int, default=1, choices=(1, 2, 3), help="of the runs")
    parser.add_argument("--remote", action="store_true", help="work directories in an object store")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="a directory that does not exist")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    asked = parse(sys.argv[1:])
    counts = list(map(int, asked.processes.split(",")))
    result = chaos(asked.out.resolve(), asked.kills, asked.seed, counts, asked.minutes, asked.stage, asked.remote)
    print(json.dumps(result, indent=2))
    sys.exit(bool(result["wrong"]))
