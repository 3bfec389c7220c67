"""Whole fine-tuning runs on both strands: what they start from, go on with bitwise, and say of either strand."""

import json
import pathlib

import jax
import numpy as np
import pytest
import safetensors.numpy
from small_finetune import ROWS, STEPS, changed, genome_rows
from small_run import rows_of, run, stop_at

import vqdna_jax
from vqdna_jax.errors import EXIT_STOPPED
from vqdna_jax.genome.alphabet import reverse_complement
from vqdna_jax.retries import train_with_retries


def config_of(place, **settings):
    return changed(place, head__pool="mean", data__strands="both", **settings)


@pytest.mark.parametrize("method", ["lora", "head"])
def test_a_run_begins_with_its_probe_and_goes_on_bitwise(place, tmp_path, monkeypatch, method):
    config, whole, stopped = config_of(place, tuning__method=method), tmp_path / "whole", tmp_path / "stopped"
    assert run(config, whole) == 0
    result = json.loads((whole / "result.json").read_text())
    first, *others = (value for _, value in rows_of(whole, "eval_mcc"))
    assert result["strands"] == "both" and first == pytest.approx(result["probe_dev_mcc"])
    assert result["dev_mcc"] == pytest.approx(max(first, *others)) and result["dev_mcc"] > 0.3

    with monkeypatch.context() as patch:
        stop_at(patch, STEPS // 2)
        assert train_with_retries(config, stopped, devices=jax.devices()[:1]) == (EXIT_STOPPED, stopped)
    assert run(config, stopped) == 0
    assert rows_of(stopped) == rows_of(whole)
    found, expected = (safetensors.numpy.load_file(of / "export/model.safetensors") for of in (stopped, whole))
    assert found.keys() == expected.keys() and all(np.array_equal(found[name], expected[name]) for name in found)

    np.testing.assert_allclose(*of_both_strands(whole), rtol=1e-4, atol=1e-5)
    if method == "lora":
        one = changed(place, head__pool="mean", data__strands="one", tuning__method=method)
        assert run(one, tmp_path / "one") == 0
        assert rows_of(tmp_path / "one") != rows_of(whole)
        assert np.abs(np.subtract(*of_both_strands(tmp_path / "one"))).max() > 0.01


def of_both_strands(workdir: pathlib.Path) -> list[np.ndarray]:
    """What a run's model says of some rows, and of their reverse complements."""
    rows, model = genome_rows(sum(ROWS.values()))[:50], vqdna_jax.load(workdir / "export")
    return [model.predict(bases).values for bases in (rows, list(map(reverse_complement, rows)))]


def test_a_query_that_attends_is_learnt_and_kept(place, tmp_path):
    config = changed(place, head__pool="attention", train__total_steps=STEPS, eval__every_steps=STEPS)
    assert run(config, tmp_path) == 0
    query_D = safetensors.numpy.load_file(tmp_path / "export/model.safetensors")["head/attention_query"]
    assert query_D.any() == (json.loads((tmp_path / "result.json").read_text())["best_step"] > 0)
    mean = changed(place, head__pool="mean", train__total_steps=STEPS, eval__every_steps=STEPS)
    assert run(mean, tmp_path / "mean") == 0
    (first, *_), (as_mean, *_) = (rows_of(of, "eval_mcc") for of in (tmp_path, tmp_path / "mean"))
    assert first == as_mean
