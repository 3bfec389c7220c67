"""What a long program will need is imported before its work begins: a package that turned out to be missing in the
final evaluation would cost the whole run. This file itself imports none of them."""

import importlib
from collections.abc import Iterable

from vqdna_jax.errors import InputError, first_line

# Of a training run, its final evaluation and the files that it leaves.
OF_A_RUN = (
    "jax",
    "chex",
    "flax.linen",
    "optax",
    "grain",
    "array_record.python.array_record_module",
    "tensorflow_datasets",
    "fsspec",
    "requests",
    "orbax.checkpoint",
    "safetensors.numpy",
    "tensorboardX",
    "tqdm",
    "matplotlib.figure",
    "scipy.special",
    "scipy.stats",
    "sklearn.linear_model",
    "sklearn.metrics",
    "threadpoolctl",
)
_DISTRIBUTIONS = {  # where the name to install is another than the name to import
    "array_record": "array-record",
    "orbax": "orbax-checkpoint",
    "sklearn": "scikit-learn",
    "tensorflow_datasets": "tensorflow-datasets",
}


def check(modules: Iterable[str]) -> None:
    """Imports `modules`. Raises InputError: one is not installed, or its import fails."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            package = _distribution(error.name or module)
            raise InputError(f"{package} is not installed; pip install {package}") from error
        except ImportError as error:
            package = _distribution(module)
            advice = f"pip install --force-reinstall {package}"
            raise InputError(f"{package} cannot be imported ({first_line(error)}); {advice}") from error


def _distribution(module: str) -> str:
    package = module.partition(".")[0]
    return _DISTRIBUTIONS.get(package, package)
