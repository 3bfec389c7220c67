"""launch/gke_xpk.sh: what it calls, what reaches every host, how it ends."""

import shutil
import signal

import pytest
from small_cloud import HARD, RUN, XPK, one_error


def test_xpk_gets_the_clone_the_exit_codes_to_restart_on_and_the_arguments_as_they_are(cloud):
    cloud.plan(waits=[124, 124, 0])
    options = ["--slices=2", "--storage=disk", "--priority=high", "--restarts=7"]
    code, out, err = cloud.launch("gke_xpk.sh", *XPK, *options, *RUN, *HARD)
    assert code == 0, err
    expected = ["-m", "vqdna_jax.main", *RUN[1:], *HARD, "--multihost=tpu"]
    assert cloud.trained_with(0) == cloud.trained_with(1) == expected
    create = next(call for call in cloud.calls("xpk") if call[1] == "create")
    assert {
        "--restart-on-exit-codes=42,46,134,137,143",
        "--max-restarts=7",
        "--num-slices=2",
        "--tpu-type=v5litepod-16",
        "--priority=high",
        "--storage=disk",
        "--workload=pod",
        "--cluster=c",
        "--base-docker-image=python:3.12",
    } <= set(create)
    assert "start 0 of host 0, with the committed config" in out and "delete" not in [c[1] for c in cloud.calls("xpk")]


def test_xpk_with_a_ready_image_builds_none(cloud):
    shutil.copytree(cloud.clone, cloud.folder / "image")
    code, _, err = cloud.launch("gke_xpk.sh", *XPK, "--image=gcr.io/p/vqdna:1", "--delete", *RUN)
    create = next(call for call in cloud.calls("xpk") if call[1] == "create")
    assert code == 0 and "--docker-image=gcr.io/p/vqdna:1" in create, err
    assert not any(word.startswith(("--script-dir", "--base-docker-image")) for word in create)
    assert cloud.calls("xpk")[-1][:3] == ["workload", "delete", "--workload=pod"]


@pytest.mark.parametrize("codes, code", [([46, 43], 43), ([-signal.SIGABRT, 46], 46), ([0, 0], 46)])
def test_xpk_ends_with_the_code_of_the_host_that_is_the_reason(cloud, codes, code):
    cloud.plan(codes=[codes], waits=[125])
    ended, _, err = cloud.launch("gke_xpk.sh", *XPK, *RUN)
    assert ended == code, err
    if code == 43:
        assert "pod-1 ended with 43" in err and "pod-1| error: reason of 43" in err and "pod-0| " not in err


def test_xpk_replaces_a_workload_that_has_ended_and_follows_one_that_has_not(cloud):
    for status, verbs in (("Finished", "list list delete create list"), ("Admitted", "list list list")):
        cloud.plan(workloads={"pod": status, "pod-2": "Finished"})
        assert cloud.launch("gke_xpk.sh", *XPK, *RUN)[0] == 0
        assert " ".join(call[1] for call in cloud.calls("xpk")) == verbs
        (cloud.folder / "calls.jsonl").unlink()


def test_what_xpk_refuses_or_cannot_carry_is_one_line(cloud):
    cloud.plan(xpk_error={"create": "[XPK] Task: `Creating Workload` failed\nERROR: Insufficient quota"})
    code, _, err = cloud.launch("gke_xpk.sh", *XPK, *RUN)
    assert code == 43 and "Insufficient quota" in one_error(err)
    code, _, err = cloud.launch("gke_xpk.sh", *XPK, *RUN, "--config.z=two\nlines")
    assert code == 43 and "a line break" in one_error(err)
