"""The verbs for what comes before a model: genomes, labelled sets, the machine and the pod to train on."""

import json
import os
import pathlib
import sys
from typing import Annotated, Literal

import tyro

from vqdna_jax import errors

# jax takes seconds to import, so every verb imports what it needs when it runs: `vqdna --help` stays quick.

Path = pathlib.Path
FastaFiles = Annotated[
    tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="FASTA...", help_behavior_hint="(one or more)")
]
AsJson = Annotated[bool, tyro.conf.arg(name="json")]


def corpus(
    out: str,
    fasta: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="FASTA...")]] = (),
    species: Path | None = None,
    downloads: Path | None = None,
    validation_share: float = 0.1,
    on_duplicate: Literal["error", "rename"] = "error",
    beam_runner: str = "",
    beam_option: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    as_json: AsJson = False,
) -> None:
    """Build a corpus from FASTA files, for training.

    Args:
        out: the directory to write, new or empty; may be remote (gs://, s3://)
        fasta: FASTA files, plain or .gz, globs or directories of them, may be remote; one file is one species
        species: a list of species to download, tab-separated: name, url, checksum, bytes (docs/data.md)
        downloads: where they are kept, by default in the cache directory
        validation_share: share of the bases of every species kept for validation
        on_duplicate: refuse a contig name that occurs twice, or number it
        beam_runner: let Apache Beam do it, DirectRunner, DataflowRunner and the like; the same bytes
        beam_option: an option of Beam, --beam-option=--project=mine; may be given several times
        as_json: print the manifest as JSON on stdout
    """
    from vqdna_jax.genome.corpus import build_corpus

    inputs = list(fasta)
    if species is not None:
        from vqdna_jax.genome.species import fetch_species, read_species_list

        inputs += fetch_species(read_species_list(species), downloads)
    manifest = build_corpus(
        inputs,
        out,
        validation_share=validation_share,
        on_duplicate=on_duplicate,
        beam_runner=beam_runner,
        beam_options=beam_option,
    )
    print(json.dumps(manifest, indent=2, default=str) if as_json else f"corpus written to {out}")


def species(
    fasta: FastaFiles,
    out: Path,
    length: int = 1000,
    items: int = 1000,
    seed: int = 0,
) -> None:
    """Make a labelled set from genomes: which species is a stretch of DNA from? (HyenaDNA's protocol)

    Args:
        fasta: FASTA files, plain or .gz; one file is one species, named after it
        out: the directory to write, train.csv, dev.csv, test.csv and labels.txt
        length: bases of a stretch
        items: training rows of each species; dev and test have a fifth of it each
        seed: of the draws
    """
    must_exist(*fasta)
    from vqdna_jax.benchmark import species as sets

    named = {path.name.split(".")[0]: path for path in fasta}
    if len(named) < len(fasta):
        raise errors.InputError("two FASTA files have the same name before the first dot; rename one")
    held_out = max(1, items // 5)
    print(sets.prepare(named, out, length, {"train": items, "dev": held_out, "test": held_out}, seed))


def plan(
    config: str,
    topology: tyro.conf.UseAppendAction[tuple[str, ...]],
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    mfu: float = 0.4,
    price: float | None = None,
    largest_batch: bool = False,
    scaling: bool = False,
    as_json: AsJson = False,
) -> None:
    """Compile the training step for a TPU pod, without one: memory, what is sent between chips, time at a given MFU.

    Args:
        config: an experiment and its preset, configs/mcm.py:base
        topology: v5e:16x16, v5p:4x4x4 and the like, 2xv5e:16x16 for two slices; may be given several times
        set: KEY=VALUE of the config, mesh.fsdp=16; may be given several times
        mfu: share of the chips' peak FLOP/s at which times are stated
        price: US dollars a chip-hour, for the cost of the whole run
        largest_batch: find the largest global batch that fits, in about five compilations
        scaling: compare the topologies at the same windows a chip, and at the same global batch
        as_json: print the findings as JSON on stdout
    """
    # jax computes on the CPU here; the compiler asks no metadata server, and several may run at once.
    os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    from vqdna_jax import plan as pods
    from vqdna_jax import plan_table

    rows = pods.plan(config, topology, set, mfu, price, largest_batch, scaling)
    print(json.dumps(rows, indent=2) if as_json else plan_table.describe(rows))


def doctor(as_json: AsJson = False) -> None:
    """Check this machine: devices, versions, and the install line it needs. Exit code 1 if something wants attention.

    Args:
        as_json: print the findings as JSON on stdout
    """
    from vqdna_jax import doctor as machine

    findings = machine.examine()
    print(json.dumps(findings, indent=2) if as_json else machine.describe(findings))
    if findings["problems"]:
        sys.exit(1)


def must_exist(*paths: Path) -> None:
    for path in paths:
        if not path.exists():
            raise errors.InputError(f"{path}: no such file or directory")
