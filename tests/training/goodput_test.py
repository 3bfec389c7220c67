"""The buckets add up to the wall time; lost steps, gaps, torn lines and clocks that jump, over several attempts."""

import errno
import json
import math
import time
from unittest import mock

import hypothesis
import pytest
from hypothesis import strategies as st

from vqdna_jax.training import goodput
from vqdna_jax.training.goodput import BUCKETS, FILE, RECOVERY, WASTED, Goodput, describe, summary

EVERY_BUCKET = (*BUCKETS, WASTED, RECOVERY)
SECONDS = st.floats(0, 1e5).map(lambda seconds: round(seconds, 9))


class Clocks:
    """Stands in for the module `time`: a monotonic clock and one on the wall, which `jump` moves alone."""

    def __init__(self):
        self.now, self.jump = 0.0, 1.7e9

    def monotonic_ns(self) -> int:
        return round(1e9 * self.now)

    def time(self) -> float:
        return self.now + self.jump


@pytest.fixture
def clocks(monkeypatch):
    clocks = Clocks()
    monkeypatch.setattr(goodput, "time", clocks)
    return clocks


def run(clocks, workdir, first_step, turns, closed=True):
    """One attempt: 1 s of start, then [(bucket, seconds, steps done at its end)]; a killed one is not closed."""
    record = Goodput()
    clocks.now += 1
    record.record(workdir, first_step)
    for bucket, seconds, step in turns:
        record.switch(bucket)
        clocks.now += seconds
        record.switch("other", step)
    if closed:
        record.close()


def steps(first, last, seconds=1.0):
    return [("step", seconds, step + 1) for step in range(first, last)]


def total(result) -> float:
    return math.fsum(result[f"{bucket}_s"] for bucket in EVERY_BUCKET)


@hypothesis.given(st.lists(st.tuples(st.sampled_from(BUCKETS), SECONDS, st.booleans()), max_size=30))
def test_the_buckets_of_an_attempt_add_up_to_its_wall_time(tmp_path_factory, turns):
    """To the nanosecond, whatever is switched to, and whether or not rows are due."""
    clocks, workdir, expected = Clocks(), tmp_path_factory.mktemp("run"), dict.fromkeys(BUCKETS, 0)
    with mock.patch.object(goodput, "time", clocks), Goodput("training_prep") as record:
        clocks.now += 1.5
        expected["training_prep"] += 1_500_000_000
        record.record(workdir, 0)
        step = 0
        for bucket, seconds, done in turns:
            step += done
            record.switch(bucket, step)
            before = clocks.monotonic_ns()
            clocks.now += seconds
            expected[bucket] += clocks.monotonic_ns() - before
        record.switch("other")
        assert record._nanoseconds == expected and sum(expected.values()) == clocks.monotonic_ns()
    result = summary(workdir)
    assert result["total_elapsed_s"] == pytest.approx(clocks.now, rel=1e-12) == total(result)
    assert (result["attempts"], result["steps"], result["lost_steps"]) == (1, step, 0)
    assert {bucket: result[f"{bucket}_s"] for bucket in BUCKETS} == pytest.approx(
        {bucket: ns / 1e9 for bucket, ns in expected.items()}, rel=1e-12, abs=1e-9
    )


def test_lost_steps_by_hand(clocks, tmp_path):
    """Steps 0 to 10 of 1 s, 30 s until the next attempt, which starts at 6, does 6 to 8 and is killed; 20 s; the last
    starts at 4, as the newest checkpoint was damaged, and does 4 to 12 of 2 s, with an evaluation and a save."""
    run(clocks, tmp_path, 0, steps(0, 10), closed=False)
    clocks.now += 30
    run(clocks, tmp_path, 6, steps(6, 8), closed=False)
    clocks.now += 20
    more = [("custom_badput_events", 5, 12), ("unproductive_checkpoint_save_time", 3, 12)]
    run(clocks, tmp_path, 4, steps(4, 12, seconds=2.0) + more)
    result = summary(tmp_path)
    expected = {
        "tpu_initialization_s": 3,
        "step_s": 4 + 16,  # 0 to 4 of the first attempt, 4 to 12 of the last
        f"{WASTED}_s": 6 + 2,
        f"{RECOVERY}_s": 30 + 20,
        "custom_badput_events_s": 5,
        "unproductive_checkpoint_save_time_s": 3,
    }
    zeros = {f"{bucket}_s": 0 for bucket in EVERY_BUCKET}
    counts = {"attempts": 3, "steps": 12, "lost_steps": 6 + 2, "total_elapsed_s": 89, "goodput": 20 / 89}
    assert result == pytest.approx(zeros | expected | counts)
    table = describe(result)
    assert table[0].startswith("goodput 22.5 % of 89.0 s, attempts 3") and len(table) == 1 + len(expected)
    names = ["steps", "between attempts", "steps done again", "evaluations", "devices", "saving checkpoints"]
    assert [line[2:26].strip() for line in table[1:4]] == names[:3]
    assert sorted(line[2:26].strip() for line in table[1:]) == sorted(names)


@hypothesis.given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30), SECONDS, st.floats(-1e6, 1e6)), min_size=1, max_size=6)
)
def test_attempts_add_up_wherever_they_start_and_nothing_is_negative(tmp_path_factory, attempts):
    """Steps seen from above, each of 0.5 s: all that were done are the useful and the lost ones."""
    clocks, workdir, gaps, last_rows = Clocks(), tmp_path_factory.mktemp("run"), 0.0, None
    with mock.patch.object(goodput, "time", clocks):
        for first, count, gap, jump in attempts:
            clocks.now, clocks.jump = clocks.now + gap, clocks.jump + jump
            gaps += max(clocks.time() - last_rows, 0.0) if last_rows else 0.0
            run(clocks, workdir, first, steps(first, first + count, seconds=0.5))
            last_rows = clocks.time()
    result, done = summary(workdir), sum(count for _, count, _, _ in attempts)
    ends = [first for first, *_ in attempts] + [math.inf]
    lost = sum(sum(step >= min(ends[n + 1 :]) for step in range(a[0], a[0] + a[1])) for n, a in enumerate(attempts))
    assert result["lost_steps"] == lost and result[f"{WASTED}_s"] == pytest.approx(lost / 2)
    assert result["step_s"] == pytest.approx((done - lost) / 2, abs=1e-9)
    assert result[f"{RECOVERY}_s"] == pytest.approx(gaps, abs=1e-3)  # the wall clock is good to a microsecond
    assert result["total_elapsed_s"] == pytest.approx(total(result)) and all(v >= 0 for v in result.values())
    assert 0 <= result["goodput"] <= 1


def test_steps_share_the_time_between_two_rows(clocks, tmp_path):
    """Rows come every 10 s: a run that goes on in the middle of one loses a part of it."""
    with Goodput("step") as record:
        record.record(tmp_path, 0)
        for step in range(40):
            record.switch("data_loading_sync", step)
            record.switch("step")
            clocks.now += 0.8
        record.switch("data_loading_sync", 40)
    assert len((tmp_path / FILE).read_text().splitlines()) == 1 + 3 + 1  # every 10.4 s, and both ends
    run(clocks, tmp_path, 20, [])
    assert (summary(tmp_path)["lost_steps"], summary(tmp_path)[f"{WASTED}_s"]) == (20, pytest.approx(16.0))


@pytest.mark.parametrize("cut", [1, 20, 60])
@pytest.mark.parametrize("tail", [b"", b"\0" * 40, b"\xff\xfe{"])
def test_a_torn_line_costs_its_row_and_no_other(clocks, tmp_path, cut, tail):
    run(clocks, tmp_path, 0, steps(0, 5), closed=False)
    path = tmp_path / FILE
    whole = path.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    path.write_bytes(whole[: -len(last)])
    without_last = summary(tmp_path)
    path.write_bytes(whole[:-cut] + tail)
    kept = cut == 1 and not tail  # a whole row whose end of line alone is missing
    assert kept or summary(tmp_path) == without_last
    run(clocks, tmp_path, 5, steps(5, 7))
    lines = path.read_bytes().splitlines()
    assert [json.loads(line)["attempt"] for line in lines[-3:]] == [2, 2, 2]
    result = summary(tmp_path)
    assert (result["attempts"], result["steps"], result["lost_steps"]) == (2, 7, 0)
    assert result["total_elapsed_s"] == pytest.approx(clocks.now)  # what the row held is in the gap now


class FullDisk:
    """A file that takes `room` bytes more."""

    def __init__(self, file, room):
        self._file, self.room = file, room

    def write(self, line: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = self._file.write(line[: self.room])
        self.room -= taken
        return taken

    def close(self) -> None:
        self._file.close()


@pytest.mark.parametrize("room", [0, 7, 100, 250])
def test_a_full_disk_is_one_warning_and_its_time_is_in_the_next_row(clocks, tmp_path, capsys, room):
    record = Goodput()
    record.record(tmp_path, 0)
    record._file = disk = FullDisk(record._file, room)
    for step in range(9):
        record.switch("step")
        clocks.now += 1
        record.switch("other", step + 1)
    disk.room = 10_000
    record.close()
    assert capsys.readouterr().err.count("warning") == 1
    result = summary(tmp_path)
    assert (result["step_s"], result["steps"], result["total_elapsed_s"]) == (9, 9, 9)


def test_a_place_that_cannot_be_written_is_one_warning(clocks, tmp_path, capsys):
    (tmp_path / FILE).mkdir()
    with Goodput() as record:
        record.record(tmp_path, 0)
        record.switch("step", 1)
    err = capsys.readouterr().err
    assert err.startswith(f"warning: {FILE} cannot be written (") and err.count("\n") == 1


def test_nothing_recorded_is_an_empty_summary(clocks, tmp_path):
    with Goodput() as record:
        clocks.now += 5
        record.switch("training_prep")
    assert record.seconds()["tpu_initialization"] == 5  # told without a file, as on every process but the first
    assert summary(tmp_path) == {} and describe({}) == [] and not (tmp_path / FILE).exists()


def test_a_bucket_that_does_not_exist_is_a_bug():
    with pytest.raises(KeyError, match="stepp"):
        Goodput("stepp").close()


def test_a_switch_costs_under_10_microseconds(tmp_path):
    with Goodput("step") as record:
        record.record(tmp_path, 0)
        start = time.perf_counter()
        for step in range(10_000):
            record.switch("data_loading_sync", step)
            record.switch("step")
        seconds = time.perf_counter() - start
    assert seconds / 20_000 < 10e-6
