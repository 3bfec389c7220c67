"""The parts of an audit's page on what changes words: the other strand, an edit, what is around a motif."""

from collections.abc import Sequence

from vqdna_jax.report.page import Block, TableCell, escape, paragraph, section, table, text_cell
from vqdna_jax.report.vocabulary.cells import Row, number, one_key, percent, pictures, role
from vqdna_jax.report.vocabulary.pictures import Axis, Series, chart, figure


def strands(audit: Row) -> str:
    columns = ["words", "partners", "by chance", "cut alike"]
    rows = [
        [
            text_cell(f"{one['name']}, level {row['level']}"),
            percent(row["consistency"]),
            percent(row["chance"]),
            percent(row["cut"]),
        ]
        for one in audit["vocabularies"]
        for row in one["strands"]
    ]
    note = (
        "Each word has a partner, the one that its place has most often when the other strand is read; partners are"
        " found on every second window, and counted on the others. By chance: if partners had nothing to do with words."
        " Cut alike: words that both strands cut at the same bases, without which there is no partner."
    )
    made = table("strands", "The word of the other strand", columns, [Block("", rows)])
    return section("Both strands", paragraph(note, "note"), made, name="strands-part")


def edits(audit: Row) -> str:
    columns = ["vocabulary", "level by level", "words that hold the base", "no word changes", "farthest"]
    kinds = [row["edit"] for row in audit["vocabularies"][0]["edits"]]
    blocks = [
        Block(
            kind, [_edit_row(one, row) for one in audit["vocabularies"] for row in one["edits"] if row["edit"] == kind]
        )
        for kind in kinds
    ]
    figures = [
        figure(
            f"One {kind}",
            "words that change, %, by bases from the edit",
            chart(
                [
                    Series(one["name"], role(place), [(far, 100 * share) for far, share in row["profile"]])
                    for place, one in enumerate(audit["vocabularies"])
                    for row in one["edits"]
                    if row["edit"] == kind
                ],
                Axis("bases from the edit"),
                Axis("words that change, %", ends=(0, 100)),
                f"Words that change by an {kind}",
            ),
            one_key(audit),
        )
        for kind in kinds
    ]
    note = (
        "One random base in the middle half of a window is another, or one is put in. A word has changed where the"
        " edited window has another one at the same bases, or cuts them elsewhere. The words that hold the base, the"
        " control, are those that have to change; farthest: bases from the edit to a word that changed."
    )
    changed = table("edits", "Words that change by one edit", columns, blocks)
    return section("How far an edit reaches", paragraph(note, "note"), changed, pictures(*figures), name="edits-part")


def _edit_row(one: Row, row: Row) -> list[TableCell]:
    levels = " / ".join(f"{changed:.1f}" for changed in row["changed"])
    return [
        text_cell(one["name"]),
        TableCell(levels, row["changed"][0]),
        number(row["holding"], 1),
        percent(row["silent"]),
        number(row["farthest"], 0),
    ]


def motifs(audit: Row) -> str:
    vocabularies: Sequence[Row] = audit["vocabularies"]
    columns = [
        "motif",
        "consensus",
        *(f"{one['name']}: {what}" for one in vocabularies for what in ("words", "spelt alike")),
    ]
    rows = []
    for place, motif in enumerate(audit["motifs"]):
        cells = [_spelling(one["motifs"][place]) for one in vocabularies]
        name = TableCell(f"{escape(motif['name'])} <small>{escape(motif['what'])}</small>", motif["name"])
        rows.append([name, text_cell(motif["consensus"]), *(cell for pair in cells for cell in pair)])
    note = (
        "Each motif, one sequence that its consensus stands for, is put at"
        f" {audit['settings']['spellings']} places of the sample. Words: those that hold one of its bases, in the mean."
        " Spelt alike: places in which a base has its commonest word, the mean over bases; small, the control, the same"
        " letters in another order."
    )
    return section(
        "How motifs are spelt",
        paragraph(note, "note"),
        table("motifs", "Words of a motif", columns, [Block("", rows)]),
        name="motifs-part",
    )


def _spelling(row: Row) -> tuple[TableCell, TableCell]:
    alike = f"{row['same']:.0%} <small>{row['same_shuffled']:.0%}</small>"
    return number(row["words"], 1), TableCell(alike, row["same"])
