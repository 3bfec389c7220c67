"""Trains any stage: `python -m vqdna_jax.main --config=configs/hrq.py:tiny --workdir=runs/hrq [--config.KEY=VALUE]`.

Exit codes are in errors.py. Run the same command again to go on after a stop.
"""

import pathlib
import sys

from absl import flags, logging
from ml_collections import config_flags

from vqdna_jax import errors

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "an experiment of configs/, with a preset: configs/hrq.py:tiny"
)
_WORKDIR = flags.DEFINE_string("workdir", None, "where checkpoints, metrics, results and the trained model go")


def main(arguments: list[str]) -> int:
    if {"--help", "-h"} & set(arguments):
        print(__doc__)
        return 0
    with errors.report_and_exit():
        parse(arguments)
        logging.set_verbosity(logging.ERROR)
        from vqdna_jax import train  # after the flags, so that a typing mistake does not wait for jax

        return train.train_again(_CONFIG.value, pathlib.Path(_WORKDIR.value))[0]


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
