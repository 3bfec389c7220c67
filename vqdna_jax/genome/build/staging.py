"""What both ways to build a corpus share: a place where it grows, parsed species, and their chunks to a writer."""

import contextlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from vqdna_jax.errors import InputError, cannot_write
from vqdna_jax.genome.build.sources import Source, source_entry
from vqdna_jax.genome.build.spool import Spool, split_piece, validation_starts
from vqdna_jax.genome.build.writer import CorpusWriter
from vqdna_jax.genome.fasta import read_fasta
from vqdna_jax.genome.remote import places


class Staging(NamedTuple):
    """Where a corpus grows before it is complete."""

    local: Path  # what is finished here
    shards: str  # where workers put shards: `local`, or the remote directory itself, which has no manifest yet
    work: str  # for what is needed only until then


def fill_spool(spool: Spool, source: Source, on_duplicate: str, advance=lambda file_bytes: None) -> dict:
    """Parses a species, wherever its file is; returns what the manifest says of the file.

    Raises InputError for what is wrong with it, PeerError when the store it is in does not answer.
    """
    with contextlib.ExitStack() as copies:
        try:
            path = copies.enter_context(places.local_copy(source.path))
            entry = source_entry(source, places.file_size(path), places.sha256_of(path))
        except OSError as error:
            raise places.cannot_read(source.path, error) from error
        spool.fill(read_fasta(path, on_duplicate=on_duplicate, advance=advance, shown=source.path))
    return entry


def replay(writer: CorpusWriter, species: str, spool: Spool, validation_share: float, source: dict) -> dict:
    """Gives all chunks of a species to a writer; returns its entry of the manifest."""
    starts = validation_starts(spool.contigs, validation_share)
    writer.open_species(species, [contig.name for contig in spool.contigs])
    for piece in spool.pieces():
        for split, part in split_piece(piece, starts[piece.contig]):
            writer.add(split, part)
    return writer.close_species(source, dict(spool.ambiguous), dict(spool.skipped))


@contextlib.contextmanager
def _staging(out: str) -> Iterator[Staging]:
    """A place that becomes `out` on success and vanishes otherwise. Raises for what cannot be written there."""
    beside = f"{out.rstrip('/')}.incomplete-{uuid.uuid4().hex[:8]}"
    work = f"{beside}.work"
    try:
        if not places.is_vacant(out):
            raise InputError(f"{out}: exists and is not an empty directory; choose another place or remove it")
        with (_uploaded if places.is_remote(out) else _renamed)(out, beside, work) as staging:
            yield staging
    except OSError as error:
        raise cannot_write(out, error) from error
    finally:
        places.remove_tree(work)


@contextlib.contextmanager
def _renamed(out: str, beside: str, work: str) -> Iterator[Staging]:
    try:
        os.makedirs(beside)
        yield Staging(Path(beside), beside, work)
        os.replace(beside, out)
    finally:
        places.remove_tree(beside)


@contextlib.contextmanager
def _uploaded(out: str, beside: str, work: str) -> Iterator[Staging]:
    """The manifest goes last: without it a directory is no corpus."""
    with tempfile.TemporaryDirectory() as directory:
        local = Path(directory)
        try:
            yield Staging(local, out, work)
            for file in sorted(local.iterdir(), key=lambda file: (file.name == "manifest.json", file.name)):
                places.upload(file, places.join(out, file.name))
        except BaseException:
            places.remove_tree(out)
            raise
