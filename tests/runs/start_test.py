"""Runs that go on from an export (config.init_from): what they begin with, bitwise resume, what is refused."""

import dataclasses
import json
import re

import chex
import jax
import numpy as np
import pytest
import small_mcm
import small_run
from ml_collections import ConfigDict
from refusals import refusal
from small_run import rows_of, run, steps_on, stop_at
from tiny_pretrained import save_tiny_pretrained
from tiny_tokenizer import save_tiny, tiny_config

from vqdna_jax.errors import EXIT_STOPPED
from vqdna_jax.inference import load
from vqdna_jax.inference.saved import pretrained
from vqdna_jax.runtime import exports
from vqdna_jax.tokenizers.kmers import Kmers

STAGES = ["vocabulary", "mcm", "tokens"]


def config_of(kind: str, place) -> ConfigDict:
    """Of a run of seconds of stage 1, of stage 2, of stage 2 over a fixed tokenizer."""
    if kind == "vocabulary":
        return small_run.small_config()
    config = small_mcm.small_config(place)
    config.train.params_ema_decay = 0.5
    config.tokenizer = str(place / {"mcm": "mcm-tokenizer", "tokens": "kmers"}[kind])
    return config


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Exports that runs go on from, as the stages are called, with the tokenizers of stage 2 beside them."""
    place = tmp_path_factory.mktemp("exports")
    save_tiny(place / "vocabulary")
    save_tiny_pretrained(place / "mcm", layers=2)
    Kmers(3).save(place / "kmers")
    with steps_on(config_of("tokens", place)) as on:
        task, state = on.stage.task, on.init(on.put(on.stage.data.batches[0]))
    pretrained.save(place / "tokens", on.stage.tokenizer, task.model, state.params, 64, task.layout.length, {})
    return place


def going_on(kind: str, place, init_from: str = "") -> ConfigDict:
    config = config_of(kind, place)
    config.init_from, config.seed = init_from or str(place / kind), 1
    return config


@pytest.mark.parametrize("kind", STAGES)
def test_a_run_begins_with_the_export_whole_and_a_fresh_optimizer(kind, place):
    tensors = exports.read_tensors(place / kind / "model.safetensors")
    with steps_on(going_on(kind, place), 2, 2, 2) as on:
        random = on.init(on.put(on.stage.data.batches[0]))
        state = on.stage.start.state(random)
    found = exports.flat(state.params)
    for name, array in found.items():
        np.testing.assert_array_equal(array, tensors[name])
    assert found.keys() == {name for name in tensors if name.partition("/")[0] in state.params}
    chex.assert_trees_all_equal(state.ema_params or state.params, state.params)
    chex.assert_trees_all_equal(state.opt_state, random.opt_state)
    for n, codebook in enumerate(state.codebooks, start=1):
        np.testing.assert_array_equal(codebook.counts_K, tensors[f"codebook_{n}/counts"])
        np.testing.assert_allclose(codebook.codes_KxD(), tensors[f"codebook_{n}/codes"], rtol=1e-6)
    assert jax.tree.map(lambda x: x.sharding, state) == jax.tree.map(lambda x: x.sharding, random)


@pytest.mark.parametrize("kind", [pytest.param("vocabulary", marks=pytest.mark.slow), "mcm"])
def test_it_is_scored_before_its_first_step_goes_on_bitwise_and_says_where_it_came_from(
    kind, place, tmp_path, monkeypatch, capsys
):
    config, digest = going_on(kind, place), load.load(place / kind).digest
    for workdir, step in (("run", 4), ("whole", 6)):
        with monkeypatch.context() as patch:
            stop_at(patch, step)
            assert run(config, tmp_path / workdir) == EXIT_STOPPED
    assert f"{place / kind} ({digest[:12]})" in capsys.readouterr().out
    scored = {"vocabulary": "eval_reconstruction_accuracy", "mcm": "eval_masked_base_bits"}[kind]
    assert [step for step, _ in rows_of(tmp_path / "whole", scored)] == [0, 5]

    assert run(config, tmp_path / "run") == 0
    whole = rows_of(tmp_path / "whole")
    assert len(whole) > 5 and rows_of(tmp_path / "run")[: len(whole)] == whole
    for file in ("result.json", "export/config.json"):
        assert json.loads((tmp_path / "run" / file).read_text())["init_from_digest"] == digest
    assert f"{place / kind}, digest {digest}" in (tmp_path / "run/export/README.md").read_text()
    config.init_from = str(tmp_path / "run/export")
    assert f"init_from_digest was '{digest}'" in refusal(run, config, tmp_path / "run")


def test_a_vocabulary_goes_on_from_the_tokenizer_of_a_pretrained_model(place, tmp_path):
    save_tiny_pretrained(tmp_path / "model")
    config = going_on("vocabulary", place, str(tmp_path / "model"))
    config.model.update(dataclasses.asdict(tiny_config()))
    tokenizer = load.load(tmp_path / "model").tokenizer
    with steps_on(config) as on:
        start = on.stage.start
        state = start.state(on.init(on.put(on.stage.data.batches[0])))
    assert start.digest == tokenizer.digest
    chex.assert_trees_all_equal(state.params, tokenizer.params)


REFUSED = {
    "no model": ("vocabulary", "nothing", {}, "nothing: no such file or directory"),
    "a shipped model of another network": (
        "vocabulary",
        "mini",
        {},
        r"config key init_from: mini has another network: its model.code_size is 512, the config's 8, .*"
        r" set --config.model.code_size=512 .*--config.model.width=128",
    ),
    "one key": ("vocabulary", "vocabulary", {"model.reach": 2}, r"its model.reach is 0, the .* 2; set --c.*reach=0$"),
    "a fixed tokenizer": (
        "vocabulary",
        "kmers",
        {},
        "a fixed tokenizer; expected a tokenizer .* or a pretrained model",
    ),
    "a tokenizer alone": ("mcm", "vocabulary", {}, "a tokenizer; expected a pretrained model"),
    "fewer layers": (
        "mcm",
        "mcm",
        {"model.layers": 1},
        r"its model.layers is 2, the config's 1; set --config.model.la",
    ),
    "another tokenizer": ("mcm", "mini", {}, r"mini is over the tokenizer .*set --config.tokenizer=mini$"),
    "fixed words": ("mcm", "tokens", {}, "over a fixed tokenizer; expected a pretrained model"),
    "learned words": ("tokens", "mcm", {}, "a pretrained model; expected a pretrained model over a fixed tokenizer"),
    "no mask vector": ("tokens", "tokens", {"model.cls": False}, "its model.cls is True, the config's False; set"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_another_network_or_tokenizer_is_one_line_before_data_are_read(case, place, tmp_path):
    kind, name, changes, complaint = REFUSED[case]
    config = going_on(kind, place, str(place / name) if (place / name).exists() else name)
    config.update_from_flattened_dict(changes | {"data.corpus": "no corpus"})
    assert re.search(complaint, refusal(run, config, tmp_path / "run"))
    assert not (tmp_path / "run").exists()
