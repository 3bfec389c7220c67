"""The phases of a run: each has a bucket of the clock and a limit of the watchdog, and is one `with`."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

from vqdna_jax.runtime.stopping import StopRequest
from vqdna_jax.runtime.watchdog import COMPILE_LIMITS, Watchdog
from vqdna_jax.training.goodput import Goodput

BUCKETS = {
    "devices": "tpu_initialization",
    "prepare": "training_prep",
    "restore": "unproductive_checkpoint_restore_time",
    "compile": "program_startup",
    "read": "data_loading_sync",
    "step": "step",
    "evaluate": "custom_badput_events",
    "save": "unproductive_checkpoint_save_time",
    "finish": "custom_badput_events",
}
_IN_A_TURN = ("read", "step")  # they take as long as a step; all others may take as long as a compile
_PAUSES = ("evaluate", "save")


@dataclasses.dataclass
class Phases:
    """What watches over one attempt at a run.

    Attributes:
        pause: called when steps are interrupted for an evaluation or a save.
        name, step: of the phase that goes on; the steps done.
    """

    watchdog: Watchdog
    clock: Goodput
    stop: StopRequest
    pause: Callable[[], None] = lambda: None
    name: str = "prepare"
    step: int = 0

    @contextlib.contextmanager
    def phase(self, name: str, step: int | None = None, settled: bool = True) -> Iterator[None]:
        """Within, time goes to the phase's bucket, and the next sign of life is due after the phase's limit; after it,
        time goes to the phase around it again.

        Args:
            step: the steps done, where that has changed.
            settled: False where a step or a read may still wait for a compile.
        """
        if name in _PAUSES:
            self.pause()
        around, self.name = self.name, name
        self.step = self.step if step is None else step
        self.clock.switch(BUCKETS[name], step)
        self.watchdog.beat(self.step, 1 if settled and name in _IN_A_TURN else COMPILE_LIMITS)
        try:
            yield
        finally:
            self.name = around
            self.clock.switch(BUCKETS[around])

    def between_batches(self) -> None:
        """A sign of life in an evaluation, and a place to leave it at, the same on every process. Raises Stopped."""
        self.stop.check()
        if self.name == "evaluate":  # nobody knows how long the final one takes: there a thread beats
            self.watchdog.beat(self.step, COMPILE_LIMITS)
