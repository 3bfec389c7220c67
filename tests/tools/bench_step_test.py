"""The transformer, its loss and its optimizer against a second implementation, in PyTorch: tools/bench_step_torch.py.

torch is no dependency of the project: this runs where this Python has it, or where VQDNA_TORCH_PYTHON names one that
does.
"""

import dataclasses
import importlib.util
import os
import pathlib
import runpy
import sys

import jax
import numpy as np
import pytest

from vqdna_jax.models.tokenizer import TokenizerConfig
from vqdna_jax.partition import make_mesh
from vqdna_jax.stages import read_settings

ROOT = pathlib.Path(__file__).parents[2]
TORCH_PYTHON = os.environ.get("VQDNA_TORCH_PYTHON") or (importlib.util.find_spec("torch") and sys.executable)
TOKENIZER = TokenizerConfig(code_size=128, width=96)

pytestmark = pytest.mark.skipif(
    not TORCH_PYTHON, reason="torch is not installed here, and VQDNA_TORCH_PYTHON names no Python that has it"
)


@pytest.fixture(scope="module")
def bench_step():
    spec = importlib.util.spec_from_file_location("bench_step", ROOT / "tools/bench_step.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def settings():
    config = runpy.run_path(str(ROOT / "configs/mcm.py"))["get_config"]("tiny")
    return read_settings(config).changed({"model.width": 64, "model.hidden": 128})


def both_sides(bench_step, settings, tokenizer=TOKENIZER) -> tuple[np.ndarray, np.ndarray]:
    """(JAX, PyTorch), each [step, loss or gradient norm]."""
    with jax.set_mesh(make_mesh(devices=jax.devices()[:1])), bench_step.TorchHalf(TORCH_PYTHON) as torch:
        return tuple(bench_step.agreement(settings, tokenizer, torch))


def test_pytorch_gets_the_same_losses_and_gradient_norms(bench_step, settings):
    ours, theirs = both_sides(bench_step, settings)
    np.testing.assert_allclose(theirs, ours, rtol=1e-4)
    assert np.all(np.abs(np.diff(ours, axis=0)) > 1e-3 * ours[:-1])  # so the optimizers moved it, alike


def test_pytorch_agrees_on_what_the_presets_leave_off(bench_step, settings):
    settings = settings.changed({"base_weight": 0.0, "model.activation": "geglu", "model.cls": False})
    ours, theirs = both_sides(bench_step, settings, dataclasses.replace(TOKENIZER, bases_per_code=2))
    np.testing.assert_allclose(theirs, ours, rtol=1e-4)


def test_a_difference_in_the_model_would_show(bench_step, settings, monkeypatch):
    faithful = bench_step.JaxHalf.torch_config
    monkeypatch.setattr(bench_step.JaxHalf, "torch_config", lambda half: faithful(half) | {"rope_base": 9000.0})
    ours, theirs = both_sides(bench_step, settings)
    assert np.max(np.abs(theirs / ours - 1)) > 1e-4
