"""The parts of an audit's page on where words lie: labels, and the words of each."""

from vqdna_jax.report.page import Block, TableCell, paragraph, section, table, text_cell
from vqdna_jax.report.vocabulary.cells import Row, number, percent


def labels(audit: Row) -> str:
    blocks = [
        Block(f"{label} ({share:.1%} of the bases)", [_label_row(one, row) for one, row in _of_label(audit, label)])
        for label, share in [*audit["labels"].items(), *_species_shares(audit).items()]
    ]
    columns = [
        "words",
        "told",
        "tested",
        "found",
        "in shuffles",
        "found by G and C",
        "in shuffles, by G and C",
        "at most",
    ]
    settings = audit["settings"]
    note = (
        "Told: the share of what there is to tell of a label that one word tells, the mean of shuffles taken off."
        " Found: words that are commoner or rarer where the label holds than elsewhere,"
        f" {settings['false_discovery_rate']:.0%} of them falsely (Benjamini and Hochberg), of those of which"
        f" {settings['least_expected']} are expected there and elsewhere. The control: the same of"
        f" {settings['shuffles']} labels that were moved along the sample, or of species dealt out in blocks, their"
        " mean and the most. By G and C: expected tenth by tenth of the bases by the G and C within"
        f" {settings['gc_window']} bases, so that it is not words rich in G and C that are found."
    )
    if not any(block.rows for block in blocks):
        return ""
    return section(
        "Words and what the genome has there",
        paragraph(note, "note"),
        table("labels", "Words that are commoner or rarer where a label holds", columns, blocks),
        name="labels-part",
    )


def _species_shares(audit: Row) -> dict[str, float]:
    species = audit["sample"]["species"]
    return {name: bases / audit["sample"]["bases"] for name, bases in species.items()} if len(species) > 1 else {}


def _of_label(audit: Row, label: str) -> list[tuple[Row, Row]]:
    return [(one, row) for one in audit["vocabularies"] for row in one["enrichment"] if row["label"] == label]


def _label_row(one: Row, row: Row) -> list[TableCell]:
    return [
        text_cell(f"{one['name']}, level {row['level']}"),
        percent(row["bits"] / row["label_bits"]),
        number(row["tested"], 0),
        number(row["found"], 0),
        number(row["in_shuffles"], 1),
        number(row["found_by_gc"], 0),
        number(row["in_shuffles_by_gc"], 1),
        number(row["most_in_shuffles_by_gc"], 0),
    ]


def enriched_words(audit: Row) -> str:
    own = audit["vocabularies"][0]
    blocks = [
        Block(f"{row['label']}, level {row['level']}", [_enriched_row(row, word) for word in row["words"]])
        for row in own["enrichment"]
        if row["level"] == 1
    ]
    columns = [
        "word",
        "commonest letters",
        "found",
        "seen",
        "expected",
        "times",
        "z",
        "times, by G and C",
        "z, by G and C",
    ]
    listed = table("enriched", f"The words of {own['name']} that are furthest from the shuffles", columns, blocks)
    inside = f"<details><summary>Words by label</summary>{listed}</details>"
    return section("The words of each label", inside, name="enriched-part") if any(b.rows for b in blocks) else ""


def _enriched_row(row: Row, word: Row) -> list[TableCell]:
    return [
        text_cell(f"{row['level']}:{word['code']}"),
        text_cell(word["context"]),
        text_cell("yes" if word["found"] else "no"),
        number(word["seen"], 0),
        number(word["expected"], 0),
        number(word["times"]),
        number(word["z"], 1),
        number(word["times_by_gc"]),
        number(word["z_by_gc"], 1),
    ]
