"""Where the time of a run went, over all its attempts: goodput.jsonl of a workdir, and its summary.

Every moment belongs to one bucket, named in lower case as in Google's ml-goodput-measurement 0.2.3 (BadputType), so
that the numbers of both can be laid side by side; `step` is what it calls goodput, and evaluations are its custom
events. Two of its buckets can be told only afterwards, by `summary`: wasted_progress_from_disruption, the time of steps
that the next attempt had to repeat, and infrastructure_recovery_from_disruption, from the last row of an attempt to the
start of the next, whoever or whatever let it wait.

Times are the host's. Steps run asynchronously: what the host waits for data while the devices still compute is counted
as data_loading_sync, which is so an upper bound of what the devices lose.
"""

import collections
import dataclasses
import io
import itertools
import json
import math
import pathlib
import sys
import time
from collections.abc import Iterable

FILE = "goodput.jsonl"
BUCKETS = (
    "tpu_initialization",  # or any other device's: from the start to a mesh
    "training_prep",  # data, model, state
    "program_startup",  # compiling
    "data_loading_sync",
    "step",
    "unproductive_checkpoint_save_time",
    "unproductive_checkpoint_restore_time",
    "custom_badput_events",  # evaluations
    "other",
)
WASTED, RECOVERY = "wasted_progress_from_disruption", "infrastructure_recovery_from_disruption"
_SAID = {  # in a table for people
    "tpu_initialization": "devices",
    "training_prep": "data, model, state",
    "program_startup": "compiling",
    "data_loading_sync": "waiting for data",
    "step": "steps",
    "unproductive_checkpoint_save_time": "saving checkpoints",
    "unproductive_checkpoint_restore_time": "restoring checkpoints",
    "custom_badput_events": "evaluations",
    "other": "other",
    WASTED: "steps done again",
    RECOVERY: "between attempts",
}
SECONDS_A_ROW = 10.0  # what a kill costs the record at most, beside a bucket that it ends

_FREQUENT = {"data_loading_sync", "step"}  # at the borders of all others there is a row


class Goodput:
    """A clock with one hand: `switch` ends one bucket and begins the next. A context, which ends with the attempt.

    A row holds the sums of its attempt so far, so that rows that are missing, torn or doubled change nothing.
    """

    def __init__(self, bucket: str = BUCKETS[0]):
        self._bucket, self._since = bucket, time.monotonic_ns()
        self._nanoseconds = dict.fromkeys(BUCKETS, 0)  # whole numbers: they add up exactly
        self._file: io.FileIO | None = None
        self._due, self._torn, self._warned = 0, False, False
        self._attempt, self._first_step, self._step = 1, 0, 0

    def __enter__(self) -> "Goodput":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def record(self, workdir: pathlib.Path, first_step: int) -> None:
        """From now on, appends to the file of `workdir`, on one process of a run; what was before is in the first row.

        An attempt that ends before this leaves nothing but a gap. An OSError here or later is one warning, no more.
        """
        self._first_step = self._step = first_step
        path = workdir / FILE
        try:
            content = path.read_bytes() if path.exists() else b""
            self._torn = not content.endswith(b"\n") and bool(content)
            self._attempt = 1 + max((row.attempt for row in _rows(content)), default=0)
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            self._warn(error)
        self.switch(self._bucket)

    def switch(self, bucket: str, step: int | None = None) -> None:
        """From now on time goes to `bucket`, one of BUCKETS; `step`: the steps done, where that has changed."""
        now = time.monotonic_ns()
        self._nanoseconds[self._bucket] += now - self._since
        self._since = now
        if step is not None:
            self._step = step
        if now >= self._due or bucket not in _FREQUENT or self._bucket not in _FREQUENT:
            self._write(now)
        self._bucket = bucket

    def seconds(self) -> dict[str, float]:
        """By bucket, of this attempt, up to the last switch."""
        return {bucket: ns / 1e9 for bucket, ns in self._nanoseconds.items()}

    def close(self) -> None:
        """The last row; `switch` then counts on without rows."""
        self.switch("other")
        if self._file:
            self._file.close()
            self._file = None

    def _write(self, now: int) -> None:
        self._due = now + round(1e9 * SECONDS_A_ROW)
        if self._file is None:
            return
        seconds = {bucket: value for bucket, value in self.seconds().items() if value}
        row = _Row(self._attempt, self._first_step, self._step, time.time(), seconds)
        line = b"\n" * self._torn + json.dumps(dataclasses.asdict(row)).encode() + b"\n"
        try:
            self._torn = self._file.write(line) != len(line)
        except OSError as error:
            self._torn = True
            self._warn(error)

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            print(f"warning: {FILE} cannot be written ({error}): it will lack some of the time", file=sys.stderr)
        self._warned = True


@dataclasses.dataclass(frozen=True)
class _Row:
    attempt: int  # 1 is the first
    first_step: int  # at which the attempt started
    step: int  # the steps done
    time: float  # of the wall clock, in seconds since 1970
    seconds: dict[str, float]  # by bucket, of the attempt so far

    @property
    def elapsed(self) -> float:
        return math.fsum(self.seconds.values())


def _rows(content: bytes) -> list[_Row]:
    """Those that are whole: a kill or a full disk can cut any line."""
    rows = []
    for line in content.splitlines():
        try:
            rows.append(_Row(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return rows


def summary(workdir: pathlib.Path) -> dict[str, float]:
    """All attempts together, flat: BUCKET_s and total_elapsed_s, which is their sum, in seconds; goodput, the share of
    step_s in it; attempts; steps, the highest number reached; lost_steps, done and then repeated by a later attempt.

    The wall clock counts only between attempts; where it ran backwards there, as 0. Empty where there are no rows.
    """
    path = workdir / FILE
    rows = _rows(path.read_bytes()) if path.exists() else []
    if not rows:
        return {}
    attempts = [list(group) for _, group in itertools.groupby(rows, key=lambda row: row.attempt)]
    seconds = collections.defaultdict(float, dict.fromkeys((*BUCKETS, WASTED, RECOVERY), 0.0))
    for attempt in attempts:
        for bucket, value in attempt[-1].seconds.items():
            seconds[bucket] += value
    for before, after in itertools.pairwise(attempts):
        seconds[RECOVERY] += max(after[0].time - after[0].elapsed - before[-1].time, 0.0)
    lost = [_lost(*pair) for pair in zip(attempts, _resumed_at(attempts))]
    wasted = math.fsum(wasted for _, wasted in lost)
    seconds[WASTED] += wasted
    seconds["step"] -= wasted
    total = math.fsum(seconds.values())
    counts = {"attempts": len(attempts), "steps": max(row.step for row in rows), "lost_steps": sum(n for n, _ in lost)}
    by_bucket = {f"{bucket}_s": value for bucket, value in seconds.items()}
    return {"goodput": seconds["step"] / total if total else 0.0, "total_elapsed_s": total} | by_bucket | counts


def describe(result: dict[str, float]) -> list[str]:
    """A small table of a `summary`: what counted, then what did not, the longest first; none of an empty one."""
    if not result:
        return []
    total = result["total_elapsed_s"]
    seconds = {name.removesuffix("_s"): value for name, value in result.items() if name.endswith("_s")}
    badput = sorted(seconds.keys() - {"total_elapsed", "step"}, key=lambda name: seconds[name], reverse=True)
    shown = ["step"] + [name for name in badput if seconds[name] >= 0.05]  # the others would be 0.0
    headline = (
        f"goodput {100 * result['goodput']:.1f} % of {total:.1f} s, attempts {result['attempts']},"
        f" steps {result['steps']} and {result['lost_steps']} that were lost"
    )
    return [headline] + [
        f"  {_SAID[name]:24} {seconds[name]:11.1f} s {100 * seconds[name] / (total or 1.0):5.1f} %" for name in shown
    ]


def _resumed_at(attempts: Iterable[list[_Row]]) -> list[float]:
    """For each attempt, the lowest step at which a later one started."""
    first_steps = [attempt[0].first_step for attempt in attempts]
    lowest = itertools.accumulate(reversed(first_steps[1:]), min, initial=math.inf)
    return list(lowest)[::-1]


def _lost(attempt: list[_Row], resumed_at: float) -> tuple[int, float]:
    """How many steps of an attempt, and seconds in them, lie beyond `resumed_at`; inside a row steps are alike."""
    first = attempt[0].first_step
    steps = max(attempt[-1].step - max(first, resumed_at), 0)
    seconds, (step, spent) = 0.0, (first, 0.0)
    for row in attempt:
        now = row.seconds.get("step", 0.0)
        done = row.step - step
        beyond = row.step - max(step, resumed_at)
        share = min(max(beyond / done, 0.0), 1.0) if done > 0 else float(step >= resumed_at)
        seconds += share * (now - spent)
        step, spent = row.step, now
    return int(steps), seconds
