"""The verbs `report KIND`, which make pages. As in `cli/verbs.py`, docstrings are the help."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import tyro

from vqdna_jax.cli.options import (
    AsJson,
    ModelName,
    OptionalPath,
    OutputFile,
    RegionNames,
    must_be_given,
    must_exist,
    regions_of,
    tell,
    warn,
)
from vqdna_jax.runtime.devices import Device, choose
from vqdna_jax.runtime.shipped import find


def benchmark(
    results: tyro.conf.Positional[Path],
    out: OutputFile,
    quiet: bool = False,
    as_json: AsJson = False,
) -> None:
    """Make the page of a benchmark anew: every score with its spread, beside controls and published rows.

    Args:
        results: the results.json of a benchmark
        out: the page to write, or - for standard output
        quiet: do not say that it is there
        as_json: print where it is as JSON on stdout, or on stderr if the page is not a file
    """
    must_exist(results)
    from vqdna_jax.benchmark.report import publish

    publish.page_of(results, out)
    tell({"out": out}, f"page written to {out}", quiet, as_json, out)


def vocabulary(
    model: tyro.conf.Positional[ModelName],
    fasta: tyro.conf.UseAppendAction[tuple[Path, ...]],
    out: OutputFile,
    annotation: OptionalPath = None,
    against: str = "one-hot-vq,6-mers,bpe",
    region: RegionNames = (),
    bed: OptionalPath = None,
    sample: int = 5_000_000,
    word: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    motifs: OptionalPath = None,
    device: Device = "auto",
    quiet: bool = False,
    as_json: AsJson = False,
) -> None:
    """Make the page of a vocabulary: what its words are, cost and lose, where they lie, beside others (docs/audit.md).

    Args:
        model: whose words: the export directory of a run, or the name of a model that ships (`vqdna models`)
        fasta: a FASTA file, plain or .gz, or a .2bit file, each a species; may be given several times
        out: the page to write; the JSON beside it, of the same name with .json, has all its numbers
        annotation: genes: GFF3, GTF, BED, GenBank or a prot_table, plain or .gz
        against: what it is set against, with commas: one-hot-vq (k-means of letters), 6-mers, bpe (byte pairs of the
            sample), models; none: alone
        region: NAME:START-END, counted from 1 with both ends, or NAME: this stretch alone; may be given several times
        bed: a BED file of such regions, plain or .gz, counted from 0 without the end
        sample: bases that are read at most, in stretches at even distances, 0: all
        word: LEVEL:CODE, a word to show beside the busiest; may be given several times
        motifs: a list of motifs, NAME and CONSENSUS with a tab between them; by default one that ships
        device: what to compute on; auto: the best that there is
        quiet: no progress and no summary; warnings and errors still go to stderr
        as_json: print where page and numbers are, and the findings, as JSON on stdout
    """
    must_be_given(fasta)
    must_exist(*fasta, *(path for path in (annotation, bed, motifs) if path))
    find(model)
    choose(device)
    from vqdna_jax.report.vocabulary import publish
    from vqdna_jax.report.vocabulary.words import word_of

    options = publish.Options(
        annotation,
        [name for name in against.split(",") if name != "none"],
        regions_of(region, bed, out),
        sample,
        [word_of(text) for text in word],
        motifs,
    )
    summary = publish.publish(model, fasta, out, options, not quiet)
    warn([], summary["notes"])
    tell(summary, f"{summary['findings'][0]}\npage {out}, its numbers {summary['numbers']}", quiet, as_json)


def covid(
    genotypes: Path,
    reference: Path,
    out: OutputFile,
    model: ModelName = "mini",
    genomes: int = 300,
    map: Literal["umap", "pca"] = "umap",
    seed: int = 0,
    device: Device = "auto",
    quiet: bool = False,
    as_json: AsJson = False,
) -> None:
    """Make the page of the paper's case study: what coarse and fine words know of the variants of SARS-CoV-2.

    Args:
        genotypes: a table, tab- or comma-separated, plain or .gz, a genome a row: columns who (the variant), lineage,
            and substitutions, as 913T,3037T, on the reference
        reference: a FASTA or .2bit file with the sequence that was substituted, MN908947.3
        out: the page to write; the numbers go beside it, with .json for .html
        model: a model over HRQ words: the export directory of a run, or the name of a model that ships
        genomes: of each variant, drawn from the table; a fifth of them is held out
        map: how embeddings are drawn: umap, which is an extra; pca, principal components
        seed: of all draws, of the untrained network and of the maps
        device: what to compute on; auto: the best that there is
        quiet: no progress and no summary; errors still go to stderr
        as_json: print where the page and its numbers are, and which claims hold, as JSON on stdout
    """
    must_exist(genotypes, reference)
    find(model)
    choose(device)
    from vqdna_jax.report.covid import publish

    found = publish.publish(genotypes, reference, model, out, genomes, seed, map, not quiet)
    told = {"out": out, "numbers": found["numbers"], "claims": found["claims"]}
    tell(told, f"{found['lead']}\npage written to {out}, its numbers beside it to {found['numbers']}", quiet, as_json)


REPORTS: dict[str, Callable[..., None]] = {"benchmark": benchmark, "vocabulary": vocabulary, "covid": covid}
