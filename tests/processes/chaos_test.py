"""tools/chaos.py: processes killed, stopped and damaged at random moments, and nothing comes of it."""

import pytest

from tools.chaos import chaos


def assert_nothing_came_of(report: dict, faults: int) -> None:
    print(report)
    assert report["wrong"] == []
    assert sum(report["faults"].values()) >= faults and report["finished runs"] > 0


@pytest.mark.timeout(900)
def test_nothing_comes_of_two_faults(tmp_path):
    """About a minute. With this seed: a kill and a stop, both late in a run."""
    assert_nothing_came_of(chaos(tmp_path / "chaos", kills=2, seed=72725, counts=[2]), faults=2)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_comes_of_three_minutes_of_faults(tmp_path):
    assert_nothing_came_of(chaos(tmp_path / "chaos", kills=1000, seed=0, counts=[2], minutes=3), faults=3)
