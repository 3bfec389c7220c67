"""What fine-tuning starts from: a probe that is a model like any; "auto" is the best on dev of what it tried."""

import numpy as np
import pytest
from refusals import refusal
from small_finetune import changed, gc_rich, write_set

from vqdna_jax.evaluation import linear
from vqdna_jax.inference.saved import pretrained
from vqdna_jax.stages import finetune as stage
from vqdna_jax.stages import read_settings, readout


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("inputs")


def probe_of(config):
    """(the probe of a config's set, the encoded set, the pretrained model)."""
    settings = read_settings(config)
    labelled_set, base = stage.read_labelled(settings.data), pretrained.load(settings.pretrained)
    target = stage.target_of(labelled_set)
    encoded = {
        name: stage.encode(base, split, labelled_set.kind, target, settings.data.long)
        for name, split in labelled_set.splits.items()
    }
    return readout.probe(settings, base, labelled_set, encoded, target), encoded, base


@pytest.mark.parametrize("pool", ["mean", "words+segments:2", "positions:4+max"])
@pytest.mark.parametrize("method", ["lora", "head"])
def test_the_probe_is_a_model_that_gives_its_scores(place, pool, method):
    found, encoded, _ = probe_of(changed(place, head__pool=pool, tuning__method=method))
    for name in ("dev", "test"):
        logits = found.model.logits(encoded[name].codes)
        answers = logits.argmax(axis=1)
        assert found.scores[name]["accuracy"] == pytest.approx(np.mean(answers == encoded[name].labels))
    assert f"readout    {pool}, {found.features['train'].shape[1]:,} features" in found.lines[0]
    assert found.model.network.pool == pool and found.scores["dev"]["mcc"] > 0.3


def test_auto_is_the_best_on_dev_of_those_that_it_names(place):
    found, _, _ = probe_of(changed(place, head__pool="auto"))
    tried = dict(part.rsplit(" ", 1) for part in found.lines[1].partition(": ")[2].split(", "))
    assert list(tried) == list(readout.CANDIDATES)
    best = max(tried, key=lambda name: float(tried[name]))
    assert found.lines[0].startswith(f"readout    {best}, ") and f"mcc {tried[best]}" in found.lines[0]
    for name in ("mean", "segments:8+words"):
        alone, _, _ = probe_of(changed(place, head__pool=name, tuning__method="head"))
        assert alone.scores["dev"]["mcc"] == pytest.approx(float(tried[name]), abs=6e-4)


def test_codes_alone_leave_the_transformer_a_say_that_begins_at_zero(place):
    words, encoded, base = probe_of(changed(place, head__pool="words", tuning__method="head"))
    tuned, _, _ = probe_of(changed(place, head__pool="words", tuning__method="lora"))
    seen, width = sum(base.sizes), base.transformer.width
    assert words.features["train"].shape[1] == seen and tuned.features["train"].shape[1] == seen + width
    assert not tuned.head["kernel"][seen:].any() and tuned.head["kernel"][:seen].any()
    np.testing.assert_allclose(tuned.features["dev"][:, seen:].mean(axis=0), tuned.head["mean"][seen:], atol=0.5)
    assert tuned.scores == words.scores
    codes = encoded["dev"].codes
    np.testing.assert_allclose(tuned.model.logits(codes), words.model.logits(codes), rtol=1e-4, atol=1e-4)


def test_the_map_of_positions_gives_numbers_that_vary_by_one_and_not_together(place):
    found, encoded, base = probe_of(changed(place, head__pool="positions:4"))
    vectors = np.concatenate([v for _, v in base.context_vectors(encoded["train"].codes, "none", -1)])
    np.testing.assert_allclose(np.cov(vectors @ found.head["positions_map"], rowvar=False), np.eye(4), atol=0.2)


def test_positions_of_long_sequences_are_too_many(place, tmp_path, monkeypatch):
    monkeypatch.setattr(readout, "MOST_NUMBERS", 100)
    message = refusal(probe_of, changed(place, head__pool="positions:4"))
    assert message.startswith("config key head.pool: found positions:4, 124 numbers") and "segments" in message
    found, _, _ = probe_of(changed(place, head__pool="auto"))
    assert "positions" not in found.lines[1]


@pytest.mark.parametrize("at, edge", [(0, "strongest"), (-1, "weakest")])
def test_a_penalty_at_the_edge_of_the_grid_is_told(at, edge):
    found = linear.Chosen(None, linear.INVERSE_PENALTIES[at], {"mcc": 0.5})
    assert readout._described(found, "mcc") == f"linear probe on dev: mcc 0.500, by the {edge} penalty tried"


def test_sequences_longer_than_the_context_are_read_as_one(place, tmp_path):
    """In windows, each code once: the probe of means does not change where it is cut, only the context does."""
    rows = write_set(tmp_path / "long", gc_rich, lengths=(64, 31), base_bases=64)
    found, encoded, _ = probe_of(
        changed(place, data__labelled=str(rows), data__long="window", head__pool="words", tuning__method="head")
    )
    counts = [np.bincount(np.ravel(codes_LxN[:, 0])) for codes_LxN in encoded["dev"].codes]
    for row, of_row in enumerate(counts):
        np.testing.assert_allclose(np.expm1(found.features["dev"][row, : len(of_row)]), of_row, atol=1e-3)
