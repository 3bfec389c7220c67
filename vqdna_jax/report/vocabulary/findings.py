"""What the numbers of an audit say, in sentences, each with its control."""

from collections.abc import Sequence

from vqdna_jax.report.vocabulary.cells import Row

GC = "in G and C"  # how labels end that are of composition alone


def findings(audit: Row) -> list[str]:
    """The first is the page's lead."""
    own, *others = audit["vocabularies"]
    return [
        _lead(own),
        _usage(own),
        _rate(own, others),
        *_enriched(audit),
        _strands(own, others),
        _edits(own, others),
        _motifs(own, others),
    ]


def _lead(own: Row) -> str:
    if not own["kmers"]:
        return f"The words of {own['name']} differ in length: {own['description']}."
    told = (f"{row['explained_share']:.1%} of level {row['level']}, a {row['k']}-mer" for row in own["kmers"])
    shuffled = ", ".join(f"{row['shuffled_bits']:.2f}" for row in own["kmers"])
    words = f"What k-mers explain of the words of {own['name']}: {'; '.join(told)}"
    return f"{words} (shuffled words would seem to say {shuffled} bits, which are taken off)."


def _usage(own: Row) -> str:
    told = (
        f"level {row['level']} uses {row['used']:,} of {row['codes']:,} codes, as evenly as {row['perplexity']:,.0f}"
        f" would be (evenly drawn: {row['even']:,.0f})"
        for row in own["usage"]
    )
    return f"Of its codebooks {'; '.join(told)}."


def _rate(own: Row, others: Sequence[Row]) -> str:
    def told(one: Row) -> str:
        return f"{one['name']} {one['rate']['bits_a_base']:.2f} bits a base, {one['rate']['right']:.1%} come back"

    return f"Cost and loss: {'; '.join(map(told, [own, *others]))}."


def _enriched(audit: Row) -> list[str]:
    """Of the label of which the words say most, that is not of G and C."""
    own, *others = audit["vocabularies"]
    rows = [row for row in own["enrichment"] if row["level"] == 1 and not row["label"].endswith(GC)]
    if not rows:
        return []
    top = max(rows, key=lambda row: row["bits"] / row["label_bits"])
    same = {one["name"]: row for one in others for row in one["enrichment"] if same_label(row, top)}
    beside = "; ".join(f"{name} {row['bits'] / row['label_bits']:.1%}" for name, row in same.items())
    said = f"Of “{top['label']}” a word of level 1 tells {top['bits'] / top['label_bits']:.1%} of what there is to tell"
    found = (
        f"{top['found_by_gc']:,} of {top['tested']:,} words are commoner or rarer there than G and C explain, in"
        f" shuffles {top['in_shuffles_by_gc']:.1f}"
    )
    return [f"{said}{f' ({beside})' if beside else ''}; {found}."]


def same_label(row: Row, other: Row) -> bool:
    return row["label"] == other["label"] and row["level"] == other["level"]


def _strands(own: Row, others: Sequence[Row]) -> str:
    def told(one: Row) -> str:
        levels = " and ".join(f"{row['consistency']:.0%} (chance {row['chance']:.1%})" for row in one["strands"])
        return f"{one['name']} {levels}"

    return f"A word and that of the other strand are partners: {'; '.join(map(told, [own, *others]))}."


def _edits(own: Row, others: Sequence[Row]) -> str:
    def told(one: Row) -> str:
        by_edit = ", ".join(f"{sum(row['changed']) / len(row['changed']):.1f}" for row in one["edits"])
        return f"{one['name']} {by_edit} (words that hold the base: {one['edits'][0]['holding']:.1f})"

    words = "; ".join(map(told, [own, *others]))
    return f"Words that change with one substituted base, and with one that is inserted: {words}."


def _motifs(own: Row, others: Sequence[Row]) -> str:
    def told(one: Row) -> str:
        same, shuffled = (
            sum(row[key] for row in one["motifs"]) / len(one["motifs"]) for key in ("same", "same_shuffled")
        )
        return f"{one['name']} {same:.0%} (letters in another order: {shuffled:.0%})"

    words = "; ".join(map(told, [own, *others]))
    return f"A base of a motif has its commonest word in so many of the places where the motif is put: {words}."
