"""Trains any stage: `python -m vqdna_jax.main --config=hrq:tiny --workdir=runs/hrq [--config.KEY=VALUE]`.

--config names an experiment that comes with the package, or a file like configs/hrq.py, and after a colon its preset.
On several hosts each runs the same command and says how it finds the others: --multihost=tpu|slurm|auto, or
--coordinator=HOST:PORT --processes=N --process=I. launch/ does that for TPU VMs, GKE and Slurm.
--help-config lists every key with its meaning; with --config=NAME:PRESET those of one experiment, with its values.
Exit codes are in errors.py. Run the same command again to go on after a stop.
"""

import dataclasses
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from absl import flags, logging
from ml_collections.config_dict import ConfigDict

from vqdna_jax import errors
from vqdna_jax.runtime import compiled, memory, requirements
from vqdna_jax.runtime.leaving import exit_now, leave_with
from vqdna_jax.runtime.stopping import Stopped, StopRequest
from vqdna_jax.runtime.watchdog import COMPILE_LIMITS, Watchdog
from vqdna_jax.training import experiments


@dataclasses.dataclass(frozen=True)
class Command:
    """The command line, read. The fields after the first two are those of `runtime.cluster.Cluster`."""

    config: ConfigDict
    workdir: str
    coordinator: str
    processes: int
    process: int
    found_by: str


def main(arguments: Sequence[str]) -> int:
    """Runs the command line `arguments`, the name of the program first. Returns the exit code."""
    if {"--help", "-h"} & set(arguments):
        print(__doc__)
        return 0
    if "--help-config" in arguments:
        with errors.report_and_exit():
            print_keys(arguments)
        return 0
    memory.keep()
    compiled.keep()
    with errors.report_and_exit(), StopRequest() as stop:
        try:
            # Only noted, until there is a place for it: modules in C++ that a signal interrupts while they are loaded
            # say that they are broken, and one of several processes may not leave the others alone.
            with stop.noted():
                command = parse(arguments)
                logging.set_verbosity(logging.ERROR)
                limit_s = max(0.0, command.config.train.timeout_s)
                with Watchdog(limit_s) as watchdog:
                    watchdog.beat(0, COMPILE_LIMITS)
                    return start(command, stop, watchdog, limit_s)
        except Stopped:
            print(f"stopped by {stop.name}, nothing is lost; run the same command to go on", file=sys.stderr)
            return errors.EXIT_STOPPED


def start(command: Command, stop: StopRequest, watchdog: Watchdog, timeout_s: float) -> int:
    """Finds the other processes within `timeout_s`, and does this one's part of the run."""
    # After the command line, so that a typing mistake does not wait for jax; under the watchdog, for it takes seconds.
    requirements.check(requirements.OF_A_RUN)
    import jax

    from vqdna_jax import retries
    from vqdna_jax.runtime import cluster, processes
    from vqdna_jax.training import workdir

    others = cluster.Cluster(command.coordinator, command.processes, command.process, command.found_by)
    others.check()
    if others.one_process:
        stop.check()
        workdir.check(command.workdir)  # of several processes not all need have it
    cluster.start(others, timeout_s)
    try:
        code, _ = retries.train_with_retries(command.config, command.workdir, stop, watchdog)
        if jax.process_count() > 1:
            processes.stop()
            exit_now(code)
        return code
    except Exception as error:
        if jax.process_count() > 1:
            leave_the_others(error)
        raise


def leave_the_others(error: Exception) -> NoReturn:
    """One process of several never waits for the others after a failure, and leaves without the interpreter's clean-up,
    in which nobody would watch it."""
    import jax

    from vqdna_jax.runtime import processes

    told = processes.peer_error(error) or errors.known(error)
    if told:
        print(f"error: {told}", file=sys.stderr)
    else:
        traceback.print_exc()
    if jax.process_index() == 0 or not isinstance(told, errors.PeerError):
        processes.farewell()
    exit_now(told.exit_code if told else 1)


def print_keys(arguments: Sequence[str]) -> None:
    """What each key of the configs means, on standard output. Raises InputError: no such experiment."""
    from vqdna_jax.stages import listing

    source, _, _ = _split(arguments)
    print(listing.describe([source] if source else []))


def parse(arguments: Sequence[str]) -> Command:
    """Reads the command line. Raises InputError, one line, for an unknown key or a value of another type."""
    source, overrides, others = _split(arguments)
    values = _flags()
    try:
        rest = values(others)[1:]
    except flags.Error as error:
        raise errors.InputError(f"command line: {str(error).strip().splitlines()[-1]}") from error
    if rest:
        raise errors.InputError(
            f"command line: unexpected {' '.join(rest)}; options look like --config.train.total_steps=9"
        )
    for name, value, example in (("config", source, "hrq:tiny"), ("workdir", values.workdir, "runs/hrq")):
        if not value:
            raise errors.InputError(f"command line: --{name} is missing, for example --{name}={example}")
    return Command(
        experiments.read_config(source, overrides),
        values.workdir,
        values.coordinator,
        values.processes,
        values.process,
        values.multihost,
    )


def _split(arguments: Sequence[str]) -> tuple[str, list[str], list[str]]:
    """The value of --config, KEY=VALUE of every --config.KEY, and the other arguments; --NAME VALUE is spelled, too."""
    source, overrides, others = "", [], []
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        if name != "--config" and not name.startswith("--config."):
            others.append(word)
            continue
        value = value if equals else next(words, "")
        if name == "--config":
            source = value
        else:
            overrides.append(f"{name.removeprefix('--config.')}={value}")
    return source, overrides, others


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_string(
        "workdir", "", "where checkpoints, results and the model go; gs://, s3://, too", flag_values=values
    )
    found_by = ["", "tpu", "slurm", "auto"]
    flags.DEFINE_enum("multihost", "", found_by, "what knows the processes of this run", flag_values=values)
    flags.DEFINE_string("coordinator", "", "HOST:PORT of process 0", flag_values=values)
    flags.DEFINE_integer("processes", 0, "how many processes there are", lower_bound=0, flag_values=values)
    flags.DEFINE_integer("process", -1, "which of them this is, from 0", lower_bound=-1, flag_values=values)
    return values


if __name__ == "__main__":
    leave_with(lambda: main(sys.argv))
