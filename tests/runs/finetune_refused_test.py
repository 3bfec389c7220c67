"""Fine-tuning runs that cannot work are refused in one line, before there is a workdir."""

import pytest
from small_finetune import changed, refused
from tiny_pretrained import save_tiny_pretrained

BAD = {
    "pretrained": ("", "config key pretrained: is empty, expected a directory"),
    "data.labelled": ("", "config key data.labelled: is empty, expected a directory"),
    "data.kind": (
        "ranking",
        "data.kind: found 'ranking', expected one of auto, classification, multilabel, regression",
    ),
    "data.class_weights": ("equal", "data.class_weights: found 'equal', expected one of none, balanced"),
    "data.long": ("cut", "data.long: found 'cut', expected one of refuse, window"),
    "data.strands": ("two", "data.strands: found 'two', expected one of auto, one, both"),
    "data.train_rows": (-1, "data.train_rows: found -1, expected an integer, 0 or more"),
    "data.dev_rows": (-1, "data.dev_rows: found -1"),
    "data.test_rows": (-1, "data.test_rows: found -1"),
    "data.label_names": (("low", "high", "none"), "no training row has the label 'none'"),
    "tuning.method": ("adapter", "tuning.method: found 'adapter', expected one of lora, full, head"),
    "tuning.rank": (0, "tuning.rank: found 0, expected a positive integer"),
    "tuning.alpha": (float("inf"), "tuning.alpha: found inf, expected a positive number"),
    "tuning.dropout": (1.0, "tuning.dropout: found 1.0, expected a share"),
    "tuning.targets": (
        "query|(",
        "tuning.targets: found 'query|(', expected a regular expression that matches one of q",
    ),
    "head.pool": ("mean+sum", "head.pool: found 'mean+sum', expected some of mean, max, cls, "),
    "head.dropout": (-0.1, "head.dropout: found -0.1, expected a share"),
    "compute.layers": ("rolled", "compute.layers: found 'rolled'"),
    "compute.remat": ("some", "compute.remat: found 'some'"),
    "compute.attention": ("flash", "compute.attention: found 'flash', expected one of auto, xla, cpu, splash, cudnn"),
    "optimizer.decay": ("step", "optimizer.decay: found 'step', expected one of linear, cosine"),
    "train.patience": (-1, "train.patience: found -1"),
    "train.retries": (-1, "train.retries: found -1"),
    "train.total_epochs": (1.0, "train.total_steps and train.total_epochs: set one of them above 0, the other to 0"),
    "eval.batch": (0, "eval.batch: found 0, expected a positive integer"),
}


@pytest.mark.parametrize("key", BAD)
def test_bad_config_is_one_line_before_anything_is_built(place, tmp_path, key):
    value, message = BAD[key]
    assert message in refused(changed(place, **{key: value}), tmp_path / "run")


def test_a_query_that_nothing_trains(place, tmp_path):
    message = refused(changed(place, head__pool="words+attention", tuning__method="head"), tmp_path / "run")
    assert "head.pool: found 'words+attention', expected mean, which attention stays where tuning.method=" in message


def test_factors_larger_than_the_matrices(place, tmp_path):
    message = refused(changed(place, tuning__rank=10**11), tmp_path / "run")
    assert "tuning.rank: found 100000000000, expected at most the base's width=16" in message


@pytest.mark.parametrize("targets", ["", "x", "q|k|("])
def test_targets_that_match_nothing(place, tmp_path, targets):
    assert "tuning.targets: found" in refused(changed(place, tuning__targets=targets), tmp_path / "run")


def test_bases_that_do_not_fit(place, tmp_path):
    save_tiny_pretrained(tmp_path / "plain", context=32, cls=False)
    config = changed(place, pretrained=str(tmp_path / "plain"), head__pool="mean+cls")
    assert "head.pool: found cls, but this base was trained without CLS" in refused(config, tmp_path / "run")
    config = changed(place, pretrained=str(tmp_path / "plain-tokenizer"))
    assert "expected a pretrained model" in refused(config, tmp_path / "run")


def test_heads_that_the_mesh_does_not_divide(place, tmp_path):
    assert "mesh.tensor" in refused(changed(place, mesh__tensor=4), tmp_path / "run", devices=8)
