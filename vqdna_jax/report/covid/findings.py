"""What the case study found, in plain words: each of the figure's claims, whether it holds, and by which numbers."""

from collections.abc import Mapping
from typing import Any, NamedTuple

MOSTLY = 0.9  # share of genomes whose nearest is of their variant, from which they lie together
RELATED = 0.5  # rank correlation from which related variants lie nearer

Results = Mapping[str, Any]


class Claim(NamedTuple):
    text: str
    holds: bool
    why: str


def claims(results: Results) -> list[Claim]:
    return [_together(results), _learned(results), _coarse(results), _fine(results), _related(results)]


def lead(results: Results) -> str:
    """The outcome in one sentence."""
    _, _, coarse, fine, _ = found = claims(results)
    count = f"of the {len(found)} claims below, {sum(claim.holds for claim in found) or 'none'} can be upheld"
    if coarse.holds and fine.holds:
        return f"Coarse words tell more of the variant and fine words more of mutations, as Figure 5 has it; {count}."
    hierarchy = "coarse words for lineages and fine ones for mutations"
    return f"The hierarchy that Figure 5 claims, {hierarchy}, is not there in {results['model']}; {count}."


def sentences(results: Results) -> list[str]:
    """What else is to be known."""
    return [_embeddings(results), _windows(results), _bayes(results)]


def words(name: str, results: Results) -> str:
    """What spells, as the page calls it."""
    of, _, level = name.partition(" ")
    fixed = {
        "kmers": f"{results['kmer']}-mers",
        "bases": "the base itself",
        "context": f"all {2 * results['word_reaches'] + 1} bases that a word may depend on",
        "substitutions": "the substitutions themselves",
    }
    if of in fixed:
        return fixed[of]
    spoken = {"coarse": "coarse words", "fine": "fine words", "both": "coarse and fine words"}[level]
    return spoken if of == "model" else f"{spoken}, network untrained"


def share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _map(results: Results, name: str, of: str = "genomes") -> Mapping[str, Any]:
    return next(one for one in results["maps"] if one["words"] == name and one["of"].startswith(of))


def _told(results: Results, name: str) -> Mapping[str, Any]:
    return next(row for row in results["information"] if row["words"] == name)


def _accuracy(results: Results, name: str, width: int) -> float:
    return next(row["by_mean"] for row in results["accuracy"] if row["words"] == name and row["width"] == width)


def _alike(results: Results, of: str) -> dict[str, float]:
    return {level: _map(results, f"{of} {level}")["same_variant"] for level in ("coarse", "fine")}


def _together(results: Results) -> Claim:
    alike, chance = _alike(results, "model"), _map(results, "model coarse")["same_variant_by_chance"]
    why = (
        f"The nearest other genome is of the same variant for {share(alike['coarse'])} of the genomes by coarse words"
        f" and {share(alike['fine'])} by fine ones; by chance {share(chance)}."
        f" Together means {MOSTLY:.0%} or more by both."
    )
    return Claim("Genomes of one variant lie together.", min(alike.values()) >= MOSTLY, why)


def _learned(results: Results) -> Claim:
    alike, twin = _alike(results, "model"), _alike(results, "untrained")
    why = f"With the network untrained it is {share(twin['coarse'])} by coarse and {share(twin['fine'])} by fine words."
    holds = all(alike[level] > twin[level] for level in alike)
    return Claim("It is training that brings them together.", holds, why)


def _coarse(results: Results) -> Claim:
    coarse, fine = (_told(results, f"model {level}") for level in ("coarse", "fine"))
    why = (
        f"At a substituted base the coarse word tells {coarse['variant']['mean']:.3f} bits of the variant, the fine one"
        f" {fine['variant']['mean']:.3f} (shuffled: {coarse['variant_shuffled']:.3f} and"
        f" {fine['variant_shuffled']:.3f}); {_difference(results, 'variant', 'bits', 1)}"
    )
    holds = results["differences"]["model"]["variant"]["low"] > 0
    return Claim("Coarse words are of the lineage: they tell more of it than fine words.", holds, why)


def _fine(results: Results) -> Claim:
    coarse, fine = (_told(results, f"model {level}") for level in ("coarse", "fine"))
    why = (
        f"The fine word tells {share(fine['mutation']['mean'])} of whether a genome has the mutation, the coarse one"
        f" {share(coarse['mutation']['mean'])} (shuffled: {share(fine['mutation_shuffled'])} and"
        f" {share(coarse['mutation_shuffled'])}); {_difference(results, 'mutation', 'points of a hundred', 100)}"
    )
    holds = results["differences"]["model"]["mutation"]["low"] > 0
    return Claim("Fine words are of mutations: they tell more of them than coarse words.", holds, why)


def _difference(results: Results, of: str, unit: str, scale: float) -> str:
    model, twin = (results["differences"][name][of] for name in ("model", "untrained"))
    mean, low, high, untrained = (_signed(scale * value) for value in (*(model[k] for k in _INTERVAL), twin["mean"]))
    return (
        f"the difference is {mean} {unit} (95 % of resamples of the sites: {low} to {high}), of the untrained network"
        f" {untrained}."
    )


_INTERVAL = ("mean", "low", "high")


def _signed(value: float) -> str:
    return f"{round(value, 3) + 0.0:+.3f}"  # no minus before a zero


def _related(results: Results) -> Claim:
    rank = {row["words"]: row["spearman"] for row in results["relatives"]}
    of = {row["words"]: row["nearest"] for row in results["relatives"]}
    why = (
        "Rank correlation of the distances between variants with how many substitutions they differ by: coarse"
        f" {rank['model coarse']:.2f}, fine {rank['model fine']:.2f}; untrained {rank['untrained coarse']:.2f} and"
        f" {rank['untrained fine']:.2f}, {results['kmer']}-mers {rank['kmers']:.2f}. Nearer means {RELATED}"
        " or more by both."
    )
    if "Delta" in of["model coarse"]:
        coarse, fine, true = (of[name]["Delta"] for name in ("model coarse", "model fine", "substitutions"))
        why += f" Nearest to Delta: {coarse} by coarse, {fine} by fine words, {true} by substitutions."
    holds = min(rank["model coarse"], rank["model fine"]) >= RELATED
    return Claim("Related variants lie nearer.", holds, why)


def _embeddings(results: Results) -> str:
    named = {
        name: share(_accuracy(results, name, 0))
        for name in ("model coarse", "model fine", "untrained coarse", "untrained fine", "kmers", "substitutions")
    }
    return (
        "Whole held-out genomes, named by the nearest mean of a variant: coarse words {model coarse}, fine words"
        " {model fine}; the untrained network {untrained coarse} and {untrained fine}, {k}-mers {kmers}, the"
        " substitutions themselves {substitutions}."
    ).format(**named, k=results["kmer"])


def _windows(results: Results) -> str:
    found = _map(results, "model fine", "windows")
    return (
        f"Windows by fine words: the nearest other one is of the same place for"
        f" {share(found['same_place'])} and of the same variant for {share(found['same_variant'])} (by chance"
        f" {share(found['same_place_by_chance'])} and {share(found['same_variant_by_chance'])})."
    )


def _bayes(results: Results) -> str:
    rows = [row for row in results["naive_bayes"] if row["windows"] == "at random" and not row["placed"]]
    listed = ", ".join(f"{row['accuracy']:.3f} of {width(row['width'], results)}" for row in rows)
    return f"Naive Bayes on the true substitutions, windows at random places: {listed}. So much a window holds."


def width(bases: int, results: Results) -> str:
    return f"{bases:,} bp" if bases else f"whole genomes ({results['bases']:,} bp)"
