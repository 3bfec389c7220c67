"""tools/chaos.py: processes killed, stopped and damaged at random moments, and nothing comes of it."""

import pytest

from tools.chaos import chaos


def assert_nothing_came_of(report: dict) -> None:
    print(report)
    assert report["wrong"] == []
    assert sum(report["faults"].values()) > 2 and report["finished runs"] > 0


@pytest.mark.timeout(900)
def test_nothing_comes_of_four_faults(tmp_path):
    """About a minute. With this seed: a kill, a stop and a flipped bit, all late in a run, and a signal."""
    assert_nothing_came_of(chaos(tmp_path / "chaos", kills=4, seed=72725, counts=[2]))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_comes_of_three_minutes_of_faults(tmp_path):
    assert_nothing_came_of(chaos(tmp_path / "chaos", kills=1000, seed=0, counts=[2], minutes=3))
