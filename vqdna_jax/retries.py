"""Another seed for a fine-tuning run that learned nothing."""

import copy
import os
import pathlib
from collections.abc import Sequence

import jax
from ml_collections import ConfigDict

from vqdna_jax.runtime.files import read_json
from vqdna_jax.runtime.remote import places
from vqdna_jax.runtime.stopping import StopRequest
from vqdna_jax.runtime.watchdog import Watchdog
from vqdna_jax.stages import read_settings
from vqdna_jax.train import train

RETRY_SEEDS = 1000  # from the seed of one attempt to that of the next


def train_with_retries(
    config: ConfigDict,
    workdir: str | os.PathLike,
    stop: StopRequest | None = None,
    watchdog: Watchdog | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> tuple[int, str | os.PathLike]:
    """`train`, and up to `config.train.retries` times more with another seed, in workdir/retry_N, while a finished run
    predicts one class (or value) only. Returns the exit code and the directory of the last run; all are kept.

    Arguments and errors are those of `train`. One process only: runs of several are not tried again.
    """
    for attempt in range(1 + read_settings(config).train.retries):
        directory = _directory(workdir, attempt) if attempt else workdir
        changed = copy.deepcopy(config)
        changed.seed = config.seed + RETRY_SEEDS * attempt
        code = train(changed, directory, stop, watchdog, devices)
        if code or jax.process_count() > 1 or not _collapsed(directory):
            break
    return code, directory


def _directory(workdir: str | os.PathLike, attempt: int) -> str | os.PathLike:
    place = places.join(workdir, f"retry_{attempt}")
    return place if places.is_remote(place) else pathlib.Path(place)


def _collapsed(workdir: str | os.PathLike) -> bool:
    with places.readable(places.join(workdir, "result.json"), lambda block: "") as file:
        result = read_json(file, "the result of a run; remove it to run its end again")
    return result.get("dev_collapsed", False)
