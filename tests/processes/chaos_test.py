"""Three minutes of tools/chaos.py: processes killed, stopped and damaged at random moments, and nothing comes of it."""

import time

import pytest

from tools.chaos import chaos


@pytest.mark.timeout(900)
def test_nothing_comes_of_random_faults(tmp_path):
    report = chaos(tmp_path / "chaos", kills=1000, seed=int(time.time()) // 86400, counts=[2], minutes=3)
    print(report)
    assert report["wrong"] == []
    assert sum(report["faults"].values()) > 2 and report["finished runs"] > 0
