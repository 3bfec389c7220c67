"""Tests run on eight CPU devices unless the environment names another platform."""

import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Programs so small take far longer to compile than to run. Child processes must compile alike, to agree bit by bit.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# For the tests that compile with libtpu: no question to a metadata server, and several compilers at once.
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")

import atexit
import shutil
import tempfile

import hypothesis
import jax
import pytest

import vqdna_jax

if "VQDNA_CACHE" not in os.environ:
    os.environ["VQDNA_CACHE"] = tempfile.mkdtemp(prefix="vqdna-test-corpus-")
    atexit.register(shutil.rmtree, os.environ["VQDNA_CACHE"], ignore_errors=True)
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")  # a forgotten axis is an error, not a broadcast

# Runs that are stopped and started again compile the same programs: once is enough.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _CACHE = tempfile.mkdtemp(prefix="vqdna-test-cache-")
    atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
    jax.config.update("jax_compilation_cache_dir", _CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

hypothesis.settings.register_profile("vqdna", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("vqdna")


@pytest.fixture(scope="session")
def bundled() -> pathlib.Path:
    """The genomes that come with the package."""
    return pathlib.Path(vqdna_jax.__file__).parent / "genome" / "bundled"
