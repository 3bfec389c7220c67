"""The `vqdna` verbs: typed functions that tyro turns into commands. `vqdna VERB --help` prints their docstrings."""

import contextlib
import functools
import io
import json
import os
import pathlib
import re
import sys
from collections.abc import Callable, Sequence
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
    fasta: FastaFiles,
    out: Path,
    validation_share: float = 0.1,
    on_duplicate: Literal["error", "rename"] = "error",
    as_json: AsJson = False,
) -> None:
    """Build a corpus from FASTA files, for training.

    Args:
        fasta: FASTA files, plain or .gz, globs or directories of them; one file is one species
        out: the directory to write, new or empty
        validation_share: share of the bases of every species kept for validation
        on_duplicate: refuse a contig name that occurs twice, or number it
        as_json: print the manifest as JSON on stdout
    """
    from vqdna_jax.genome.corpus import build_corpus

    manifest = build_corpus(fasta, out, validation_share=validation_share, on_duplicate=on_duplicate)
    print(json.dumps(manifest, indent=2, default=str) if as_json else f"corpus written to {out}")


def encode(fasta: tyro.conf.Positional[Path], model: Path, out: Path) -> None:
    """Turn sequences into codes.

    Args:
        fasta: a FASTA file, plain or .gz
        model: a trained tokenizer, the export directory of a run
        out: the file of codes to write
    """
    _must_exist(fasta, model)
    from vqdna_jax.codes import encode_fasta

    encode_fasta(fasta, model, out)
    print(f"codes written to {out}")


def decode(codes: tyro.conf.Positional[Path], model: Path, out: Path) -> None:
    """Turn codes back into sequences.

    Args:
        codes: a file written by `vqdna encode`
        model: the tokenizer that wrote it
        out: the FASTA file to write
    """
    _must_exist(codes, model)
    from vqdna_jax.codes import decode_to_fasta

    decode_to_fasta(codes, model, out)
    print(f"sequences written to {out}")


def embed(
    fasta: tyro.conf.Positional[Path],
    model: Path,
    out: Path,
    pool: Literal["mean", "max", "cls", "none"] = "mean",
    layer: int = -1,
    as_json: AsJson = False,
) -> None:
    """Turn sequences into vectors. Stopped and started again, it goes on where it was.

    Args:
        fasta: a FASTA file, plain or .gz
        model: a pretrained model, the export directory of a run with configs/mcm.py
        out: the file of embeddings to write, which numpy.load opens
        pool: one vector a sequence (mean or max of its codes, or CLS), or one a code (none)
        layer: -1 after the last norm, or after so many layers, 0 for the input
        as_json: print the summary as JSON on stdout
    """
    _must_exist(fasta, model)
    from vqdna_jax.embeddings import embed_fasta

    summary = embed_fasta(fasta, model, out, pool, layer)
    text = "{records:,} records, {bases:,} bases: {vectors:,} vectors of {width}, {bases_per_s:,.0f} bases/s, in {out}"
    print(json.dumps(summary, indent=2) if as_json else text.format(**summary))


def plan(
    config: str,
    topology: tyro.conf.UseAppendAction[tuple[str, ...]],
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    mfu: float = 0.4,
    as_json: AsJson = False,
) -> None:
    """Compile the training step for a TPU pod, without one: memory, what is sent between chips, time at a given MFU.

    Args:
        config: an experiment and its preset, configs/mcm.py:base
        topology: v5e:16x16, v5p:4x4x4, v6e:16x16 and the like; may be given several times
        set: KEY=VALUE of the config, mesh.fsdp=16; may be given several times
        mfu: share of the chips' peak FLOP/s at which times are stated
        as_json: print the findings as JSON on stdout
    """
    # jax computes on the CPU here; the compiler asks no metadata server, and several may run at once.
    os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    from vqdna_jax import plan as pods
    from vqdna_jax import plan_table

    rows = pods.plan(config, topology, set, mfu)
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


VERBS = {"corpus": corpus, "encode": encode, "decode": decode, "embed": embed, "plan": plan, "doctor": doctor}


def parse(argv: Sequence[str]) -> Callable[[], None]:
    """The call that `argv` asks for, not yet made; a usage error becomes an `InputError` of one line."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return tyro.extras.subcommand_cli_from_dict(
                {name: _deferred(verb) for name, verb in VERBS.items()},
                prog="vqdna",
                description="A genome tokenizer learned by vector quantization. `vqdna VERB --help` explains a verb.",
                args=argv,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
    raise errors.InputError(_one_line(printed.getvalue()))


def main(argv: Sequence[str] | None = None) -> None:
    with errors.report_and_exit():
        parse(sys.argv[1:] if argv is None else argv)()


def _deferred(verb: Callable[..., None]) -> Callable[..., Callable[[], None]]:
    """Same signature and help, but called later: what a verb prints and raises is not a usage error."""

    @functools.wraps(verb)
    def bind(*args, **kwargs):
        return functools.partial(verb, *args, **kwargs)

    return bind


def _one_line(message: str) -> str:
    """tyro draws a box with a title, sections and a hint; keeps the words of the sections."""
    rows = [re.sub(r"\x1b\[[0-9;]*m", "", row).strip("│ ") for row in message.splitlines() if "│" in row]
    sections = " ".join("\n" if set(row) == {"─"} else row for row in rows).split("\n")
    said = [section.strip().rstrip(".") for section in sections if "helptext" not in section]
    return "; ".join(filter(None, said)) + " (see vqdna --help)"


def _must_exist(*paths: Path) -> None:
    for path in paths:
        if not path.exists():
            raise errors.InputError(f"{path}: no such file or directory")


if __name__ == "__main__":
    main()
