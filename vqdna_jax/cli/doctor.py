"""Looks at this machine and says what keeps it from training: versions, devices, and the install line it needs."""

import glob
import importlib.metadata
import os
import pathlib
import platform
import shlex
import shutil
import subprocess
import time
from typing import Any

from packaging.requirements import Requirement

from vqdna_jax.runtime import compiled, memory
from vqdna_jax.version import __version__

MIN_FREE_DISK_GB = 5
CUDA13_MIN_DRIVER = 580  # older drivers, down to 525, run CUDA 12
GOOGLE_PCI_VENDOR, GOOGLE_NIC = "0x1ae0", "0x0042"


def examine() -> dict:
    """All findings as plain JSON types; `problems` lists what wants attention, each with what to do about it."""
    problems: list[dict[str, str]] = []
    hardware = {"gpus": _nvidia_gpus(), "tpu_chips": _tpu_chips()}
    said = {k: v for k, v in sorted(os.environ.items()) if k.startswith(("JAX_", "XLA_", "CUDA_VISIBLE"))}
    findings: dict[str, Any] = {
        "vqdna_jax": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "host": _host(),
        "packages": _packages(problems),
        "hardware": hardware,
        "install": _install_line(hardware),
        "jax": _jax(problems),
        "environment": said,
    }
    _unused_hardware(hardware, findings["jax"], problems)
    if findings["host"]["free_disk_gb"] < MIN_FREE_DISK_GB:
        _note(problems, f"only {findings['host']['free_disk_gb']} GB free here", "free some or use another workdir")
    return {**findings, "problems": problems}


def describe(findings: dict) -> str:
    """The findings for a person to read."""
    host, jax = findings["host"], findings["jax"]
    rows = [
        f"vqdna_jax {findings['vqdna_jax']}",
        f"python    {findings['python']} on {findings['system']}",
        f"host      {host['cpu_cores']} cores, {host['memory_gb']} GB memory, {host['free_disk_gb']} GB disk free here",
        *(f"seen      NVIDIA {gpu['name']}, driver {gpu['driver']}" for gpu in findings["hardware"]["gpus"]),
    ]
    if findings["hardware"]["tpu_chips"]:
        rows.append(f"seen      {findings['hardware']['tpu_chips']} TPU chips")
    for device in jax["devices"]:
        memory = f", {device['memory_gb']} GB" if device["memory_gb"] else ""
        rows.append(f"device    {device['platform']}:{device['id']} {device['kind']}{memory}")
    if jax["matmul"]:
        rows.append("computes  {size}x{size} {dtype} matmul: {ms} ms, {tflops} TFLOP/s".format(**jax["matmul"]))
    rows.append(f"install   {findings['install']}: for the best that was seen here")
    rows.append(f"cache     {jax['compilation_cache'] or 'off: every start compiles again'}")
    rows += [f"set       {name}={value}" for name, value in findings["environment"].items()]
    rows += ["packages  " + ", ".join(f"{name} {p['installed']}" for name, p in findings["packages"].items())]
    rows += [f"PROBLEM   {p['problem']}\n          do: {p['do']}" for p in findings["problems"]]
    return "\n".join(rows if findings["problems"] else [*rows, "All well."])


def _note(problems: list[dict[str, str]], problem: str, do: str) -> None:
    problems.append({"problem": problem, "do": do})


def _host() -> dict:
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu_cores": allowed,
        "memory_gb": round(memory.of_machine() / 1e9, 1),
        "free_disk_gb": round(shutil.disk_usage(".").free / 1e9, 1),
    }


def _packages(problems: list[dict[str, str]]) -> dict[str, dict[str, str | None]]:
    """Installed version and declared bound of every dependency."""
    try:
        declared = [Requirement(line) for line in importlib.metadata.requires("vqdna-jax") or []]
    except importlib.metadata.PackageNotFoundError:
        _note(problems, "vqdna-jax is not installed, only importable", "in its folder: pip install -e .")
        declared = [Requirement("jax"), Requirement("flax")]
    found = {}
    for requirement in declared:
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        found[requirement.name] = {"installed": _version(requirement.name), "wanted": str(requirement.specifier)}
        _check_version(requirement, found[requirement.name]["installed"], problems)
    return found


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _check_version(requirement: Requirement, installed: str | None, problems: list[dict[str, str]]) -> None:
    fix = f'python -m pip install "{requirement.name}{requirement.specifier}"'
    if installed is None:
        _note(problems, f"{requirement.name} is missing", fix)
    elif not requirement.specifier.contains(installed, prereleases=True):
        _note(problems, f"{requirement.name} {installed} is too old, wanted {requirement.specifier}", fix)


def _nvidia_gpus() -> list[dict[str, str]]:
    """The GPUs that the driver shows, whether jax can use them or not."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        listing = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.rsplit(", ", 1) for line in listing.splitlines() if ", " in line]
    return [{"name": name, "driver": driver} for name, driver in rows]


def _tpu_chips() -> int:
    """TPU chips on the PCI bus whose driver is up; Google's network card has the same vendor."""
    if not glob.glob("/dev/accel[0-9]*") and not glob.glob("/dev/vfio/[0-9]*"):
        return 0
    vendors = map(pathlib.Path, glob.glob("/sys/bus/pci/devices/*/vendor"))
    cards = [v.with_name("device") for v in vendors if v.read_text().strip() == GOOGLE_PCI_VENDOR]
    return sum(card.read_text().strip() != GOOGLE_NIC for card in cards)


def _jax(problems: list[dict[str, str]]) -> dict:
    report: dict[str, Any] = {
        "version": _version("jax"),
        "backend": None,
        "devices": [],
        "matmul": None,
        "compilation_cache": None,
    }
    try:
        compiled.keep()  # as a run does
        import jax

        devices = jax.local_devices()
        report["backend"] = jax.default_backend()
        report["devices"] = [_device(device) for device in devices]
        report["compilation_cache"] = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]  # jax sets it
        report["matmul"] = _time_matmul(report["backend"])
    except Exception as error:  # whatever stops jax is what this command is for
        forced = os.environ.get("JAX_PLATFORMS")
        fix = f"unset JAX_PLATFORMS, which is {forced!r}" if forced else "python -m pip install --force-reinstall jax"
        reason = " ".join(str(error).split())[:300]
        _note(problems, f"jax does not run: {type(error).__name__}: {reason}", fix)
    return report


def _device(device) -> dict:
    stats = device.memory_stats() or {}  # the CPU keeps none
    return {
        "platform": device.platform,
        "id": device.id,
        "kind": device.device_kind,
        "memory_gb": round(stats.get("bytes_limit", 0) / 1e9, 1),
    }


def _time_matmul(backend: str) -> dict:
    """A real computation; the size keeps a CPU busy for milliseconds and an accelerator long enough to measure."""
    import jax
    import jax.numpy as jnp

    size, dtype, repeats = (1024, jnp.float32, 5) if backend == "cpu" else (8192, jnp.bfloat16, 5)
    matrix = jnp.ones((size, size), dtype)
    product = jax.jit(jnp.matmul)
    product(matrix, matrix).block_until_ready()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        corner = product(matrix, matrix).block_until_ready()[0, 0]
        seconds.append(time.perf_counter() - start)
    if float(corner) != size:
        raise ArithmeticError(f"a matmul of ones gave {float(corner)}, not {size}")
    best = min(seconds)
    tflops = float(f"{2 * size**3 / best / 1e12:.3g}")
    return {"size": size, "dtype": jnp.dtype(dtype).name, "ms": round(best * 1e3, 2), "tflops": tflops}


def _unused_hardware(hardware: dict, jax: dict, problems: list[dict[str, str]]) -> None:
    """An accelerator that the machine has and jax does not use."""
    unused = []
    if hardware["gpus"] and jax["backend"] != "gpu":
        gpu = hardware["gpus"][0]
        unused.append((f"NVIDIA {gpu['name']} is here", _cuda_extra(gpu["driver"])))
    if hardware["tpu_chips"] and jax["backend"] != "tpu":
        unused.append((f"{hardware['tpu_chips']} TPU chips are here", "tpu"))
    forced = os.environ.get("JAX_PLATFORMS")
    for seen, extra in unused:
        if forced:
            do = f"unset JAX_PLATFORMS, which is {forced!r}"
        elif extra is None:
            do = "update the NVIDIA driver to 525 or newer, better 580"
        else:
            do = f'python -m pip install "jax[{extra}]=={jax["version"]}"'
        _note(problems, f"{seen}, but jax runs on {jax['backend'] or 'nothing'}", do)


def _install_line(hardware: dict) -> str:
    """What installs this package for the best that is here: its clone, or what an installed wheel lacks for it."""
    extra = "tpu" if hardware["tpu_chips"] else ""
    if hardware["gpus"]:
        extra = {"cuda13": "cuda", "cuda12": "cuda12"}.get(_cuda_extra(hardware["gpus"][0]["driver"]) or "", extra)
    clone = pathlib.Path(__file__).resolve().parents[2]
    place = os.fspath(clone) if (clone / "setup.py").exists() else "vqdna-jax"
    return f"python -m pip install {shlex.quote(f'{place}[{extra}]' if extra else place)}"


def _cuda_extra(driver: str) -> str | None:
    """The CUDA line whose jax wheels a driver can run."""
    major = int(driver.split(".")[0]) if driver.split(".")[0].isdigit() else 0
    if major >= CUDA13_MIN_DRIVER:
        return "cuda13"
    return "cuda12" if major >= 525 else None
