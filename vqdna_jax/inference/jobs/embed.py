"""FASTA or tables of sequences to a file of embeddings (`vqdna embed`); `embedding_files` says what is in it.

Until the file is whole, OUT.partial/ holds what is done.
"""

import hashlib
import itertools
import os
import pathlib
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from vqdna_jax import version
from vqdna_jax.errors import InputError
from vqdna_jax.genome.fasta import OnDuplicate
from vqdna_jax.genome.fasta_files import FastaFiles
from vqdna_jax.genome.regions import Region
from vqdna_jax.inference import load
from vqdna_jax.inference.jobs import embedding_files
from vqdna_jax.inference.jobs.embedding_files import SCHEMA, Embeddings
from vqdna_jax.inference.jobs.partial import PARTIAL, Partial
from vqdna_jax.inference.jobs.sequence_files import SequenceFiles
from vqdna_jax.inference.pretrained import Pretrained
from vqdna_jax.models.pooling import UNPOOLED
from vqdna_jax.runtime.exports import files_of
from vqdna_jax.runtime.files import check_directory, check_output, replacing
from vqdna_jax.runtime.progress import progress_bar
from vqdna_jax.tokenizers.base import Tokenizer

LONGEST_ID = 255  # a zip of arrays stores all as wide as the longest


class Input(NamedTuple):
    """What FASTA files hold: ids, what stands after them, bases and codes [records], the sha256 of ids and bases, what
    was skipped."""

    ids: list[str]
    names: list[str]
    lengths: np.ndarray
    codes: np.ndarray
    digest: str
    skipped: dict[str, int]


def embed_fasta(
    fasta: str | os.PathLike | Sequence[str | os.PathLike],
    model_dir: str | os.PathLike,
    out: str | os.PathLike,
    pool: str = "mean",
    layer: int = -1,
    progress: bool = True,
    on_duplicate: OnDuplicate = "error",
    batch: int | None = None,
    regions: Sequence[Region] = (),
) -> dict[str, Any]:
    """Embeds every record of FASTA files or tables, as `Model.embed` does, into the file `out`, which appears whole.

    The files are read to their end before the first record is embedded, so bad input is found at once. A job that was
    stopped goes on when it is called again. Memory is bounded by the longest record and a group of vectors; the disk
    must hold the vectors twice.

    Args:
        fasta: files, also tables with a column `sequence`, pipes by their names, or "-" for standard input; ids are
            unique over all of them.
        out: .npy, .parquet, or under another name a zip of arrays, see `embedding_files`.
        progress: a bar on stderr, or a line now and then where that is no terminal.
        on_duplicate: refuse an id that occurs twice, or number it.
        batch: codes that are computed at once, see `load`.
        regions: each is taken as a sequence of its own, in place of whole records; what BED calls them is kept, too.

    Returns:
        records, bases, skipped {what: how often}, notes (what was accepted although it is not to the letter), vectors,
        resumed (records that were done before), width, seconds, bases_per_s, out.

    Raises:
        InputError: bad FASTA, an id that is too long or occurs twice, no such model, pool or layer, unfinished work of
            another command in OUT.partial. StorageError: `out` cannot be written.
    """
    paths = [fasta] if isinstance(fasta, str | os.PathLike) else list(fasta)
    start = time.perf_counter()
    for path in embedding_files.outputs(out):
        check_output(path, [*paths, *files_of(model_dir)])
    check_directory(f"{out}{PARTIAL}")
    out = pathlib.Path(out)
    model, meta = _open_model(model_dir, pool, layer, batch)
    with SequenceFiles(paths, on_duplicate, regions) as files:
        found = _examine(files, model.tokenizer, progress)
        model.check_room(int(found.codes.max(initial=0)))
        vectors, width = found.codes if pool == UNPOOLED else np.ones_like(found.codes), model.width(pool)
        sizes = 4 * width * np.append(0, np.cumsum(vectors))
        with replacing(out) as new, Partial(out, meta | {"sequences": found.digest}, sizes) as partial:
            resumed = partial.records
            _embed_rest(model, files, found, partial, pool, layer, progress)
            _check_whole(partial, len(found.ids), int(sizes[-1]), paths)
            named = any(region.words for region in regions)
            embedding_files.write(new, out, _embeddings(model, files, found, partial, pool, meta, named))
    partial.remove()
    told = {"vectors": int(vectors.sum()), "width": width, "out": str(out), "notes": list(files.notes)}
    return _summary(found, resumed, time.perf_counter() - start) | told


def _summary(found: Input, resumed: int, seconds: float) -> dict[str, Any]:
    bases = found.lengths.tolist()
    counts = {"records": len(bases), "bases": sum(bases), "resumed": resumed, "skipped": found.skipped}
    return counts | {"seconds": seconds, "bases_per_s": sum(bases[resumed:]) / seconds}


def _open_model(
    model_dir: str | os.PathLike, pool: str, layer: int, batch: int | None
) -> tuple[Pretrained, dict[str, Any]]:
    """(what embeds, what of meta.json tells one job from another). Raises InputError as `embed_fasta`."""
    model = load.load(model_dir, batch=batch)
    embedder = model.embedder()
    embedder.check(pool, layer)
    meta = {"schema": SCHEMA, "pretrained_digest": embedder.digest, "pool": pool, "layer": int(layer)}
    return embedder, meta | ({"finetuned_digest": model.digest} if model.finetuned else {})


def _examine(files: FastaFiles, tokenizer: Tokenizer, progress: bool) -> Input:
    """Reads all there is, and refuses what cannot be embedded with its file and line."""
    ids, names, lengths, codes, sha = [], [], [], [], hashlib.sha256()
    with progress_bar("reading", files.size, "B", progress) as bar:
        for record in files.read(bar.update):
            if len(record.id) > LONGEST_ID:
                wrong = f"{record.id[:80]!r} has an id over {LONGEST_ID} characters"
                raise InputError(f"{files.path}:{record.line}: {wrong}; change or remove it")
            ids.append(record.id)
            names.append(record.description)
            lengths.append(record.bases.size)
            known = tokenizer.codes_of(record.bases.size)
            codes.append(len(tokenizer.encode([record.bases])[0]) if known is None else known)
            sha.update(f"{record.id} {record.bases.size}\n".encode())
            sha.update(record.bases.data)
    arrays = np.array(lengths, np.int64), np.array(codes, np.int64)
    return Input(ids, names, *arrays, sha.hexdigest(), dict(+files.skipped))


def _embeddings(
    model: Pretrained, files: FastaFiles, found: Input, partial: Partial, pool: str, meta: dict[str, Any], named: bool
) -> Embeddings:
    meta = meta | {"bases_per_code": model.tokenizer.bases_per_code, "versions": version.versions()}
    offsets = np.append(0, np.cumsum(found.codes)) if pool == UNPOOLED else None
    starts = _starts(model.tokenizer, files, found) if pool == UNPOOLED else None
    names = found.names if named else None
    return Embeddings(found.ids, found.lengths, model.width(pool), meta, partial.pieces, offsets, starts, names)


def _starts(tokenizer: Tokenizer, files: FastaFiles, found: Input) -> Iterator[np.ndarray]:
    """First base of each code, record by record."""
    if tokenizer.bases_per_code is not None:
        return (np.arange(codes) * tokenizer.bases_per_code for codes in found.codes)
    return (np.ascontiguousarray(tokenizer.spans(record.bases)[:, 0]) for record in files.read())


def _embed_rest(
    model: Pretrained,
    files: FastaFiles,
    found: Input,
    partial: Partial,
    pool: str,
    layer: int,
    progress: bool,
) -> None:
    """Embeds the records that `partial` does not have."""
    done, total = (int(codes.sum()) for codes in (found.codes[: partial.records], found.codes))
    rest = itertools.islice(files.read(), partial.records, None)
    with progress_bar("embedding", total, " codes", progress, done) as bar:
        for group in model.grouped(rest, lambda record: record.bases.size, pool):
            bases = [record.bases for record in group]
            if pool == UNPOOLED and len(group) == 1:  # a chromosome's vectors may not fit in memory
                windows = model.context_vectors(model.tokenizer.encode(bases), pool, layer, bar.update)
                vectors: Iterable[np.ndarray] = (vectors_LxD for _, vectors_LxD in windows)
            else:
                vectors = model.embed_group(bases, pool, layer, bar.update)
            partial.write(len(group), vectors)
    partial.commit()


def _check_whole(partial: Partial, records: int, size: int, paths: list[str | os.PathLike]) -> None:
    if (partial.records, partial.size) != (records, size):
        raise InputError(f"{paths[0]}: changed while it was read; remove {partial.directory} and run again")
