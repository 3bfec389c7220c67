"""The table of sets, and that a set is added by its card alone."""

import collections
import pathlib

import pytest
from flax.traverse_util import flatten_dict
from small_finetune import write_set

from configs import finetune
from vqdna_jax.benchmark import cells, jobs, runner
from vqdna_jax.benchmark.report import publish
from vqdna_jax.benchmark.sets import cards, find
from vqdna_jax.benchmark.sets.cards import CARDS, Card, find_card
from vqdna_jax.benchmark.sets.check import check
from vqdna_jax.errors import InputError

SPLITS = ("train", "dev", "test")


def test_there_are_the_32_sets_of_the_paper():
    counts = collections.Counter(card.group for card in CARDS.values())
    assert list(counts) == cards.groups() and len(CARDS) == counts.total() == 32
    assert counts == {"EMP": 10, "prom_300": 3, "prom_core": 3, "tf": 5, "mouse": 5} | {
        "splice": 1,
        "virus": 1,
        "editing": 3,
        "species": 1,
    }
    assert len({card.key for card in CARDS.values()}) == 32


def test_no_spelling_means_two_sets():
    spellings = [spelling.casefold() for card in CARDS.values() for spelling in card.spellings]
    assert len(spellings) == len(set(spellings)) == len(cards.by_spelling())
    for card in CARDS.values():
        assert all(find_card(spelling) is card for spelling in card.spellings) and card.name in card.spellings


def test_facts_fit_each_other():
    keys = flatten_dict(finetune.get_config().to_dict(), sep=".").keys()
    for card in CARDS.values():
        assert card.recipe and card.recipe.keys() <= keys
        assert (card.classes == 0) == (card.kind == "regression") == (card.metric == "spearman")
        assert not card.label_names or len(card.label_names) == card.classes
        if card.sizes:
            shares = card.sizes["dev"] / sum(card.sizes.values())
            assert set(card.sizes) == set(SPLITS) and 0.015 < shares < 0.11
    chromatin = CARDS["EMP/H3K14ac"]
    assert chromatin.other_train_sizes and chromatin.note
    assert CARDS["virus/covid"].metric == "macro_f1" and not CARDS["virus/covid"].label_names


def test_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(InputError, match="'tf/O': unknown; did you mean tf/.*tf/0"):
        find_card("tf/O")
    with pytest.raises(InputError, match="did you mean EMP/H3K79me3"):
        find_card("H3K79me")
    with pytest.raises(InputError, match="expected one of EMP/H3, .*species/hyenadna"):
        find_card("%%%%")


LEAF = Card(
    "plants/leaf",
    "plants",
    "maize leaf promoters",
    source="nobody",
    licence="none",
    classes=2,
    kind="classification",
    metric="mcc",
    spellings=("plants/leaf", "maize"),
    recipe={"train.total_epochs": 7.0, "optimizer.warmup_steps": 3},
    length_bp=31,
    sizes={"train": 192, "dev": 64, "test": 64},
)


@pytest.fixture
def leaf(monkeypatch) -> Card:
    """A set that the table has for the time of a test."""
    monkeypatch.setitem(CARDS, LEAF.name, LEAF)
    return LEAF


class TestAddedCard:
    """What is done with a set follows from its card."""

    @pytest.fixture
    def data(self, tmp_path) -> pathlib.Path:
        write_set(tmp_path / "data/maize", lengths=(31,))
        write_set(tmp_path / "data/tf/0", lengths=(31,))
        return tmp_path / "data"

    def test_it_is_found_and_checked(self, leaf, data):
        assert find.find(data) == {"tf/0": data / "tf/0", "plants/leaf": data / "maize"}
        assert find.find(data, ["MAIZE"]).keys() == {"plants/leaf"} and find_card("plants/Leaf") is leaf
        _, report = check(data)
        assert (report.name, report.errors) == ("plants/leaf", []) and not any(
            "published" in w for w in report.warnings
        )

    def test_it_is_fine_tuned_by_its_recipe(self, leaf, data, tmp_path):
        plan = jobs.Plan(data, {}, tmp_path / "out", settings=("optimizer.warmup_steps=4",))
        config = jobs.config_of(plan, data / "maize", jobs.Job("", "plants/leaf", 1))
        assert (config.train.total_epochs, config.optimizer.warmup_steps, config.seed) == (7.0, 4, 1)
        assert config.data.kind == "classification"

    def test_it_is_run_and_shown_with_its_group_after_those_before(self, leaf, data, tmp_path):
        plan = jobs.Plan(data, {}, tmp_path / "out", seeds=1)
        assert runner.run(plan) == 0
        page = publish.publish(plan.out, "vqdna benchmark", {}).read_text()
        assert "maize leaf promoters" in page and "plants (1)" in page
        assert cards.by_group(["plants/leaf", "species/hyenadna", "mine/x"]) == {
            "species": ["species/hyenadna"],
            "plants": ["plants/leaf"],
            "mine": ["mine/x"],
        }
        found = [cell for cell in cells.finished(plan.out) if cell.dataset == "plants/leaf"]
        assert {cell.metric for cell in found} == {"mcc"} and max(cell.test for cell in found) > 0.8

    def test_it_is_gone_with_its_card(self, data):
        assert find.find(data).keys() == {"tf/0"}
        with pytest.raises(InputError, match="'maize': unknown"):
            find_card("maize")
