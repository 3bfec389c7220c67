"""`vqdna report vocabulary`: the page of an audit, and its numbers beside it."""

import os
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from vqdna_jax.errors import InputError
from vqdna_jax.report import output
from vqdna_jax.report.vocabulary.audit import Options, Path, audit
from vqdna_jax.report.vocabulary.findings import findings
from vqdna_jax.report.vocabulary.page import render

__all__ = ["Options", "publish"]


def publish(model: str, fasta: Sequence[Path], out: Path, options: Options, progress: bool = True) -> dict[str, Any]:
    """Writes the page `out` and its numbers, whole or not at all; the findings, the notes and where they are.

    Raises InputError: as `audit`, or a place that cannot be written. StorageError: the disk is full or fails.
    """
    if options.sample < 0:
        raise InputError(f"--sample={options.sample}: expected bases to read at most, or 0 for all")
    given = [path for path in (*fasta, options.annotation, options.motifs) if path is not None]
    numbers = output.numbers_beside(out, given)
    found = audit(model, fasta, options, shlex.join(["vqdna", *sys.argv[1:]]), progress)
    output.write(out, render(found), numbers, found)
    return {"out": os.fspath(out), "numbers": str(numbers), "findings": findings(found), "notes": found["notes"]}
