"""The page of the case study: what it shows is what results hold, and nothing else."""

from collections.abc import Mapping, Sequence
from typing import Any

from vqdna_jax.report.covid import drawing
from vqdna_jax.report.covid.findings import Results, sentences, share, width, words
from vqdna_jax.report.page import (
    Block,
    TableCell,
    definitions,
    escape,
    findings,
    page,
    paragraph,
    section,
    table,
    text_cell,
)

TITLE = "SARS-CoV-2: what the words know of nine variants"


def render(results: Results) -> str:
    sections = [
        findings(results["lead"], sentences(results)),
        _claims(results),
        _maps(results),
        _information(results),
        _accuracy(results),
        _relatives(results),
        _variants(results),
        _making(results),
    ]
    return page(results["title"], f"{results['model']} · {results['date']} · {results['machine']}", sections)


def _claims(results: Results) -> str:
    parts = [
        f"<h3>{escape(claim['text'])} <em>{'Holds.' if claim['holds'] else 'Does not hold.'}</em></h3>"
        + paragraph(claim["why"])
        for claim in results["claims"]
    ]
    return section(
        "What Figure 5 claims",
        paragraph(
            "The figure shows embeddings of genomes of nine variants and says that they lie together by lineage, that"
            " the coarse codebook is of lineages and the fine one of mutations."
        ),
        *parts,
        name="claims-part",
    )


def _maps(results: Results) -> str:
    names = [variant["name"] for variant in results["variants"]]
    made = (
        "UMAP (umap-learn, seeded, from principal components)"
        if results["maps"][0]["kind"] == "umap"
        else "Principal components"
    )
    drawn = ["".join(_map(one, names, results) for one in maps) for maps in _by_kind(results["maps"]).values()]
    most = max(len(one["points"]) for one in results["maps"])
    note = (
        f"{made} of mean word vectors; at most {most:,} points a map. Percentages are of the vectors, not of the map."
    )
    return section(
        "Maps",
        drawing.key(names),
        *(f'<div class="plots" style="{_FOUR}">{maps}</div>' for maps in drawn),
        paragraph(note, "note"),
        name="maps-part",
    )


_FOUR = "grid-template-columns:repeat(auto-fill,minmax(min(100%,262px),1fr))"  # in a row, on a wide screen


def _by_kind(found: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Of genomes, then of windows, a row each."""
    return {of: [one for one in found if one["of"] == of] for of in dict.fromkeys(one["of"] for one in found)}


def _map(found: Mapping[str, Any], names: Sequence[str], results: Results) -> str:
    spoken = words(found["words"], results)
    said = (
        f"nearest of the same variant: {share(found['same_variant'])} (chance {share(found['same_variant_by_chance'])})"
    )
    if "same_place" in found:
        said += f"; at the same place: {share(found['same_place'])}"
    drawn = drawing.draw(found, names, f"Map of {found['of']} by {spoken}; {said}", found["of"] == "genomes")
    caption = f"{escape(found['of'])} <em>{escape(spoken)}</em><small>{escape(said)}</small>"
    return f"<figure><figcaption>{caption}</figcaption>{drawn}</figure>"


def _information(results: Results) -> str:
    rows = [_told(row, results) for row in results["information"]]
    columns = [
        "what is at a substituted base",
        "bits of the variant",
        "shuffled",
        "most, at one base",
        "share of a mutation",
    ]
    about = (
        f"At each of the {results['sites']} bases that between 1 % and 99 % of the genomes have substituted: mutual"
        " information of the word that stands there with the variant, the mean over these sites with 95 % of its"
        " resamples; and the share of what there is to know about which genomes have one of the"
        f" {results['mutations']} mutations. Shuffled: the same with the genomes' labels permuted. No word tells more"
        " than all bases that it depends on."
    )
    note = "Anywhere: of a word whose place is not known, in millionths of a bit: most of a genome is as in all others."
    return section(
        "What words tell",
        paragraph(about),
        table(
            "information",
            "Mutual information, in bits",
            [*columns, "shuffled", "anywhere, 1/1,000,000 bits", "shuffled"],
            [Block("", rows)],
        ),
        paragraph(note, "note"),
        name="information-part",
    )


def _told(row: Mapping[str, Any], results: Results) -> list[TableCell]:
    variant, mutation, anywhere = row["variant"], row["mutation"], row["anywhere"]
    most = f"{row['most']:.3f} <small>at {row['most_at']:,}</small>"
    return [
        text_cell(words(row["words"], results)),
        _interval(variant, 1, 3),
        _number(row["variant_shuffled"], 3),
        TableCell(most, row["most"]),
        _interval(mutation, 100, 1, " %"),
        TableCell(share(row["mutation_shuffled"]), row["mutation_shuffled"]),
        _number(anywhere and 1e6 * anywhere["bits"], 1),
        _number(anywhere and 1e6 * anywhere["shuffled"], 1),
    ]


def _interval(value: Mapping[str, float], scale: float, digits: int, unit: str = "") -> TableCell:
    mean, low, high = (f"{scale * value[key]:.{digits}f}" for key in ("mean", "low", "high"))
    return TableCell(f"{mean}{unit} <small>{low} to {high}</small>", value["mean"])


def _number(value: float | None, digits: int) -> TableCell:
    return TableCell("–", None) if value is None else TableCell(f"{value:.{digits}f}", value)


def _accuracy(results: Results) -> str:
    widths = list(dict.fromkeys(row["width"] for row in results["accuracy"]))
    spoken = [width(bases, results) for bases in widths]
    blocks = [
        Block("the variant whose mean is nearest", _rows(results, "by_mean", widths)),
        Block("of most genomes that have the nearest window", _rows(results, "by_neighbour", widths)),
        Block("naive Bayes on the true substitutions", _bayes(results, widths)),
    ]
    held_out = f"{results['held_out']:,} held-out genomes of {results['genomes']:,}"
    about = (
        f"Windows of {held_out} are named by the others. Genomes are split, not windows, and no two have the same"
        " substitutions. Windows lie side by side, at the same places in all genomes; the rows of windows at random"
        " places are for comparison with other work."
    )
    chance = f"Chance is {share(1 / len(results['variants']))}."
    return section(
        "Naming the variant",
        paragraph(f"{about} {chance}"),
        table("accuracy", "Share of held-out windows whose variant is named", ["by", *spoken], blocks),
        name="accuracy-part",
    )


def _rows(results: Results, by: str, widths: Sequence[int]) -> list[list[TableCell]]:
    rows = []
    for name in dict.fromkeys(row["words"] for row in results["accuracy"]):
        values = {row["width"]: row[by] for row in results["accuracy"] if row["words"] == name}
        rows.append([text_cell(words(name, results)), *(TableCell(share(values[w]), values[w]) for w in widths)])
    return rows


def _bayes(results: Results, widths: Sequence[int]) -> list[list[TableCell]]:
    rows = []
    for layout, placed in dict.fromkeys((row["windows"], row["placed"]) for row in results["naive_bayes"]):
        own = {
            row["width"]: row["accuracy"]
            for row in results["naive_bayes"]
            if (row["windows"], row["placed"]) == (layout, placed)
        }
        title = f"windows {layout}, place {'told' if placed else 'not told'}"
        rows.append([text_cell(title), *(TableCell(share(own[w]), own[w]) for w in widths)])
    return rows


def _relatives(results: Results) -> str:
    names = [variant["name"] for variant in results["variants"]]
    rows = [
        [
            text_cell(words(row["words"], results)),
            _number(row["spearman"], 2),
            *(text_cell(row["nearest"][name]) for name in names),
        ]
        for row in results["relatives"]
    ]
    about = (
        "Distances between the means of the variants' genomes. Rank correlation: over all pairs of variants, with the"
        " distances by their substitutions. Then the nearest other variant of each."
    )
    return section(
        "Who is near whom",
        paragraph(about),
        table("relatives", "The nearest other variant", ["by", "rank correlation", *names], [Block("", rows)]),
        name="relatives-part",
    )


def _variants(results: Results) -> str:
    rows = [
        [
            text_cell(variant["name"]),
            text_cell(variant["lineage"]),
            *(_count(variant[key]) for key in ("in_table", "genomes", "held_out")),
        ]
        for variant in results["variants"]
    ]
    columns = ["variant", "commonest lineage", "distinct genomes in the table", "studied", "of them held out"]
    left_out = f"{results['repeated']:,} rows with the substitutions of another were left out."
    return section(
        "The variants",
        table("variants", "Genomes of each variant", columns, [Block("", rows)]),
        paragraph(left_out, "note"),
        name="variants-part",
    )


def _count(value: int) -> TableCell:
    return TableCell(f"{value:,}", value)


def _making(results: Results) -> str:
    facts = {
        key: results[key]
        for key in ("date", "machine", "model", "vocabulary", "digest", "reference", "seed", "versions")
    }
    twin = (
        "The untrained network has the model's shape, random weights, and codebooks that are k-means of what these make"
        " of the reference. A genome's words are those of the whole sequence with its substitutions; of a window, those"
        " that read nothing outside it."
    )
    return section(
        "How this was made",
        f"<pre>{escape(results['command'])}</pre>",
        paragraph(twin),
        definitions([*facts.items(), ("numbers", results["numbers"])]),
        name="making",
    )
