"""malloc keeps its memory where a CPU computes, and is left alone elsewhere: page faults of real processes."""

import os
import subprocess
import sys

import pytest

from vqdna_jax.runtime import memory

PROGRAM = """
import resource, sys
from vqdna_jax.runtime import memory
memory.keep(sys.argv[1])
BLOCK = 40 << 20  # more than malloc ever learns to keep
for _ in range(10):
    b"x" * BLOCK
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def faults(platforms: str = "", **variables: str) -> int:
    command = [sys.executable, "-c", PROGRAM, platforms]
    return int(subprocess.run(command, env=os.environ | variables, capture_output=True, check=True, text=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc's malloc")
def test_pages_are_taken_once_for_a_cpu_and_again_and_again_otherwise():
    once = (40 << 20) // os.sysconf("SC_PAGE_SIZE")
    kept = faults("cpu")
    others = [
        faults("cpu", VQDNA_KEEP_MEMORY="0"),
        faults("gpu", JAX_PLATFORMS="cpu"),
        faults("", JAX_PLATFORMS="cuda"),
        faults("", JAX_PLATFORMS="tpu,cpu"),
    ]
    assert all(each - kept > 4 * once for each in others)
    assert abs(faults("", JAX_PLATFORMS="cpu") - kept) < once


GROUPS = {
    "proc/self/cgroup": "5:devices:/\n4:memory:/job/1\n0::/slice/step\n",
    "sys/fs/cgroup/slice/memory.max": f"{3 << 20}\n",
    "sys/fs/cgroup/slice/step/memory.max": "max\n",
    "sys/fs/cgroup/memory/job/memory.limit_in_bytes": f"{2 << 20}\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
}


@pytest.mark.parametrize(
    ("left_out", "mib"),
    [((), 2), (("sys/fs/cgroup/memory/job/memory.limit_in_bytes",), 3), (tuple(GROUPS), None)],
)
def test_the_least_of_what_control_groups_allow_counts(tmp_path, left_out, mib):
    """Both versions of them, the process's group and those above it."""
    for name in GROUPS.keys() - set(left_out):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(GROUPS[name])
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert memory.of_machine(str(tmp_path)) == (whole if mib is None else mib << 20)
