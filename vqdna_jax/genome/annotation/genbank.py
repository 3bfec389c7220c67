"""Features of GenBank records, read by Biopython, which is imported on first use."""

import io
import warnings
from collections.abc import Iterator
from typing import Any

from vqdna_jax.errors import InputError, first_line
from vqdna_jax.genome.annotation.features import Feature, joined
from vqdna_jax.genome.text_file import Text

FIRST_WORD = "LOCUS"
_WHOLE = "source"  # the feature that is all of a record


def genbank(text: Text) -> list[Feature]:
    """The features of all records; contigs are called by accession and version. Raises InputError."""
    try:
        from Bio import BiopythonWarning, SeqIO
    except ImportError as error:
        advice = "GenBank needs it; pip install vqdna_jax[report], or give GFF or BED"
        raise InputError(f"package biopython: not installed, {advice}") from error
    with warnings.catch_warnings():
        warnings.simplefilter("error", BiopythonWarning)  # of what it would pass over
        try:
            records = list(SeqIO.parse(io.StringIO("\n".join(text.lines)), "genbank"))
            found = [feature for record in records for feature in _features(text.path, record)]
        except (ValueError, AssertionError, LookupError, AttributeError, TypeError, BiopythonWarning) as error:
            raise InputError(f"{text.path}: is no GenBank record that can be read ({first_line(error)})") from error
    if not found:
        raise InputError(f"{text.path}: has no feature; give a GenBank record with its features")
    return found


def _features(path: str, record: Any) -> Iterator[Feature]:
    for one in record.features:
        place = f"{path}: {one.type} {one.location}"
        if one.type != _WHOLE and all(part.ref is None for part in one.location.parts):
            strand = {1: "+", -1: "-"}.get(one.location.strand, ".")
            parts = joined([(int(part.start), int(part.end)) for part in one.location.parts])
            begins = one.qualifiers.get("codon_start", ["1"]) == ["1"] and _is_exact(one.location)
            yield Feature(record.id, one.type, strand, parts, begins, place)


def _is_exact(location: Any) -> bool:
    """Whether its first base is known."""
    end = location.end if location.strand == -1 else location.start
    return type(end).__name__ == "ExactPosition"
