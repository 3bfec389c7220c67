"""`vqdna report vocabulary`: the page of an audit, and its numbers beside it."""

import os
import pathlib
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from vqdna_jax.errors import InputError
from vqdna_jax.report.vocabulary.audit import Options, Path, audit
from vqdna_jax.report.vocabulary.findings import findings
from vqdna_jax.report.vocabulary.page import render
from vqdna_jax.runtime.files import check_output, write_json, writing

__all__ = ["Options", "publish"]
_NUMBERS = ".json"


def publish(model: str, fasta: Sequence[Path], out: Path, options: Options, progress: bool = True) -> dict[str, Any]:
    """Writes the page `out` and its numbers, whole or not at all; the findings, the notes and where they are.

    Raises InputError: as `audit`, or a place that cannot be written. StorageError: the disk is full or fails.
    """
    if options.sample < 0:
        raise InputError(f"--sample={options.sample}: expected bases to read at most, or 0 for all")
    numbers = pathlib.Path(out).with_suffix(_NUMBERS)
    if os.fspath(out).endswith(_NUMBERS):
        raise InputError(f"{out}: is where the numbers go; name the page something else, as page.html")
    given = [path for path in (*fasta, options.annotation, options.motifs) if path is not None]
    for path in (out, numbers):
        check_output(path, given)
    found = audit(model, fasta, options, shlex.join(["vqdna", *sys.argv[1:]]), progress)
    page = render(found)
    write_json(numbers, found)
    with writing(out) as file:
        file.write(page.encode("utf-8", "backslashreplace"))
    return {"out": os.fspath(out), "numbers": str(numbers), "findings": findings(found), "notes": found["notes"]}
