"""Good files with parts cut, moved, repeated and replaced, for so many seconds: `tools/fuzz.sh TARGET SECONDS`.

What raises anything but InputError, takes more than a second or a gigabyte, or reads otherwise than a second reader is
made as small as it goes, and kept in tests/fuzz/inputs/TARGET, where fuzz_test.py tries it for good.
"""

import hashlib
import pathlib
import resource
import sys
import tempfile
import time

import hypothesis
from hypothesis import strategies as st

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[1]), str(pathlib.Path(__file__).resolve().parent)]

from fuzz_targets import TARGETS, Target  # noqa: E402

from vqdna_jax.errors import InputError  # noqa: E402

INPUTS = pathlib.Path(__file__).parent / "fuzz/inputs"
LONGEST_S = 1.0  # of one input, in processor time
MEMORY = 1 << 30
ROUND = 500  # inputs between two looks at the clock
QUIET = hypothesis.settings(
    max_examples=ROUND,
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
    phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
)


def edited(data: bytes, edits: list[tuple[str, float, float, bytes]]) -> bytes:
    """Each edit: what is done, where the part begins and how long it is as shares of what is there, new bytes."""
    for kind, place, share, new in edits:
        start = int(place * len(data))
        stop = start + int(share**4 * (len(data) - start))  # most parts are short
        part = data[start:stop]
        changed = {"cut": b"", "repeat": 2 * part, "replace": new, "insert": new + part, "end": None}[kind]
        data = data[:start] if changed is None else data[:start] + changed + data[stop:]
    return data


def inputs_of(target: Target) -> st.SearchStrategy[bytes]:
    share = st.floats(0, 1, exclude_max=True)
    new = st.one_of(st.binary(min_size=1, max_size=4), *([st.sampled_from(target.words)] if target.words else []))
    edit = st.tuples(st.sampled_from(["replace", "insert", "cut", "repeat", "end"]), share, share, new)
    return st.builds(edited, st.sampled_from(target.seeds()), st.lists(edit, max_size=6))


def tried(target: Target, data: bytes, place: pathlib.Path) -> bool:
    """Whether it was read; AssertionError or another error where it was neither read nor refused as it should be."""
    began = time.process_time()
    try:
        target.check(data, place)
        return True
    except InputError as error:
        assert "\n" not in str(error), f"more than a line: {error!r}"
        return False
    finally:
        assert time.process_time() - began < LONGEST_S, "more than a second"


def fuzz(name: str, seconds: float) -> tuple[int, int]:
    """(inputs, how many of them were read). Raises what an input did, which is then kept."""
    target, seed, counts = TARGETS[name], time.time_ns(), [0, 0]
    last, strategy, until = b"", inputs_of(target), time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as place:

        def once(data: bytes) -> None:
            nonlocal last
            last = data
            counts[0] += 1
            counts[1] += tried(target, data, pathlib.Path(place))

        while time.monotonic() < until:
            seed += 1
            try:
                hypothesis.seed(seed)(QUIET(hypothesis.given(strategy)(once)))()
            except BaseException:
                kept = INPUTS / name / hashlib.sha256(last).hexdigest()[:12]
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_bytes(last)
                print(f"kept {kept}", file=sys.stderr)
                raise
    return counts[0], counts[1]


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: tools/fuzz.sh TARGET SECONDS, TARGET one of {', '.join(TARGETS)}")
    TARGETS[sys.argv[1]].seeds()
    memory = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    print("{} inputs, {} of them read".format(*fuzz(sys.argv[1], float(sys.argv[2]))))
