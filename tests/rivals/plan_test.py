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


@pytest.mark.parametrize("name", ["nt", "hyenadna"])
def test_a_step_over_an_imported_base_is_planned(name, tmp_path):
    made = import_model(name, GOLDEN / name, tmp_path / "base")
    source = "configs/finetune.py:tiny"
    planned = tasks.make_task(read_settings(read_config(source, [f"pretrained={tmp_path / 'base'}"])), source)
    described = json.loads((tmp_path / "base/config.json").read_text())
    row = planned.row()
    assert (row.codes, row.bases) == (described["length"], described["window_bp"])
    assert tasks.base_parameters(planned) == made["parameters"]
