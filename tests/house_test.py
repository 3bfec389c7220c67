"""The shape of the repository: which way imports go, how long a file may be, what README's map of the files names."""

import ast
import graphlib
import pathlib
import re
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = "vqdna_jax"
LONGEST = 350


def import_order(text: str) -> list[str]:
    """The rooms of the package, lowest first, from the line in CONTRIBUTING.md that begins with `errors`."""
    (line,) = re.findall(r"`errors`[^.]*`cli`", text)
    return re.findall(r"`(\w+)`", line)


def modules(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """{dotted name: file} of the package that lies in `root`."""
    found = {}
    for file in (root / PACKAGE).rglob("*.py"):
        parts = file.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imported(file: pathlib.Path, names: set[str]) -> Iterator[str]:
    """Modules among `names` that the file imports, wherever in it; of `from a.b import c` the module a.b.c or a.b."""
    for node in ast.walk(ast.parse(file.read_text())):
        asked = []
        if isinstance(node, ast.Import):
            asked = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}:{node.lineno}: a relative import"
            asked = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in asked:
            while name and name not in names:
                name = name.rpartition(".")[0]
            if name:
                yield name


def room(module: str) -> str:
    """errors, genome, ...; the package itself, which opens the house and is a command, is above all rooms."""
    return (module.removesuffix(".__main__").split(".") + [""])[1]


def back_edges(root: pathlib.Path, order: list[str]) -> list[str]:
    """Imports that do not go down `order`, and circles of modules within a room; lazy imports count."""
    files, rank = modules(root), {name: height for height, name in enumerate([*order, ""])}
    edges = {name: set(imported(file, set(files))) - {name} for name, file in files.items()}
    wrong = [
        f"{importer} imports {name}"
        for importer, names in edges.items()
        for name in names
        if rank[room(name)] > rank[room(importer)]
    ]
    try:
        list(graphlib.TopologicalSorter(edges).static_order())
    except graphlib.CycleError as error:
        wrong.append("circle: " + " <- ".join(error.args[1]))
    return sorted(wrong)


def test_imports_go_down_the_order():
    order = import_order((ROOT / "CONTRIBUTING.md").read_text())
    assert set(order) == {room(name) for name in modules(ROOT)} - {""}
    assert back_edges(ROOT, order) == []


HOUSE = {
    "__init__.py": "def load():\n    from vqdna_jax.models import heads\n",
    "errors.py": "import json\n",
    "genome/__init__.py": "",
    "genome/fasta.py": "from vqdna_jax.genome import runs\nfrom vqdna_jax.errors import InputError\n",
    "genome/runs.py": "",
    "models/__init__.py": "",
    "models/heads.py": "import vqdna_jax.genome.fasta\n",
}


@pytest.mark.parametrize(
    "file, line, wrong",
    [
        ("genome/runs.py", "", []),
        (
            "genome/runs.py",
            "from vqdna_jax.models.heads import Head",
            ["vqdna_jax.genome.runs imports vqdna_jax.models"],
        ),
        ("genome/runs.py", "from vqdna_jax import models", ["vqdna_jax.genome.runs imports vqdna_jax.models"]),
        ("genome/runs.py", "def f():\n    import vqdna_jax.models.heads", ["runs imports vqdna_jax.models.heads"]),
        ("errors.py", "import vqdna_jax", ["vqdna_jax.errors imports vqdna_jax"]),
        ("genome/runs.py", "def f():\n    from vqdna_jax.genome.fasta import read", ["circle: "]),
    ],
)
def test_a_back_edge_is_found(tmp_path, file, line, wrong):
    """In a small house; some of these edges close a circle as well."""
    for name, text in (HOUSE | {file: f"{HOUSE[file]}{line}\n"}).items():
        (tmp_path / PACKAGE / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / PACKAGE / name).write_text(text)
    found = back_edges(tmp_path, ["errors", "genome", "models"])
    assert bool(found) == bool(wrong)
    assert all(any(text in each for each in found) for text in wrong)


@pytest.mark.parametrize("folder", [PACKAGE, "configs", "launch", "tests", "tools"])
def test_no_file_is_long(folder):
    files = [file for file in (ROOT / folder).rglob("*") if file.suffix in (".py", ".sh", ".sbatch")]
    lines = {str(file.relative_to(ROOT)): file.read_text().count("\n") for file in files}
    assert {file: count for file, count in lines.items() if count > LONGEST} == {}


def readme_map() -> list[pathlib.Path]:
    """The files and folders that README's map names: those below vqdna_jax/ are indented once more."""
    (section,) = re.findall(r"## The files\n(.*?)\n\n", (ROOT / "README.md").read_text(), re.DOTALL)
    named, lines = [], section.splitlines()
    for line in lines:
        place = ROOT / PACKAGE if line.startswith(" " * 6) else ROOT
        named += [place / name for name in re.findall(r"(?<=  )\w+(?:/|\.\w+)", line)]
    return named


def test_the_map_of_the_files_names_every_package_and_nothing_else():
    named = readme_map()
    assert [str(path) for path in named if not path.exists()] == []
    assert {path.name for path in (ROOT / PACKAGE).iterdir() if (path / "__init__.py").exists()} <= {
        path.name for path in named if path.parent == ROOT / PACKAGE
    }
