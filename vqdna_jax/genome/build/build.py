"""Builds a corpus: on this machine in one pass, or by Apache Beam on many. Both write the same bytes."""

import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from vqdna_jax.errors import InputError
from vqdna_jax.genome.build.one_species import fill_spool, replay
from vqdna_jax.genome.build.sources import Source, find_sources
from vqdna_jax.genome.build.spool import Spool
from vqdna_jax.genome.build.staging import Staging, staging
from vqdna_jax.genome.build.writer import CorpusWriter
from vqdna_jax.genome.chunks import CHUNK_BP, SCHEMA
from vqdna_jax.genome.fasta import OnDuplicate
from vqdna_jax.genome.fasta_files import describe_skipped
from vqdna_jax.runtime.remote import places


def build_corpus(
    inputs: Sequence[str | os.PathLike | Source],
    out: str | os.PathLike,
    *,
    validation_share: float = 0.1,
    on_duplicate: OnDuplicate = "error",
    progress: bool = True,
    beam_runner: str = "",
    beam_options: Sequence[str] = (),
) -> dict[str, Any]:
    """Builds a corpus directory from FASTA files, globs, directories and pipes; returns its manifest.

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
    if beam_options and not beam_runner:
        raise InputError(
            "--beam-option: says something to Beam, which does nothing here; set --beam-runner, or leave it out"
        )
    if beam_runner:
        out, sources = places.absolute(out), [_anywhere(source) for source in sources]
    with staging(os.fspath(out)) as place:
        if beam_runner:
            from vqdna_jax.genome.build import beam  # Beam is an extra

            if progress:
                where = f"temporary files in {place.work}"
                print(f"corpus: {len(sources):,} species, built by {beam_runner}, {where}", file=sys.stderr)
            run = beam.Run(sources, place, validation_share, on_duplicate)
            return run.build(beam_runner, beam_options, header, lambda entry: _report(entry, progress))
        return _build_here(sources, place, validation_share, on_duplicate, header, progress)


def _build_here(
    sources: Sequence[Source],
    place: Staging,
    validation_share: float,
    on_duplicate: OnDuplicate,
    header: dict[str, Any],
    progress: bool,
) -> dict[str, Any]:
    total = sum(_size(source) for source in sources)
    shown = progress and sys.stderr.isatty()
    with tqdm(total=total, unit="B", unit_scale=True, disable=not shown) as bar:
        writer = CorpusWriter(place.local)
        for source in sources:
            bar.set_description(source.species)
            with tempfile.TemporaryFile(dir=place.local) as file:
                spool = Spool(file)
                entry = fill_spool(spool, source, on_duplicate, bar.update)
                _report(replay(writer, source.species, spool, validation_share, entry), progress)
        return writer.finish(header)


def _anywhere(source: Source) -> Source:
    """The same for workers elsewhere."""
    if places.is_stream(source.path):
        raise InputError(f"{source.path}: Beam's workers cannot read a pipe of this command; give them a file")
    return source._replace(path=places.absolute(source.path))


def _size(source: Source) -> int:
    try:
        return 0 if places.is_stream(source.path) else places.file_size(source.path)
    except OSError as error:
        raise places.cannot_read(source.path, error) from error


def _report(entry: dict[str, Any], progress: bool) -> None:
    counts, changed = Counter[str](), describe_skipped(entry["skipped"])
    for split in entry["splits"].values():
        counts.update(split)
    if entry["ambiguous"]:
        changed.append(
            "IUPAC letters read as N: " + " ".join(f"{k}:{v}" for k, v in sorted(entry["ambiguous"].items()))
        )
    if counts["bases"] > 2 * (counts["bases"] - counts["n"]):
        changed.append("warning: more than half of the bases are N")
    if progress or changed:
        size = f"{counts['bases']:,} bp in {entry['contigs']:,} contigs"
        notes = [size, f"{counts['n']:,} N", f"{counts['soft_masked']:,} soft-masked", *changed]
        tqdm.write(f"corpus: {entry['name']}: {', '.join(notes)}", file=sys.stderr)
