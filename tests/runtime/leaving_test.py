"""Exit codes of processes that end in every way, also while XLA compiles; what was begun is finished, or is not."""

import os
import subprocess
import sys

import pytest

LEAVE = "from vqdna_jax.runtime.leaving import leave_with"


def run(program: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, env=os.environ | environment
    )


@pytest.mark.parametrize(
    "program, code, said",
    [
        ("lambda: 0", 0, ""),
        ("lambda: None", 0, ""),
        ("lambda: 42", 42, ""),
        ("lambda: sys.exit()", 0, ""),
        ("lambda: sys.exit(43)", 43, ""),
        ("lambda: sys.exit('no such thing')", 1, "no such thing"),
        ("lambda: 1 / 0", 1, "ZeroDivisionError: division by zero"),
        ("lambda: signal.raise_signal(signal.SIGINT)", 130, "KeyboardInterrupt"),
    ],
)
def test_the_exit_code_is_that_of_the_program(program, code, said):
    default = "signal.signal(signal.SIGINT, signal.default_int_handler)"  # a background shell ignores it
    end = run(f"import signal, sys\n{LEAVE}\n{default}\nprint('written')\nleave_with({program})")
    assert (end.returncode, end.stdout) == (code, "written\n")
    assert said in end.stderr and bool(said) == bool(end.stderr)


def test_threads_are_waited_for_and_nothing_after_them():
    """A checkpoint is written by a thread; jax's own functions at the exit may wait for peers that are gone."""
    end = run(
        f"import atexit, threading, time\n{LEAVE}\n"
        "atexit.register(print, 'not called')\n"
        "threading.Timer(0.3, print, ['saved']).start()\n"
        "leave_with(lambda: 42)"
    )
    assert (end.returncode, end.stdout, end.stderr) == (42, "saved\n", "")


def test_exit_now_flushes_and_skips_what_is_left_to_do():
    end = run(
        "import atexit, sys, threading, time\nfrom vqdna_jax.runtime.leaving import exit_now\n"
        "atexit.register(time.sleep, 60)\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "sys.stdout.write('written')\n"
        "exit_now(46)"
    )
    assert (end.returncode, end.stdout) == (46, "written")


COMPILING = """
import signal, sys
import jax, jax.numpy as jnp
from vqdna_jax.runtime.leaving import leave_with

class Interrupted(BaseException):
    pass

def interrupt(*_):
    raise Interrupted

def sorted_often(x):
    for factor in range(200):
        x = jnp.sort(x * factor)
    return x

def program():
    lowered = jax.jit(sorted_often).lower(jnp.ones(1000))
    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        lowered.compile()  # two seconds
    except Interrupted:
        return 42

"""


def test_a_process_may_leave_while_xla_compiles():
    """With `sys.exit(program())` in its place, jax 0.10 ends in a segmentation fault."""
    end = run(f"{COMPILING}\nleave_with(program)", JAX_DISABLE_MOST_OPTIMIZATIONS="0", JAX_ENABLE_COMPILATION_CACHE="0")
    assert (end.returncode, end.stderr) == (42, "")
