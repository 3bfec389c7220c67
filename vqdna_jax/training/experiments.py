"""Reads an experiment's config for `vqdna plan`, without absl's `app.run`."""

import pathlib
import sys
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from vqdna_jax.errors import InputError


def read_config(source: str, overrides: Sequence[str] = ()):
    """The config of FILE or FILE:PRESET with KEY=VALUE overrides, as `--config` of vqdna_jax.main reads it.

    Raises:
        InputError: no such file, preset or key, or a value of another type.
    """
    path = source.partition(":")[0]
    if not pathlib.Path(path).is_file():
        raise InputError(f"--config={source}: there is no file {path}; the experiments are in configs/")
    for override in overrides:
        if "=" not in override:
            raise InputError(f"--set {override}: expected KEY=VALUE, for example --set mesh.fsdp=16")
    if "" not in sys.path:
        sys.path.append("")  # an experiment may import another one; `python -m` has this, a console script has not
    arguments = ["plan", f"--config={source}", *(f"--config.{override}" for override in overrides)]
    values = flags.FlagValues()
    holder = config_flags.DEFINE_config_file("config", None, "", flag_values=values, sys_argv=arguments)
    try:
        values(arguments)
    except (KeyError, AttributeError) as error:
        key = getattr(error.args[0], "args", error.args)[0].splitlines()[0].strip("'")
        raise InputError(f"config key {key!r} does not exist; the keys and their defaults are in {path}") from error
    except (flags.Error, ImportError, TypeError, ValueError, OSError) as error:
        raise InputError(f"--config={source}: {str(error).strip().splitlines()[-1]}") from error
    return holder.value
