"""Tests run on eight CPU devices unless the environment names another platform."""

import atexit
import gc
import os
import pathlib
import shutil
import signal
import tempfile
import threading


def _own_folder(variable: str, prefix: str) -> None:
    """A folder for this run of the tests, unless the environment names one. Workers and child processes inherit it."""
    if variable not in os.environ:
        os.environ[variable] = tempfile.mkdtemp(prefix=prefix)
        atexit.register(shutil.rmtree, os.environ[variable], ignore_errors=True)


# Programs so small take far longer to compile than to run, and many tests run the same ones. Child processes must
# compile alike, to agree bit by bit. XLA's older emitters compile twice as fast; jax 0.12 no longer has them. A module
# that is not split to be compiled in parallel takes a fifth less of a machine whose cores are all busy with tests.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters --xla_cpu_parallel_codegen_split_count=1"
    " --xla_cpu_opt_preset=CPU_OPT_PRESET_FAST_COMPILE",
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
_own_folder("JAX_COMPILATION_CACHE_DIR", "vqdna-test-cache-")
_own_folder("VQDNA_CACHE", "vqdna-test-corpus-")
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup has it ignored, by child processes too
# For the tests that compile with libtpu: no question to a metadata server, and several compilers at once.
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")

import hypothesis
import jax
import pytest
from small_mesh import mesh_of

import vqdna_jax

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")  # a forgotten axis is an error, not a broadcast

hypothesis.settings.register_profile("vqdna", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("vqdna")


def pytest_collection_finish() -> None:
    """What is there by now stays: the garbage collector, which would go through it again and again, leaves it alone."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def bundled() -> pathlib.Path:
    """The genomes that come with the package."""
    return pathlib.Path(vqdna_jax.__file__).parent / "genome" / "bundled"


@pytest.fixture
def one_device():
    """The mesh of one device is set."""
    with jax.set_mesh(mesh_of()):
        yield


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory) -> pathlib.Path:
    """An export of random weights: HRQ, eight bases per code. Read-only."""
    from tiny_tokenizer import save_tiny

    directory = tmp_path_factory.mktemp("exports") / "tokenizer"
    save_tiny(directory, "hrq", 8)
    return directory


@pytest.fixture(scope="session")
def pretrained_dir(tmp_path_factory) -> pathlib.Path:
    """The same over a tokenizer of four bases per code, which lies beside it as "pretrained-tokenizer". Read-only."""
    from tiny_pretrained import save_tiny_pretrained

    directory = tmp_path_factory.mktemp("exports") / "pretrained"
    save_tiny_pretrained(directory, bases_per_code=4)
    return directory


@pytest.fixture(scope="session")
def running():
    from small_server import Server

    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def server(running):
    """One to fetch from, which remembers nothing of the test before."""
    running.acts, running.requests = [], []
    return running
