"""JSON that this project wrote, with one thing in it wrong: every key in turn, of every type or missing."""

import json
from collections.abc import Iterator
from typing import Any

VALUES = (None, True, 0, 10**30, 1.5, "x", [0], {"a": 1}, ...)  # ...: the key is missing
UNUSED = {"versions", "steps"}  # told to people alone


def damaged(value: Any, keys: int = 12) -> Iterator[tuple[str, Any]]:
    """(where, the whole with another value there), of the first `keys` keys of a table and the first of a list."""
    for path in _paths(value, keys):
        for other in VALUES:
            if path or other is not ...:
                yield f"{'.'.join(map(str, path))} = {other!r}", _changed(value, path, other)


def _paths(value: Any, keys: int, path: tuple = ()) -> Iterator[tuple]:
    yield path
    if isinstance(value, dict):
        for key in [key for key in value if key not in UNUSED][:keys]:
            yield from _paths(value[key], keys, (*path, key))
    elif isinstance(value, list) and value:
        yield from _paths(value[0], keys, (*path, 0))


def _changed(value: Any, path: tuple, other: Any) -> Any:
    if not path:
        return other
    whole = json.loads(json.dumps(value))
    place = whole
    for key in path[:-1]:
        place = place[key]
    if other is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = other
    return whole
