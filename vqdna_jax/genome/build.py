"""Builds a corpus: on this machine in one pass, or by Apache Beam on many. Both write the same bytes."""

import contextlib
import os
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from tqdm import tqdm

from vqdna_jax.errors import InputError, cannot_write
from vqdna_jax.genome import places
from vqdna_jax.genome.chunks import CHUNK_BP
from vqdna_jax.genome.fasta import read_fasta
from vqdna_jax.genome.inputs import Source, find_sources, source_entry
from vqdna_jax.genome.spool import Spool, split_piece, validation_starts
from vqdna_jax.genome.writer import CorpusWriter

SCHEMA = "vqdna-corpus/1"


class Staging(NamedTuple):
    """Where a corpus grows before it is complete."""

    local: Path  # what is finished here
    shards: str  # where workers put shards: `local`, or the remote directory itself, which has no manifest yet
    work: str  # for what is needed only until then


def build_corpus(
    inputs: Sequence[str | os.PathLike | Source],
    out: str | os.PathLike,
    *,
    validation_share: float = 0.1,
    on_duplicate: Literal["error", "rename"] = "error",
    progress: bool = True,
    beam_runner: str = "",
    beam_options: Sequence[str] = (),
) -> dict:
    """Builds a corpus directory from FASTA files, globs and directories of them; returns its manifest.

    Memory is bounded whatever the size of the genomes, and each file is parsed once. `validation_share` of the bases
    of every species is held out: whole contigs, or the end of the longest where there are too few. What was skipped
    or changed is printed to stderr. Inputs and `out` may be remote. With a `beam_runner` its workers do it; all paths
    must then mean the same to all of them. Raises InputError on bad input or a wrong `out`, StorageError when the disk
    fails; nothing is left behind in either case.
    """
    if not 0 <= validation_share < 1:
        raise InputError(f"validation_share={validation_share}: expected a share from 0 up to, not including, 1")
    sources = find_sources(inputs)
    header = {"schema": SCHEMA, "chunk_bp": CHUNK_BP, "validation_share": validation_share}
    if beam_runner:
        out, sources = places.absolute(out), [source._replace(path=places.absolute(source.path)) for source in sources]
    with _staging(os.fspath(out)) as staging:
        if beam_runner:
            from vqdna_jax.genome import beam  # Beam is an extra

            if progress:
                where = f"temporary files in {staging.work}"
                print(f"corpus: {len(sources):,} species, built by {beam_runner}, {where}", file=sys.stderr)
            run = beam.Run(sources, staging, validation_share, on_duplicate)
            return run.build(beam_runner, beam_options, header, lambda entry: _report(entry, progress))
        return _build_here(sources, staging, validation_share, on_duplicate, header, progress)


def _build_here(sources, staging, validation_share, on_duplicate, header, progress) -> dict:
    total = sum(_size(source) for source in sources)
    shown = progress and sys.stderr.isatty()
    with tqdm(total=total, unit="B", unit_scale=True, disable=not shown) as bar:
        writer = CorpusWriter(staging.local)
        for source in sources:
            bar.set_description(source.species)
            with tempfile.TemporaryFile(dir=staging.local) as file:
                spool = Spool(file)
                entry = fill_spool(spool, source, on_duplicate, bar.update)
                _report(replay(writer, source.species, spool, validation_share, entry), progress)
        return writer.finish(header)


def _size(source: Source) -> int:
    try:
        return places.file_size(source.path)
    except OSError as error:
        raise places.cannot_read(source.path, error) from error


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


def _report(entry: dict, progress: bool) -> None:
    counts, changed = Counter(), {name: count for name, count in entry["skipped"].items() if count}
    for split in entry["splits"].values():
        counts.update(split)
    if entry["ambiguous"]:
        changed["IUPAC letters read as N"] = " ".join(f"{k}:{v}" for k, v in sorted(entry["ambiguous"].items()))
    if counts["bases"] > 2 * (counts["bases"] - counts["n"]):
        changed["warning"] = "more than half of the bases are N"
    if progress or changed:
        notes = "".join(f", {name.replace('_', ' ')}: {value}" for name, value in changed.items())
        size = f"{counts['bases']:,} bp in {entry['contigs']:,} contigs"
        rest = f"{counts['n']:,} N, {counts['soft_masked']:,} soft-masked{notes}"
        tqdm.write(f"corpus: {entry['name']}: {size}, {rest}", file=sys.stderr)


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
