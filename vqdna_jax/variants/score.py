"""Scores of the variants of a VCF file (`vqdna score`): the same file with INFO fields more, see `fields`.

Until it is whole, OUT.partial/ holds what is done, a row of numbers for each alternative allele.
"""

import collections
import contextlib
import hashlib
import itertools
import os
import pathlib
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from vqdna_jax import version
from vqdna_jax.errors import InputError, shown
from vqdna_jax.genome import contigs, indexed_fasta
from vqdna_jax.genome.indexed_fasta import IndexedFasta
from vqdna_jax.genome.stream_check import StreamCheck
from vqdna_jax.inference import effects, load
from vqdna_jax.inference.changes import Change
from vqdna_jax.inference.jobs.partial import PARTIAL, Partial
from vqdna_jax.inference.pretrained import CALLS_A_GROUP, Pretrained
from vqdna_jax.runtime.exports import files_of
from vqdna_jax.runtime.files import check_directory, check_output, is_stream, writing
from vqdna_jax.runtime.progress import progress_bar
from vqdna_jax.runtime.remote import places
from vqdna_jax.tokenizers.stitch import neighbours
from vqdna_jax.variants import alleles, fields, vcf
from vqdna_jax.variants.alleles import DIFFERS, Genome

SCHEMA = "vqdna-scores/1"  # of OUT.partial
_MOST_THAT_DIFFER = 0.1  # of the records whose REF can be looked up; with more the FASTA is another genome
_REASONS = ("", *fields.REASONS)
_ROWS_AT_ONCE = 1024  # read back


class _Found(NamedTuple):
    """What a file holds.

    Attributes:
        alleles: that have values, of each record, int64. reasons: how often each occurs, "" for those that are scored.
        known, differ: records whose REF could be looked up, and those where it is another.
        digest: sha256 of the changes, and of what is around them.
    """

    alleles: np.ndarray
    reasons: collections.Counter[str]
    known: int
    differ: int
    digest: str


def score_vcf(
    file: str | os.PathLike,
    fasta: str | os.PathLike,
    model_dir: str | os.PathLike,
    out: str | os.PathLike,
    embeddings: str | os.PathLike | None = None,
    window: int | None = None,
    progress: bool = True,
    batch: int | None = None,
) -> dict[str, Any]:
    """Scores every alternative allele of a VCF or BCF file, as `Model.score` does, into `out`, which appears whole.

    Header, records, their order and all other fields are as in `file`; what cannot be scored says why. All records are
    looked up in the FASTA before the first is scored. A job that was stopped goes on when it is called again. Memory is
    bounded by the longest records.

    Args:
        file: VCF, plain, gzip or bgzip, or BCF; a pipe by its name, or "-" for standard input.
        fasta: the genome, see `IndexedFasta`; contigs may differ by a leading "chr".
        out: VCF; of a name in .gz or .bgz bgzip, in .bcf BCF; "-" is standard output.
        embeddings: .npy, f32 [alleles, 2 D]: `Scores.embeddings` of each allele, NaN where it has no score.
        window: bases that the model reads around each change, by default as many as in training.
        progress: a bar on stderr, or a line now and then where that is no terminal.
        batch: codes that are computed at once, see `load`.

    Returns:
        records, alleles, scored, reasons {why not: alleles}, reference_differs (records), notes (what was done with
        names and files, for a person), resumed (records that were done before), seconds, variants_per_s,
        pretrained_digest, out.

    Raises:
        InputError: neither VCF nor BCF, or damaged; no FASTA; no such model, or one without a head that scores; more
            than a tenth of the records have another REF than the FASTA; unfinished work of another command in
            OUT.partial. StorageError: `out` cannot be written.
    """
    start = time.perf_counter()
    model, digest = _open(file, fasta, model_dir, out, embeddings, window, batch)
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(places.readable(file, StreamCheck(vcf.check_start, text=False)))
        opened = stack.enter_context(IndexedFasta(fasta))
        records = collections.Counter(site.contig for site in vcf.sites(source))
        names = contigs.resolve(records, opened.lengths)
        genome = Genome(opened, names, 2 * effects.reach(model), effects.longest(model))
        found = _examine(source, genome, records.total(), progress)
        _check_references(file, fasta, found)
        kept = stack.enter_context(places.scratch()) / "score" if is_stream(out) else pathlib.Path(out)
        job = {"schema": SCHEMA, "pretrained_digest": digest, "variants": found.digest}
        job |= {"window_bp": str(model.window_bp), "embeddings": str(embeddings is not None)}
        width = len(fields.SCORES) + 1 + 2 * model.transformer.width * (embeddings is not None)
        sizes = 4 * width * np.append(0, np.cumsum(found.alleles))
        with Partial(kept, job, sizes) as partial:
            resumed = partial.records
            _score_rest(model, source, genome, found, partial, width, progress)
            _write(source, out, embeddings, model, partial, width)
        partial.remove()
    seconds, rest = time.perf_counter() - start, int(found.alleles[resumed:].sum())
    return _summary(found) | {
        "notes": [*opened.notes, *contigs.describe(names)],
        "resumed": resumed,
        "seconds": seconds,
        "variants_per_s": rest / seconds,
        "pretrained_digest": digest,
        "out": str(out),
    }


def _open(
    file: str | os.PathLike,
    fasta: str | os.PathLike,
    model_dir: str | os.PathLike,
    out: str | os.PathLike,
    embeddings: str | os.PathLike | None,
    window: int | None,
    batch: int | None,
) -> tuple[Pretrained, str]:
    """(what scores, its digest). Raises InputError as `score_vcf`, of what can be known before anything is read."""
    inputs = [file, fasta, *indexed_fasta.files_of(fasta), *files_of(model_dir)]
    check_output(out, inputs, streams=True)
    if embeddings is not None:
        check_output(embeddings, [*inputs, out])
        if not os.fspath(embeddings).endswith(".npy"):
            raise InputError(f"{shown(embeddings)}: embeddings are a .npy file; name one that ends so")
    if not is_stream(out):
        check_directory(f"{out}{PARTIAL}")
    model = load.load(model_dir, batch=batch).scorer()
    return model if window is None else model.with_window(window), model.digest


def _examine(source: str | os.PathLike, genome: Genome, total: int, progress: bool) -> _Found:
    """Looks all records up, so many."""
    counts, reasons, sha, known, differ = list[int](), collections.Counter[str](), hashlib.sha256(), 0, 0
    with progress_bar("reading", total, " records", progress) as bar:
        for site in vcf.sites(source):
            found = alleles.changes(genome, site)
            whys = [change if isinstance(change, str) else "" for change in found]
            counts.append(len(found))
            reasons.update(whys)
            differ += DIFFERS in whys
            known += bool({DIFFERS, "same", "too_long", ""} & set(whys))
            for change in found:
                sha.update(_bytes(change))
            bar.update(1)
    return _Found(np.array(counts, np.int64), reasons, known, differ, sha.hexdigest())


def _bytes(change: Change | str) -> bytes:
    """What a score depends on."""
    if isinstance(change, str):
        return f"{change}\n".encode()
    numbers = " ".join(map(str, change[2:]))
    return b"".join([numbers.encode(), change.reference.tobytes(), change.alternative.tobytes()])


def _check_references(file: str | os.PathLike, fasta: str | os.PathLike, found: _Found) -> None:
    """Raises InputError where this is not the genome of the variants."""
    if found.alleles.size and found.reasons["unknown_contig"] == found.alleles.sum():
        raise InputError(
            f"{shown(file)}: none of its contigs is in {shown(fasta)}; name the genome that it was made on"
        )
    if found.differ > _MOST_THAT_DIFFER * found.known:
        told = f"REF of {found.differ:,} of {found.known:,} records differs from {shown(fasta)}"
        raise InputError(f"{shown(file)}: {told}; name the genome that it was made on, of the same build")


def _score_rest(
    model: Pretrained,
    source: str | os.PathLike,
    genome: Genome,
    found: _Found,
    partial: Partial,
    width: int,
    progress: bool,
) -> None:
    """Scores the records that `partial` does not have."""
    total, done = int(found.alleles.sum()), int(found.alleles[: partial.records].sum())
    records = (alleles.changes(genome, site) for site in itertools.islice(vcf.sites(source), partial.records, None))
    with progress_bar("scoring", total, " alleles", progress, done) as bar:
        for group in neighbours(records, lambda record: _cost(model, record), CALLS_A_GROUP * model.slots_per_call):
            rows_AxF = _rows(model, list(itertools.chain.from_iterable(group)), width)
            partial.write(len(group), [rows_AxF])
            bar.update(len(rows_AxF))
    partial.commit()


def _cost(model: Pretrained, record: list[Change | str]) -> int:
    return 1 + sum(effects.cost(model, change) for change in record if not isinstance(change, str))


def _rows(model: Pretrained, group: list[Change | str], width: int) -> np.ndarray:
    """f32 [A, F]: number of the reason, scores, and embeddings if the width has room for them."""
    rows_AxF = np.full((len(group), width), np.nan, np.float32)
    rows_AxF[:, 0] = [_REASONS.index(change) if isinstance(change, str) else 0 for change in group]
    scores = effects.score_all(model, [change for change in group if not isinstance(change, str)])
    columns_AxF = np.column_stack([*scores[:-1], scores.embeddings])
    rows_AxF[rows_AxF[:, 0] == 0, 1:] = columns_AxF[:, : width - 1]
    return rows_AxF


def _write(
    source: str | os.PathLike,
    out: str | os.PathLike,
    embeddings: str | os.PathLike | None,
    model: Pretrained,
    partial: Partial,
    width: int,
) -> None:
    last = 1 + len(fields.SCORES)
    with contextlib.ExitStack() as stack:
        if embeddings is not None:
            file = stack.enter_context(writing(embeddings))  # mapped, it would end the process where the disk is full
            header = {"descr": "<f4", "fortran_order": False, "shape": (partial.size // (4 * width), width - last)}
            np.lib.format.write_array_header_1_0(file, header)
            for rows_AxF in _read_back(partial, width):
                file.write(np.ascontiguousarray(rows_AxF[:, last:]).data)
        rows = (row_F for rows_AxF in _read_back(partial, width) for row_F in rows_AxF[:, :last])
        made = f'Version="{version.__version__}",PretrainedDigest="{model.digest}",WindowBp="{model.window_bp}"'
        made = f"##{fields.MADE_BY}=<{made}>"
        vcf.write(source, out, [*fields.definitions(), made], _values(source, rows))


def _read_back(partial: Partial, width: int) -> Iterator[np.ndarray]:
    """Rows [A, F] of all alleles, some at a time."""
    for piece in partial.pieces(4 * width * _ROWS_AT_ONCE):
        yield np.frombuffer(piece, "<f4").reshape(-1, width)


def _values(source: str | os.PathLike, rows: Iterable[np.ndarray]) -> Iterator[fields.Values]:
    """Of each record, of its alleles' rows."""
    rest = iter(rows)
    for site in vcf.sites(source):
        rows_AxF = np.stack(list(itertools.islice(rest, len(site.alleles))))
        yield fields.values([_REASONS[int(number)] for number in rows_AxF[:, 0]], rows_AxF[:, 1:])


def _summary(found: _Found) -> dict[str, Any]:
    reasons = {why: found.reasons[why] for why in fields.REASONS if found.reasons[why]}
    counts = {"records": len(found.alleles), "alleles": int(found.alleles.sum()), "scored": found.reasons[""]}
    return counts | {"reasons": reasons, "reference_differs": found.differ}


def describe(summary: dict[str, Any]) -> str:
    """The summary of `score_vcf` for a person."""
    return (
        "{records:,} records, {alleles:,} alternative alleles, {scored:,} of them scored, {variants_per_s:,.1f} a"
        " second; in {out}"
    ).format(**summary)


def notes_of(summary: dict[str, Any]) -> list[str]:
    """What is worth knowing, a line each."""
    reasons = ", ".join(f"{count:,} {why}" for why, count in summary["reasons"].items())
    missing = [f"alleles without a score: {reasons}; {fields.PREFIX}{fields.REASON} says which"] if reasons else []
    differ = f"REF of {summary['reference_differs']:,} records differs from the FASTA"
    return [*summary["notes"], *missing, *([differ] if summary["reference_differs"] else [])]
