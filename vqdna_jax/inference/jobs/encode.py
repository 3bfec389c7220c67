"""FASTA to a file of codes and back, with an account of every base that does not survive (`vqdna encode`, `decode`).

with open_codes("genome.codes") as file:
    codes_LxN = file.record("chr1")
"""

import collections
import gzip
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, TextIO

import numpy as np
import tqdm

from vqdna_jax.errors import InputError
from vqdna_jax.genome import fasta as fasta_reader
from vqdna_jax.genome.alphabet import N, to_text
from vqdna_jax.genome.fasta import OnDuplicate
from vqdna_jax.genome.fasta_files import FastaFiles, describe_skipped, grouped
from vqdna_jax.genome.regions import Region
from vqdna_jax.genome.runs import runs_of
from vqdna_jax.genome.stream_check import StreamCheck
from vqdna_jax.inference import load
from vqdna_jax.inference.jobs.code_file import CodeFile, CodeFileWriter, CodeRecord, RecordInfo, open_codes
from vqdna_jax.runtime.exports import files_of
from vqdna_jax.runtime.files import check_output, replacing, writing_by_name
from vqdna_jax.runtime.progress import progress_bar
from vqdna_jax.runtime.remote import places
from vqdna_jax.tokenizers.base import Tokenizer, check_codes, most_codes

__all__ = ["decode_to_fasta", "encode_fasta", "open_codes"]

TSV_LINES = 1_000_000  # mismatch lines in memory at once
_LETTERS = np.frombuffer(b"ACGTN", np.uint8)
_LOWER_CASE = 0x20


def encode_fasta(
    fasta: str | os.PathLike | Sequence[str | os.PathLike],
    model_dir: str | os.PathLike,
    out: str | os.PathLike,
    progress: bool = True,
    on_duplicate: OnDuplicate = "error",
    batch: int | None = None,
    regions: Sequence[Region] = (),
) -> dict[str, Any]:
    """Encodes FASTA files into the code file `out`, decodes it back and lists what differs in `out`.mismatches.tsv.

    The list has a line for every base that decoding changes: contig, 0-based position, base, rebuilt. N is not among
    them, code files keep where it is. Memory is bounded by the longest record. Both files appear whole or not at all.

    Args:
        fasta: files, pipes by their names, or "-" for standard input; ids are unique over all of them.
        progress: a bar on stderr, where that is a terminal.
        on_duplicate: refuse an id that occurs twice, or number it.
        batch: codes that are computed at once, see `load`.
        regions: each is taken as a sequence of its own, in place of whole records.

    Returns:
        The summary: records, bases, codes, n, ambiguous {letter: count}, skipped {what: how often}, mismatches,
        mismatch_share (of the bases that are not N), seconds, bases_per_s, out, mismatches_tsv.

    Raises:
        InputError: bad FASTA, an id that occurs twice, no such model. StorageError: `out` cannot be written.
    """
    paths = [fasta] if isinstance(fasta, str | os.PathLike) else list(fasta)
    tsv = f"{out}.mismatches.tsv"  # of one that ends in a slash it is not asked for
    for path in (out, tsv):
        check_output(path, [*paths, *files_of(model_dir)])
    tokenizer, bases_per_code = _tokenizer(model_dir, batch)
    summary: dict[str, Any] = dict.fromkeys(("records", "bases", "codes", "n", "mismatches"), 0)
    summary["ambiguous"] = collections.Counter()
    start = time.perf_counter()
    with (
        FastaFiles(paths, on_duplicate, regions) as files,
        replacing(out) as new_out,
        replacing(tsv) as new_tsv,
        CodeFileWriter(new_out, tokenizer.digest, tokenizer.codebook_sizes, bases_per_code) as writer,
        open(new_tsv, "w", encoding="utf-8") as mismatch_file,
        _Progress(files.size, progress) as bar,
    ):
        mismatch_file.write("contig\tposition\tbase\trebuilt\n")
        for group in grouped(files.read(bar.read), lambda record: len(record.bases)):
            _encode_group(tokenizer, group, bar, writer, mismatch_file, summary)
    summary |= _totals(summary, time.perf_counter() - start)
    return summary | {"skipped": dict(+files.skipped), "out": str(out), "mismatches_tsv": str(tsv)}


def decode_to_fasta(
    codes: str | os.PathLike,
    model_dir: str | os.PathLike,
    out: str | os.PathLike,
    width: int = 80,
    progress: bool = True,
    batch: int | None = None,
) -> dict[str, Any]:
    """Writes the sequences of a code file as FASTA: headers, lengths, N and lower case as they were, other bases as the
    tokenizer rebuilds them.

    Args:
        codes: a file written by `encode_fasta`, a pipe, or "-" for standard input.
        out: gzip if it ends in .gz; "-" is standard output, and a pipe or a device is written through.
        width: bases on a line.
        progress: a bar on stderr, or a line now and then where that is no terminal.
        batch: codes that are computed at once, see `load`.

    Returns:
        records, bases, mismatches (bases that differ from the original, as counted when encoding), out.

    Raises:
        InputError: a damaged code file, or one of another tokenizer. StorageError: `out` cannot be written.
    """
    check_output(out, [codes, *files_of(model_dir)], streams=True)
    tokenizer, _ = _tokenizer(model_dir, batch)
    with places.readable(codes, StreamCheck(_codes_fault, text=False)) as copy, open_codes(copy) as file:
        if file.tokenizer_digest != tokenizer.digest:
            raise InputError(
                f"{codes}: written by tokenizer {file.tokenizer_digest[:12]}, {model_dir} is {tokenizer.digest[:12]};"
                " name the model that encoded it"
            )
        infos = list(file)
        total = sum(info.length for info in infos)
        with writing_by_name(out) as file_out, progress_bar("decoding", total, " bases", progress) as bar:
            for group in grouped(infos, lambda info: info.length):
                for info, letters in zip(group, _decode_group(tokenizer, file, group)):
                    file_out.write(f">{info.header}\n".encode())
                    _write_lines(file_out, letters, width)
                    bar.update(info.length)
    return {
        "records": len(infos),
        "bases": total,
        "mismatches": sum(info.mismatches for info in infos),
        "out": str(out),
    }


def _tokenizer(model_dir: str | os.PathLike, batch: int | None) -> tuple[Tokenizer, int]:
    """A model's tokenizer and its bases per code. Raises InputError: its codes do not go into a code file."""
    tokenizer = load.load(model_dir, batch=batch).tokenizer
    if tokenizer.bases_per_code is None:
        raise InputError(
            f"{model_dir}: its tokens ({tokenizer.description}) do not each stand for as many bases, as a file of codes"
            " needs; name a model with a learned tokenizer, or use model.encode in Python"
        )
    return tokenizer, tokenizer.bases_per_code


def _encode_group(
    tokenizer: Tokenizer,
    group: list[fasta_reader.Sequence],
    bar: "_Progress",
    writer: CodeFileWriter,
    mismatch_file: TextIO,
    summary: dict[str, Any],
) -> None:
    """Encodes, decodes back, and writes and counts what came of it."""
    bar.begin(sum(2 * most_codes(tokenizer, len(record.bases)) for record in group))
    codes = tokenizer.encode([record.bases for record in group], bar.advance)
    rebuilt = tokenizer.decode(codes, bar.advance)
    for record, codes_LxN, rebuilt_S in zip(group, codes, rebuilt):
        unknown = record.bases == N
        differs = (rebuilt_S[: record.bases.size] != record.bases) & ~unknown
        coded = CodeRecord(
            id=record.id,
            description=record.description,
            length=record.bases.size,
            codes_LxN=codes_LxN,
            n_runs=runs_of(unknown),
            soft_mask_runs=runs_of(record.soft_mask),
            mismatches=np.flatnonzero(differs),
            ambiguous=record.ambiguous,
            header=record.header,
        )
        writer.write(coded)
        _write_mismatches(mismatch_file, coded, record.bases, rebuilt_S)
        _count(summary, coded)


def _decode_group(tokenizer: Tokenizer, file: CodeFile, group: list[RecordInfo]) -> Iterator[np.ndarray]:
    """Letters uint8 [S] of each record, N and lower case put back."""
    codes = [file.record(info.id) for info in group]
    sizes = tokenizer.codebook_sizes
    codes = [check_codes(f"of {i.id} in {file.path}", c, sizes) if len(c) else c for i, c in zip(group, codes)]
    for info, bases in zip(group, tokenizer.decode(codes)):
        letters = _LETTERS[bases[: info.length]]
        for start, length in file.n_runs(info.id):
            letters[start : start + length] = _LETTERS[N]
        for start, length in file.soft_mask_runs(info.id):
            letters[start : start + length] |= _LOWER_CASE
        yield letters


def _write_mismatches(file: TextIO, record: CodeRecord, bases: np.ndarray, rebuilt: np.ndarray) -> None:
    for start in range(0, len(record.mismatches), TSV_LINES):
        positions = record.mismatches[start : start + TSV_LINES]
        rows = zip(positions.tolist(), to_text(bases[positions]), to_text(rebuilt[positions]))
        file.writelines(f"{record.id}\t{position}\t{was}\t{now}\n" for position, was, now in rows)


def _codes_fault(start: bytes) -> tuple[int, str]:
    return 0, "" if start.startswith(b"PK") else "not a code file; expected one written by vqdna encode"


def _write_lines(file: BinaryIO | gzip.GzipFile, letters: np.ndarray, width: int) -> None:
    rows, rest = divmod(letters.size, width)
    lines = np.full((rows, width + 1), ord("\n"), np.uint8)
    lines[:, :width] = letters[: rows * width].reshape(rows, width)
    file.write(lines.tobytes() + (letters[-rest:].tobytes() + b"\n" if rest else b""))


def _count(summary: dict[str, Any], record: CodeRecord) -> None:
    summary["records"] += 1
    summary["bases"] += record.length
    summary["codes"] += len(record.codes_LxN)
    summary["n"] += int(record.n_runs[:, 1].sum())
    summary["mismatches"] += len(record.mismatches)
    summary["ambiguous"].update(record.ambiguous)


def _totals(summary: dict[str, Any], seconds: float) -> dict[str, Any]:
    """What follows from the counts."""
    return {
        "ambiguous": dict(summary["ambiguous"]),
        "mismatch_share": summary["mismatches"] / max(summary["bases"] - summary["n"], 1),
        "seconds": seconds,
        "bases_per_s": summary["bases"] / seconds,
    }


def describe(summary: dict[str, Any]) -> str:
    """The summary of `encode_fasta` for a person."""
    return (
        "{records:,} records, {bases:,} bases, {codes:,} codes, {n:,} N; decoding changes {mismatches:,} bases"
        " ({mismatch_share:.3%} of those that are not N), listed in {mismatches_tsv}; {bases_per_s:,.0f} bases/s"
    ).format(**summary)


def notes_of(summary: dict[str, Any]) -> list[str]:
    """What was left out or changed, a line each."""
    letters = ", ".join(f"{letter} {count:,}" for letter, count in sorted(summary["ambiguous"].items()))
    restored = [f"IUPAC letters read as N, and restored as N: {letters}"] if letters else []
    return [*describe_skipped(summary["skipped"]), *restored]


class _Progress:
    """A bar over the bytes of the files: what was read moves it once it has been encoded and decoded."""

    def __init__(self, total: int, wanted: bool):
        hide = not (wanted and sys.stderr.isatty())
        self._bar = tqdm.tqdm(total=total, unit="B", unit_scale=True, dynamic_ncols=True, disable=hide)
        self._read, self._bytes_per_code = 0, 0.0

    def read(self, file_bytes: int) -> None:
        self._read += file_bytes

    def begin(self, codes: int) -> None:
        self._bytes_per_code = self._read / max(codes, 1)
        self._read = 0

    def advance(self, codes: int) -> None:
        self._bar.update(codes * self._bytes_per_code)

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
