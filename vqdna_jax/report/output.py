"""A page, and the JSON file beside it that has its numbers."""

import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from vqdna_jax.errors import InputError
from vqdna_jax.runtime.files import check_output, write_json, writing

_NUMBERS = ".json"


def numbers_beside(out: str | os.PathLike, inputs: Iterable[str | os.PathLike]) -> pathlib.Path:
    """Where the numbers of the page `out` go.

    Raises as `check_output`, for both files, and InputError where the page has the name of its numbers.
    """
    given = list(inputs)
    check_output(out, given)
    numbers = pathlib.Path(out).with_suffix(_NUMBERS)
    if os.fspath(out).endswith(_NUMBERS):
        raise InputError(f"{out}: is where the numbers go; name the page something else, as page.html")
    check_output(numbers, given)
    return numbers


def write(out: str | os.PathLike, page: str, numbers: pathlib.Path, found: Mapping[str, Any]) -> None:
    """Raises as `writing`."""
    write_json(numbers, found)
    with writing(out) as file:
        file.write(page.encode("utf-8", "backslashreplace"))  # a file name may not be UTF-8
