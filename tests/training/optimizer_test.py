"""Regex rules cover every parameter, and the schedule goes where the config says."""

import dataclasses

import jax
import numpy as np
import pytest

from vqdna_jax.models.tokenizer import Decoder, Encoder, TokenizerConfig
from vqdna_jax.training.optimizer import DECAY_RULES, by_rule, learning_rate_schedule
from vqdna_jax.training.settings import OptimizerSettings

ADAMW = OptimizerSettings(0.5, 10, 0.0, 0.9, 0.95, weight_decay=0.01, clip_norm=1.0, skip_above=0.0)


def test_the_first_matching_rule_wins_and_none_is_an_error():
    params = {"a": {"kernel": 0, "bias": 0}}
    assert by_rule(params, [("a/kernel", 1), (".*", 2)]) == {"a": {"kernel": 1, "bias": 2}}
    with pytest.raises(ValueError, match="a/bias"):
        by_rule(params, [(".*kernel", 1)])


@pytest.mark.usefixtures("one_device")
def test_decay_is_for_matrices_and_kernels_alone():
    config = TokenizerConfig(width=8, blocks=2, stem_channels=6, code_size=4)
    encoder = jax.eval_shape(lambda: Encoder(config).init(jax.random.key(0), np.zeros((1, 8), np.uint8)))
    decoder = jax.eval_shape(lambda: Decoder(config).init(jax.random.key(0), np.zeros((1, 8, 8), np.float32)))
    params = {"encoder": encoder["params"], "decoder": decoder["params"]}
    decays = by_rule(params, DECAY_RULES)
    for leaf, decay in zip(jax.tree.leaves(params), jax.tree.leaves(decays)):
        assert decay == (leaf.ndim > 1)


@pytest.mark.parametrize("decay", ["cosine", "linear"])
def test_schedule_warms_up_and_ends_at_its_final_fraction(decay):
    settings = dataclasses.replace(ADAMW, final_fraction=0.1, decay=decay)
    rate = learning_rate_schedule(settings, 100)
    assert float(rate(0)) == 0 and float(rate(10)) == pytest.approx(0.5)
    assert float(rate(100)) == pytest.approx(0.05)
    rates = [float(rate(step)) for step in range(10, 101)]
    assert all(later <= earlier for earlier, later in zip(rates, rates[1:]))


@pytest.mark.parametrize("decay", ["cosine", "linear"])
def test_a_run_shorter_than_its_warm_up_still_reaches_the_peak(decay):
    settings = dataclasses.replace(ADAMW, warmup_steps=100, decay=decay)
    assert max(float(learning_rate_schedule(settings, 10)(step)) for step in range(10)) == pytest.approx(0.5)
