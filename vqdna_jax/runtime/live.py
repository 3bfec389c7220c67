"""How many bytes a program has in memory at once, read off its trace: in a second, before anything is compiled.

Arrays live from the operation that makes them to the last that reads them, in the order of the trace, each as large as
its part on one device. Where XLA takes an operation into the one that reads its result, no array is made, and what goes
into it lives so much longer. Of what is compiled the estimate is between LEAST and MOST (tests/runtime/live_test.py,
docs/scaling.md has the figures).
"""

import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend import core
from jax.sharding import AxisType

LEAST, MOST = 0.6, 1.5  # of what the compiler takes
_CALLS = dict.fromkeys(("jit", "remat2", "checkpoint", "shard_map"), "jaxpr") | dict.fromkeys(
    ("closed_call", "custom_jvp_call", "custom_vjp_call"), "call_jaxpr"
)
_LOOPS = {"scan": "jaxpr", "while": "body_jaxpr"}
_VIEWS = ("reshape", "squeeze", "expand_dims", "pvary", "reshard", "optimization_barrier")  # of what is there
_SPREAD = ("broadcast_in_dim", "iota")  # made again by each that reads it
_NO_LOOPS = (  # which read and write arrays, and take nothing in; all others are loops over elements
    *("dot_general", "conv_general_dilated", "fft", "sort", "gather", "scatter", "scatter-add", "cumsum"),
    *("scan", "while", "cond", "pallas_call", "custom_call", "all_gather", "all_to_all", "ppermute", "psum"),
)
_MAKES = (
    *_NO_LOOPS,
    "concatenate",
    "stack",
    "reduce_sum",
    "reduce_max",
    "reduce_min",
    "argmax",
    "dynamic_slice",
    "psum_invariant",
)
_TILE = 8, 128  # rows of 32 bits and columns, to which a TPU fills up what a scan stacks


class _Operation(NamedTuple):
    """Arrays by their numbers; `inside`: bytes of what lives within it."""

    name: str
    reads: Sequence[int]
    makes: Sequence[int]
    inside: int


def peak_bytes(traced: jax.stages.Traced, platform: str) -> int:
    """Of one device, arguments and results included; what is donated is used again for a result of its size.

    Args:
        platform: "cpu", "gpu" or "tpu", for which it is traced.
    """
    jaxpr = traced.jaxpr.jaxpr
    arguments = zip(jaxpr.invars, jax.tree.leaves(traced.args_info), strict=True)
    donated = collections.Counter(_bytes(v.aval) for v, argument in arguments if argument.donated)
    inputs = [*jaxpr.invars, *jaxpr.constvars]
    return sum(_bytes(v.aval) for v in inputs) + _Trace(platform).more(jaxpr, donated)


def _bytes(aval: Any) -> int:
    """Of the part on one device."""
    return math.prod(_shape(aval)) * getattr(getattr(aval, "dtype", None), "itemsize", 4)


def _shape(aval: Any) -> list[int]:
    """Of the part on one device."""
    shape, sharding = list(getattr(aval, "shape", (0,))), getattr(aval, "sharding", None)
    if sharding is not None and not sharding.mesh.empty:
        for at, of in enumerate(sharding.spec):
            shape[at] //= math.prod(sharding.mesh.shape[axis] for axis in ((of,) if isinstance(of, str) else of or ()))
    return shape


def _is_left_open(aval: Any) -> bool:
    """Whether the compiler decides how it is split: of a lookup, as the result that is asked for."""
    return AxisType.Auto in aval.sharding.mesh.axis_types


def _named(variables: Sequence, others: Sequence, names: Mapping[core.Var, int]) -> dict[core.Var, int]:
    """Names of variables that are the same arrays as others, which literals have none of."""
    same = zip(variables, others, strict=True)
    return {v: names[of] for v, of in same if not isinstance(of, core.Literal) and of in names}


@dataclasses.dataclass
class _Trace:
    """The operations of one traced function, calls in it opened, and the sizes of its arrays."""

    platform: str
    sizes: list[int] = dataclasses.field(default_factory=list)
    operations: list[_Operation] = dataclasses.field(default_factory=list)

    def more(self, jaxpr: core.Jaxpr, donated: Mapping[int, int]) -> int:
        """Bytes beyond those of the inputs."""
        inputs = [*jaxpr.invars, *jaxpr.constvars]
        names = {v: self._new(0) for v in inputs}
        self._open(jaxpr, names)
        return self._peak([*_named(jaxpr.outvars, jaxpr.outvars, names).values()], donated)

    def _new(self, size: int) -> int:
        self.sizes.append(size)
        return len(self.sizes) - 1

    def _open(self, jaxpr: core.Jaxpr, names: dict[core.Var, int]) -> None:
        """Appends the operations of a function whose inputs have `names`, and names what it makes."""
        chosen: dict[core.Var, int] = {}
        for equation in jaxpr.eqns:
            name, reads = equation.primitive.name, equation.invars
            if name == "platform_index":
                chosen[equation.outvars[0]] = self._branch(equation.params["platforms"])
            if name in _VIEWS:
                same = _named(equation.outvars, reads, names)
                names.update(same)
                if name == "reshard" and _is_left_open(reads[0].aval):  # an array that was made in parts
                    for v, array in same.items():
                        self.sizes[array] = min(self.sizes[array], _bytes(v.aval))
                continue
            called = equation.params.get(_CALLS.get(name, ""))
            if name == "cond" and not isinstance(reads[0], core.Literal) and reads[0] in chosen:
                called, reads = equation.params["branches"][chosen[reads[0]]], reads[1:]
            if called is not None:
                self._call(getattr(called, "jaxpr", called), reads, equation.outvars, names)
                continue
            read = [*_named(reads, reads, names).values()]
            made = [self._new(size) for size in self._sizes(equation)]
            names.update(zip(equation.outvars, made, strict=True))
            self.operations.append(_Operation(name, read, made, self._inside(equation)))

    def _call(self, inner: core.Jaxpr, reads: Sequence, makes: Sequence, names: dict[core.Var, int]) -> None:
        known = _named(inner.invars, reads, names)
        self._open(inner, known)
        names.update(_named(makes, inner.outvars, known))

    def _branch(self, platforms: Sequence[Sequence[str] | None]) -> int:
        """Of a choice by platform."""
        ours = ("cuda", "gpu") if self.platform == "gpu" else (self.platform,)
        return next(i for i, names in enumerate(platforms) if names is None or set(names) & set(ours))

    def _sizes(self, equation: core.JaxprEqn) -> list[int]:
        """Of what it makes."""
        sizes = [_bytes(v.aval) for v in equation.outvars]
        if self.platform != "tpu" or equation.primitive.name != "scan":
            return sizes
        first = equation.params["num_carry"]
        return sizes[:first] + [round(_filled(v.aval) * _bytes(v.aval)) for v in equation.outvars[first:]]

    def _inside(self, equation: core.JaxprEqn) -> int:
        name, params = equation.primitive.name, equation.params
        if name == "cond":
            return max(_Trace(self.platform).more(branch.jaxpr, {}) for branch in params["branches"])
        if name not in _LOOPS or params.get("length") == 0:
            return 0
        return _Trace(self.platform).more(params[_LOOPS[name]].jaxpr, {})

    def _peak(self, results: Sequence[int], donated: Mapping[int, int]) -> int:
        last, users = self._uses(results)
        nowhere = self._fused(last, users)
        spare, free = collections.Counter(donated), set[int]()
        for array in dict.fromkeys(results):
            if spare[self.sizes[array]]:
                spare[self.sizes[array]] -= 1
                free.add(array)
        ends = collections.defaultdict[int, int](int)  # bytes that end with an operation
        now = most = 0
        for number, operation in enumerate(self.operations):
            made = [array for array in operation.makes if array in last and array not in nowhere and array not in free]
            now += sum(self.sizes[array] for array in made)
            for array in made:
                ends[last[array]] += self.sizes[array]
            if any(array in last for array in operation.makes):
                most = max(most, now + operation.inside)
            now -= ends[number]
        return most

    def _uses(self, results: Sequence[int]) -> tuple[dict[int, int], dict[int, list[int]]]:
        """(the last operation that reads an array, all that do) of arrays that are read; results are, at the end."""
        end = len(self.operations)
        users = collections.defaultdict[int, list[int]](list, {array: [end] for array in results})
        for number in reversed(range(end)):
            operation = self.operations[number]
            if any(array in users for array in operation.makes):  # else nobody asks for it
                for array in set(operation.reads):
                    users[array].append(number)
        return {array: max(numbers) for array, numbers in users.items()}, users

    def _fused(self, last: dict[int, int], users: Mapping[int, Sequence[int]]) -> set[int]:
        """Arrays that are made nowhere; moves the ends of what they are made of."""
        nowhere = set[int]()
        for number in reversed(range(len(self.operations))):
            operation = self.operations[number]
            made = [array for array in operation.makes if array in last]
            if made and all(self._taken_in(operation.name, users[array]) for array in made):
                nowhere.update(made)
                end = max(last[array] for array in made)
                for array in operation.reads:
                    last[array] = max(last.get(array, number), end)
        return nowhere

    def _taken_in(self, name: str, users: Sequence[int]) -> bool:
        end = len(self.operations)
        if name in _MAKES or end in users or any(self.operations[user].name in _NO_LOOPS for user in users):
            return False
        return name in _SPREAD or len(users) == 1


def _filled(aval: Any) -> float:
    """How many times its bytes an array of at least two axes has, whole tiles in the last two; an axis of 1 is none."""
    shape = [size for size in _shape(aval) if size > 1]
    if len(shape) < 3:
        return 1.0
    rows, columns = shape[-2:]
    of_rows = _TILE[0] * 4 // aval.dtype.itemsize
    return -(-rows // of_rows) * of_rows * -(-columns // _TILE[1]) * _TILE[1] / (rows * columns)
