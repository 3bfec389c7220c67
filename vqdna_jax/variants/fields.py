"""What `vqdna score` adds to a record: INFO fields, their definitions, and why an allele has no score."""

from collections.abc import Mapping, Sequence

import numpy as np

PREFIX = "VQDNA_"
SCORES = {  # in the order of `effects.Scores`
    "LLR": "Natural logarithm of how much likelier the model finds this allele than REF, where what changes is hidden"
    " from it; of a model of the next token, with all that follows",
    "LLR_SPREAD": "Standard deviation of VQDNA_LLR over the phases of the codes; 0 where a code stands for one base",
    "DISTANCE": "Euclidean distance between the mean embeddings of the windows with REF and with this allele",
    "DISTANCE_AT": "The same distance at the codes of what changes alone",
    "CODES": "Codes of the window that change, the mean over strands and phases",
}
REASON = "REASON"
MADE_BY = "vqdna_score"  # the header's line on the model
REASONS = {
    "no_alternative": "ALT is . and says that there is none",
    "symbolic": "ALT is no sequence, as <DEL>",
    "breakend": "ALT joins another place",
    "spanning_deletion": "ALT is *, what a deletion before it took away",
    "not_dna": "REF or ALT has other letters than those of DNA",
    "ambiguous_allele": "REF or ALT has N or another letter for several bases",
    "unknown_contig": "the FASTA has no such contig",
    "beyond_contig": "the contig ends before it, or begins behind it",
    "unknown_reference": "the FASTA has N, or another letter for several bases, there",
    "reference_differs": "the FASTA has other bases there than REF",
    "same": "ALT is REF",
    "too_long": "what changes, and the bases beside it, is longer than half a window of the model",
}
NAMES = [f"{PREFIX}{name}" for name in (*SCORES, REASON)]
Values = dict[str, tuple[float | str | None, ...]]  # of a record by field: of each ALT


def definitions() -> list[str]:
    """Lines of a header."""
    scores = [f'##INFO=<ID={PREFIX}{name},Number=A,Type=Float,Description="{text}">' for name, text in SCORES.items()]
    reasons = "; ".join(f"{name}: {text}" for name, text in REASONS.items())
    why = f"Why an allele has no score, . where it has one: {reasons}"
    return [*scores, f'##INFO=<ID={PREFIX}{REASON},Number=.,Type=String,Description="{why}">']


def values(reasons: Sequence[str], scores_AxF: np.ndarray) -> Values:
    """Of a record with A alternative alleles: of each why it has no score, "" where it has one, and the scores."""
    found: Values = {}
    if not all(reasons):
        rows = [[None] * len(SCORES) if why else map(_rounded, row) for why, row in zip(reasons, scores_AxF)]
        found = {f"{PREFIX}{name}": column for name, column in zip(SCORES, zip(*rows))}
    if any(reasons):
        found[f"{PREFIX}{REASON}"] = tuple(why or "." for why in reasons)
    return found


def _rounded(score: np.float32) -> float:
    """As many digits as float32 has for sure, and VCF's tools keep."""
    return float(f"{score:.6g}")


def as_text(fields: Mapping[str, Sequence[float | str | None]]) -> str:
    """As the column INFO has them."""
    return ";".join(f"{name}={','.join(map(_cell, column))}" for name, column in fields.items())


def _cell(value: float | str | None) -> str:
    return "." if value is None else value if isinstance(value, str) else f"{value:.6g}"
