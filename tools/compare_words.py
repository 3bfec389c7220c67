"""What vocabularies are worth as bags of words, beside bags of k-mers: linear models judged on dev, test is not read.

    python tools/compare_words.py --data=GUE --corpus=CORPUS plain=runs/plain/export context=runs/context/export

Two tables. Scores: log(1 + count) of each word (each code of every level), logistic regression on at most --rows
training rows, MCC x 100 on at most --rows dev rows with the penalty that is best there. "+-" is the standard error over
the sets of a row's mean less that of 6-mers. Words, on held-out windows of the corpus: codes in use, bits a base (order
0), the k-mer that explains most of a code's information, and how many words leave the bag of 256 bases when one base is
substituted, or inserted.
"""

import argparse
import pathlib
import sys

import numpy as np
from scipy import sparse

import vqdna_jax
from vqdna_jax.errors import report_and_exit
from vqdna_jax.evaluation import code_statistics as statistics
from vqdna_jax.evaluation import linear, probes
from vqdna_jax.genome.build.bundled import bundled_corpus
from vqdna_jax.genome.corpus import Corpus, open_corpus
from vqdna_jax.genome.windows import evaluation_windows
from vqdna_jax.inference.model import Model
from vqdna_jax.labels.sets import LabelledSet

SETS = "tf/0,tf/3,mouse/0,mouse/3,prom_core_tata"
KMERS, ENDED = (4, 5, 6), (5, 6)
WINDOW_BP, WINDOWS = 256, 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="NAME=EXPORT", help="of stage 1 or 2")
    parser.add_argument("--data", type=pathlib.Path, required=True, help="a folder of GUE sets")
    parser.add_argument("--corpus", default=None, help="from `vqdna corpus`; the bundled genomes")
    parser.add_argument("--sets", default=SETS)
    parser.add_argument("--rows", type=int, default=3000)
    arguments = parser.parse_args()
    with report_and_exit():
        compare(arguments)


def compare(arguments) -> None:
    models = {name: vqdna_jax.load(path) for name, path in (pair.split("=", 1) for pair in arguments.models)}
    sets = chosen(arguments.data, arguments.sets.split(","), arguments.rows)
    scores = kmer_scores(sets)
    scores |= {
        f"{k}-mers, ends told": [score(found, ended_bag(bases_of(found), k)) for found in sets.values()] for k in ENDED
    }
    for name, model in models.items():
        scores[name] = [score(found, bag(model, bases_of(found))) for found in sets.values()]
        print(name, *(f"{value:.1f}" for value in scores[name]), file=sys.stderr, flush=True)
    print(score_table(list(sets), scores), end="\n\n")
    corpus = open_corpus(arguments.corpus or bundled_corpus())
    bases_BxS = held_out(corpus)
    print(word_table({name: facts(model, bases_BxS) for name, model in models.items()}))


def chosen(data: pathlib.Path, names: list[str], rows: int) -> dict[str, LabelledSet]:
    """The sets so named; of a path its end will do."""
    found = probes.find_sets(data)
    paths = {name: next(path for key, path in found.items() if f"/{key}".endswith(f"/{name}")) for name in names}
    return {name: probes.read_some(path, rows) for name, path in paths.items()}


def held_out(corpus: Corpus) -> np.ndarray:
    """Windows that no model was trained on, uint8 [B, S]."""
    return np.asarray(evaluation_windows(corpus, "validation", WINDOW_BP, WINDOWS).bases_BxS)


def kmer_scores(sets: dict[str, LabelledSet]) -> dict[str, list[float]]:
    return {f"{k}-mers": [score(found, kmer_bag(bases_of(found), k)) for found in sets.values()] for k in KMERS}


def bases_of(labelled: LabelledSet) -> list[np.ndarray]:
    return [bases for name in ("train", "dev") for bases in labelled.splits[name].bases]


def score(labelled: LabelledSet, bag_BxK: sparse.csr_array) -> float:
    """MCC x 100 on dev of the log counts."""
    train, dev = (labelled.splits[name] for name in ("train", "dev"))
    logs_BxK, ends = bag_BxK.log1p(), len(train.labels)
    rows = linear.Rows(logs_BxK[:ends], train.labels), linear.Rows(logs_BxK[ends:], dev.labels)
    return 100 * linear.choose(labelled.kind, *rows, labelled.classes).dev["mcc"]


def kmer_bag(bases: list[np.ndarray], k: int) -> sparse.csr_array:
    return statistics.kmer_counts(probes.padded(bases), k)


def ended_bag(bases: list[np.ndarray], k: int) -> sparse.csr_array:
    """The same with a fifth letter beyond both ends, so that k-mers there are words of their own. Learned words know
    where a sequence ends; where all begin at the same place of a gene, that says much."""
    padded = [np.pad(np.minimum(x, 4).astype(np.int64), k - 1, constant_values=4) for x in bases]
    return _counts([sum(x[i : len(x) - k + 1 + i] * 5**i for i in range(k)) for x in padded], 5**k)


def bag(model: Model, bases: list[np.ndarray]) -> sparse.csr_array:
    """Counts of the codes of all levels."""
    sizes = model.codebook_sizes
    first_N = np.cumsum([0, *sizes[:-1]])
    return _counts([(codes_LxN + first_N).ravel() for codes_LxN in model.encode(bases)], sum(sizes))


def _counts(words: list[np.ndarray], size: int) -> sparse.csr_array:
    """f32 [B, K] of the words of each sequence."""
    return statistics.counted(np.concatenate(words), [len(of_row) for of_row in words], size)


def facts(model: Model, bases_BxS: np.ndarray) -> dict[str, str]:
    sizes, r = model.codebook_sizes, model.bases_per_code
    codes_BxLxN = np.stack(model.encode(list(bases_BxS)))
    usages = [statistics.usage(codes_BxLxN[..., n], size) for n, size in enumerate(sizes)]
    best = [statistics.best_kmer(codes_BxLxN[..., n], bases_BxS, r, range(1, 7), size) for n, size in enumerate(sizes)]
    rate = statistics.code_bits_per_base(codes_BxLxN, sizes, r)
    changed = {name: lost_words(model, codes_BxLxN, other) for name, other in edited(bases_BxS).items()}
    return {
        "codes": " + ".join(map(str, sizes)),
        "bases a code": str(r),
        "used %": " / ".join(f"{100 * usage['utilisation']:.0f}" for usage in usages),
        "bits a base": f"{rate['bits_per_base']:.2f}",
        "explained by": " / ".join(f"{row['k']}-mer {100 * row['explained_share']:.0f} %" for row in best),
        "words lost by a substitution": changed["substitution"],
        "by an insertion": changed["insertion"],
    }


def edited(bases_BxS: np.ndarray) -> dict[str, np.ndarray]:
    """One random edit in each window: a base is another, or a base comes in and the last one goes."""
    rng, rows = np.random.default_rng(0), np.arange(len(bases_BxS))
    place_B = rng.integers(0, bases_BxS.shape[1], len(rows))
    substituted = bases_BxS.copy()
    substituted[rows, place_B] = (bases_BxS[rows, place_B] + rng.integers(1, 4, len(rows))) % 4
    base_B = rng.integers(0, 4, len(rows)).astype(np.uint8)
    inserted = [np.insert(x, at, base)[:-1] for x, at, base in zip(bases_BxS, place_B, base_B, strict=True)]
    return {"substitution": substituted, "insertion": np.stack(inserted)}


def lost_words(model: Model, codes_BxLxN: np.ndarray, edited_BxS: np.ndarray) -> str:
    """Mean number of words of each level that were in a window's bag and are not in that of the edited window."""
    after_BxLxN, told = np.stack(model.encode(list(edited_BxS))), []
    for n, size in enumerate(model.codebook_sizes):
        before_BxK, after_BxK = (_counts(list(codes[..., n]), size) for codes in (codes_BxLxN, after_BxLxN))
        told.append(f"{lost(before_BxK, after_BxK):.1f}")
    return " / ".join(told)


def lost(before_BxK: sparse.csr_array, after_BxK: sparse.csr_array) -> float:
    """Mean number of words of a row's bag that are not in its other bag."""
    return float((before_BxK - after_BxK).maximum(0).sum() / before_BxK.shape[0])


def score_table(names: list[str], scores: dict[str, list[float]]) -> str:
    against = np.array(scores["6-mers"])
    lines = [f"| dev MCC | {' | '.join(names)} | mean | over 6-mers |", "|---|" + "--:|" * (len(names) + 2)]
    for name, values in scores.items():
        more = np.array(values) - against
        error = more.std(ddof=1) / len(more) ** 0.5 if len(more) > 1 else np.nan
        over = "" if name == "6-mers" else f"{more.mean():+.1f} +- {error:.1f}"
        lines.append(f"| {name} | {' | '.join(f'{v:.1f}' for v in values)} | {np.mean(values):.1f} | {over} |")
    return "\n".join(lines)


def word_table(rows: dict[str, dict[str, str]]) -> str:
    columns = list(next(iter(rows.values()), {}))
    lines = [f"| words | {' | '.join(columns)} |", "|---|" + "--:|" * len(columns)]
    return "\n".join(lines + [f"| {name} | {' | '.join(row.values())} |" for name, row in rows.items()])


if __name__ == "__main__":
    main()
