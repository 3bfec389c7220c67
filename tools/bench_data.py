"""Speed of the genome data path: building a corpus, parsing FASTA against other readers, reading windows.

    python tools/bench_data.py [--fasta=FILE]     a plain or gzip FASTA file; default: the bundled genomes, repeated

Each build and each parser runs in a process of its own, so that the peak memory is its own too.
"""

import gzip
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import tyro

from vqdna_jax.genome import fasta, windows
from vqdna_jax.genome.build.build import build_corpus
from vqdna_jax.genome.build.bundled import BUNDLED
from vqdna_jax.genome.corpus import open_corpus

_BUNDLED_COPIES = 5
_SHAPES = [(512, 256), (512, 1024), (256, 16), (1024, 64), (65536, 8)]


def bench(fasta: Path | None = None, repeats: int = 3, read_bases: int = 500_000_000) -> None:
    """Prints one table. Figures are the best of `repeats`.

    Args:
        fasta: A plain or gzip FASTA file; the bundled genomes, repeated to 62 Mb, when not given.
        repeats: How often each measurement is made.
        read_bases: How many bases of windows are read for one.
    """
    with tempfile.TemporaryDirectory() as directory:
        files = _variants(fasta, Path(directory))
        print(f"{os.cpu_count()} cores; MB are 10^6 bytes of plain FASTA\n")
        print(f"{'what':44} {'MB or Mbases/s':>14} {'seconds':>8} {'peak RSS MB':>12}")
        size = files["plain"].stat().st_size
        for name, path in files.items():
            _row(f"build corpus, {name}", size, repeats, _build, path, Path(directory) / "out")
        parsers = {"ours": _parse_ours, "pyfastx": _parse_pyfastx, "Biopython": _parse_biopython}
        for name in ("plain", "gzip"):
            for reader, parse in parsers.items():
                _row(f"parse to upper-case text or bases, {name}, {reader}", size, repeats, parse, files[name])
        _bench_windows(Path(directory) / "out", repeats, read_bases)


def _variants(source: Path | None, directory: Path) -> dict[str, Path]:
    """The same sequence plain, gzipped and with one line per record."""
    files = {name: directory / f"{name}.fa{end}" for name, end in [("plain", ""), ("gzip", ".gz"), ("single-line", "")]}
    with open(files["plain"], "wb") as plain:
        if source is not None:
            with (gzip.open if source.suffix == ".gz" else open)(source, "rb") as file:
                shutil.copyfileobj(file, plain)
        for copy in range(0 if source else _BUNDLED_COPIES):
            for genome in sorted(BUNDLED.glob("*.fa.gz")):
                plain.write(gzip.decompress(genome.read_bytes()).replace(b">", b">%d_" % copy))
    with open(files["plain"], "rb") as plain, gzip.open(files["gzip"], "wb", 6) as packed:
        shutil.copyfileobj(plain, packed)
    with open(files["plain"], "rb") as plain, open(files["single-line"], "wb") as single:
        for index, record in enumerate(plain.read().split(b">")[1:]):
            header, _, sequence = record.partition(b"\n")
            single.write(b"\n" * (index > 0) + b">" + header + b"\n" + sequence.replace(b"\n", b""))
    return files


def _row(what: str, size: int, repeats: int, work: Callable, *arguments: Path) -> None:
    context, results = multiprocessing.get_context("spawn"), []
    for _ in range(repeats):
        receive, send = context.Pipe(duplex=False)
        child = context.Process(target=_measure, args=(send, work, arguments))
        child.start()
        send.close()  # the child has its own end: if it dies, recv ends too
        results.append(receive.recv())
        child.join()
    if isinstance(results[0], str):
        print(f"{what:52} {results[0]}")
        return
    seconds, peak = min(results)
    print(f"{what:52} {size / 1e6 / seconds:6.0f} {seconds:8.2f} {peak:12.0f}")


def _measure(send, work: Callable, arguments: tuple) -> None:
    try:
        seconds = work(*arguments)
        send.send((seconds, _peak_mb()))
    except ImportError as error:
        send.send(f"not installed: {error.name}")


def _peak_mb() -> float:
    """Of this process alone: getrusage's figure begins with that of the parent."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) * 1024 / 1e6


def _build(path: Path, out: Path) -> float:
    shutil.rmtree(out, ignore_errors=True)
    start = time.perf_counter()
    build_corpus([path], out, progress=False)
    return time.perf_counter() - start


def _parse_ours(path: Path) -> float:
    start = time.perf_counter()
    for _ in fasta.FastaReader(path):
        pass
    return time.perf_counter() - start


def _parse_pyfastx(path: Path) -> float:
    import pyfastx

    start = time.perf_counter()
    for _ in pyfastx.Fastx(str(path), uppercase=True):
        pass
    return time.perf_counter() - start


def _parse_biopython(path: Path) -> float:
    from Bio.SeqIO.FastaIO import SimpleFastaParser

    start = time.perf_counter()
    with gzip.open(path, "rt") if path.suffix == ".gz" else open(path) as file:
        for _, sequence in SimpleFastaParser(file):
            sequence.upper()
    return time.perf_counter() - start


def _bench_windows(path: Path, repeats: int, read_bases: int) -> None:
    corpus = open_corpus(path)
    for window_bp, global_batch in _SHAPES:
        batches = windows.WindowBatches(corpus, "train", window_bp, global_batch, seed=0)
        steps = max(1, min(read_bases // (window_bp * global_batch), 20_000))
        bases = steps * window_bp * global_batch
        for name, read in [("by index", map(batches.__getitem__, range(steps))), ("grain", None)]:
            seconds = min(_read(read or windows.train_iterator(batches), steps) for _ in range(1 if read else repeats))
            what = f"read windows, {window_bp} bp x {global_batch}, {name}"
            print(f"{what:52} {bases / 1e6 / seconds:6.0f} {seconds:8.2f}")


def _read(iterator, steps: int) -> float:
    start = time.perf_counter()
    for _ in range(steps):
        next(iterator)
    return time.perf_counter() - start


if __name__ == "__main__":
    tyro.cli(bench)
