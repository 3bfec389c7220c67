"""The page of an audit: every number that is shown is in the JSON that it is made of."""

from vqdna_jax.report import page as kit
from vqdna_jax.report.page import definitions, escape, page, paragraph, section
from vqdna_jax.report.vocabulary import changes, costs, places, word_cards
from vqdna_jax.report.vocabulary.cells import Row
from vqdna_jax.report.vocabulary.findings import findings


def render(audit: Row) -> str:
    first, *others = findings(audit)
    sections = [
        kit.findings(first, others),
        costs.usage(audit),
        costs.rates(audit),
        costs.kmers(audit),
        word_cards.section_of(audit),
        places.labels(audit),
        places.enriched_words(audit),
        changes.strands(audit),
        changes.edits(audit),
        changes.motifs(audit),
        _making(audit),
    ]
    subtitle = f"{', '.join(audit['sample']['species'])} · {audit['sample']['read']} · {audit['date']}"
    return page(audit["title"], subtitle, filter(None, sections))


def _making(audit: Row) -> str:
    sample, about = audit["sample"], audit["annotation"]
    read = [("date", audit["date"]), ("machine", audit["machine"]), ("read", sample["read"])]
    read += [(name, f"{bases:,} bases") for name, bases in sample["species"].items()]
    read += [("G and C", f"{sample['gc']:.1%}"), ("soft-masked", f"{sample['soft_masked']:.1%}")]
    read += [("windows", f"{sample['windows']:,} of {sample['window']} bases, for k-mers, strands, edits and motifs")]
    if about:
        starts = about["coding_starts"]
        told = (
            f"{about['features']:,} features of {about['file']} ({about['format']}); {starts['right']:,} of"
            f" {starts['total']:,} coding sequences begin with a start codon (100 bases further on:"
            f" {starts['shifted']:,})"
        )
        read.append(("annotation", told))
    read += [
        (one["name"], " · ".join(filter(None, [one["description"], one["digest"][:12]])))
        for one in audit["vocabularies"]
    ]
    read += [("versions", ", ".join(f"{name} {version}" for name, version in audit["versions"].items()))]
    notes = "".join(paragraph(note, "note") for note in audit["notes"])
    command = f"<pre>{escape(audit['command'])}</pre>"
    return section("How this was made", command, definitions(read), notes, name="making")
