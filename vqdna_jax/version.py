"""The version of this package, and of all that decides the numbers."""

import hashlib
import importlib.metadata
import pathlib
import platform

__version__ = "0.2.0"


def versions() -> dict[str, str]:
    """Of Python, this package and those that decide the numbers, for exports and checkpoints.

    `source` is the sum of this package's files: two working copies of one version may differ. Experiments, which lie
    in the package where it is installed, do not count: a run keeps its config.
    """
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "safetensors")
    root = pathlib.Path(__file__).parent
    source = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*.py") if path.parent != root / "configs"):
        source.update(f"{path.relative_to(root).as_posix()}\n".encode() + path.read_bytes())
    own = {"python": platform.python_version(), "vqdna-jax": __version__, "source": source.hexdigest()[:12]}
    return own | {name: importlib.metadata.version(name) for name in packages}
