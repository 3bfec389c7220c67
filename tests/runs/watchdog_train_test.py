"""How long the watchdog waits in each phase of a run: no compile may look like a step that is stuck."""

from small_run import Recorder, recorded, run, small_config, stop_at

from vqdna_jax import train
from vqdna_jax.errors import EXIT_STOPPED
from vqdna_jax.runtime.watchdog import COMPILE_LIMITS
from vqdna_jax.tasks.vocabulary import Vocabulary
from vqdna_jax.training.checkpoint import Checkpoints

LIMIT_S = 100.0


def test_whatever_is_compiled_or_saved_has_more_time_than_a_step(tmp_path, monkeypatch):
    """Functions under jit are called when they are compiled. The second start evaluates before its first step."""
    config, watchdog, seen = small_config(), Recorder(LIMIT_S), []
    config.train.timeout_s = LIMIT_S
    with monkeypatch.context() as patch:
        stop_at(patch, config.eval.every_steps - 1)
        assert run(config, tmp_path) == EXIT_STOPPED
    for holder, name in ((train, "train_step"), (Vocabulary, "predict"), (Checkpoints, "save")):
        recorded(monkeypatch, watchdog, holder, name, seen)
    assert run(config, tmp_path, watchdog=watchdog) == 0
    assert [name for name, _ in seen[:2]] == ["predict", "train_step"]
    assert {name for name, _ in seen} == {"predict", "train_step", "save"}
    assert {seconds for _, seconds in seen} == {COMPILE_LIMITS * LIMIT_S}


def test_a_step_has_the_time_out(tmp_path, monkeypatch):
    """From the third on, when all is compiled."""
    config, watchdog, seen = small_config(), Recorder(LIMIT_S), []
    config.train.timeout_s = LIMIT_S
    recorded(monkeypatch, watchdog, train.StepLog, "step", seen)
    assert run(config, tmp_path, watchdog=watchdog) == 0
    assert [seconds for _, seconds in seen[:3]] == [COMPILE_LIMITS * LIMIT_S] * 2 + [LIMIT_S]
    assert {seconds for _, seconds in seen[2:]} == {LIMIT_S}
