"""How much memory there is, and glibc's malloc told to keep what a process that computes on a CPU has taken.

Every training step takes hundreds of megabytes for a moment. By its defaults malloc gives each large block back to the
system and gets it again, page by page: a third of a small step's time (docs/results.md).
"""

import ctypes
import functools
import glob
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

from vqdna_jax.errors import InputError

OFF = "VQDNA_KEEP_MEMORY"  # 0: malloc is left alone
LIMIT = "VQDNA_MEMORY_GIB"  # that each device is to be taken to have
_SETTINGS = {  # from malloc.h; without any one of them pages go back and forth
    -4: 0,  # M_MMAP_MAX: no block is a mapping of its own
    -1: -1,  # M_TRIM_THRESHOLD: the heap never shrinks
    -8: 1,  # M_ARENA_MAX: one heap for all threads
}
_ACCELERATORS = ("/dev/nvidia[0-9]*", "/dev/dxg", "/dev/kfd", "/dev/accel*", "/dev/vfio/[0-9]*")


def keep(platforms: str = "") -> None:
    """Sets malloc so, on Linux with glibc where nothing but CPUs will compute; else it does nothing.

    Call it before threads are started and jax is imported, for each thread keeps the heap that it has.

    Args:
        platforms: of jax; empty: those of $JAX_PLATFORMS, and without it any that there are.
    """
    wanted = os.environ.get(OFF, "1") != "0" and "jax" not in sys.modules
    if wanted and sys.platform == "linux" and _cpu_alone(platforms or os.environ.get("JAX_PLATFORMS", "")):
        libc = ctypes.CDLL(None)
        if hasattr(libc, "gnu_get_libc_version"):
            for parameter, value in _SETTINGS.items():
                libc.mallopt(parameter, value)


def _cpu_alone(platforms: str) -> bool:
    return platforms == "cpu" if platforms else not any(glob.glob(pattern) for pattern in _ACCELERATORS)


def of_device(device: Any) -> int:
    """Bytes that this process may use of a jax device, which are the machine's of a CPU; $VQDNA_MEMORY_GIB instead.

    Raises InputError: the variable holds no positive number.
    """
    if stated := os.environ.get(LIMIT):
        try:
            gib = float(stated)
        except ValueError:
            gib = 0.0
        if not 0 < gib < 2**20:
            raise InputError(f"{LIMIT}={stated}: expected a number of GiB above 0; correct it, or unset it")
        return round(gib * 2**30)
    return (device.memory_stats() or {}).get("bytes_limit") or of_machine()


@functools.cache
def of_machine(root: str = "/") -> int:
    """Bytes of main memory that this process may use: all, or what the control groups of a container or a job allow."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _limits(pathlib.Path(root)):
        try:
            limits.append(int(path.read_text()))
        except (OSError, ValueError):  # there is no such group, or no limit: "max"
            continue
    return min(limit for limit in limits if limit > 0)


def _limits(root: pathlib.Path) -> Iterator[pathlib.Path]:
    """The files that may hold a limit, of both versions of control groups, of this process's group and those above."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        folder, name = ("memory", "memory.limit_in_bytes") if controllers else ("", "memory.max")
        top, here = root / "sys/fs/cgroup" / folder, pathlib.PurePath(group.lstrip("/"))
        yield from (top / each / name for each in (here, *here.parents))
