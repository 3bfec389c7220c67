"""What a run needs is found missing before its work begins, whatever it is; the list of what it needs has all of it."""

import ast
import pathlib
import subprocess
import sys

import pytest

import vqdna_jax
from vqdna_jax.cli.main import main
from vqdna_jax.errors import InputError
from vqdna_jax.runtime import requirements

PACKAGE = pathlib.Path(vqdna_jax.__file__).parent
# Of type checkers, other commands, extras, or with something in its place; absl and ml_collections read the command
# line itself.
NOT_OF_A_RUN = {
    "Bio",
    "_typeshed",
    "absl",
    "apache_beam",
    "isal",
    "ml_collections",
    "packaging",
    "pyBigWig",
    "pyarrow",
    "pysam",
    "tokenizers",
    "tyro",
    "umap",
}


def third_party() -> set[str]:
    """The packages that this one imports, wherever in a file."""
    found = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module)
    return {name.split(".")[0] for name in found} - sys.stdlib_module_names - {"vqdna_jax"}


def test_all_that_is_imported_is_checked():
    checked = {module.split(".")[0] for module in requirements.OF_A_RUN}
    brought_along = {"numpy": "jax", "urllib3": "requests"}
    assert set(brought_along.values()) <= checked
    assert third_party() - set(brought_along) == checked | (NOT_OF_A_RUN & third_party())


def test_what_is_there_passes():
    requirements.check(requirements.OF_A_RUN)


@pytest.mark.parametrize(
    "module, package",
    [("sklearn.metrics", "scikit-learn"), ("scipy.stats", "scipy"), ("orbax.checkpoint", "orbax-checkpoint")],
)
def test_a_missing_package_is_named_as_it_is_installed(module, package, monkeypatch):
    monkeypatch.setitem(sys.modules, module.split(".")[0], None)
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(InputError, match=f"^{package} is not installed; pip install {package}$"):
        requirements.check([module])


def test_a_broken_package_says_why(tmp_path, monkeypatch):
    (tmp_path / "broken_here.py").write_text("raise ImportError('libgomp.so.1: cannot open\\nmore')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InputError, match=r"^broken_here cannot be imported \(libgomp.so.1: cannot open\); pip install"):
        requirements.check(["broken_here"])


@pytest.mark.parametrize(
    "line",
    [
        "tracks {genome} --model=mini --out={out}",
        "labels --fasta={genome} --peaks={genome} --signal={genome} --out={out}",
    ],
)
def test_a_bigwig_without_its_library_is_refused_before_anything_is_read(line, bundled, tmp_path, monkeypatch, capsys):
    """It is an extra: not every system has a wheel of it."""
    monkeypatch.setitem(sys.modules, "pyBigWig", None)
    with pytest.raises(SystemExit) as end:
        main(line.format(genome=bundled / "phiX174.fa.gz", out=tmp_path / "out").split())
    assert end.value.code == InputError.exit_code
    assert capsys.readouterr().err == "error: pyBigWig is not installed; pip install pyBigWig\n"
    assert not (tmp_path / "out").exists()


# Runs the trainer where importing what comes last is refused.
WITHOUT = """
import sys
class Finder:
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Finder())
from vqdna_jax import main
sys.exit(main.main(["main", "--config=hrq:tiny", "--workdir={workdir}"]))
"""


@pytest.mark.parametrize("package, name", [("sklearn", "scikit-learn"), ("jax", "jax")])
def test_a_run_without_it_ends_before_its_first_step(package, name, tmp_path):
    program = WITHOUT.format(package=package, workdir=tmp_path / "run")
    end = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (end.returncode, end.stdout) == (43, "")
    assert end.stderr == f"error: {name} is not installed; pip install {name}\n"
    assert not (tmp_path / "run").exists()
