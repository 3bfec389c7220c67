"""How a process ends: with its own exit code, whatever its native threads are doing.

jax lets Python's signal handlers run while XLA compiles in a thread of its own, so Ctrl-C may end a program there. The
interpreter's last clean-up then destroys jax's client under the thread that compiles: a segmentation fault in place of
the exit code (jax 0.10), after a wait for the compiler. So a program is left before that clean-up.

Standard library only, for jax takes seconds to import.
"""

import atexit
import contextlib
import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

EXIT_INTERRUPTED = 128 + signal.SIGINT  # as a shell says of a process that Ctrl-C ended


def leave_with(program: Callable[[], int | None]) -> NoReturn:
    """Runs `program` and ends this process with the code that it returns or exits with.

    Python's threads end by themselves first, so a checkpoint that is being written is finished. What modules registered
    with `atexit` is not called: whoever opens a file closes it.
    """
    code = 1  # of an exception that nobody expected, whose traceback Python prints
    _open_standard_streams()
    try:
        sys.exit(program())
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
        raise
    finally:
        atexit.register(exit_now, code)  # what was registered last is called first


def _open_standard_streams() -> None:
    """Puts something in the place of those that are closed: the next file that is opened would take their number, and
    what native code says on standard error would go into it. Writing to standard output fails, as it did."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if number == 1 else os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as on stderr: a file's name may be no text


def drop_lost_terminal() -> None:
    """What is said from now on goes nowhere where a terminal that is gone would make it an error."""
    for number in (1, 2):
        try:
            os.write(number, b"")
        except OSError as error:
            if error.errno == errno.EIO:
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def exit_now(code: int) -> NoReturn:
    """Ends the process at once, without waiting for any thread: peers that they wait for may be gone."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # none, broken, closed
            stream.flush()
    os._exit(code)
