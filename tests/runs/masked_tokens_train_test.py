"""Stage 2 over a fixed tokenizer, whole: trained, resumed, exported, fine-tuned."""

import json

import numpy as np
from refusals import refusal
from small_finetune import small_config as finetune_config
from small_mcm import STEPS, small_config
from small_run import rows_of, run, stop_at

from vqdna_jax.errors import EXIT_STOPPED
from vqdna_jax.inference import load
from vqdna_jax.tokenizers.fixed import FixedTokenizer
from vqdna_jax.tokenizers.kmers import Kmers, OneHot


def config_over(directory, tokenizer: FixedTokenizer):
    config = small_config(directory)
    tokenizer.save(directory / "fixed")
    config.tokenizer = str(directory / "fixed")
    return config


def test_a_stopped_run_goes_on_bit_by_bit_and_its_export_can_be_fine_tuned(tmp_path, monkeypatch, capsys):
    tokenizer = Kmers(3)
    config = config_over(tmp_path, tokenizer)
    assert run(config, tmp_path / "whole") == 0
    assert "the tokenizer's own way" in capsys.readouterr().out
    with monkeypatch.context() as patch:
        stop_at(patch, STEPS // 2)
        assert run(config, tmp_path / "stopped") == EXIT_STOPPED
    assert run(config, tmp_path / "stopped") == 0
    assert rows_of(tmp_path / "whole") == rows_of(tmp_path / "stopped")
    result = json.loads((tmp_path / "whole/result.json").read_text())
    assert 0 < result["token_accuracy"] < 1 and 1 < result["bits_per_base"] < 4
    base = load.load(tmp_path / "whole/export")
    assert base.tokenizer == tokenizer
    assert base.digest == load.load(tmp_path / "stopped/export").digest

    tuning = finetune_config(tmp_path)
    tuning.pretrained, tuning.data.long = str(tmp_path / "whole/export"), "window"
    tuning.train.total_steps = 4
    assert run(tuning, tmp_path / "tuned") == 0
    model = load.load(tmp_path / "tuned/export")
    assert model.pretrained.digest == base.digest
    values = model.predict(["ACGTTGCATTGACCA", "ACGT"]).values
    np.testing.assert_allclose(values.sum(axis=1), 1, rtol=1e-6)


def test_a_probe_is_refused_rather_than_left_out(tmp_path):
    config = config_over(tmp_path, OneHot())
    config.eval.probe = str(tmp_path)
    assert "eval.probe" in refusal(run, config, tmp_path / "run")
