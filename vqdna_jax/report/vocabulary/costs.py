"""The parts of an audit's page on what words cost: codebooks, rate against distortion, k-mers."""

from vqdna_jax.report.page import Block, TableCell, paragraph, section, table, text_cell
from vqdna_jax.report.vocabulary.cells import Row, number, one_key, percent, pictures, role
from vqdna_jax.report.vocabulary.pictures import Axis, Series, chart, figure, key


def usage(audit: Row) -> str:
    columns = [
        "vocabulary",
        "level",
        "codes",
        "used",
        "used %",
        "perplexity",
        "if drawn evenly",
        "busiest code",
        "bits",
    ]
    blocks = [Block("", [_usage_row(one, row) for one in audit["vocabularies"] for row in one["usage"]])]
    curves = [
        Series(f"{one['name']}, level {row['level']}", role(place, row["level"]), row["ranks"])
        for place, one in enumerate(audit["vocabularies"])
        for row in one["usage"]
    ]
    picture = chart(curves, Axis("rank of the code", log=True), Axis("share", log=True), "Shares of codes by rank")
    return section(
        "Codebooks",
        paragraph("Perplexity is the number of codes that would be as uncertain if all were as common.", "note"),
        table("usage", "Use of every codebook", columns, blocks),
        pictures(
            figure("How common codes are", "share of the words, by rank; dashed: level 2", picture, one_key(audit))
        ),
        name="codebooks",
    )


def _usage_row(one: Row, row: Row) -> list[TableCell]:
    return [
        text_cell(one["name"]),
        number(row["level"], 0),
        number(row["codes"], 0),
        number(row["used"], 0),
        percent(row["utilisation"]),
        number(row["perplexity"], 0),
        number(row["even"], 0),
        percent(row["busiest_share"], 2),
        number(row["entropy_bits"]),
    ]


def rates(audit: Row) -> str:
    columns = [
        "vocabulary",
        "bits a base",
        "bases that come back",
        "bits a word",
        "bases a word",
        "words used",
        "unseen",
    ]
    rows = [[text_cell(one["name"]), *_rate_cells(one["rate"])] for one in audit["vocabularies"]]
    dots = [
        Series(one["name"], role(place), [(one["rate"]["bits_a_base"], 100 * one["rate"]["right"])], False)
        for place, one in enumerate(audit["vocabularies"])
    ]
    guesses = Series(
        "some bases kept, the others guessed", "quiet", [(r["bits_a_base"], 100 * r["right"]) for r in audit["guesses"]]
    )
    picture = chart([guesses, *dots], Axis("bits a base"), Axis("bases that come back, %"), "Rate and distortion")
    note = (
        "Bits a base: the entropy of the words of a place, of all levels together, times words a base. Where words"
        " overlap it counts bases several times, and neighbours that foretell each other are not heeded, so it is no"
        " file size. Unseen: the chance that the next word is a new one; above a few per cent the bits are too few. The"
        " curve is the control: some of every eight bases kept as they are, the others guessed as the commonest."
    )
    below = key([guesses, *dots])
    return section(
        "Rate against distortion",
        paragraph(note, "note"),
        table("rates", "What words cost, and what they lose", columns, [Block("", rows)]),
        pictures(figure("Cost and loss", "bases that come back, %, by bits a base", picture, below)),
        name="rate",
    )


def _rate_cells(rate: Row) -> list[TableCell]:
    return [
        number(rate["bits_a_base"]),
        percent(rate["right"], 2),
        number(rate["bits_a_word"]),
        number(rate["bases_a_word"]),
        number(rate["different"], 0),
        percent(rate["unseen"]),
    ]


def kmers(audit: Row) -> str:
    rows, by_k, profiles = [], [], []
    for place, one in enumerate(audit["vocabularies"]):
        for row in one["kmers"]:
            name = f"{one['name']}, level {row['level']}"
            cells = [number(row["corrected_bits"]), number(row["entropy"]), number(row["shuffled_bits"])]
            rows.append(
                [
                    text_cell(name),
                    percent(row["explained_share"]),
                    number(row["k"], 0),
                    number(row["offset"], 0),
                    *cells,
                ]
            )
            colour = role(place, row["level"])
            by_k.append(Series(name, colour, [(r["k"], 100 * r["explained_share"]) for r in row["by_k"]]))
            profiles.append(Series(name, colour, row["profile"]))
    if not rows:
        return ""
    columns = [
        "words",
        "explained",
        "k",
        "offset",
        "bits it says",
        "bits of the word",
        "bits it says of shuffled words",
    ]
    note = (
        "The k-mer, of at most six bases, that says most of a word, by its first base counted from the word's. Bits are"
        " mutual information, scaled so that shuffled words, the control, have none. Words of unequal length are left"
        " out."
    )
    shares = chart(by_k, Axis("k"), Axis("explained, %", ends=(0, 100)), "What the best k-mer explains")
    profile = chart(
        profiles, Axis("bases from the word's first"), Axis("bits", ends=(0, 2)), "What a word says of bases"
    )
    return section(
        "What k-mers explain",
        paragraph(note, "note"),
        table("kmers", "The best k-mer of each level", columns, [Block("", rows)]),
        pictures(
            figure("By k", "of a word's entropy, by its best k-mer, %; dashed: level 2", shares, one_key(audit)),
            figure("By place", "bits that a word says of one base; dashed: level 2", profile, one_key(audit)),
        ),
        name="kmers-part",
    )
