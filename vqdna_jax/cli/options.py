"""What several verbs take: types of options as `cli/main.py` reads them, and what must be there."""

import errno
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from vqdna_jax.errors import InputError, shown
from vqdna_jax.models.pooling import POOLS, UNPOOLED

FastaFiles = Annotated[
    tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="FASTA...", help_behavior_hint="(one or more)")
]
OnDuplicate = Literal["error", "rename"]
STREAM = Path("-")  # standard input, or output
OutputFile = Annotated[str, tyro.conf.arg(metavar="FILE")]  # a Path forgets the slash of a directory
AsJson = Annotated[bool, tyro.conf.arg(name="json")]
if TYPE_CHECKING:
    PoolName = str
else:
    PoolName = tyro.extras.literal_type_from_choices([*POOLS, UNPOOLED])


def must_exist(*paths: Path) -> None:
    """Raises InputError naming the first path that is not there."""
    for path in paths:
        try:
            path == STREAM or path.stat()
        except OSError as error:
            reason = "no such file or directory" if error.errno == errno.ENOENT else error.strerror
            raise InputError(f"{shown(path)}: {reason}; check the path") from error
