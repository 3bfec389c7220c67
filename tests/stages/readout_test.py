"""What fine-tuning starts from: a probe that is a model like any; "auto" is the best on dev of what it tried."""

import numpy as np
import pytest
from refusals import refusal
from small_finetune import changed, gc_rich, probe_of, write_rows, write_set

from vqdna_jax.evaluation import linear
from vqdna_jax.genome.alphabet import reverse_complement
from vqdna_jax.inference.finetuned import FineTuned
from vqdna_jax.models.pooling import OF_CODES
from vqdna_jax.stages import frozen_features, readout


@pytest.mark.parametrize("strands", ["one", "both"])
@pytest.mark.parametrize("pool", ["mean", "words+segments:2", "positions:4+max"])
@pytest.mark.parametrize("method", ["lora", "head"])
def test_the_probe_is_a_model_that_gives_its_scores(place, pool, method, strands):
    found, encoded, _ = probe_of(changed(place, head__pool=pool, tuning__method=method, data__strands=strands))
    assert found.model.strands == strands and bool(encoded["dev"].other) == (strands == "both")
    assert any(line.startswith("strands ") for line in found.lines) == (strands == "both")
    for name in ("dev", "test"):
        logits = found.model.logits(encoded[name])
        answers = logits.argmax(axis=1)
        assert found.scores[name]["accuracy"] == pytest.approx(np.mean(answers == encoded[name].labels))
    assert f"readout    {pool}, {found.model.network.width:,} features" in found.lines[0]
    assert (found.features.keys() == encoded.keys()) if method == "head" else not found.features
    assert found.model.network.pool == pool and found.scores["dev"]["mcc"] > 0.3


def test_auto_is_the_best_on_dev_of_those_that_it_names(place):
    one = {"data__strands": "one", "tuning__method": "head"}
    found, _, _ = probe_of(changed(place, head__pool="auto", **one))
    tried = dict(part.rsplit(" ", 1) for part in found.lines[1].partition(": ")[2].split(", "))
    assert list(tried) == list(readout.CANDIDATES)
    best = max(tried, key=lambda name: float(tried[name]))
    assert found.lines[0].startswith(f"readout    {best}, ") and f"mcc {tried[best]}" in found.lines[0]
    for name in ("mean", "segments:8+words"):
        alone, _, _ = probe_of(changed(place, head__pool=name, **one))
        assert alone.scores["dev"]["mcc"] == pytest.approx(float(tried[name]), abs=6e-4)


@pytest.mark.parametrize("pool", ["auto", "segments:2"])
def test_auto_takes_the_strands_that_are_better_on_dev(place, pool):
    found, _, _ = probe_of(changed(place, data__strands="auto", head__pool=pool, tuning__method="head"))
    (line,) = (line for line in found.lines if line.startswith("strands "))
    parts = [part.split(" ") for part in line.partition("dev mcc ")[2].split(", ")]
    tried = {("".join(name) or pool, strands): value for *name, strands, value in parts}
    assert len(tried) == 2 * (readout.FINALISTS if pool == "auto" else 1)
    chosen = found.model.network.pool, found.model.strands
    assert line.startswith(f"strands    {chosen[1]}: ") and float(tried[chosen]) == max(map(float, tried.values()))
    of_counts = set(chosen[0].split("+")) <= set(OF_CODES)
    for strands in ("one", "both") if of_counts else ("one",):  # of others the probe is fitted on each of both
        value = tried[chosen[0], strands]
        alone = changed(place, data__strands=strands, head__pool=chosen[0], tuning__method="head")
        assert probe_of(alone)[0].scores["dev"]["mcc"] == pytest.approx(float(value), abs=6e-4)


def test_what_lies_on_either_strand_is_seen_by_both(place, tmp_path):
    """Sequences that begin, on the strand of their label alone, with what of the other strand is at their end."""
    rng = np.random.default_rng(0)

    def row(label):
        bases = rng.integers(0, 4, 31).astype(np.uint8)
        bases[:6] = (0, 1, 0, 2, 0, 1) if label else rng.integers(0, 4, 6)
        return reverse_complement(bases) if rng.integers(2) else bases

    (tmp_path / "set").mkdir()
    for name, count in {"train": 200, "dev": 400, "test": 50}.items():
        labels = np.arange(count) % 2
        write_rows(tmp_path / f"set/{name}.csv", map(row, labels), labels)
    asked = {"data__labelled": str(tmp_path / "set"), "head__pool": "positions:16", "tuning__method": "head"}
    one, both = (probe_of(changed(place, data__strands=name, **asked))[0] for name in ("one", "both"))
    assert both.scores["dev"]["mcc"] > one.scores["dev"]["mcc"] + 0.1
    chosen, _, _ = probe_of(changed(place, data__strands="auto", **asked))
    assert chosen.model.strands == "both" and chosen.scores == both.scores


def test_the_last_choice_is_of_more_rows_than_the_first(place, monkeypatch):
    """What has many weights is not told from what has few by the first few rows."""
    monkeypatch.setattr(readout, "TRIED_ROWS", 40)
    found, encoded, _ = probe_of(changed(place, head__pool="auto", data__strands="one", tuning__method="head"))
    first, last = ([p.rsplit(" ", 1) for p in line.partition(": ")[2].split(", ")] for line in found.lines[1:3])
    assert found.lines[2].startswith("strands    one: dev mcc ") and len(encoded["train"].codes) > 40
    last = {name.removeprefix("dev mcc "): value for name, value in last}
    assert len(last) == readout.FINALISTS and {name.removesuffix(" one") for name in last} <= dict(first).keys()
    best = max(last, key=lambda name: float(last[name]))
    assert found.model.network.pool == best.removesuffix(" one")
    alone, _, _ = probe_of(
        changed(place, head__pool=found.model.network.pool, data__strands="one", tuning__method="head")
    )
    assert alone.scores["dev"]["mcc"] == pytest.approx(float(last[best]), abs=6e-4)


@pytest.mark.parametrize("keys", [{"head__pool": "auto", "data__strands": "one"}, {"data__strands": "auto"}])
@pytest.mark.parametrize("rows", [readout.FEW_ROWS - 1, readout.FEW_ROWS])
def test_a_choice_on_few_rows_is_told(place, rows, keys):
    found, _, _ = probe_of(changed(place, data__dev_rows=rows, **keys))
    told = f"warning: dev has {rows} rows, so what was chosen on it means little"
    assert any(told in line for line in found.lines) == (rows < readout.FEW_ROWS)
    named, _, _ = probe_of(changed(place, data__dev_rows=rows, data__strands="one", head__pool="mean"))
    assert not any("warning" in line for line in named.lines)


def test_what_is_tried_is_computed_once(place, monkeypatch):
    """The readout that is chosen has the features that it was tried with."""
    seen, features = [], FineTuned.features

    def counted(model, codes, *args):
        seen.extend(model.network.readouts)
        return features(model, codes, *args)

    monkeypatch.setattr(FineTuned, "features", counted)
    found, encoded, _ = probe_of(changed(place, head__pool="auto", data__strands="auto", tuning__method="head"))
    parts = list(dict.fromkeys("+".join(readout.CANDIDATES).split("+")))
    chosen = list(found.model.network.readouts)
    tests = 1 + (found.model.strands == "both")
    assert len(encoded["train"].codes) <= readout.TRIED_ROWS
    (line,) = (line for line in found.lines if line.startswith("strands "))
    finalists = {name for tried in line.partition("dev mcc ")[2].split(", ") for name in tried.split(" ")[0].split("+")}
    # Of train and dev all that is tried, and the other strand of the best three; of test what was chosen.
    assert sorted(seen) == sorted(parts * 2 + list(finalists) * 2 + chosen * tests)


def test_codes_alone_leave_the_transformer_a_say_that_begins_at_zero(place):
    words, encoded, base = probe_of(changed(place, head__pool="words", data__strands="one", tuning__method="head"))
    tuned, _, _ = probe_of(changed(place, head__pool="words", data__strands="one", tuning__method="lora"))
    seen = sum(base.sizes)
    assert tuned.model.network.readouts == ("words", "mean")
    assert not tuned.head["kernel"][seen:].any() and tuned.head["kernel"][:seen].any()
    mean, _, _ = probe_of(changed(place, head__pool="mean", data__strands="one", tuning__method="head"))
    means_BxD = mean.features["train"].features_BxP
    np.testing.assert_allclose(tuned.head["mean"][seen:], means_BxD.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(tuned.head["scale"][seen:], means_BxD.std(axis=0), rtol=1e-4)
    assert tuned.scores == words.scores
    dev = encoded["dev"]
    np.testing.assert_allclose(tuned.model.logits(dev), words.model.logits(dev), rtol=1e-4, atol=1e-4)


def test_the_map_of_positions_gives_numbers_that_vary_by_one_and_not_together(place):
    found, encoded, base = probe_of(changed(place, head__pool="positions:4"))
    vectors = np.concatenate([v for _, v in base.context_vectors(encoded["train"].codes, "none", -1)])
    np.testing.assert_allclose(np.cov(vectors @ found.head["positions_map"], rowvar=False), np.eye(4), atol=0.2)


@pytest.mark.parametrize("pool", ["mean+words+pairs", "words", "segments:8+words"])
def test_features_are_the_same_in_blocks_and_as_sparse_arrays(place, pool, monkeypatch):
    asked = changed(place, head__pool=pool, data__strands="both", tuning__method="head")
    whole, _, _ = probe_of(asked)
    monkeypatch.setattr(frozen_features, "BLOCK", 37)
    blocks, _, _ = probe_of(asked)
    for one, other in zip(whole.features["train"].strands, blocks.features["train"].strands, strict=True):
        np.testing.assert_array_equal(one, other)
    seen = []
    monkeypatch.setattr(frozen_features, "MOSTLY", 2.0)  # never sparse
    monkeypatch.setattr(linear, "choose", lambda *args, choose=linear.choose: seen.append(args) or choose(*args))
    dense, encoded, _ = probe_of(asked)
    assert isinstance(seen[-1][1].features_BxP, np.ndarray) or pool == "words"
    for name in ("mean", "scale"):
        np.testing.assert_allclose(blocks.head[name], dense.head[name], rtol=1e-3, atol=1e-4)
    logits, expected = (found.model.logits(encoded["dev"]) for found in (blocks, dense))
    np.testing.assert_allclose(logits, expected, atol=0.03 * np.abs(expected).max())


def test_positions_of_long_sequences_are_too_many(place, tmp_path, monkeypatch):
    monkeypatch.setattr(frozen_features, "MOST_NUMBERS", 100)
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
        np.testing.assert_allclose(np.expm1(found.features["dev"].features_BxP[row, : len(of_row)]), of_row, atol=1e-3)


@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_dropout_moves_no_logit_of_a_probe_by_more_than_it_may(outputs):
    """As measured: of features that vary by 0 to 4 some are left out, and logits are compared with each other."""
    rng = np.random.default_rng(0)
    kernel_PxV, scale_P = rng.normal(0, 0.1, (400, outputs)), rng.uniform(0.5, 2, 400)
    x_BxP = rng.normal(size=(2000, 400)) * rng.uniform(0, 2, 400)
    probe = linear.Linear(x_BxP.mean(axis=0), scale_P, kernel_PxV, np.zeros(outputs))
    share = readout.dropout(0.1, spread(probe, x_BxP))
    assert 0.005 < share < 0.05
    noise_BxP = (rng.random(x_BxP.shape) >= share) / (1 - share) - 1
    noise_BxV = ((x_BxP - probe.mean_P) / scale_P * noise_BxP) @ kernel_PxV
    if outputs > 1:
        noise_BxV -= noise_BxV.mean(axis=1, keepdims=True)
    assert noise_BxV.var() == pytest.approx(readout.MOST_NOISE, rel=0.2)
    assert readout.dropout(0.1, 1e-4) == readout.dropout(0.1, 0.0) == 0.1  # what was asked for
    shifted = probe._replace(kernel_PxV=kernel_PxV + (5.0 if outputs > 1 else 0.0))  # which changes no probability
    assert readout.dropout(0.1, spread(shifted, x_BxP)) == pytest.approx(share)


def spread(probe: linear.Linear, x_BxP: np.ndarray) -> float:
    return readout._spread(probe, linear.Rows(x_BxP, np.zeros(len(x_BxP))))


@pytest.mark.parametrize("pool, counts", [("words+pairs", 2), ("mean+words", 1), ("mean", 0)])
def test_counts_of_codes_have_one_scale_each_kind_and_other_numbers_one_each(place, pool, counts):
    settings = changed(
        place, head__pool=pool if counts < 2 else "words+pairs", data__strands="one", tuning__method="head"
    )
    found, _, _ = probe_of(settings)
    x_BxP, scale_P = found.features["train"].features_BxP, found.head["scale"]
    spans = found.model.network.counts
    assert len(spans) == counts
    for start, end in spans:
        of_kind = x_BxP[:, start:end].var(axis=0).mean()
        np.testing.assert_allclose(scale_P[start:end], np.sqrt(of_kind), rtol=1e-4)
    own = np.setdiff1d(np.arange(len(scale_P)), [at for start, end in spans for at in range(start, end)])
    np.testing.assert_allclose(scale_P[own], x_BxP[:, own].std(axis=0), rtol=1e-3)


@pytest.mark.parametrize("pool, together", [("mean", False), ("words", True), ("mean+words", False)])
def test_a_probe_is_fitted_on_each_strand_by_itself_but_for_counts(place, pool, together):
    settings = changed(place, head__pool=pool, data__strands="both", tuning__method="head")
    found, _, _ = probe_of(settings)
    strands = np.stack([np.asarray(x_BxP) for x_BxP in found.features["train"].strands])
    read = strands.mean(axis=0) if together else strands.reshape(-1, strands.shape[-1])
    np.testing.assert_allclose(found.head["mean"], read.mean(axis=0), atol=1e-5)
