"""Stand-ins for gcloud, xpk, kubectl, srun, scontrol and the trainer: the program of the commands in launch_test.py.

`python stand_ins.py COMMAND ARGUMENT...` writes its arguments to calls.jsonl in the folder $STAND_IN and answers as the
real command would, from the facts in that folder's plan.json and from what earlier calls did. Commands for hosts are
really run, by bash, in a home folder per host. A test calls
this many times: what takes long to import is imported where it is used.
"""

import json
import os
import signal
import sys
import time

CLOUD = os.environ["STAND_IN"]
TPU, HOSTS = f"{CLOUD}/tpu.json", f"{CLOUD}/hosts"


def main(command: str, arguments: list[str]) -> int:
    note(command, arguments)
    return {"gcloud": gcloud, "xpk": xpk, "kubectl": kubectl, "srun": srun, "trainer": trainer}.get(
        command, lambda *_: 0
    )(arguments)


def note(command: str, arguments: list[str]) -> None:
    with open(f"{CLOUD}/calls.jsonl", "a") as calls:
        calls.write(json.dumps([command, *arguments]) + "\n")


def read(path: str):
    with open(path) as file:
        return json.load(file)


def write(path: str, value) -> None:
    with open(path, "w") as file:
        json.dump(value, file)


def plan(key: str, default):
    return read(f"{CLOUD}/plan.json").get(key, default)


def count(name: str) -> int:
    """How often it was called with this name before."""
    path = f"{CLOUD}/{name}.count"
    before = read(path) if os.path.exists(path) else 0
    write(path, before + 1)
    return before


def take(key: str, default):
    """The next of the plan's list of that name, the last one again and again."""
    items = plan(key, [default])
    return items[min(count(key), len(items) - 1)]


def option(arguments: list[str], name: str, default: str = "") -> str:
    return next((text.partition("=")[2] for text in arguments if text.startswith(f"--{name}=")), default)


def complain(text: str, code: int = 1) -> int:
    print(text, file=sys.stderr)
    return code


# gcloud compute tpus KIND VERB NAME ...


def gcloud(arguments: list[str]) -> int:
    if error := plan("gcloud_error", {}).get(arguments[3]):
        return complain(error)
    return {"describe": describe, "create": create, "delete": delete, "ssh": ssh, "scp": scp}[arguments[3]](arguments)


def describe(arguments: list[str]) -> int:
    if not os.path.exists(TPU):
        return complain("ERROR: (gcloud.compute.tpus.tpu-vm.describe) NOT_FOUND: Resource was not found")
    tpu = read(TPU)
    if "failedData" in option(arguments, "format"):
        print(plan("failed_reason", ""))
        return 0
    print(tpu["states"][0], tpu["type"], sep="\t")
    if len(tpu["states"]) > 1:
        write(TPU, tpu | {"states": tpu["states"][1:]})
    return 0


def create(arguments: list[str]) -> int:
    assert not os.path.exists(TPU), "created twice"
    write(TPU, {"states": take("created", ["READY"]), "type": option(arguments, "accelerator-type")})
    for index in range(plan("hosts", 2)):
        os.makedirs(f"{HOSTS}/{index}")
    return 0


def delete(_) -> int:
    import shutil

    os.remove(TPU)
    shutil.rmtree(HOSTS)
    return 0


def scp(arguments: list[str]) -> int:
    import shutil

    for host in os.listdir(HOSTS):
        shutil.copy(arguments[4], f"{HOSTS}/{host}/{arguments[5].partition(':')[2]}")
    return 0


def ssh(arguments: list[str]) -> int:
    if read(TPU)["states"][0] not in ("READY", "ACTIVE"):
        return complain("ERROR: the TPU is in an unusable state")
    command, worker = option(arguments, "command"), option(arguments, "worker")
    if plan("taken_at", "no such command") in command and not count("taken"):
        write(TPU, read(TPU) | {"states": ["PREEMPTED"]})
        return 255
    if worker == "0" and " follow " in command:
        return follow(command)
    indices = range(plan("hosts", 2)) if worker == "all" else [int(worker)]
    return max(on_host(index, command).wait() for index in indices)


def on_host(index: int, command: str, **options):
    import subprocess

    home = f"{HOSTS}/{index}"
    environment = {"HOME": home, "HOST": str(index), "PATH": f"{CLOUD}/host_bin:{os.environ['PATH']}"}
    return subprocess.Popen(["bash", "-c", command], cwd=home, env=os.environ | environment, **options)


def follow(command: str) -> int:
    """The plan may let the run end now, cut the connection after some bytes, or take the TPU away."""
    event = take("follow", {})
    if "go" in event:
        write(f"{CLOUD}/go", True)
    if "bytes" not in event:
        return on_host(0, command).wait()
    hosts = range(plan("hosts", 2))
    while not all(os.path.exists(f"{CLOUD}/arguments-{index}.json") for index in hosts):
        time.sleep(0.02)
    tail = on_host(0, command, stdout=-1)
    sys.stdout.write(tail.stdout.read(event["bytes"]).decode())
    tail.kill()
    if "state" in event:
        for index in hosts:
            os.killpg(read(f"{HOSTS}/{index}/vqdna-launch/run/session"), signal.SIGKILL)
        write(TPU, read(TPU) | {"states": [event["state"]]})
    return 255


# python -m vqdna_jax.main on a host or in a task


def trainer(arguments: list[str]) -> int:
    """Ends with the code the plan has for this host's next start; a negative one is a signal, "wait" waits for `go`."""
    if arguments[:2] == ["-m", "pip"]:
        return 0
    index = int(os.environ.get("HOST") or os.environ.get("SLURM_PROCID", "0"))
    start = count(f"starts-{index}")
    codes = plan("codes", [[0]])
    row = codes[min(start, len(codes) - 1)]
    code = row[index % len(row)]
    signal.signal(signal.SIGTERM, lambda *_: os._exit(42))
    with open("configs/hrq.py") as config:
        print(f"start {start} of host {index}, with {config.read().strip()}", flush=True)
    print(f"error: reason of {code}", file=sys.stderr, flush=True)
    write(f"{CLOUD}/arguments-{index}.json", arguments)
    deadline = time.monotonic() + 60  # of a test that failed: it is told or killed before
    while code == "wait":
        if os.path.exists(f"{CLOUD}/go"):
            code = 0
        elif time.monotonic() > deadline:
            code = 3
        time.sleep(0.02)
    if code < 0:
        os.kill(os.getpid(), -code)
    return code


# xpk and kubectl


def xpk(arguments: list[str]) -> int:
    if error := plan("xpk_error", {}).get(arguments[1]):
        return complain(error)
    if arguments[1] == "create":
        return xpk_create(arguments)
    if arguments[1] == "list" and option(arguments, "wait-for-job-completion"):
        return take("waits", 0)
    if arguments[1] == "list":
        finished = option(arguments, "filter-by-status") == "FINISHED"
        print("[XPK] Workload List Output:\nJobset Name   Created Time   Priority")
        for name, status in plan("workloads", {}).items():
            if not finished or status == "Finished":
                print(f"{name}   2026-11-25T08:00:00Z   medium   2   2   <none>   {status}")
    return 0


def xpk_create(arguments: list[str]) -> int:
    """Runs the command in every container as xpk's own manifest does."""
    import shutil
    import subprocess

    code, folder = option(arguments, "command"), option(arguments, "script-dir", f"{CLOUD}/image")
    for index in range(plan("hosts", 2)):
        home = f"{HOSTS}/{index}"
        shutil.copytree(folder, home)
        done = subprocess.run(
            ["bash", "-c", f"({code}) & PID=$!\nwait $PID;\nexit $?"],
            cwd=home,
            capture_output=True,
            text=True,
            env=os.environ | {"HOME": home, "HOST": str(index)},
        )
        write(f"{CLOUD}/pod-{index}.json", [done.returncode, done.stdout + done.stderr])
    return 0


def kubectl(arguments: list[str]) -> int:
    pods = {name[:5]: read(f"{CLOUD}/{name}") for name in sorted(os.listdir(CLOUD)) if name.startswith("pod-")}
    if arguments[0] == "logs":
        print(pods[arguments[1].removeprefix("pod/")][1], end="")
    elif "job-completion-index=0" in option(arguments, "selector"):
        print("pod/pod-0")
    else:
        for name, (code, _) in pods.items():
            print(name, code)
    return 0


# srun


def srun(arguments: list[str]) -> int:
    """Its tasks one after the other, its messages, and as its exit code the highest of all tasks'."""
    import subprocess

    command = [word for word in arguments if word not in ("--kill-on-bad-exit=1", "--gpu-bind=none")]
    codes = []
    for task in range(int(os.environ["SLURM_NTASKS"])):
        code = subprocess.run(command, env=os.environ | {"SLURM_PROCID": str(task)}).returncode
        codes.append(code if code >= 0 else 128 - code)
        if code > 0:
            complain(f"srun: error: gpu{task // 2}: task {task}: Exited with exit code {code}")
        elif code:
            complain(f"srun: error: gpu{task // 2}: task {task}: {signal.strsignal(-code)}")
    if plan("scancel", False):
        os.kill(os.getpgrp(), signal.SIGTERM)  # the batch script alone
    return max(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
