"""The table of the benchmark's sets: the 28 of GUE, three of editing efficiency and the species set.

A set is one `Card` in `_all`, and nothing else: it is found, checked, prepared, fine-tuned by its recipe, averaged with
its group and shown, in the order of this file. Only scores that others published stand elsewhere (`published`).

Class counts and lengths of GUE are those of the figures of DNABERT-2 (Zhou et al., ICLR 2024), sizes those of its
appendix, recipes those of its finetune/scripts. What no source states is left empty.
"""

import dataclasses
import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from vqdna_jax.errors import InputError

SPLITS = ("train", "dev", "test")
Metric = Literal["mcc", "macro_f1", "spearman", "accuracy"]
Recipe = Mapping[str, Any]  # key of configs/finetune.py: value


@dataclasses.dataclass(frozen=True)
class Card:
    """What is known of a set before its files are opened, and how it is fine-tuned."""

    name: str  # as in GUE's own archive, "tf/0"
    group: str  # of the sets whose scores are averaged, "tf"
    title: str
    source: str
    licence: str
    classes: int  # 0 for regression
    kind: Literal["classification", "regression"]
    metric: Metric  # the headline
    spellings: tuple[str, ...]  # of its folder, or of its table without the ending; in any case
    recipe: Recipe  # over configs/finetune.py, which has what is the same for all sets
    label_names: tuple[str, ...] = ()  # by label, empty where unknown
    length_bp: int | None = None  # published, None where the user chooses
    sizes: Mapping[str, int] | None = None  # published rows by split; with them, `classes` is fixed too
    note: str = ""
    homepage: str | None = None
    other_train_sizes: tuple[int, ...] = ()  # as good as the published one, for the reason in the note
    other_lengths_bp: tuple[int, ...] = ()  # likewise

    @property
    def key(self) -> str:
        """The name without "/", for files and TFDS."""
        return self.name.replace("/", "_")


_Sizes = tuple[int, int, int]
_LONG: Recipe = {"train.total_epochs": 10.0}


def _gue(
    name: str,
    group: str,
    title: str,
    label_names: tuple[str, ...],
    length_bp: int,
    sizes: _Sizes,
    spellings: tuple[str, ...],
    recipe: Recipe,
    classes: int = 2,
    metric: Metric = "mcc",
    licence: str = "none stated for the data",
    note: str = "",
    other_train_sizes: tuple[int, ...] = (),
    other_lengths_bp: tuple[int, ...] = (),
) -> Card:
    return Card(
        name,
        group,
        title,
        source="GUE of DNABERT-2 (Zhou et al., ICLR 2024)",
        licence=licence,
        classes=classes,
        kind="classification",
        metric=metric,
        spellings=(name, *spellings),
        recipe=recipe,
        label_names=label_names,
        length_bp=length_bp,
        sizes=dict(zip(SPLITS, sizes)),
        note=note,
        homepage="https://github.com/MAGICS-LAB/DNABERT_2",
        other_train_sizes=other_train_sizes,
        other_lengths_bp=other_lengths_bp,
    )


_CHROMATIN: dict[str, _Sizes] = {
    "H3": (11971, 1497, 1497),
    "H3K14ac": (26483, 3305, 3305),
    "H3K36me3": (27904, 3488, 3488),
    "H3K4me1": (25341, 3168, 3168),
    "H3K4me2": (24545, 3069, 3069),
    "H3K4me3": (29439, 3680, 3680),
    "H3K79me3": (23069, 2883, 2884),
    "H3K9ac": (22224, 2779, 2779),
    "H4": (11679, 1461, 1461),
    "H4ac": (27275, 3410, 3410),
}
_SWAPPED = (
    "the appendix prints 26483 training rows; 8:1:1 with 3,305 gives 26,438 to 26,440, so two digits are probably "
    "swapped"
)


def _chromatin() -> Iterator[Card]:
    for mark, sizes in _CHROMATIN.items():
        note, others = (_SWAPPED, (26438, 26439, 26440)) if mark == "H3K14ac" else ("", ())
        title = f"yeast histone {'occupancy' if mark in ('H3', 'H4') else 'mark'} {mark}"
        spellings, recipe = (f"emp_{mark}", mark), {"train.total_epochs": 3.0}
        yield _gue(
            f"EMP/{mark}",
            "EMP",
            title,
            ("no", mark),
            500,
            sizes,
            spellings,
            recipe,
            note=note,
            other_train_sizes=others,
        )


_REGIONS = {
    "300": (300, "promoters, -249 to +50 of the start of transcription"),
    "core": (70, "core promoters, -34 to +35 of the start of transcription"),
}
_SHORT: Recipe = {"train.total_epochs": 4.0, "eval.every_steps": 400}
_PARTS: dict[str, tuple[str, _Sizes, Recipe]] = {
    "all": ("human", (47356, 5920, 5920), _SHORT),
    "notata": ("human without a TATA box", (42452, 5307, 5307), _SHORT),
    "tata": ("human with a TATA box", (4904, 613, 613), _LONG),
}


def _promoters() -> Iterator[Card]:
    for region, (length, what) in _REGIONS.items():
        for part, (genes, sizes, recipe) in _PARTS.items():
            group, title = f"prom_{region}", f"{genes}: {what}"
            name = f"{group}_{part}"
            yield _gue(f"prom/{name}", group, title, ("no", "promoter"), length, sizes, (name,), recipe)


_HUMAN: dict[str, _Sizes] = {
    "wgEncodeEH000552": (32378, 1000, 1000),
    "wgEncodeEH000606": (30672, 1000, 1000),
    "wgEncodeEH001546": (19000, 1000, 1000),
    "wgEncodeEH001776": (27294, 1000, 1000),
    "wgEncodeEH002829": (19000, 1000, 1000),
}
_MOUSE: dict[str, _Sizes] = {
    "Ch12Nrf2Iggrab": (6478, 810, 810),
    "Ch12Znf384hpa004051Iggrab": (53952, 6745, 6745),
    "MelJundIggrab": (2620, 328, 328),
    "MelMafkDm2p5dStd": (1904, 239, 239),
    "MelNelfeIggrab": (15064, 1883, 1883),
}
_HUMAN_RECIPE: Recipe = {"train.total_epochs": 3.0, "optimizer.warmup_steps": 30}
_MOUSE_RECIPE: Recipe = {"train.total_epochs": 0.0, "train.total_steps": 1000, "optimizer.warmup_steps": 30}


def _binding() -> Iterator[Card]:
    for group, species, experiments, prefixes, recipe in (
        ("tf", "human", _HUMAN, ("human_tf_", "tf_", "tf"), _HUMAN_RECIPE),
        ("mouse", "mouse", _MOUSE, ("mouse_", "mouse"), _MOUSE_RECIPE),
    ):
        for i, (experiment, sizes) in enumerate(experiments.items()):
            yield _gue(
                f"{group}/{i}",
                group,
                f"{species} transcription factor binding, {experiment}",
                ("no", "bound"),
                100,
                sizes,
                tuple(f"{prefix}{i}" for prefix in prefixes),
                recipe,
                note="peaks of 101 bp, published as 100",
                other_lengths_bp=(101,),
            )


def _splice_sites() -> Card:
    return _gue(
        "splice/reconstructed",
        "splice",
        "human splice sites: donor, acceptor, neither",
        (),
        400,
        (36496, 4562, 4562),
        ("splice_reconstructed",),
        {"train.total_epochs": 5.0},
        classes=3,
        note="which label is which class is unverified",
    )


def _virus() -> Card:
    return _gue(
        "virus/covid",
        "virus",
        "SARS-CoV-2 variants: Alpha Beta Delta Eta Gamma Iota Kappa Lambda Zeta",
        (),
        1000,
        (77669, 7000, 7000),
        ("virus_covid", "covid"),
        {"train.total_epochs": 8.0},
        classes=9,
        metric="macro_f1",
        licence="terms of GISAID EpiCoV",
        note="which label is which variant is unverified",
    )


_EDITING_NOTE = (
    "VQDNA names neither its sets, their sizes, its metric nor its protocol: these are chosen here, and no comparison "
    "with the paper is claimed; R2 is reported beside Spearman's correlation; chosen: three cell lines and "
    "laboratories, each set with more than 200 genes or sites, so that a split by gene leaves many on either side; "
    "doench2016_hg19 has 15 genes, one of them a quarter of its rows"
)
_SCREENS = (
    ("hl60", "xu2015TrainHl60", "HL-60 screen of Wang et al. 2014, as Xu et al. 2015 fitted it, 2,076 guides"),
    ("k562", "chari2015TrainK562", "K562 library of Chari et al. 2015, 1,239 guides"),
    ("hela", "hart2016-HelaLib1Avg", "HeLa screen by Hart, essential genes, mean of its repeats, 4,256 guides"),
)


def _editing() -> Iterator[Card]:
    for cell, table, title in _SCREENS:
        yield Card(
            f"editing/{cell}",
            "editing",
            f"guide efficiency, {title}",
            source=f"{table}.context.tab of maximilianh/crisporPaper (Haeussler et al., Genome Biology 2016)",
            licence="none stated for the data",
            classes=0,
            kind="regression",
            metric="spearman",
            spellings=(f"editing/{cell}", f"editing_{cell}", f"{table}.context", table),
            recipe=_LONG,
            length_bp=100,
            note=_EDITING_NOTE,
        )


def _species() -> Card:
    return Card(
        "species/hyenadna",
        "species",
        "species of a stretch of genome, by the protocol of HyenaDNA",
        source="genomes that the user names; those of HyenaDNA (Nguyen et al., 2023): human, lemur, mouse, pig, hippo",
        licence="that of the genomes",
        classes=5,
        kind="classification",
        metric="accuracy",
        spellings=("species/hyenadna", "species_hyenadna"),
        recipe=_LONG,  # HyenaDNA draws its windows anew for 100 epochs of 1,000: this project draws them once
        note="labels, and their number with other genomes, are those of labels.txt; 1k to 450k bases in the paper",
    )


def _all() -> Iterator[Card]:
    yield from _chromatin()
    yield from _promoters()
    yield from _binding()
    yield _splice_sites()
    yield _virus()
    yield from _editing()
    yield _species()


CARDS: dict[str, Card] = {card.name: card for card in _all()}


def by_spelling() -> dict[str, Card]:
    """Cards by each of their spellings, in lower case."""
    return {spelling.casefold(): card for card in CARDS.values() for spelling in card.spellings}


def find_card(name: str) -> Card:
    """The card of a set by any of its spellings, in any case. Raises InputError with the nearest names."""
    spelled = by_spelling()
    if card := spelled.get(name.casefold()):
        return card
    close = difflib.get_close_matches(name.casefold(), spelled, n=5, cutoff=0.5)
    near = ", ".join(dict.fromkeys(spelled[match].name for match in close))
    hint = f"did you mean {near}?" if near else "expected one of " + ", ".join(CARDS)
    raise InputError(f"set {name[:80]!r}: unknown; {hint}")


def groups() -> list[str]:
    """Each group once, in the order of the table."""
    return list(dict.fromkeys(card.group for card in CARDS.values()))


def in_order(names: Iterable[str]) -> list[str]:
    """Each once, sorted by group (in the order of the table, others after them), then by name, numbers by size."""
    known = groups()

    def place(name: str) -> tuple:
        group = group_of(name)
        parts = [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
        return known.index(group) if group in known else len(known), group, parts, name

    return sorted(set(names), key=place)


def by_group(names: Iterable[str]) -> dict[str, list[str]]:
    """The names of each group, both in order."""
    members: dict[str, list[str]] = {}
    for name in in_order(names):
        members.setdefault(group_of(name), []).append(name)
    return members


def group_of(name: str) -> str:
    """The group of a set by any spelling of its name; of one that has no card, its first folder."""
    card = CARDS.get(name) or by_spelling().get(name.casefold())
    return card.group if card else name.split("/")[0]
