"""What cannot fit is refused before anything is compiled, with the length that fits; what may fit is not."""

import jax
import numpy as np
import pytest
from tiny_finetuned import save_tiny_finetuned

from vqdna_jax.errors import InputError
from vqdna_jax.inference import load
from vqdna_jax.runtime import memory
from vqdna_jax.runtime.live import MOST


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Of windows of 32,768 codes, CLS among them, whose scores are made in blocks."""
    return save_tiny_finetuned(tmp_path_factory.mktemp("long") / "model", context=1 << 15, long="window")


def allow(monkeypatch, n_bytes: float) -> None:
    monkeypatch.setenv(memory.LIMIT, repr(n_bytes / 2**30))


def needs(model, codes: int, monkeypatch) -> float:
    """Bytes, by what a refusal says."""
    allow(monkeypatch, 2**16)
    with pytest.raises(InputError) as refused:
        model.pretrained.check_room(codes)
    return float(str(refused.value).split("take about ")[1].split()[0]) * 2**30


def test_a_length_that_fits_is_named_and_is_not_refused(model, monkeypatch):
    asked = needs(model, 32767, monkeypatch)
    allow(monkeypatch, asked / MOST / 1.1)
    with pytest.raises(InputError, match=r"^memory: 32,767 codes at once take about .*; sequences of up to"):
        model.embed(np.zeros(32767, np.uint8))
    model.pretrained.check_room(16383)


def test_what_may_fit_is_not_refused(model, monkeypatch):
    asked = needs(model, 32767, monkeypatch)
    allow(monkeypatch, 1.1 * asked / MOST)
    model.pretrained.check_room(32767)
    model.pretrained.check_room(1 << 30)  # in windows, of which a call has as many as it has of any


def test_windows_that_are_read_as_one_sequence_are_told_together(model, monkeypatch):
    allow(monkeypatch, 2 * needs(model, 32767, monkeypatch))
    assert model.finetuned.problem(32767) == ""
    assert "memory: 4,194,176 codes at once take about" in model.finetuned.problem(4_000_000)


def test_small_models_are_traced_for_nothing(model, monkeypatch):
    monkeypatch.delenv(memory.LIMIT, raising=False)
    monkeypatch.setattr(jax.stages.Traced, "jaxpr", property(lambda _: pytest.fail("was traced")))
    model.pretrained.check_room(100)


@pytest.mark.parametrize("stated", ["much", "0", "-1", "nan"])
def test_a_limit_that_is_none_is_refused(model, stated, monkeypatch):
    monkeypatch.setenv(memory.LIMIT, stated)
    with pytest.raises(InputError, match=f"^{memory.LIMIT}={stated}: expected a number of GiB above 0"):
        load.load(model.name).pretrained.check_room(64)
