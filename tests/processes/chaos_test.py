"""tools/chaos.py: processes killed, stopped and damaged at random moments, and nothing comes of it."""

import random
import signal

import pytest

from tools.chaos import CONFIG, Reference, chaos, damage, differences, own_cache, strike, undisturbed
from tools.processes import TIMEOUT_S, Processes, model, rows

STEPS = 30


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_comes_of_a_kill_and_a_flipped_bit(tmp_path):
    """One process of two is killed in the middle, then a bit of the newest checkpoint flips."""
    settings = CONFIG | {"train.total_steps": STEPS, "train.keep_checkpoints": STEPS}
    expected = Reference.of(tmp_path / "alone", undisturbed(tmp_path / "alone", 2, settings))
    run, draw = tmp_path / "run", random.Random(0)
    started = Processes(run, 2, settings, own_cache(run))
    started.wait_for_step(run, 20, 12 * TIMEOUT_S)
    strike("flip", started, draw)
    assert sorted(started.wait(2 * TIMEOUT_S)) == [-signal.SIGKILL, 46]
    damaged = damage("flip", run, set(), draw)
    assert damaged and differences(run, expected, {damaged}) == []
    undisturbed(run, 2, settings)
    assert [path.name.split("-")[1] for path in (run / "checkpoints").glob("damaged-*")] == [str(damaged)]
    assert differences(run, expected, set()) == []
    assert rows(run) == expected.rows and len(rows(run)) == STEPS and model(run) == expected.model


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("stage", "remote", "processes"), [(1, False, 2), (1, True, 1), (3, False, 2)])
def test_nothing_comes_of_three_minutes_of_faults(tmp_path, stage, remote, processes):
    report = chaos(tmp_path / "chaos", 1000, seed=0, counts=[processes], minutes=3, stage=stage, remote=remote)
    print(report)
    assert report["wrong"] == []
    assert sum(report["faults"].values()) >= 3 and report["finished runs"] > 0
