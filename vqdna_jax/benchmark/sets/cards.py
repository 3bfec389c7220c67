"""One card a set: the 28 of GUE, three of editing efficiency and the species set, with what is known of each.

Class counts and lengths of GUE are those of the figures of DNABERT-2 (Zhou et al., ICLR 2024), sizes those of its
appendix. What no source states is left empty.
"""

import dataclasses
import difflib
from collections.abc import Iterable
from typing import Literal

from vqdna_jax.errors import InputError

SPLITS = ("train", "dev", "test")
TASKS = ("EMP", "TFP-H", "TFP-M", "CPD", "PD", "SSP", "CVC", "EEP", "species")
CHROMATIN_SETS = ("H3", "H3K14ac", "H3K36me3", "H3K4me1", "H3K4me2", "H3K4me3", "H3K79me3", "H3K9ac", "H4", "H4ac")


@dataclasses.dataclass(frozen=True)
class Card:
    """What is known of a set before its files are opened."""

    name: str  # as in GUE's own archive, "tf/0"
    task: str  # one of TASKS
    title: str
    source: str
    licence: str
    classes: int  # 0 for regression
    label_names: tuple[str, ...]  # by label, empty where unknown
    kind: Literal["classification", "regression"]
    metric: Literal["mcc", "macro_f1", "spearman", "accuracy"]  # the headline
    length_bp: int | None  # published, None where the user chooses
    sizes: dict[str, int] | None  # published rows by split
    spellings: tuple[str, ...]  # of its folder, or of its table without the ending
    note: str = ""
    other_train_sizes: tuple[int, ...] = ()  # as good as the published one, for the reason in the note
    other_lengths_bp: tuple[int, ...] = ()  # likewise

    @property
    def key(self) -> str:
        """The name without "/", for files and TFDS."""
        return self.name.replace("/", "_")


_GUE = "GUE of DNABERT-2 (Zhou et al., ICLR 2024)"
_GUE_LICENCE = "none stated for the data"


def _gue(name, task, title, positive, length_bp, sizes, spellings, note="", **rest) -> Card:
    known = dict(classes=2, label_names=("no", positive), metric="mcc", licence=_GUE_LICENCE) | rest
    return Card(
        name, task, title, source=_GUE, kind="classification", length_bp=length_bp,
        sizes=dict(zip(SPLITS, sizes)), spellings=(name, *spellings), note=note, **known,
    )  # fmt: skip


_CHROMATIN_SIZES = (
    (11971, 1497, 1497), (26483, 3305, 3305), (27904, 3488, 3488), (25341, 3168, 3168), (24545, 3069, 3069),
    (29439, 3680, 3680), (23069, 2883, 2884), (22224, 2779, 2779), (11679, 1461, 1461), (27275, 3410, 3410),
)  # fmt: skip
_SWAPPED = {
    "note": "the appendix prints 26483 training rows; 8:1:1 with 3,305 gives 26,438 to 26,440, so two digits are "
    "probably swapped",
    "other_train_sizes": (26438, 26439, 26440),
}


def _chromatin() -> Iterable[Card]:
    for mark, sizes in zip(CHROMATIN_SETS, _CHROMATIN_SIZES):
        rest = _SWAPPED if mark == "H3K14ac" else {}
        title = f"yeast histone {'occupancy' if mark in ('H3', 'H4') else 'mark'} {mark}"
        yield _gue(f"EMP/{mark}", "EMP", title, mark, 500, sizes, (f"emp_{mark}", mark), **rest)


def _promoters() -> Iterable[Card]:
    parts = {"all": (47356, 5920, 5920), "notata": (42452, 5307, 5307), "tata": (4904, 613, 613)}
    regions = {
        "core": ("CPD", 70, "core promoters, -34 to +35 of the start of transcription"),
        "300": ("PD", 300, "promoters, -249 to +50 of the start of transcription"),
    }
    kinds = {"all": "human", "notata": "human without a TATA box", "tata": "human with a TATA box"}
    for region, (task, length, title) in regions.items():
        for part, sizes in parts.items():
            name = f"prom_{region}_{part}"
            title_of_part = f"{kinds[part]}: {title}"
            yield _gue(f"prom/{name}", task, title_of_part, "promoter", length, sizes, (name,))


_HUMAN = (
    ("wgEncodeEH000552", (32378, 1000, 1000)), ("wgEncodeEH000606", (30672, 1000, 1000)),
    ("wgEncodeEH001546", (19000, 1000, 1000)), ("wgEncodeEH001776", (27294, 1000, 1000)),
    ("wgEncodeEH002829", (19000, 1000, 1000)),
)  # fmt: skip
_MOUSE = (
    ("Ch12Nrf2Iggrab", (6478, 810, 810)), ("Ch12Znf384hpa004051Iggrab", (53952, 6745, 6745)),
    ("MelJundIggrab", (2620, 328, 328)), ("MelMafkDm2p5dStd", (1904, 239, 239)),
    ("MelNelfeIggrab", (15064, 1883, 1883)),
)  # fmt: skip


def _binding() -> Iterable[Card]:
    rest = {"note": "peaks of 101 bp, published as 100", "other_lengths_bp": (101,)}
    for i, (experiment, sizes) in enumerate(_HUMAN):
        title = f"human transcription factor binding, {experiment}"
        yield _gue(f"tf/{i}", "TFP-H", title, "bound", 100, sizes, (f"human_tf_{i}", f"tf_{i}", f"tf{i}"), **rest)
    for i, (experiment, sizes) in enumerate(_MOUSE):
        title = f"mouse transcription factor binding, {experiment}"
        yield _gue(f"mouse/{i}", "TFP-M", title, "bound", 100, sizes, (f"mouse_{i}", f"mouse{i}"), **rest)


def _several_classes() -> Iterable[Card]:
    yield _gue(
        "splice/reconstructed", "SSP", "human splice sites: donor, acceptor, neither", "", 400, (36496, 4562, 4562),
        ("splice_reconstructed",), "which label is which class is unverified", classes=3, label_names=(),
    )  # fmt: skip
    yield _gue(
        "virus/covid", "CVC", "SARS-CoV-2 variants: Alpha Beta Delta Eta Gamma Iota Kappa Lambda Zeta", "", 1000,
        (77669, 7000, 7000), ("virus_covid", "covid"), "which label is which variant is unverified",
        classes=9, label_names=(), metric="macro_f1", licence="terms of GISAID EpiCoV",
    )  # fmt: skip


EDITING_NOTE = (
    "VQDNA names neither its sets, their sizes nor its metric: these are chosen here, and no comparison with the paper "
    "is claimed; R2 is reported beside Spearman's correlation"
)
EDITING_CHOICE = (
    "three cell lines and laboratories, each set with more than 200 genes or sites, so that a split by gene leaves "
    "many on either side; doench2016_hg19 has 15 genes, one of them a quarter of its rows"
)
_SCREENS = (
    ("hl60", "xu2015TrainHl60", "HL-60 screen of Wang et al. 2014, as Xu et al. 2015 fitted it, 2,076 guides"),
    ("k562", "chari2015TrainK562", "K562 library of Chari et al. 2015, 1,239 guides"),
    ("hela", "hart2016-HelaLib1Avg", "HeLa screen by Hart, essential genes, mean of its repeats, 4,256 guides"),
)


def _editing() -> Iterable[Card]:
    for cell, table, title in _SCREENS:
        yield Card(
            f"editing/{cell}", "EEP", f"guide efficiency, {title}", licence="none stated for the data", classes=0,
            source=f"{table}.context.tab of maximilianh/crisporPaper (Haeussler et al., Genome Biology 2016)",
            label_names=(), kind="regression", metric="spearman", length_bp=100, sizes=None,
            spellings=(f"editing/{cell}", f"editing_{cell}", f"{table}.context", table),
            note=f"{EDITING_NOTE}; chosen: {EDITING_CHOICE}",
        )  # fmt: skip


def _species() -> Card:
    return Card(
        "species/hyenadna", "species", "species of a stretch of genome, by the protocol of HyenaDNA",
        source="genomes that the user names; those of HyenaDNA (Nguyen et al., 2023): human, lemur, mouse, pig, hippo",
        licence="that of the genomes", classes=5, label_names=(), kind="classification", metric="accuracy",
        length_bp=None, sizes=None, spellings=("species/hyenadna", "species_hyenadna"),
        note="labels, and their number with other genomes, are those of labels.txt; 1k to 450k bases in the paper",
    )  # fmt: skip


_ALL = (*_chromatin(), *_promoters(), *_binding(), *_several_classes(), *_editing(), _species())
CARDS: dict[str, Card] = {card.name: card for card in _ALL}
BY_SPELLING: dict[str, Card] = {spelling.casefold(): card for card in _ALL for spelling in card.spellings}


def find_card(name: str) -> Card:
    """The card of a set by any of its spellings, in any case. Raises InputError with the nearest names."""
    if card := BY_SPELLING.get(name.casefold()):
        return card
    close = difflib.get_close_matches(name.casefold(), BY_SPELLING, n=5, cutoff=0.5)
    near = ", ".join(dict.fromkeys(BY_SPELLING[match].name for match in close))
    hint = f"did you mean {near}?" if near else "expected one of " + ", ".join(CARDS)
    raise InputError(f"set {name[:80]!r}: unknown; {hint}")


def of_task(task: str) -> tuple[Card, ...]:
    """The cards of one of TASKS, in order."""
    return tuple(card for card in CARDS.values() if card.task == task)
