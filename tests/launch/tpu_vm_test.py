"""launch/tpu_vm.sh: what it calls, what reaches every host, how it ends."""

import os
import re
import shutil
import signal
import subprocess
import time

import pytest
from small_cloud import HARD, RUN, TPU, one_error


@pytest.mark.parametrize(
    "arguments, says",
    [
        ([*TPU, "--", "--workdir=/w"], "--config is missing"),
        ([*TPU, "--", "--config=configs/hrq.py"], "--workdir=DIR is missing"),
        ([*TPU, "--", "--config=configs/hrq.py", "--workdir=runs/x"], "--workdir=runs/x: expected a whole path"),
        (["--zone=z", "--type=v6e-8", *RUN], "--name is missing"),
        ([*TPU, "--slices=two", *RUN], "--slices=two: expected a whole number of at least 1"),
        ([*TPU, "--type=v9-8", *RUN], "--type=v9-8: no known software version"),
        ([*TPU, "--sppot", *RUN], "unexpected --sppot"),
    ],
)
def test_a_wrong_command_line_is_one_line_before_any_call(cloud, arguments, says):
    code, _, err = cloud.launch("tpu_vm.sh", *arguments)
    assert code == 43 and says in one_error(err) and not cloud.calls("gcloud")


def test_a_new_tpu_is_made_installed_started_followed_and_kept(cloud):
    code, out, err = cloud.launch("tpu_vm.sh", *TPU, "--setup=mount /mnt || true", *RUN)
    assert code == 0, err
    assert cloud.verbs() == "describe create describe status scp install mount start follow status"
    create = cloud.calls("gcloud")[1]
    assert {"--version=v2-alpha-tpuv5-lite", "--accelerator-type=v5litepod-16"} <= set(create)
    assert "start 0 of host 0, with the committed config" in out and "of host 1" not in out
    expected = ["-m", "vqdna_jax.main", *RUN[1:], "--multihost=tpu"]
    assert cloud.trained_with(0) == cloud.trained_with(1) == expected
    pip = [call for call in cloud.calls("trainer") if call[:2] == ["-m", "pip"]]
    assert len(pip) == 2 and all("--require-hashes" in call and "tests/libtpu.lock" in call for call in pip)
    assert "pod is still there and costs money" in err and (cloud.folder / "tpu.json").exists()


def test_a_ready_tpu_is_reused_and_deleted_only_on_demand(cloud):
    cloud.has("READY")
    code, _, err = cloud.launch("tpu_vm.sh", *TPU, "--delete", *RUN)
    assert code == 0, err
    assert cloud.verbs() == "describe status scp install start follow status delete"


def test_arguments_reach_every_host_as_they_are(cloud):
    hard = [*HARD, "--config.z=two\nlines"]
    code, _, err = cloud.launch("tpu_vm.sh", *TPU, "--", "python", "-m", "vqdna_jax.main", *RUN[1:], *hard)
    assert code == 0, err
    expected = ["-m", "vqdna_jax.main", *RUN[1:], *hard, "--multihost=tpu"]
    assert cloud.trained_with(0) == cloud.trained_with(1) == expected


def test_processes_named_by_hand_get_no_multihost_beside_them(cloud):
    code, out, _ = cloud.launch("slurm.sbatch", *RUN, "--coordinator=h:1", "--processes=2", DRY_RUN="1")
    assert code == 0 and "--coordinator=h:1 --processes=2" in out and "--multihost" not in out


def test_changed_files_are_copied_and_untracked_ones_are_not(cloud, clone, tmp_path):
    cloud.clone = tmp_path / "changed"
    shutil.copytree(clone, cloud.clone)
    (cloud.clone / "configs/hrq.py").write_text("the changed config")
    (cloud.clone / "secret.txt").write_text("not for others")
    (cloud.clone / "tests/libtpu.lock").rename(cloud.clone / "untracked.lock")
    (cloud.clone / "tests/libtpu.lock").write_text("libtpu==1")
    before = subprocess.run(["git", "-C", cloud.clone, "status", "--short"], capture_output=True).stdout
    code, out, err = cloud.launch("tpu_vm.sh", *TPU, *RUN)
    assert code == 0 and "with the changed config" in out, err
    assert "with its uncommitted changes" in err and "untracked files are not copied" in err
    assert not list(cloud.folder.glob("hosts/*/vqdna-launch/code/secret.txt"))
    assert before == subprocess.run(["git", "-C", cloud.clone, "status", "--short"], capture_output=True).stdout


def test_42_starts_again_without_installing_and_46_only_so_often(cloud):
    cloud.plan(codes=[[42, 42], [46, -signal.SIGKILL], [42, 42], [0, 0]])
    code, out, err = cloud.launch("tpu_vm.sh", *TPU, "--restarts=1", *RUN)
    assert code == 0, err
    assert re.findall(r"start \d", out) == [f"start {start}" for start in range(4)]
    assert cloud.verbs().count("install") == 1 and cloud.verbs().count("start") == 4
    assert "t1v-n-1234-w-1 ended with 137" in err  # the one that was killed, not the one that missed it


def test_the_limit_of_restarts_ends_with_46(cloud):
    cloud.plan(codes=[[-signal.SIGABRT, 46]])
    code, out, err = cloud.launch("tpu_vm.sh", *TPU, "--restarts=1", *RUN)
    assert code == 46 and out.count("of host 0") == 2 and "starting again, 0 more times at most" in err


@pytest.mark.parametrize("bad", [43, 1])
def test_a_host_with_a_reason_of_its_own_is_named_with_its_last_lines_and_not_started_again(cloud, bad):
    cloud.plan(codes=[[46, bad]])
    code, out, err = cloud.launch("tpu_vm.sh", *TPU, *RUN)
    assert code == bad and out.count("of host 0") == 1
    assert f"t1v-n-1234-w-1 ended with {bad}" in err and f"t1v-n-1234-w-1| error: reason of {bad}" in err
    assert "t1v-n-1234-w-0| " not in err


@pytest.mark.parametrize(
    "said, code, says",
    [
        ("ERROR: (gcloud.x) RESOURCE_EXHAUSTED: Quota limit 'TPUV5s' has been exceeded.", 43, "no quota for v5litepod"),
        ('ERROR: (gcloud.x) {"code": 8, "message": "There is no more capacity in the zone"}', 46, "no v5litepod-16 is"),
        ("ERROR: (gcloud.x) Insufficient capacity. RESOURCE_EXHAUSTED", 46, "use --queued"),
        ("ERROR: (gcloud.x) You do not currently have an active account selected.", 43, "gcloud auth login"),
        ("ERROR: (gcloud.x) The required property [project] is not currently set.", 43, "--project"),
        ("ERROR: (gcloud.x) INVALID_ARGUMENT: unknown accelerator", 43, "cannot create pod: ERROR: (gcloud.x) INVALID"),
    ],
)
def test_what_gcloud_refuses_is_one_line(cloud, said, code, says):
    cloud.plan(gcloud_error={"create": f"Create request issued\n{said}"})
    ended, _, err = cloud.launch("tpu_vm.sh", *TPU, *RUN)
    assert ended == code and says in one_error(err)


def test_without_gcloud_the_line_says_where_it_is_from(cloud):
    (cloud.folder / "bare").mkdir()
    for tool in ("bash", "dirname", "awk", "date"):
        (cloud.folder / "bare" / tool).symlink_to(shutil.which(tool))
    code, _, err = cloud.launch("tpu_vm.sh", *TPU, *RUN, PATH=str(cloud.folder / "bare"))
    assert code == 43 and "gcloud is not installed" in one_error(err)


def test_another_type_of_that_name_is_refused(cloud):
    cloud.has("READY", "v4-32")
    code, _, err = cloud.launch("tpu_vm.sh", *TPU, *RUN)
    assert code == 43 and "of type v4-32 instead of v5litepod-16" in one_error(err)
    assert cloud.verbs() == "describe"


@pytest.mark.parametrize(
    "options, state, code, verbs",
    [
        ([], "CREATING READY", 0, "describe describe status scp install"),
        ([], "PREEMPTED", 0, "describe delete describe create describe status scp install"),
        ([], "STOPPED", 43, "describe"),
        (["--wait=0"], "CREATING", 46, "describe"),
        (["--queued"], "WAITING_FOR_RESOURCES PROVISIONING ACTIVE", 0, "describe describe describe status scp install"),
        (["--queued"], "SUSPENDED", 0, "describe delete describe create describe status scp install"),
        (["--queued"], "FAILED", 0, "describe delete describe create describe status scp install"),
    ],
)
def test_each_state_of_a_tpu_from_before(cloud, options, state, code, verbs):
    cloud.has(state)
    ended, _, err = cloud.launch("tpu_vm.sh", *TPU, *options, *RUN)
    assert ended == code and cloud.verbs().startswith(verbs), err
    if code:
        assert state in one_error(err) and cloud.verbs() == verbs


def test_a_queued_request_that_fails_ends_with_its_reason(cloud):
    reason = "Quota limit 'TPUV5sPreemptible' has been exceeded"
    cloud.plan(created=[["WAITING_FOR_RESOURCES", "FAILED"]], failed_reason=reason)
    code, _, err = cloud.launch("tpu_vm.sh", *TPU, "--queued", "--spot", *RUN)
    assert code == 43 and reason in one_error(err) and cloud.verbs().count("create") == 1


def test_slices_are_one_queued_resource_and_every_call_reaches_all_of_them(cloud):
    cloud.plan(created=[["ACTIVE"]])
    code, _, err = cloud.launch("tpu_vm.sh", *TPU, "--slices=2", "--project=p", "--create-flag=--reserved", *RUN)
    assert code == 0, err
    calls = cloud.calls("gcloud")
    assert {call[2] for call in calls} == {"queued-resources"} and all("--project=p" in call for call in calls)
    create = next(call for call in calls if call[3] == "create")
    assert {"--node-count=2", "--node-prefix=pod", "--runtime-version=v2-alpha-tpuv5-lite", "--reserved"} <= set(create)
    for call in calls:
        if call[3] in ("ssh", "scp"):
            assert ("--node=all" in call) == ("--worker=all" in call) != ("--node=0" in call)


def test_a_tpu_taken_away_during_the_run_is_made_again_and_the_run_started_again(cloud):
    cloud.plan(codes=[["wait"], [0]], follow=[{"bytes": 10, "state": "PREEMPTED"}, {}])
    code, out, err = cloud.launch("tpu_vm.sh", *TPU, "--spot", "--restarts=0", *RUN)
    assert code == 0 and "start 1 of host 0" in out, err
    assert cloud.verbs().count("create") == 2 and cloud.verbs().count("install") == 2
    assert "pod is gone (PREEMPTED)" in err


@pytest.mark.parametrize("moment", ["worker.sh install", "worker.sh start"])
def test_a_tpu_taken_away_before_the_start_is_made_again(cloud, moment):
    cloud.plan(taken_at=moment)
    code, _, err = cloud.launch("tpu_vm.sh", *TPU, *RUN)
    assert code == 0 and cloud.verbs().count("create") == 2, err


def test_a_host_that_cannot_install_ends_with_46_and_its_own_words(cloud):
    code, _, err = cloud.launch("tpu_vm.sh", *TPU, "--setup=echo no such disk >&2; false", *RUN)
    assert code == 46 and "no such disk" in err and "can be run again" in one_error(err)


def test_a_broken_connection_neither_ends_the_run_nor_repeats_its_log(cloud):
    cloud.plan(codes=[["wait"]], follow=[{"go": True, "bytes": 10}, {}])
    code, out, err = cloud.launch("tpu_vm.sh", *TPU, *RUN)
    assert code == 0, err
    assert out == "start 0 of host 0, with the committed config\nerror: reason of wait\n"
    assert cloud.verbs().count("start") == 1 and cloud.verbs().count("follow") == 2


def wait_until(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_ctrl_c_leaves_the_run_and_the_same_command_follows_it_again(cloud):
    cloud.plan(codes=[["wait"]], follow=[{}, {"go": True}])
    first = cloud.start("tpu_vm.sh", *TPU, *RUN)
    wait_until(lambda: "follow" in cloud.verbs() and (cloud.folder / "arguments-1.json").exists())
    os.killpg(first.pid, signal.SIGINT)
    _, err = first.communicate(timeout=60)
    assert first.returncode == 130 and "the run, if it was started, goes on" in err
    code, _, err = cloud.launch("tpu_vm.sh", *TPU, *RUN, "--config.seed=2")
    assert code == 43 and "another run is going on" in err
    code, out, err = cloud.launch("tpu_vm.sh", *TPU, *RUN)
    assert code == 0 and out.startswith("start 0 of host 0") and "following it" in err
    assert cloud.verbs().count("install") == 1 and (cloud.folder / "starts-0.count").read_text() == "1"


def test_a_run_stopped_on_purpose_is_not_started_again(cloud):
    cloud.plan(codes=[["wait"]])
    first = cloud.start("tpu_vm.sh", *TPU, *RUN)
    wait_until(lambda: "follow" in cloud.verbs() and (cloud.folder / "arguments-1.json").exists())
    for host in cloud.folder.glob("hosts/*"):
        stop = ["bash", host / "vqdna-launch/code/launch/worker.sh", "stop"]
        subprocess.run(stop, env=cloud.environment(HOME=str(host)), check=True)
    first.communicate(timeout=60)
    assert first.returncode == 42 and (cloud.folder / "starts-0.count").read_text() == "1"


def test_on_a_host_with_an_old_python_the_locked_uv_fetches_a_newer_one(cloud):
    """A TPU VM has Python 3.10. The stand-in of it only installs; uv's only tells where the newer one is."""
    cloud.has("READY", hosts=1)
    cloud.plan(hosts=1)
    newer, lines = cloud.folder / "newer", cloud.folder / "uv_lines"
    script = f'case "$1" in -c) exit 1 ;; esac\nfor last; do :; done\ncat "$last" >{lines}\necho "$@" >>{lines}\n'
    tool = "$HOME/vqdna-launch/uv/bin"
    script += f"mkdir -p {tool}\nprintf '#!/bin/sh\\necho {newer}' >{tool}/uv\nchmod +x {tool}/uv"
    for python in ("python3", "python3.12", "python3.11"):
        cloud.command(f"host_bin/{python}", script)
    code, _, err = cloud.launch("tpu_vm.sh", *TPU, *RUN, PYTHON="")
    assert code == 0, err
    assert lines.read_text().startswith("uv==2 \\\n    --hash=sha256:bb\n-m pip install")
    assert "--require-hashes" in lines.read_text()
