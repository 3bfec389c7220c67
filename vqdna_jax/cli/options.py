"""What several verbs share: types of options as `cli/main.py` reads them, what must be there, and where words go."""

import errno
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from vqdna_jax.errors import InputError, shown
from vqdna_jax.models.pooling import POOLS, UNPOOLED
from vqdna_jax.runtime.files import check_output, is_stream

FastaFiles = Annotated[
    tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="FASTA...", help_behavior_hint="(one or more)")
]
SequenceFiles = Annotated[
    tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="FILE...", help_behavior_hint="(one or more)")
]
OnDuplicate = Literal["error", "rename"]
RegionNames = tyro.conf.UseAppendAction[tuple[str, ...]]
STREAM = Path("-")  # standard input, or output
ModelName = Annotated[str, tyro.conf.arg(metavar="MODEL")]  # a directory, or what ships; a Path forgets "./"
OutputFile = Annotated[str, tyro.conf.arg(metavar="FILE")]  # a Path forgets the slash of a directory
# What may be left out, without tyro's "{None}|" before it.
OptionalPath = Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="(optional)")]
OptionalModel = Annotated[str | None, tyro.conf.arg(metavar="MODEL", help_behavior_hint="(optional)")]
AsJson = Annotated[bool, tyro.conf.arg(name="json")]
PoolName = Annotated[
    str,
    tyro.conf.arg(
        metavar="POOL", help_behavior_hint=lambda default: f"({', '.join(POOLS)}, or {UNPOOLED}; default: {default})"
    ),
]
if TYPE_CHECKING:
    from vqdna_jax.genome.regions import Region


def must_be_given(files: Sequence[Path]) -> None:
    """Raises InputError where there are none, for tyro's lists may be empty, or standard input is among them twice."""
    if not files:
        raise InputError("no file was given; name one or more, or - for standard input")
    if files.count(STREAM) > 1:
        raise InputError(f"{STREAM}: is named twice, and standard input can be read once; name it once, or files")


def must_exist(*paths: Path) -> None:
    """Raises InputError naming the first path that is not there."""
    for path in paths:
        try:
            path == STREAM or path.stat()
        except OSError as error:
            reason = "no such file or directory" if error.errno == errno.ENOENT else error.strerror
            raise InputError(f"{shown(path)}: {reason}; check the path") from error


def regions_of(names: Sequence[str], bed: Path | None, out: str | None = None) -> "list[Region]":
    """The regions that options name, then those of a BED file, which a file `out` may not replace.

    Raises InputError."""
    from vqdna_jax.genome.regions import of_option, read_bed

    if out is not None:
        check_output(out, [bed] if bed else [])
    return [*map(of_option, names), *(read_bed(bed) if bed else [])]


def warn(files: Sequence[Path], notes: Sequence[str]) -> None:
    """What is worth knowing of the files, a line each on stderr."""
    name = f"{files[0]}: " if len(files) == 1 else ""
    for note in notes:
        print(f"{name}{note}", file=sys.stderr)


def tell(
    summary: Mapping[str, Any], text: str, quiet: bool, as_json: bool, out: str | os.PathLike | None = None
) -> None:
    """The outcome as JSON, or in words unless `quiet`: on stdout, on stderr where `out` may be there."""
    file = sys.stderr if out is not None and is_stream(out) else sys.stdout
    if as_json:
        print(json.dumps(summary, indent=2, default=str), file=file)
    elif not quiet:
        print(text, file=file)
