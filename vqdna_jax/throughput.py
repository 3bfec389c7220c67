"""Bases a second and MFU."""

import time

import jax

# Peak dense bf16 FLOP/s by a part of jax's device_kind; a chip that is not here is reported in GFLOP/s, without MFU.
PEAK_FLOPS = {
    "A100": 312e12,
    "H100": 989e12,
    "H200": 989e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v5": 459e12,  # how a v5p may name itself; after the names that begin like it
}


class Throughput:
    """Bases and FLOP a second since the last call, over all devices."""

    def __init__(self, bases_per_step: int, flops_per_step: float):
        self._bases, self._flops = bases_per_step, flops_per_step
        self._time, self._step = time.perf_counter(), None
        self._all_seconds, self._all_steps = 0.0, 0
        kind = jax.devices()[0].device_kind
        self._peak = next((peak for part, peak in PEAK_FLOPS.items() if part in kind), None)

    def pause(self) -> None:
        """Leaves out what comes until the next `measure`: compiling, evaluating, saving."""
        self._step = None

    def resume(self, step: int) -> None:
        """After a pause, time runs again from the end of `step`."""
        if self._step is None:
            self._time, self._step = time.perf_counter(), step

    def measure(self, step: int) -> dict[str, float]:
        now, values = time.perf_counter(), {}
        if self._step is not None and step > self._step:
            self._all_seconds += now - self._time
            self._all_steps += step - self._step
            steps_per_s = (step - self._step) / (now - self._time)
            values = {"bases_per_s": steps_per_s * self._bases, "gflops_per_s": steps_per_s * self._flops / 1e9}
            if self._peak:
                values["mfu"] = steps_per_s * self._flops / (self._peak * jax.device_count())
        self._time, self._step = now, step
        return values

    def bases_per_s(self) -> float:
        """Mean over all that was measured; 0 before there was anything."""
        return self._all_steps * self._bases / self._all_seconds if self._all_seconds else 0.0
