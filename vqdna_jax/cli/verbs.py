"""The verbs of the `vqdna` command, each a typed function whose docstring is its help; `cli/main.py` reads them.

jax takes seconds to import, so every verb imports what it needs when it runs: `vqdna --help` stays quick.
"""

import dataclasses
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import tyro

from vqdna_jax import errors
from vqdna_jax.cli.genome_verbs import score, tracks
from vqdna_jax.cli.model_verbs import decode, embed, encode, export, import_, map, models, predict
from vqdna_jax.cli.options import (
    AsJson,
    FastaFiles,
    OnDuplicate,
    OptionalModel,
    OptionalPath,
    must_be_given,
    must_exist,
    tell,
    warn,
)
from vqdna_jax.cli.report_verbs import REPORTS
from vqdna_jax.runtime.devices import Device, choose


def corpus(
    out: str,
    fasta: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="FASTA...")]] = (),
    species: OptionalPath = None,
    downloads: OptionalPath = None,
    validation_share: float = 0.1,
    on_duplicate: OnDuplicate = "error",
    beam_runner: str = "",
    beam_option: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    quiet: bool = False,
    as_json: AsJson = False,
) -> None:
    """Build a corpus from FASTA files, for training.

    Args:
        out: the directory to write, new or empty; may be remote (gs://, s3://)
        fasta: a FASTA or .2bit file for each species, as FILE or NAME=FILE; globs, and directories, of which .fa .fna
            .fasta .fas .ffn .fsa .2bit are taken in any case; .gz, remote, - for stdin
        species: a list of species to download, tab-separated: name, url, checksum, bytes (docs/data.md)
        downloads: where they are kept, by default in the cache directory
        validation_share: share of the bases of every species kept for validation
        on_duplicate: refuse a contig name that occurs twice, or number it
        beam_runner: let Apache Beam do it, DirectRunner, DataflowRunner and the like; the same bytes
        beam_option: an option of Beam, --beam-option=--project=mine; may be given several times
        quiet: no progress and no summary; what was left out or changed, and errors, still go to stderr
        as_json: print the manifest as JSON on stdout
    """
    from vqdna_jax.genome.build import staging
    from vqdna_jax.genome.build.build import build_corpus

    staging.check(out)
    downloaded = []
    if species is not None:
        from vqdna_jax.genome.build.assemblies import fetch_assemblies, read_assemblies

        downloaded.extend(fetch_assemblies(read_assemblies(species), downloads, progress=not quiet))
    manifest = build_corpus(
        [*fasta, *downloaded],
        out,
        validation_share=validation_share,
        progress=not quiet,
        on_duplicate=on_duplicate,
        beam_runner=beam_runner,
        beam_options=beam_option,
    )
    tell(manifest, f"corpus written to {out}", quiet, as_json)


def species(
    fasta: FastaFiles,
    out: Path,
    length: int = 1000,
    items: int = 1000,
    seed: int = 0,
    on_duplicate: OnDuplicate = "error",
    quiet: bool = False,
    as_json: AsJson = False,
) -> None:
    """Make a labelled set from genomes: which species is a stretch of DNA from? (HyenaDNA's protocol)

    Args:
        fasta: FASTA files, plain or .gz, or .2bit files; one file is one species, named after it
        out: the directory to write, train.csv, dev.csv, test.csv and labels.txt
        length: bases of a stretch
        items: training rows of each species; dev and test have a fifth of it each
        seed: of the draws
        on_duplicate: refuse a name that occurs twice in a file, or number it
        quiet: no summary
        as_json: print the summary as JSON on stdout
    """
    must_be_given(fasta)
    must_exist(*fasta)
    from vqdna_jax.benchmark.sets import species as sets

    named = {sets.name_of(path): path for path in fasta}
    if len(named) < len(fasta):
        raise errors.InputError("two FASTA files have the same name before the first dot; rename one")
    held_out = max(1, items // 5)
    rows = {"train": items, "dev": held_out, "test": held_out}
    prepared = sets.prepare(named, out, length, rows, seed, on_duplicate=on_duplicate)
    tell(dataclasses.asdict(prepared), str(prepared), quiet, as_json)


def labels(
    fasta: Path,
    peaks: Path,
    out: Path,
    negatives: Annotated[str | None, tyro.conf.arg(metavar="KIND|BED", help_behavior_hint="(optional)")] = None,
    ratio: int = 1,
    signal: OptionalPath = None,
    width: int = 200,
    at: Literal["auto", "centre", "start"] = "auto",
    dev: str = "",
    test: str = "",
    seed: int = 0,
    quiet: bool = False,
    as_json: AsJson = False,
) -> None:
    """Make a labelled set from peaks, or starts of genes, on a genome: windows around them, and windows elsewhere.

    Args:
        fasta: the genome: FASTA, plain or bgzip (read by its .fai, which is made where there is none), gzip, .2bit, or
            - for standard input
        peaks: BED of 3 to 12 columns, narrowPeak or broadPeak, plain or .gz, or - for standard input; the strand is
            heeded
        out: the directory to write, train.csv, dev.csv, test.csv, each row with its place, and prepared.json
        negatives: gc-matched (the default), windows of the same contig and split that overlap no peak and are as rich
            in G and C; shuffled, the peaks with as many of each pair of bases; or a BED file
        ratio: negatives for each peak
        signal: a bigWig file: the label is its mean over the window, and there are no negatives
        width: bases of a row
        at: what is in the middle of a row: auto, the summit of a narrowPeak, else the centre; start, of a gene say, by
            its strand
        dev: contigs for dev, with commas; by default a tenth of the peaks, by contig, or by stretches of few contigs
        test: contigs for test, in the same way
        seed: of all draws
        quiet: no progress and no summary; what was left out or changed, and errors, still go to stderr
        as_json: print the summary as JSON on stdout
    """
    must_be_given([fasta, peaks])
    must_exist(fasta, peaks, *([signal] if signal else []))
    if signal and (negatives is not None or ratio != 1):
        raise errors.InputError("--signal: is a target that needs no --negatives and no --ratio; leave them out")
    from vqdna_jax.labels.peaks.build import Options, prepare

    held_out = {split: [name for name in names.split(",") if name] for split, names in (("dev", dev), ("test", test))}
    options = Options(width, at, negatives or "gc-matched", ratio, signal, seed=seed, **held_out)
    prepared = prepare(fasta, peaks, out, options, not quiet)
    warn([], prepared.notes)
    tell(prepared.summary, f"{prepared}\nset written to {out}", quiet, as_json)


def benchmark(
    data: Path,
    out: OptionalPath = None,
    model: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    tasks: str = "",
    seeds: int = 3,
    preset: Literal["base", "tiny"] = "base",
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    untrained: bool = False,
    controls: Annotated[
        Literal["counts", "linear", "all"] | None,
        tyro.conf.arg(metavar="{counts,linear,all}", help_behavior_hint="(optional)"),
    ] = None,
    methods: str = "",
    shard: str = "0/1",
    check: bool = False,
    corpus: OptionalPath = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Fine-tune models on the benchmark's sets, beside published scores. Stopped, it goes on where it was.

    Args:
        data: a folder of sets, GUE as it is unpacked, editing tables, prepared species sets
        out: the directory for cells, table and page
        model: pretrained models, MODEL or NAME=MODEL, a MODEL being a directory or the name of one that ships; several
            with commas or by repeating
        tasks: names of sets with commas, tf/0,EMP/H3; all that are found
        seeds: runs of each model on each set
        preset: of configs/finetune.py
        set: KEY=VALUE of configs/finetune.py for all sets; may be given several times
        untrained: also run each model's network without pretraining, as a control
        controls: linear (the default), of k-mer counts and bases by position, seconds a set; counts, of k-mers alone,
            for sequences of 10,000 bases and more; all, also a small convolutional network trained from nothing,
            minutes a set and seed; said, --model may be left out
        methods: of tuning, with commas, head,lora,full, each a row of the table; by default that of the config
        shard: i/n, do every n-th cell from the i-th on; processes may share one --out
        check: only check the folder: columns, labels, letters, sizes, duplicates across splits
        corpus: with --check, a corpus of pretraining: which test rows are in what was trained on, on either strand?
        device: what to compute on; auto: the best that there is
        as_json: print the results, or with --check the findings, as JSON on stdout
    """
    must_exist(data)
    if not check:
        choose(device)
    from vqdna_jax.benchmark import command

    names = [name for name in tasks.split(",") if name]
    if check:
        sys.exit(command.run_check(data, names, as_json, corpus))
    if corpus is not None:
        raise errors.InputError("--corpus: is read by --check alone; add --check, or leave it out")
    models = [one for listed in model for one in listed.split(",")]
    if not models and controls is None:
        advice = "--model=runs/mcm/export, or --controls=linear for the controls alone"
        raise errors.InputError(f"--model: is missing; expected a pretrained model, {advice}")
    if out is None:
        raise errors.InputError("--out: is missing; expected a directory for the table and the page, --out=runs/gue")
    rows = untrained, shard, controls or "linear", [method for method in methods.split(",") if method]
    sys.exit(command.run(data, models, out, names, seeds, preset, set, *rows, as_json))


def plan(
    config: str = "",
    topology: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    length: Annotated[int | None, tyro.conf.arg(metavar="BASES", help_behavior_hint="(optional)")] = None,
    model: OptionalModel = None,
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    mfu: float = 0.4,
    price: Annotated[float | None, tyro.conf.arg(metavar="USD", help_behavior_hint="(optional)")] = None,
    largest_batch: bool = False,
    scaling: bool = False,
    as_json: AsJson = False,
) -> None:
    """Compile the training step for a TPU pod, without one: memory, what is sent between chips, time at a given MFU.

    With --length instead of --topology: the memory that a sequence takes on a CPU, an H100, a v5e and a v5p, without
    compiling, and the longest that fits.

    Args:
        config: an experiment and its preset, configs/mcm.py:base
        topology: v5e:16x16, v5p:4x4x4 and the like, 2xv5e:16x16 for two slices; may be given several times
        length: bases of a sequence, to embed, to fine-tune and to pretrain on
        model: with --length in the place of --config, a pretrained model, its directory or its name
        set: KEY=VALUE of the config, mesh.fsdp=16; may be given several times
        mfu: share of the chips' peak FLOP/s at which times are stated
        price: US dollars per chip-hour, for the cost of the whole run
        largest_batch: find the largest global batch that fits, in about five compilations
        scaling: compare the topologies at the same windows per chip, and at the same global batch
        as_json: print the findings as JSON on stdout
    """
    # jax computes on the CPU here; the compiler asks no metadata server, and several may run at once. `compiled.keep`
    # would keep what jax 0.10 cannot read back and warns of, for devices that are not there;
    # `memory.keep` is for steps that run.
    os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    if length is not None or model is not None:
        _check_alone(length, topology, largest_batch, scaling, price)
        from vqdna_jax.plan import lengths

        needs = lengths.plan(config, model or "", length or 0, set)
        print(json.dumps(needs, indent=2) if as_json else lengths.describe(needs))
        return
    if not config:
        raise errors.InputError("--config: is missing; expected an experiment and its preset, configs/mcm.py:base")
    from vqdna_jax.plan import compile as pods
    from vqdna_jax.plan import table as plan_table

    rows = pods.plan(config, topology, set, mfu, price, largest_batch, scaling)
    print(json.dumps(rows, indent=2) if as_json else plan_table.describe(rows))


def _check_alone(length: int | None, *others: object) -> None:
    """Raises InputError: there is no length, or options of what is compiled beside it."""
    if length is None or any(others):
        raise errors.InputError("--length: is asked with --config or --model, and --set, alone; leave the others out")


def doctor(as_json: AsJson = False) -> None:
    """Check this machine: devices, versions, and the install line it needs. Exit code 1 if something wants attention.

    Args:
        as_json: print the findings as JSON on stdout
    """
    from vqdna_jax.cli import doctor as machine

    findings = machine.examine()
    print(json.dumps(findings, indent=2) if as_json else machine.describe(findings))
    if findings["problems"]:
        sys.exit(1)


VERBS: dict[str, Callable[..., None]] = {
    verb.__name__.removesuffix("_"): verb
    for verb in (
        *(corpus, encode, decode, embed, map, predict, score, tracks, models, export, import_),
        *(species, labels, benchmark),
    )
}
VERBS |= {f"report {kind}": verb for kind, verb in REPORTS.items()} | {"plan": plan, "doctor": doctor}
GROUPS = {"report": "Make a self-contained HTML page"}  # first words of verbs of two
GO_ON = (embed, score, tracks, benchmark)  # stopped and started again, where they were
