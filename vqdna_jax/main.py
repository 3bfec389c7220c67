"""Trains any stage: `python -m vqdna_jax.main --config=configs/hrq.py:tiny --workdir=runs/hrq [--config.KEY=VALUE]`.

On several hosts each runs the same command and says how it finds the others: --multihost=tpu|slurm|auto, or
--coordinator=HOST:PORT --processes=N --process=I. launch/ does that for TPU VMs, GKE and Slurm.
Exit codes are in errors.py. Run the same command again to go on after a stop.
"""

import contextlib
import pathlib
import sys
import traceback

from absl import flags, logging
from ml_collections import config_flags

from vqdna_jax import errors
from vqdna_jax.runtime.stopping import Stopped, StopRequest
from vqdna_jax.runtime.watchdog import COMPILE_LIMITS, Watchdog, exit_now

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "an experiment of configs/, with a preset: configs/hrq.py:tiny"
)
_WORKDIR = flags.DEFINE_string("workdir", None, "where checkpoints, metrics, results and the trained model go")
_MULTIHOST = flags.DEFINE_enum("multihost", "", ["", "tpu", "slurm", "auto"], "what knows the processes of this run")
_COORDINATOR = flags.DEFINE_string("coordinator", "", "HOST:PORT of process 0")
_PROCESSES = flags.DEFINE_integer("processes", 0, "how many processes the run has", lower_bound=0)
_PROCESS = flags.DEFINE_integer("process", -1, "which of them this is, from 0", lower_bound=-1)


def main(arguments: list[str]) -> int:
    if {"--help", "-h"} & set(arguments):
        print(__doc__)
        return 0
    with errors.report_and_exit(), StopRequest() as stop:
        try:
            parse(arguments)
            logging.set_verbosity(logging.ERROR)
            limit_s = max(0.0, _CONFIG.value.train.timeout_s)
            with Watchdog(limit_s) as watchdog:
                watchdog.beat(0, COMPILE_LIMITS)
                return start(stop, watchdog, limit_s)
        except Stopped:
            print(f"stopped by {stop.name}, nothing is lost; run the same command to go on", file=sys.stderr)
            return errors.EXIT_STOPPED


def start(stop: StopRequest, watchdog: Watchdog, timeout_s: float) -> int:
    """Finds the other processes within `timeout_s`, and does this one's part of the run."""
    # After the flags, so that a typing mistake does not wait for jax; under the watchdog, for it takes seconds.
    from vqdna_jax.runtime import cluster

    others = cluster.Cluster(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value, _MULTIHOST.value)
    others.check()
    # One of several may not leave the others alone: they agree on a place once they have found each other.
    with contextlib.nullcontext() if others.one_process else stop.noted():
        cluster.start(others, timeout_s)
        return train_here(stop, watchdog)


def train_here(stop: StopRequest, watchdog: Watchdog) -> int:
    """This process's part of the run. One process of several never waits for the others after a failure, and leaves
    without the interpreter's clean-up, in which nobody would watch it."""
    import jax

    from vqdna_jax import retries
    from vqdna_jax.runtime import processes as distributed

    try:
        code = retries.train_with_retries(_CONFIG.value, pathlib.Path(_WORKDIR.value), stop, watchdog)[0]
        if jax.process_count() > 1:
            distributed.stop()
            exit_now(code)
        return code
    except Exception as error:
        if jax.process_count() == 1:
            raise
        told = distributed.peer_error(error) or errors.known(error)
        if told:
            print(f"error: {told}", file=sys.stderr)
        else:
            traceback.print_exc()
        if jax.process_index() == 0 or not isinstance(told, errors.PeerError):
            distributed.farewell()
        exit_now(told.exit_code if told else 1)


def parse(arguments: list[str]) -> None:
    """Reads the command line. Raises InputError, one line, for an unknown key or a value of another type."""
    pairs = zip(arguments, [*arguments[1:], ""])  # both --config=FILE and --config FILE are spelled
    config_file = next((a.partition("=")[2] or b for a, b in pairs if a.partition("=")[0] == "--config"), "")
    path = config_file.partition(":")[0]
    if config_file and not pathlib.Path(path).is_file():
        raise errors.InputError(f"--config={config_file}: there is no file {path}; the experiments are in configs/")
    try:
        rest = flags.FLAGS(arguments)[1:]
    except (KeyError, AttributeError) as error:
        key = str(error).strip("\"'")
        raise errors.InputError(
            f"config key {key!r} does not exist; the keys and their defaults are in {path}"
        ) from error
    except ImportError as error:
        raise errors.InputError(f"--config={config_file}: {error}; run from the folder that holds configs/") from error
    except (flags.Error, TypeError, ValueError, OSError) as error:
        raise errors.InputError(f"command line: {str(error).strip().splitlines()[-1]}") from error
    if rest:
        raise errors.InputError(
            f"command line: unexpected {' '.join(rest)}; options look like --config.train.total_steps=9"
        )
    for holder, example in ((_CONFIG, "--config=configs/hrq.py:tiny"), (_WORKDIR, "--workdir=runs/hrq")):
        if not holder.value:
            raise errors.InputError(f"command line: --{holder.name} is missing, for example {example}")


if __name__ == "__main__":
    sys.exit(main(sys.argv))
