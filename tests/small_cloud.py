"""The launchers, with stand-ins for gcloud, xpk and Slurm."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
STAND_INS = ROOT / "tests/stand_ins.py"
TPU = ["--name=pod", "--zone=us-west4-a", "--type=v5litepod-16", "--poll=0"]
XPK = ["--name=pod", "--cluster=c", "--type=v5litepod-16", "--poll=0"]
RUN = ["--", "--config=configs/hrq.py:tiny", "--workdir=/mnt/runs/words"]
# What a shell, ssh and YAML could trip over.
HARD = ["--config.data.weights={'a b': 2, \"c\": $HOME}", "--config.x=`id`;&|  two\\ \\\\n", "--config.y=", "é*?!~#"]


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


def one_error(err: str) -> str:
    """The last line, which is the only one that starts with error."""
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and err.splitlines()[-1] == errors[0], err
    return errors[0]
