"""The verbs that read a genome at its places with a trained model: score and tracks. As in `cli/verbs.py`, docstrings
are the help.
"""

from pathlib import Path
from typing import Annotated

import tyro

from vqdna_jax.cli.options import (
    AsJson,
    ModelName,
    OptionalPath,
    OutputFile,
    RegionNames,
    must_exist,
    regions_of,
    tell,
    warn,
)
from vqdna_jax.runtime import requirements
from vqdna_jax.runtime.devices import Device, choose
from vqdna_jax.runtime.shipped import find


def score(
    vcf: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="VCF")]],
    fasta: Path,
    model: ModelName,
    out: OutputFile,
    embeddings: OptionalPath = None,
    window: int = 0,
    batch: int = 0,
    device: Device = "auto",
    quiet: bool = False,
    as_json: AsJson = False,
) -> None:
    """Score the variants of a VCF file. An allele that cannot be scored says why; all else stays as it is. Stopped and
    started again, it goes on where it was.

    Args:
        vcf: VCF, plain, .gz or bgzip, or BCF, or - for standard input
        fasta: the genome that it was made on: FASTA, plain or bgzip (.gz and .2bit are unpacked to a temporary file);
            contigs may differ by a leading "chr"
        model: a pretrained model: the export directory of a run with configs/mcm.py or of `vqdna import`, or the name
            of a model that ships (`vqdna models`); of a fine-tuned model its base
        out: the file to write, VCF; .gz: bgzip; .bcf: BCF; or - for standard output
        embeddings: a .npy file to write, too: for each alternative allele the mean embedding of the reference's window,
            then the alternative's less that, in float32
        window: bases that the model reads around each variant, 0: as many as in training; fewer are quicker
        batch: codes computed at once, 0: as many as suit the device; fewer need less memory; scores agree to rounding
        device: what to compute on; auto: the best that there is
        quiet: no progress and no summary; warnings and errors still go to stderr
        as_json: print the summary as JSON on stdout, or on stderr if the output is not a file
    """
    must_exist(vcf, fasta)
    find(model)
    choose(device)
    from vqdna_jax.variants.score import describe, notes_of, score_vcf

    summary = score_vcf(vcf, fasta, model, out, embeddings, window or None, not quiet, batch or None)
    warn([vcf], notes_of(summary))
    tell(summary, describe(summary), quiet, as_json, out)


def tracks(
    fasta: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="FASTA")]],
    model: ModelName,
    out: str,
    region: RegionNames = (),
    bed: OptionalPath = None,
    batch: int = 0,
    device: Device = "auto",
    quiet: bool = False,
    as_json: AsJson = False,
) -> None:
    """Write tracks for genome browsers: codes, likelihood of each base, entropy, change of codes. Stopped and started
    again, it goes on where it was.

    Args:
        fasta: a FASTA file, plain or .gz, a .2bit file, or - for standard input; a large one best plain or by bgzip,
            with the index of samtools faidx, which is made where it is not there
        model: a pretrained model: the export directory of a run with configs/mcm.py, or the name of a model that ships
            (`vqdna models`); of a fine-tuned one its base is used
        out: the directory to write, new or empty: BED, bedGraph, bigWig, an IGV session and the reference it shows
        region: NAME:START-END, counted from 1 with both ends, or NAME: this stretch alone, at its place in the contig;
            may be given several times
        bed: a BED file of such regions, plain or .gz, counted from 0 without the end
        batch: codes computed at once, 0: as many as suit the device; fewer need less memory; numbers agree to rounding
        device: what to compute on; auto: the best that there is
        quiet: no progress and no summary; warnings and errors still go to stderr
        as_json: print the summary as JSON on stdout
    """
    must_exist(fasta)
    requirements.check(["pyBigWig"])
    find(model)
    choose(device)
    from vqdna_jax.inference.jobs.tracks import write_tracks

    must_exist(*([bed] if bed else []))
    summary = write_tracks(fasta, model, out, regions_of(region, bed), not quiet, batch or None)
    warn([], summary["notes"])  # which name the files
    text = (
        "{bases:,} bases, {known:,} of them not N: {bits:.3f} bits a hidden base; of the codes around it {change:.1%}"
        " change; {bases_per_s:,.0f} bases/s; tracks in {out}"
    )
    tell(summary, text.format(**summary, bits=-summary["likelihood"]), quiet, as_json)
