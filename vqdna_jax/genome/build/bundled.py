"""The corpus of the genomes that come with the package."""

import hashlib
import shutil
from pathlib import Path

from vqdna_jax.errors import InputError, VqdnaError
from vqdna_jax.genome.build.build import build_corpus
from vqdna_jax.genome.chunks import SCHEMA
from vqdna_jax.genome.corpus import open_corpus
from vqdna_jax.runtime.remote import places
from vqdna_jax.runtime.remote.cache import cache_directory

BUNDLED = Path(__file__).parents[1] / "bundled"


def bundled_corpus() -> Path:
    """The corpus of the eight bundled genomes, built on first use into the cache directory; processes may race."""
    genomes = sorted(BUNDLED.glob("*.fa.gz"))
    key = hashlib.sha256(SCHEMA.encode())
    for genome in genomes:
        key.update(f"{genome.name} {places.sha256_of(genome)}\n".encode())
    out = cache_directory() / f"bundled-{key.hexdigest()[:16]}"
    if _is_whole(out):
        return out
    shutil.rmtree(out, ignore_errors=True)  # a cache that was damaged
    try:
        build_corpus(genomes, out, progress=False)
    except VqdnaError as error:
        if not _is_whole(out):  # otherwise another process was faster
            raise type(error)(f"{error}; $VQDNA_CACHE names the directory for the bundled corpus") from error
    return out


def _is_whole(path: Path) -> bool:
    try:
        return bool(open_corpus(path))
    except InputError:
        return False
