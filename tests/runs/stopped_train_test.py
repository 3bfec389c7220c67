"""A signal in the middle of any phase of a run: all is saved, and the run that goes on is the undisturbed one."""

import os
import signal

import pytest
from small_run import STEPS, rows_of, run, small_config

from vqdna_jax import train
from vqdna_jax.errors import EXIT_STOPPED
from vqdna_jax.stages.vocabulary import VocabularyStage

STOPS = [
    *(("data", 0), ("restoring", 0), ("compiling", 0), ("evaluating", 5)),
    *(("data", 5), ("restoring", 5), ("compiling", 5), ("finishing", STEPS)),
]


def signal_in(patch, place: str) -> None:
    """SIGTERM in the middle of a phase of the run."""
    holder, name = {
        "data": (train, "make_stage"),
        "restoring": (train, "resume"),
        "compiling": (VocabularyStage, "plan_lines"),
        "evaluating": (VocabularyStage, "evaluate"),
        "finishing": (VocabularyStage, "finish"),
    }[place]
    original = getattr(holder, name)

    def interrupted(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    patch.setattr(holder, name, interrupted)


def test_a_run_stopped_in_every_phase_goes_on_bitwise(finished, tmp_path, capsys):
    """One run, which goes on after each stop: before its first step, after its first evaluation, at its end."""
    for place, steps in STOPS:
        with pytest.MonkeyPatch.context() as patch:
            signal_in(patch, place)
            assert run(small_config(), tmp_path) == EXIT_STOPPED
        lines = [line for line in capsys.readouterr().err.splitlines() if "stopped" in line]
        where = f" after {steps} steps" if place == "evaluating" else ""
        assert lines == [f"stopped by SIGTERM{where}, all saved; run the same command to go on"], place
        saved = {int(path.name) for path in (tmp_path / "checkpoints").glob("*") if path.name.isdigit()}
        assert max(saved, default=0) == steps
        assert not (tmp_path / "result.json").exists()
    assert run(small_config(), tmp_path) == 0
    assert rows_of(tmp_path) == rows_of(finished)
    assert rows_of(tmp_path, "eval_loss") == rows_of(finished, "eval_loss")
