"""Annotation files of any kind, known by their first line."""

import os

from vqdna_jax.errors import InputError
from vqdna_jax.genome.annotation import genbank, tables
from vqdna_jax.genome.annotation.features import Annotation
from vqdna_jax.genome.text_file import read_text

FORMATS = "GFF, GTF, BED, GenBank or a prot_table"


def read_annotation(path: str | os.PathLike) -> Annotation:
    """GFF3, GTF, BED, GenBank, or the prot_table of NCBI; plain or gzip, "-" for standard input.

    Raises InputError: what is none of these, or a row that is no good, as `file:line: what; what was expected`.
    """
    text = read_text(path)
    first = next(
        (line for line in text.lines if line.strip() and (not line.startswith("#") or tables.is_gff(line))), ""
    )
    if not first:
        raise InputError(f"{text.path}: holds no annotation; expected {FORMATS}")
    if first.startswith(genbank.FIRST_WORD):
        name, features = "GenBank", genbank.genbank(text)
    elif tables.is_gff(first):
        name, features = "GFF", tables.gff(text)
    elif tables.is_prot_table(first):
        name, features = "prot_table", tables.prot_table(text)
    else:
        name, features = "BED", tables.intervals(text)
    if not features:
        raise InputError(f"{text.path}: holds no annotation; expected {FORMATS}")
    return Annotation(text.path, name, features, text.sha256)
