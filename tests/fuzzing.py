"""Good files with parts cut, moved, repeated and replaced, for so many seconds: `tools/fuzz.sh TARGET SECONDS`.

What raises anything but InputError, takes more than a second or a gigabyte, or reads otherwise than a second reader is
made as small as it goes, and kept in tests/fuzz/inputs/TARGET, where fuzz_test.py tries it for good.
"""

import contextlib
import faulthandler
import functools
import hashlib
import os
import pathlib
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[1]), str(pathlib.Path(__file__).resolve().parent)]

from fuzz_targets import TARGETS, Target  # noqa: E402

from vqdna_jax.errors import InputError  # noqa: E402

INPUTS = pathlib.Path(__file__).parent / "fuzz/inputs"
LONGEST_S = 1.0  # of one input, in processor time
MEMORY = 1 << 30
CUTTING_S = 60.0
IN_MEMORY = (
    "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
)  # a disk takes longer to write a file than we to read it
MOST_EDITS = 6
KINDS = ("cut", "end", "insert", "repeat", "replace")


def edited(data: bytes, draw: random.Random, words: tuple[bytes, ...]) -> bytes:
    """A part of it, mostly a short one, somewhere, often at an end, is cut, repeated or becomes something else."""
    start = draw.choice((0, len(data), *(draw.randrange(len(data) + 1) for _ in range(6))))
    stop = start + int(draw.random() ** 4 * (len(data) + 1 - start))
    new = draw.choice(words) if words and draw.random() < 0.5 else draw.randbytes(draw.randint(1, 4))
    part, kind = data[start:stop], draw.choice(KINDS)
    if kind == "end":
        return data[:start]
    changed = {"cut": b"", "insert": new + part, "repeat": 2 * part, "replace": new}[kind]
    return data[:start] + changed + data[stop:]


def smallest(data: bytes, is_one: Callable[[bytes], bool]) -> bytes:
    """Of what `is_one` says yes to, what is left when no part of it can be cut, or when that takes too long to see."""
    size, until = len(data), time.monotonic() + CUTTING_S
    while size := size // 2:
        at = 0
        while at < len(data) and time.monotonic() < until:
            without = data[:at] + data[at + size :]
            if is_one(without):
                data = without
            else:
                at += size
    return data


def tried(target: Target, data: bytes, place: pathlib.Path) -> bool:
    """Whether it was read; AssertionError or another error where it was neither read nor refused as it should be."""
    began = time.process_time()
    signal.signal(signal.SIGVTALRM, _ring)  # a loop that has no end would never come to the clock
    signal.setitimer(signal.ITIMER_VIRTUAL, 2 * LONGEST_S)
    try:
        target.check(data, place)
        return True
    except InputError as error:
        assert "\n" not in str(error), f"more than a line: {error!r}"
        return False
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        assert time.process_time() - began < LONGEST_S, "more than a second"


def _ring(*_: object) -> None:
    raise AssertionError("more than a second")


def fuzz(name: str, seconds: float) -> tuple[int, int]:
    """(inputs, how many of them were read). Raises what an input did, the smallest part of which is then kept."""
    target, draw, read, inputs = TARGETS[name], random.Random(), 0, 0
    seeds = target.seeds()
    with tempfile.TemporaryDirectory(prefix=f"vqdna-fuzz-{name}-", dir=IN_MEMORY) as directory:
        place = pathlib.Path(directory)  # is left where an input ends the process
        for data in seeds:  # what is compiled for the first of all takes a second by itself
            with contextlib.suppress(InputError):
                target.check(data, place)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            data = draw.choice(seeds)
            for _ in range(draw.randint(0, MOST_EDITS)):
                data = edited(data, draw, target.words)
            try:
                read += tried(target, data, place)
            except Exception as error:
                _keep(name, smallest(data, functools.partial(_raises, type(error), target, place)))
                raise
            inputs += 1
    return inputs, read


def _raises(kind: type[Exception], target: Target, place: pathlib.Path, data: bytes) -> bool:
    try:
        tried(target, data, place)
    except kind:
        return True
    except Exception:  # another fault, for another time
        pass
    return False


def _keep(name: str, data: bytes) -> None:
    kept = INPUTS / name / hashlib.sha256(data).hexdigest()[:12]
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(data)
    print(f"kept {kept}", file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: tools/fuzz.sh TARGET SECONDS, TARGET one of {', '.join(TARGETS)}")
    name, seconds = sys.argv[1], float(sys.argv[2])
    faulthandler.enable()
    faulthandler.dump_traceback_later(seconds + 2 * CUTTING_S, exit=True)  # what waits takes no processor time
    fuzz(name, 0.0)  # libraries start their threads: with no room for one ArrayRecord stands still
    memory = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    print("{} inputs, {} of them read".format(*fuzz(name, seconds)))
