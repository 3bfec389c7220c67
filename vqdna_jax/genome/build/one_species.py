"""A species on its way into a corpus: its file parsed into a spool, the spool's chunks given to a writer.

Between the two stands what needs the whole file: which of its bases are for validation.
"""

import contextlib
from collections.abc import Callable
from typing import Any

from vqdna_jax.genome.build.sources import Source, source_entry
from vqdna_jax.genome.build.spool import Spool, validation_starts
from vqdna_jax.genome.build.writer import CorpusWriter
from vqdna_jax.genome.fasta import OnDuplicate
from vqdna_jax.genome.fasta_files import open_reader
from vqdna_jax.genome.stream_check import fasta_check
from vqdna_jax.runtime.remote import places


def fill_spool(
    spool: Spool, source: Source, on_duplicate: OnDuplicate, advance: Callable[[int], object] = lambda file_bytes: None
) -> dict[str, str | int]:
    """Parses a species, wherever its file is; returns what the manifest says of the file.

    Raises InputError for what is wrong with it, PeerError when the store it is in does not answer.
    """
    with contextlib.ExitStack() as copies:
        path = copies.enter_context(places.readable(source.path, fasta_check()))
        try:
            entry = source_entry(source, places.file_size(path), places.sha256_of(path))
        except OSError as error:
            raise places.cannot_read(source.path, error) from error
        spool.fill(open_reader(path, on_duplicate=on_duplicate, advance=advance))
    return entry


def replay(
    writer: CorpusWriter, species: str, spool: Spool, validation_share: float, source: dict[str, Any]
) -> dict[str, Any]:
    """Gives all chunks of a species to a writer; returns its entry of the manifest."""
    writer.open_species(species, spool.names)
    for chunks, in_validation in spool.blocks(validation_starts(spool.names, spool.lengths, validation_share)):
        writer.add(chunks, in_validation)
    return writer.close_species(source, dict(spool.ambiguous), dict(spool.skipped))
