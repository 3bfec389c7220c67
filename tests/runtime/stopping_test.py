"""Signals: at once where nothing can be lost, else noted; a second one is Python's own; nothing is left installed."""

import gc
import os
import signal
import sys
import threading
import time

import jax
import jax.numpy as jnp
import pytest

from vqdna_jax.runtime import stopping
from vqdna_jax.runtime.stopping import SIGNALS, Stopped, StopRequest


def send(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_before_anything_can_be_lost_ends_at_once(number):
    before = [signal.getsignal(each) for each in SIGNALS]
    with StopRequest() as stop, pytest.raises(Stopped):
        send(number)
    assert stop.name == signal.Signals(number).name
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_a_noted_signal_is_heeded_at_the_next_place():
    with StopRequest() as stop, stop.noted():
        assert not stop.reached()
        send()
        assert stop.reached()
        with pytest.raises(Stopped, match="^$"):
            stop.check()
    assert stop.name == "SIGTERM"


def test_a_noted_signal_is_heeded_when_there_is_nothing_left_to_lose():
    with StopRequest() as stop, stop.noted():
        send()
        with pytest.raises(Stopped), stop.nothing_to_lose():
            pytest.fail("went on")


class SendsWhenItGoes:
    def __del__(self):
        send()


def in_the_collector() -> None:
    callback = lambda phase, _: send() if phase == "start" else None  # noqa: E731
    gc.callbacks.append(callback)
    try:
        gc.collect()
    finally:
        gc.callbacks.remove(callback)


@pytest.mark.parametrize("later_s", [stopping._AGAIN_S, 0.0])  # on a loaded machine it is still being noted
@pytest.mark.parametrize("where", [SendsWhenItGoes, in_the_collector])
def test_a_signal_where_python_lets_no_error_out_ends_at_once_too(where, later_s, capsys, monkeypatch):
    monkeypatch.setattr(stopping, "_AGAIN_S", later_s)
    hook = sys.unraisablehook
    with StopRequest() as stop, pytest.raises(Stopped):
        where()
        time.sleep(10)
    assert (stop.name, capsys.readouterr().err) == ("SIGTERM", "")
    time.sleep(0.1)  # it is not raised again
    assert sys.unraisablehook is hook


def test_other_errors_that_python_lets_not_out_are_shown_as_ever(capsys, monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    with StopRequest():
        gc.callbacks.append(one_over_nothing := lambda *_: 1 / 0)
        gc.collect()
        gc.callbacks.remove(one_over_nothing)
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_compile_is_finished_first():
    """jax frees what the compiler reads where a signal's handler raises in it."""

    def sorted_often(x):
        for factor in range(50):
            x = jnp.sort(x * (factor + time.time()))  # never in the cache of compiled programs
        return x

    lowered = jax.jit(sorted_often).lower(jnp.ones(1000))
    with StopRequest() as stop, pytest.raises(Stopped) as stopped:
        threading.Timer(0.2, send).start()
        lowered.compile()
        time.sleep(10)
    assert stop.name == "SIGTERM"
    assert "compiler.py" not in [entry.path.name for entry in stopped.traceback]


def test_an_error_that_a_signal_caused_is_taken_for_the_stop():
    """As where C++ calls Python, and says that it failed."""
    with StopRequest() as stop, stop.noted(), pytest.raises(Stopped), stop.nothing_to_lose():
        try:
            send()
        except Stopped:
            raise RuntimeError("INTERNAL: a callback failed") from None


def test_an_error_without_a_signal_stays_what_it_is():
    with StopRequest() as stop, stop.noted(), pytest.raises(RuntimeError), stop.nothing_to_lose():
        raise RuntimeError("INTERNAL")


def test_what_may_be_lost_is_only_noted_after_nothing_was():
    with StopRequest() as stop, stop.noted():
        with stop.nothing_to_lose():
            pass
        send()
        assert stop.reached()


def test_a_second_signal_is_pythons():
    with StopRequest() as stop, stop.noted():
        send(signal.SIGTERM)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell ignores it
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
