"""VQDNA in JAX: a genome tokenizer learned by vector quantization (arXiv 2405.10812).

import vqdna_jax
model = vqdna_jax.load("mini")  # or the directory of an export, "runs/hrq/export"
codes = model.encode(["ACGTTGCA"])
"""

from vqdna_jax.version import __version__

__all__ = ["__version__", "load"]


def __getattr__(name: str):
    """Finds `load` on first use, so that `import vqdna_jax` (and `vqdna --help`) does not wait for jax."""
    if name == "load":
        from vqdna_jax.inference.load import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
