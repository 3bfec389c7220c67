"""Text files of rows, read whole: annotation, regions. Plain or gzip, any newline, a pipe or standard input ("-")."""

import os
from typing import NamedTuple

from vqdna_jax.genome.stream_check import lines_check
from vqdna_jax.genome.streams import read_chunks
from vqdna_jax.runtime.remote import places


class Text(NamedTuple):
    """A file's lines, without their ends."""

    path: str  # as messages name it
    lines: list[str]  # bytes that are no UTF-8 as \\xff
    sha256: str  # of the file


def read_text(path: str | os.PathLike) -> Text:
    """Raises InputError: it cannot be read, or is damaged."""
    with places.readable(path, lines_check()) as copy:
        try:
            lines, digest = b"".join(read_chunks(copy)).split(b"\n"), places.sha256_of(copy)
        except OSError as error:
            raise places.cannot_read(path, error) from error
    return Text(str(copy), [line.decode("utf-8", "backslashreplace") for line in lines], digest)
