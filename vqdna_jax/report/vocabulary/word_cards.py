"""The busiest words of an audit's page: logos, contexts, and fine words under coarse ones."""

from vqdna_jax.report.page import escape, paragraph, section
from vqdna_jax.report.vocabulary.cells import Row
from vqdna_jax.report.vocabulary.pictures import letters, logo
from vqdna_jax.report.vocabulary.words import AROUND


def section_of(audit: Row) -> str:
    own = audit["vocabularies"][0]
    background = ", ".join(f"{letter} {share:.1%}" for letter, share in zip("ACGT", audit["background"]))
    note = (
        "Letters are as high as their share of what a place says beyond the sample's composition"
        f" ({background}); a place of four such letters says nothing and is empty. The line is below the word's own"
        " bases. Contexts: the commonest letters of the word and two bases on both sides, the share of its occurrences,"
        " and how many times that is their share of all places, the control."
    )
    cards = "".join(_card(word, audit["word_width"]) for word in audit["words"])
    return section(
        f"The busiest words of {own['name']}",
        letters(),
        paragraph(note, "note"),
        paragraph(_levels(own["levels"]), "note") if own["levels"] else "",
        f'<div class="words">{cards}</div>',
        name="words",
    )


def _levels(levels: Row) -> str:
    return (
        f"A fine word has {levels['second']:.2f} bits, and {levels['second_if_first_is_known']:.2f} where the coarse"
        f" one is known ({levels['if_shuffled']:.2f} where the coarse ones are shuffled). Under a coarse word are its"
        " commonest fine ones, with their share of its occurrences and of all words."
    )


def _card(word: Row, width: int) -> str:
    name = f"{word['level']}:{word['code']}"
    about = f"{word['count']:,} times, {word['share']:.2%} of the words; G and C of its bases {word['gc']:.0%}"
    contexts = ", ".join(f"{c['letters']} {c['share']:.0%} ({c['times']:,.0f} x)" for c in word["contexts"])
    fine = "".join(_fine(row, width) for row in word["fine"])
    title = (
        f"<figcaption>Word {name}{' <em>asked for</em>' if word['asked'] else ''}<small>{about}</small></figcaption>"
    )
    below = f'<p class="contexts">{escape(contexts)}</p>' + (f'<div class="fine">{fine}</div>' if fine else "")
    return f"<figure>{title}{_logo(word, width, name)}{below}</figure>"


def _fine(row: Row, width: int) -> str:
    name = f"{row['level']}:{row['code']}"
    about = f"{name} <small>{row['share']:.0%}, everywhere {row['everywhere']:.2%}</small>"
    return f"<div>{about}{_logo(row, width, name)}</div>"


def _logo(word: Row, width: int, name: str) -> str:
    commonest = word["contexts"][0]["letters"] if word["contexts"] else ""
    own = range(AROUND, AROUND + width)
    return logo(word["letters"], word["bits"], own, f"Logo of word {name}; its commonest context is {commonest}")
