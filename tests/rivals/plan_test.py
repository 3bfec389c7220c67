"""Sizes of the published models, none of whose weights are needed: they are as their papers print them."""

import dataclasses
import json
import pathlib

import pytest

from vqdna_jax.inference.saved.formats import of_published, parameters
from vqdna_jax.models.bert import BertConfig
from vqdna_jax.models.hyena import HyenaConfig
from vqdna_jax.plan import tasks
from vqdna_jax.rivals.importing import import_model
from vqdna_jax.stages import read_settings
from vqdna_jax.training.experiments import read_config

GOLDEN = pathlib.Path(__file__).parent / "golden"
NT = BertConfig(24, 1280, 20, 5120, norm="before", slots=1000, end=False, hidden_share=0.12, head="own")
DNABERT2 = BertConfig(activation="geglu", up_bias=False, positions="alibi", slots=0)
HYENA = HyenaConfig()


@pytest.mark.parametrize(
    ("network", "vocabulary", "printed"),
    [
        (BertConfig(), 69, "86"),
        (NT, 4105, "480"),
        (dataclasses.replace(NT, layers=32, width=2560, hidden=10240), 4105, "2537"),
        (DNABERT2, 4096, "117"),
        (HYENA, 16, "0.44"),
        (dataclasses.replace(HYENA, layers=8, width=256, hidden=1024, slots=1_000_002), 16, "6.6"),
    ],
)
def test_parameters_are_as_printed(network, vocabulary, printed):
    digits = len(printed.partition(".")[2])
    assert f"{parameters(of_published(network, vocabulary)) / 1e6:.{digits}f}" == printed


@pytest.mark.parametrize(
    ("network", "bases_per_token", "printed"),
    [
        (BertConfig(), 1, 3.27),
        (NT, 6, 3.19),
        (dataclasses.replace(NT, layers=32, width=2560, hidden=10240), 6, 19.44),
        (DNABERT2, 4, 1.0),
    ],
)
def test_what_they_cost_beside_dnabert_2_is_about_as_printed(network, bases_per_token, printed):
    """As far as docs/rivals.md says."""
    flops, relative = tasks.forward_flops(network, tasks.COMPARED_BASES / bases_per_token)
    assert 0.7 * printed < relative < 1.01 * printed
    expected = of_published(network, 1)
    matrices = sum(expected[f"transformer/{name}"].size for name in ("qkv", "out", "up", "down"))
    assert 1 < flops / (2 * matrices * tasks.COMPARED_BASES / bases_per_token) < 1.15  # the rest is attention


@pytest.mark.parametrize("name", ["nt", "hyenadna"])
def test_a_step_over_an_imported_base_is_planned(name, tmp_path):
    made = import_model(name, GOLDEN / name, tmp_path / "base")
    source = "configs/finetune.py:tiny"
    planned = tasks.make_task(read_settings(read_config(source, [f"pretrained={tmp_path / 'base'}"])), source)
    described = json.loads((tmp_path / "base/config.json").read_text())
    row = planned.row()
    assert (row.codes, row.bases) == (described["length"], described["window_bp"])
    assert tasks.base_parameters(planned) == made["parameters"]
    tokens = 500 * described["length"] / described["window_bp"]
    assert tasks.base_flops(planned) == tasks.forward_flops(planned.task.network.model, tokens)
