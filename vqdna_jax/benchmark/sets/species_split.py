"""Which stretches of a genome are for training, which for dev and which for test, so that no window is on two sides.

chromosome   HyenaDNA's lists: dev 1 3 12 13, test 5 7 9 10 11, train the other numbers, X and Y
contig       whole contigs, dealt out 8:1:1 in bases by a hash
block        every contig in three stretches, 8:1:1, a window's length left out after each
quarter      the same, 2:1:1, and GAP bases left out: for windows that are a large part of a genome
"""

import re
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from vqdna_jax.errors import InputError
from vqdna_jax.labels.layout import SHARES, deal

Rule = Literal["auto", "chromosome", "contig", "block", "quarter"]
RULES = ("chromosome", "contig", "block", "quarter")  # the order in which auto tries them
DEV_CHROMOSOMES, TEST_CHROMOSOMES = {"1", "3", "12", "13"}, {"5", "7", "9", "10", "11"}
GAP = 10_000  # of the quarter rule, which has no room for a window's length: more than most genes and operons
LEAST_SHARE = 0.08  # of the bases, in each split of the contig rule
_DEALS = 20  # tries at dealing out contigs
_NAME = re.compile(r"(?:chr|chromosome)?[_.-]?0*([1-9][0-9]?|X|Y)", re.IGNORECASE)
_IN_TEXT = re.compile(r"\bchromosome:? 0*([1-9][0-9]?|X|Y)\b", re.IGNORECASE)
_NOT_WHOLE = re.compile(r"unlocali[sz]ed|unplaced|scaffold|contig|patch|alternate|plasmid|slice", re.IGNORECASE)


class Contig(NamedTuple):
    """A record of a genome."""

    path: str
    line: int  # of its header: with the path, its identity
    id: str
    description: str
    length: int


class Region(NamedTuple):
    """Bases [start, stop) of a contig."""

    contig: Contig
    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start


Regions = dict[str, list[Region]]  # by split


def regions(species: str, contigs: Sequence[Contig], length: int, rule: Rule, seed: int) -> tuple[str, Regions]:
    """The rule applied and the regions by split: with "auto", those of the first of RULES that fits the genome.

    Only regions of `length` bases or more are kept, unless a split has none such. Raises InputError where the rule does
    not fit: chromosomes without such numbers, contigs too few or too unequal, or none of 13 windows' length, or 4.
    """
    if rule not in ("auto", *RULES):
        raise InputError(f"split rule {rule!r}: expected auto, {', '.join(RULES)}")
    makers = {"chromosome": _by_chromosome, "contig": _by_contig, "block": _by_block, "quarter": _by_quarter}
    for name in RULES if rule == "auto" else (rule,):
        found = makers[name](contigs, length, seed)
        if all(found[split] for split in SHARES):
            return name, {split: _long_enough(parts, length) for split, parts in found.items()}
    least = 13 * length if rule == "block" else min(13 * length, 4 * length + 3 * GAP)
    size = f"{len(contigs):,} contigs of up to {max(contig.length for contig in contigs):,} bases"
    raise InputError(
        f"{contigs[0].path}: {species}: {size} cannot be split by rule {rule} for windows of {length:,}; "
        f"expected numbered chromosomes, or a contig of {least:,} bases or more; name a shorter --length"
    )


def chromosome(contig: Contig) -> str | None:
    """Its number, X or Y, from a name such as chr7 or 7 or a description such as "Homo sapiens chromosome 7, ..."."""
    if _NOT_WHOLE.search(contig.description):
        return None
    match = _NAME.fullmatch(contig.id) or _IN_TEXT.search(contig.description)
    return match[1].upper() if match else None


def _by_chromosome(contigs: Sequence[Contig], length: int, seed: int) -> Regions:
    found: Regions = {split: [] for split in SHARES}
    for contig in contigs:
        if number := chromosome(contig):
            split = "dev" if number in DEV_CHROMOSOMES else "test" if number in TEST_CHROMOSOMES else "train"
            found[split].append(Region(contig, 0, contig.length))
    return found


def _by_contig(contigs: Sequence[Contig], length: int, seed: int) -> Regions:
    sizes = {(contig.id, i): contig.length for i, contig in enumerate(contigs)}
    for attempt in range(_DEALS):
        splits = deal(sizes, (seed, attempt))
        found: Regions = {split: [] for split in SHARES}
        for contig, split in zip(contigs, (splits[key] for key in sizes)):
            found[split].append(Region(contig, 0, contig.length))
        bases = [sum(part.length for part in parts) for parts in found.values()]
        if min(bases) >= LEAST_SHARE * sum(bases):
            return found
    return {split: [] for split in SHARES}


def _by_block(contigs: Sequence[Contig], length: int, seed: int) -> Regions:
    return _stretches(contigs, length, {split: round(10 * share) for split, share in SHARES.items()}, length)


def _by_quarter(contigs: Sequence[Contig], length: int, seed: int) -> Regions:
    return _stretches(contigs, length, {"train": 2, "dev": 1, "test": 1}, GAP)


def _stretches(contigs: Sequence[Contig], length: int, parts: Mapping[str, int], gap: int) -> Regions:
    """So many equal parts of each contig for each split, of contigs whose parts hold a window."""
    found: Regions = {split: [] for split in parts}
    for contig in contigs:
        part = (contig.length - 3 * gap) // sum(parts.values())  # the last gap is for circular genomes
        if part < length:
            continue
        start = 0
        for split, count in parts.items():
            stop = start + count * part
            found[split].append(Region(contig, start, stop))
            start = stop + gap
    return found


def _long_enough(parts: list[Region], length: int) -> list[Region]:
    return [part for part in parts if part.length >= length] or parts
