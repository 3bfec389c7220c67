"""Do rare alleles score as less likely than common ones? AUROC within each kind of substitution, of a file that
`vqdna score` wrote, beside two controls: the ratio of a table of the five bases on both sides, and GC around.

    python tools/variant_frequencies.py SCORED.vcf --fasta=GENOME.fa --corpus=CORPUS

Of single bases with INFO/AF: rare under 0.5 %, common over 5 %. Kinds are of both strands, and transitions of CpG are
apart. All: the mean over kinds, weighted by the inverse of their squared standard errors (Hanley and McNeil, 1982).
"""

import argparse
import collections
from typing import NamedTuple

import numpy as np
import pysam
import scipy.stats

from vqdna_jax.evaluation import context_tables
from vqdna_jax.genome.alphabet import reverse_complement, to_bases, to_text
from vqdna_jax.genome.corpus import open_corpus
from vqdna_jax.genome.indexed_fasta import IndexedFasta

RARE, COMMON, AROUND = 0.005, 0.05, 256
FIELDS = ("LLR", "DISTANCE", "DISTANCE_AT", "CODES")


class Variant(NamedTuple):
    kind: str
    rare: bool
    window: np.ndarray  # of AROUND bases on both sides
    alternative: int
    scores: tuple[float, ...]


def kind_of(window: np.ndarray, alternative: int) -> str:
    if window[AROUND] > 1:  # A and C stand for T and G
        window, alternative = reverse_complement(window), 3 - alternative
    before, reference, behind = window[AROUND - 1 : AROUND + 2].tolist()
    kind = ">".join(to_text(np.array([reference, alternative])))
    of_cpg = (kind == "C>T" and behind == 2) or (kind == "A>G" and before == 1)  # takes one away, or makes one
    return f"{kind} CpG" if of_cpg else kind


def read(path: str, genome: IndexedFasta) -> list[Variant]:
    found = []
    with pysam.VariantFile(path) as file:
        for record in file:
            if len(record.ref) != 1 or len(record.alts or ()) != 1 or len(record.alts[0]) != 1:
                continue
            frequency = record.info["AF"][0]
            if RARE <= frequency <= COMMON or "VQDNA_LLR" not in record.info:
                continue
            window = genome.bases(record.contig, record.start - AROUND, record.start + AROUND + 1)
            alternative = int(to_bases(record.alts[0])[0])
            scores = tuple(record.info[f"VQDNA_{name}"][0] for name in FIELDS)
            found.append(Variant(kind_of(window, alternative), frequency < RARE, window, alternative, scores))
    return found


def auroc(score: np.ndarray, rare: np.ndarray) -> tuple[float, float]:
    """(how often a rare one scores lower than a common one, its standard error)"""
    few, many = int(rare.sum()), int((~rare).sum())
    area = 1 - (scipy.stats.rankdata(score)[rare].sum() - few * (few + 1) / 2) / (few * many)
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (few - 1) * (q1 - area**2) + (many - 1) * (q2 - area**2)
    return area, (variance / (few * many)) ** 0.5


def controls(variants: list[Variant], corpus: str) -> dict[str, np.ndarray]:
    windows = np.stack([variant.window for variant in variants])
    at, rows = np.full(len(windows), AROUND), np.arange(len(windows))
    table = context_tables.fit(open_corpus(corpus), "train", context_tables.CONTEXT55)
    log2_Px4 = table.log2_probabilities(windows, rows, at)
    alternatives = np.array([variant.alternative for variant in variants])
    ratio = log2_Px4[rows, alternatives] - log2_Px4[rows, windows[:, AROUND]]
    return {"context55 ratio": ratio, "GC": np.isin(windows, (1, 2)).mean(axis=1)}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("vcf")
    options.add_argument("--fasta", required=True)
    options.add_argument("--corpus", required=True)
    given = options.parse_args()
    with IndexedFasta(given.fasta) as genome:
        variants = read(given.vcf, genome)
    rare = np.array([variant.rare for variant in variants])
    kinds = np.array([variant.kind for variant in variants])
    scores = dict(zip(FIELDS, np.array([variant.scores for variant in variants]).T))
    # A larger distance should be of a rarer allele.
    scores = {name: value if name == "LLR" else -value for name, value in scores.items()} | controls(
        variants, given.corpus
    )
    print(f"| kind | rare | common | {' | '.join(scores)} |\n|{'---|' * (len(scores) + 3)}")
    parts = collections.defaultdict(list)
    for kind in sorted(set(kinds)):
        of_kind = kinds == kind
        cells = []
        for name, value in scores.items():
            parts[name].append(auroc(value[of_kind], rare[of_kind]))
            cells.append("{:.3f} ± {:.3f}".format(*parts[name][-1]))
        print(f"| {kind} | {rare[of_kind].sum()} | {(~rare[of_kind]).sum()} | {' | '.join(cells)} |")
    joined = {name: np.array(pairs).T for name, pairs in parts.items()}
    whole = [
        f"{(area / se**2).sum() / (1 / se**2).sum():.3f} ± {(1 / se**2).sum() ** -0.5:.3f}"
        for area, se in joined.values()
    ]
    print(f"| all | {rare.sum()} | {(~rare).sum()} | {' | '.join(whole)} |")


if __name__ == "__main__":
    main()
