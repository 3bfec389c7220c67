"""Every verb that reads or writes files, as the calls that tests make of it: small inputs, models of random weights."""

import json
import pathlib
import sys
from typing import Literal, NamedTuple

from small_benchmark import make_cells
from small_finetune import CONTEXT, write_set
from tiny_finetuned import save_tiny_finetuned
from tiny_tokenizer import save_tiny

from vqdna_jax.benchmark import cells, controls
from vqdna_jax.benchmark.report.publish import collect
from vqdna_jax.cli import main
from vqdna_jax.inference.jobs.embed import embed_fasta
from vqdna_jax.inference.jobs.encode import encode_fasta

RECORDS = b"".join(b">r%d\n%s\n" % (i, b"ACGTTGCATTGACCAGGT"[i:] * 6) for i in range(4))
VARIANTS = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\nr0\t20\t.\tC\tA\t.\t.\t.\n"
MODEL = "base"  # of the benchmark's one cell


class Verb(NamedTuple):
    """How a verb is called with a place to read and one to write.

    Attributes:
        reads: the file or folder of `make_inputs` that it reads.
        writes: "stream" is a file that standard output, pipes and devices take, too.
        model: the export that it needs, "" for none.
    """

    reads: str
    writes: Literal["file", "stream", "directory", "nothing"]
    model: str = ""
    options: tuple[str, ...] = ()

    def call(self, name: str, source: str, out: str, inputs: pathlib.Path, model: str | None = None) -> list[str]:
        option = {"benchmark": "--data=", "labels": "--fasta=", "plan": "--config="}.get(name, "")
        models = [f"--model={inputs / self.model if model is None else model}"] if self.model else []
        outs = [f"--out={out}"] if self.writes != "nothing" else []
        options = [option.format(inputs=inputs) for option in self.options]
        return [*name.split(), f"{option}{source}", *options, *models, *outs]


VERBS = {
    "corpus": Verb("in.fa", "directory"),
    "encode": Verb("in.fa", "file", "tokenizer"),
    "decode": Verb("in.codes", "stream", "tokenizer"),
    "embed": Verb("in.fa", "file", "base"),
    "map": Verb("in.embeddings", "file"),
    "predict": Verb("in.fa", "stream", "finetuned"),
    "score": Verb("in.vcf", "stream", MODEL, ("--fasta={inputs}/in.fa",)),
    "tracks": Verb("in.fa", "directory", "base"),
    "export": Verb("tokenizer", "directory"),
    "species": Verb("in.fa", "directory", "", ("{inputs}/other.fa", "--length=8", "--items=2")),
    "labels": Verb(
        "in.fa",
        "directory",
        "",
        ("--peaks={inputs}/peaks.bed", "--width=9", "--negatives=shuffled", "--dev=r1", "--test=r2"),
    ),
    "benchmark": Verb("sets", "directory", "base", ("--seeds=1", "--preset=tiny")),
    "report benchmark": Verb("results.json", "stream"),
    "plan": Verb("config.py", "nothing", "", ("--topology=v5e:2x2",)),
}


def make_inputs(directory: pathlib.Path) -> None:
    """All that the verbs read, in one folder."""
    (directory / "in.fa").write_bytes(RECORDS)
    (directory / "in.vcf").write_text(VARIANTS)
    (directory / "other.fa").write_bytes(RECORDS.replace(b"ACG", b"TTT"))
    (directory / "peaks.bed").write_text("".join(f"r{i}\t{40 + i}\t{50 + 2 * i}\n" for i in range(4)))
    save_tiny(directory / "tokenizer", "hrq", 8)
    save_tiny_finetuned(directory / "finetuned", bases_per_code=4, context=CONTEXT)
    (directory / "finetuned-base").rename(directory / MODEL)
    config = json.loads((directory / "finetuned/config.json").read_text())
    (directory / "finetuned/config.json").write_text(json.dumps(config | {"base": f"../{MODEL}"}))
    encode_fasta(directory / "in.fa", directory / "tokenizer", directory / "in.codes", progress=False)
    embed_fasta(directory / "in.fa", directory / MODEL, directory / "in.embeddings", progress=False)
    write_set(directory / "sets/tf/0", lengths=(31,))
    found = collect(cells.parse(make_cells(datasets=("tf/0", "tf/1")), "cells"), "made up", {})
    (directory / "results.json").write_text(json.dumps(found))
    (directory / "config.py").write_text("no experiment\n")


def start_benchmark(out: pathlib.Path) -> None:
    """All its cells, finished: what is left to do is to publish."""
    for name in (MODEL, *controls.LINEAR):
        role: cells.Role = "model" if name == MODEL else "control"
        cells.write(out, cells.Cell(name, role, "tf/0", "mcc", 0, 0.5, 0.5, None, 1, 1.0, 64))


def run(arguments: list[str]) -> int:
    """The exit code of a call in this process, whose streams are made as those of a process of its own."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")
    try:
        main.main(arguments)
    except SystemExit as stop:
        return stop.code
    return 0
