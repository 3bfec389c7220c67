"""malloc keeps its memory where a CPU computes, and is left alone elsewhere: page faults of real processes."""

import os
import subprocess
import sys

import pytest

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
