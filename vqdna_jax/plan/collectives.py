"""What a compiled step sends between devices, read off its HLO text: every collective, how often, how much, to whom."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) \(.*\{$")
_COLLECTIVE = re.compile(rf"= (.+?) ({'|'.join(KINDS)})(-start)?\(")  # a -done makes nothing of its own
_TO_SLICES = re.compile(r'= \((.+?), u32\[\]\S*, token\[\]\) send\(.*"xla_megascale_runtime"')
_CHANNEL, _CHAIN = re.compile(r"channel_id=(\d+)"), re.compile(r'chain_id="\d+"')
OF_SHARD_MAP = "1"  # the channel of all collectives that a shard_map writes
_ARRAY = re.compile(r"([a-z]+\d*\w*)\[([\d,]*)\]")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|true_computation|false_computation|branch_computations|called_computations)="
    r"(?:\{([^}]*)\}|%?([\w.-]+))"
)
_CONDITION = re.compile(r" while\(.*condition=%?([\w.-]+)")
_TRIPS = re.compile(r"known_trip_count\W+n\W+(\d+)")
_LIMIT = re.compile(r"%?([\w.-]+) = s(?:32|64)\[\]\S* constant\((\d+)\)")
_LISTS = re.compile(r"(?:replica_groups|source_target_pairs)=\{(\{[\d,{}]+\})\}")
_IOTA = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESH = re.compile(r"replica_groups=mesh\[(.*?)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{(.*?)\}")
_COMPARE = re.compile(r"ROOT .* compare\((.*)\), direction=LT")


Amount = dict[str, int]  # {"count", "bytes"}


class Sent(NamedTuple):
    """What one device sends in one run of a program.

    Attributes:
        by_kind: {"all-reduce": amount, ...}.
        by_axes: {"data+fsdp": by_kind}, by the mesh axes along which the devices of a group differ.
        between_slices: what is handed to the network between slices. Sums over several slices are a collective inside
            each, which is among the others, and these.
        loops_known: whether every loop around one says how often it runs.
    """

    by_kind: dict[str, Amount]
    by_axes: dict[str, dict[str, Amount]]
    between_slices: Amount
    loops_known: bool


class _Found(NamedTuple):
    times: int
    bytes: int
    exact: bool
    axes: str


def collectives(hlo: str, mesh: Mapping[str, int]) -> Sent:
    """What a module sends on `mesh`, {axis: size} with the outermost axis first.

    Bytes are of whole arrays on one device: what an all-gather makes, a reduce-scatter takes, an all-reduce adds up.
    What is in a loop counts as often as the loop runs, once where that cannot be read. The TPU compiler splits an
    asynchronous collective into several operations of one channel, which count once, and writes a reduce-scatter as an
    all-reduce in a computation called all-reduce-scatter. Of several slices it writes the program of one.
    """
    bodies = _computations(hlo)
    runs = _runs(bodies)
    found: dict[tuple[str, str], _Found] = {}
    for name, lines in bodies.items():
        for number, line in enumerate(lines):
            read = _read(line, name, mesh) if name in runs else None
            if read is None:
                continue
            kind, size, axes = read
            times, exact = runs[name]
            key = (kind, _channel(line) or f"{name} {number}")
            found[key] = max(found.get(key, _Found(0, 0, exact, axes)), _Found(times, size * times, exact, axes))
    sent = {key: each for key, each in found.items() if key[0] in KINDS}
    all_axes = sorted({each.axes for each in sent.values()})
    return Sent(
        _by_kind(sent),
        {axes: _by_kind({key: each for key, each in sent.items() if each.axes == axes}) for axes in all_axes},
        _amount(each for (kind, _), each in found.items() if kind == "send"),
        all(each.exact for each in found.values()),
    )


def _channel(line: str) -> str:
    """What the parts of one collective have alike; empty where it is in one part."""
    channel, chain = _CHANNEL.search(line), _CHAIN.search(line)
    if channel is None or (channel[1] == OF_SHARD_MAP and chain is None):
        return ""
    return f"{channel[1]} {chain[0] if chain else ''}"


def _read(line: str, computation: str, mesh: Mapping[str, int]) -> tuple[str, int, str] | None:
    """(kind, bytes, mesh axes) of a line that sends something, "send" for what goes to other slices."""
    if match := _TO_SLICES.search(line):
        return "send", _bytes(match[1]), ""
    match = _COLLECTIVE.search(line)
    if not match:
        return None
    shape, kind, start = match.groups()
    groups = device_groups(line, math.prod(mesh.values()))
    size = _bytes_of_start(shape, kind) if start else _bytes(shape)
    if kind == "reduce-scatter" and not start:
        size *= groups.shape[1]
    if kind == "all-reduce" and computation.startswith("all-reduce-scatter"):
        kind = "reduce-scatter"
    return kind, size, _axes(groups, mesh)


def _by_kind(found: Mapping[tuple[str, str], _Found]) -> dict[str, Amount]:
    kinds = [kind for kind in KINDS if any(key[0] == kind for key in found)]
    return {kind: _amount(each for key, each in found.items() if key[0] == kind) for kind in kinds}


def _amount(found: Iterable[_Found]) -> Amount:
    found = list(found)
    return {"count": sum(each.times for each in found), "bytes": sum(each.bytes for each in found)}


def _axes(groups: np.ndarray, mesh: Mapping[str, int]) -> str:
    """The axes along which the devices of a group differ, joined by "+"; "none" where a group is one device."""
    coordinates = np.unravel_index(groups, tuple(mesh.values()))
    return "+".join(axis for axis, x in zip(mesh, coordinates) if np.any(x != x[:, :1])) or "none"


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
    limits = {match[1]: match[2] for each in lines if (match := _LIMIT.search(each))}
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


def device_groups(line: str, devices: int) -> np.ndarray:
    """The groups of a collective, [groups, devices of one], in any of the ways HLO writes them; a pair of a permute is
    a group. Devices are numbered as they lie in the mesh. One group of all `devices` where the line names none."""
    if lists := _LISTS.search(line):
        return np.array([[int(n) for n in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", lists[1])])
    if iota := _IOTA.search(line):
        return _iota(iota[3], iota[4]).reshape(int(iota[1]), int(iota[2]))
    if mesh := _MESH.search(line):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
        inside = [list(sizes).index(axis) for axis in re.findall(r"'(\w+)'", mesh[4])]
        shape = [int(size) for size in sizes.values()]
        ids = _iota(mesh[2] or str(math.prod(shape)), mesh[3]).reshape(shape)
        one = math.prod(shape[axis] for axis in inside)
        return np.moveaxis(ids, inside, range(-len(inside), 0)).reshape(-1, one)
    return np.arange(devices)[None]


def _iota(dimensions: str, order: str | None) -> np.ndarray:
    """The numbers from 0 in an array of these dimensions, its axes then taken in this order."""
    shape = [int(n) for n in dimensions.split(",")]
    ids = np.arange(math.prod(shape)).reshape(shape)
    return ids.transpose([int(n) for n in order.split(",")]) if order else ids
