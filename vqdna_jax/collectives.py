"""What a compiled step sends between devices, read off its HLO text: every collective by kind, how often, how much."""

import math
import re

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) \(.*\{$")
_COLLECTIVE = re.compile(rf"= (.+?) ({'|'.join(KINDS)})(-start)?\(")  # a -done makes nothing of its own
_CHANNEL = re.compile(r"channel_id=(\d+)")
_ARRAY = re.compile(r"([a-z]+\d*\w*)\[([\d,]*)\]")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|true_computation|false_computation|branch_computations|called_computations)="
    r"(?:\{([^}]*)\}|%?([\w.-]+))"
)
_CONDITION = re.compile(r" while\(.*condition=%?([\w.-]+)")
_TRIPS = re.compile(r'known_trip_count\W+n\W+(\d+)')
_LIMIT = re.compile(r"%?([\w.-]+) = s(?:32|64)\[\]\S* constant\((\d+)\)")
_COMPARE = re.compile(r"ROOT .* compare\((.*)\), direction=LT")


def collectives(hlo: str) -> tuple[dict[str, dict[str, int]], bool]:
    """({kind: {"count", "bytes"}} of one run of the module, whether every loop around one says how often it runs).

    Bytes are of whole arrays on one device: what an all-gather makes, a reduce-scatter takes, an all-reduce adds up.
    What is in a loop counts as often as the loop runs, once where that cannot be read. The TPU compiler splits an
    asynchronous collective into several operations of one channel, which count once, and writes a reduce-scatter as an
    all-reduce in a computation called all-reduce-scatter.
    """
    bodies = _computations(hlo)
    runs, found = _runs(bodies), {}
    for name, lines in bodies.items():
        for number, line in enumerate(lines):
            match = _COLLECTIVE.search(line)
            if not match or name not in runs:
                continue
            shape, kind, start = match.groups()
            size = _bytes_of_start(shape, kind) if start else _bytes(shape)
            if kind == "reduce-scatter" and not start:
                size *= _group_size(line)
            if kind == "all-reduce" and name.startswith("all-reduce-scatter"):
                kind = "reduce-scatter"
            channel = _CHANNEL.search(line)
            times, exact = runs[name]
            key = (kind, channel[1] if channel else f"{name} {number}")
            found[key] = max(found.get(key, (0, 0, exact)), (times, size * times, exact))
    totals = {
        kind: {"count": sum(n for n, _, _ in mine), "bytes": sum(size for _, size, _ in mine)}
        for kind in KINDS
        if (mine := [values for key, values in found.items() if key[0] == kind])
    }
    return totals, all(exact for _, _, exact in found.values())


def _computations(hlo: str) -> dict[str, list[str]]:
    """The lines of each computation by name, callers after what they call, the entry last."""
    bodies: dict[str, list[str]] = {}
    name = None
    for line in hlo.splitlines():
        if line[:1].isspace():
            if name is not None:
                bodies[name].append(line)
        elif match := _COMPUTATION.match(line):
            name = match[1]
            bodies[name] = []
    return bodies


def _runs(bodies: dict[str, list[str]]) -> dict[str, tuple[int, bool]]:
    """How often each computation runs in one run of the last one, and whether that is certain."""
    runs = {list(bodies)[-1]: (1, True)}
    for name in reversed(bodies):
        if name not in runs:
            continue
        for line in bodies[name]:
            trips = _trips(line, bodies)
            for group, single in _CALLED.findall(line):
                for called in re.findall(r"[\w.-]+", group or single):
                    if called in bodies:
                        times, exact = runs.get(called, (0, True))
                        more, sure = runs[name]
                        runs[called] = (times + more * (trips or 1), exact and sure and trips is not None)
    return runs


def _trips(line: str, bodies: dict[str, list[str]]) -> int | None:
    """How often a loop's body runs; 1 for what is no loop, None if it cannot be read.

    Where the compiler does not say, the condition does: the counter of a scan goes from 0 to a constant.
    """
    condition = _CONDITION.search(line)
    if not condition:
        return 1
    if known := _TRIPS.search(line):
        return int(known[1])
    lines = bodies.get(condition[1], [])
    limits = dict(match.groups() for each in lines if (match := _LIMIT.search(each)))
    compared = next((match[1] for each in lines if (match := _COMPARE.search(each))), "")
    numbers = [limits[operand] for operand in re.findall(r"%([\w.-]+)", compared) if operand in limits]
    return int(numbers[0]) if len(numbers) == 1 else None


def _bytes(shape: str) -> int:
    """Of all arrays named in an HLO shape, tuples included."""
    total = 0
    for dtype, dimensions in _ARRAY.findall(shape):
        bits = re.search(r"\d+", dtype)
        size = 1 if dtype == "pred" else int(bits[0]) / 8 if bits else 0  # a token has none
        total += math.ceil(size * math.prod(int(n) for n in dimensions.split(",") if n))
    return total


def _bytes_of_start(shape: str, kind: str) -> int:
    """Of a -start, whose result is (operands, results, ...): the larger; an all-reduce's has the results alone."""
    if kind == "all-reduce":
        return _bytes(shape)
    parts, depth = [""], 0
    for character in shape.removeprefix("("):
        depth += (character in "({[") - (character in ")}]")
        if character == "," and not depth:
            parts.append("")
        parts[-1] += character
    return max(_bytes(part) for part in parts)


def _group_size(line: str) -> int:
    """Devices of one replica group, in any of the three ways HLO writes them."""
    if lists := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return len(lists[1].split(","))
    if iota := re.search(r"replica_groups=\[\d+,(\d+)\]<=", line):
        return int(iota[1])
    if mesh := re.search(r"replica_groups=mesh\[(.*?)\].*?\{(.*?)\}", line):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", mesh[2]))
    return 1
