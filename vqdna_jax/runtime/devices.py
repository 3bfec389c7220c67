"""Which kind of device jax computes on, chosen before it starts."""

import os
import platform
from typing import Literal

from vqdna_jax.errors import InputError, first_line
from vqdna_jax.runtime import compiled, memory

Device = Literal["auto", "cpu", "gpu", "tpu"]


def choose(device: Device) -> None:
    """Lets jax compute on devices of this kind, whatever JAX_PLATFORMS says; "auto" leaves the choice to both.

    What makes a program start and run faster on them is set before jax is imported: `memory`, `compiled`.

    Raises InputError: there is none, or jax has started on others.
    """
    memory.keep("" if device == "auto" else device)
    compiled.keep()
    asked = f"--device={device}"
    if device == "auto":
        if not (stated := os.environ.get("JAX_PLATFORMS")):
            return
        asked = f"JAX_PLATFORMS={stated}"
    import jax  # takes seconds

    if device != "auto":
        jax.config.update("jax_platforms", "cpu" if device == "cpu" else None)  # None: the best that there is
    try:
        found = jax.default_backend()
    except (RuntimeError, AssertionError) as error:  # the latter of a plugin that is not installed
        why = first_line(error) or "no such devices"
        raise InputError(f"{asked}: jax does not start ({why}); see `vqdna doctor`, or leave it out") from error
    if device not in ("auto", found):
        raise InputError(f"{asked}: jax finds none here, only {found}; see `vqdna doctor`, or leave it out")


def machine() -> str:
    """What numbers were computed on, in words."""
    import jax

    devices = jax.devices()
    cores = f"{os.cpu_count()} CPU cores, {platform.machine()}"
    kind = devices[0].device_kind
    return cores if devices[0].platform == "cpu" else f"{len(devices)} x {kind}; {cores}"
