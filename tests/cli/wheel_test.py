"""What users get: the wheel, in an environment of its own, in a folder where nothing of the clone is."""

import functools
import json
import os
import pathlib
import shutil
import site
import subprocess
import sys
import venv

import numpy as np
import pytest
from tiny_pretrained import save_tiny_pretrained
from tiny_tokenizer import save_tiny

from vqdna_jax import load
from vqdna_jax.inference.saved import listing
from vqdna_jax.version import __version__

DNA = "ACGTTGCATTGACCAGGTACCATTGGCA" * 5
ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = {
    "train.total_steps": 2,
    "data.window_bp": 64,
    "data.global_batch": 8,
    "model.code_size": 8,
    "model.width": 16,
    "model.blocks": 2,
    "model.stem_channels": 8,
    "eval.windows": 16,
    "eval.batch": 8,
}


PIP = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]


def copy_sources(place: pathlib.Path) -> pathlib.Path:
    """To build from, which leaves files."""
    for name in ("vqdna_jax", "configs"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place)
    return place


def fresh_environment(place: pathlib.Path) -> pathlib.Path:
    """The folder of its commands. What the package needs is taken from the environment of this test."""
    venv.create(place)
    (packages,) = (place / "lib").glob("python*/site-packages")
    (packages / "needed.pth").write_text("\n".join(site.getsitepackages()))
    return place / "bin"


def install(commands: pathlib.Path, *what: str | pathlib.Path) -> None:
    line = [*PIP, "--python", commands / "python", "install", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*line, "--ignore-installed", *what], check=True, timeout=120)


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> pathlib.Path:
    """The folder of the commands of an environment with the wheel."""
    place = tmp_path_factory.mktemp("wheel")
    sources = copy_sources(place / "sources")
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", place, sources]
    subprocess.run([*PIP, *build], check=True, timeout=120)
    shutil.rmtree(sources)
    commands = fresh_environment(place / "venv")
    install(commands, *place.glob("*.whl"))
    return commands


def run_in(commands: pathlib.Path, command: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    line = [str(commands / command), *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=200, env=clean | environment)


@pytest.fixture
def run(installed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return functools.partial(run_in, installed)


WHERE = """
import vqdna_jax
from vqdna_jax.training import experiments
print(vqdna_jax.__file__)
for name in ("finetune", "hrq", "mcm", "vqvae"):
    print(experiments.find(name))
    assert experiments.read_config(f"{name}:tiny") == experiments.read_config(f"configs/{name}.py:tiny")
"""


def all_lie_in(place: pathlib.Path, end: subprocess.CompletedProcess) -> bool:
    assert end.returncode == 0, end.stderr
    return all(pathlib.Path(line).is_relative_to(place) for line in end.stdout.splitlines())


def test_all_experiments_are_those_of_the_installed_package(run, installed):
    assert all_lie_in(installed.parent, run("python", "-c", f"{WHERE}\nimport vqdna_jax.configs.hrq"))


def test_a_clone_on_the_path_has_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = fresh_environment(tmp_path / "venv")
    assert all_lie_in(ROOT, run_in(commands, "python", "-c", WHERE, PYTHONPATH=str(ROOT)))


def test_an_editable_installation_has_those_of_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sources, commands = copy_sources(tmp_path / "sources"), fresh_environment(tmp_path / "venv")
    install(commands, "--editable", sources)
    assert all_lie_in(sources, run_in(commands, "python", "-c", f"{WHERE}\nimport vqdna_jax.configs.hrq"))


@pytest.mark.parametrize("command", [["vqdna"], ["python", "-m", "vqdna_jax"]])
def test_the_command_says_its_version(run, command):
    end = run(*command, "--version")
    assert (end.returncode, end.stdout, end.stderr) == (0, f"vqdna {__version__}\n", "")


def test_doctor_finds_all_packages(run):
    findings = json.loads(run("vqdna", "doctor", "--json").stdout)
    assert findings["vqdna_jax"] == __version__ and len(findings["packages"]) > 15
    assert all(package["installed"] for package in findings["packages"].values())
    assert findings["install"].startswith("python -m pip install vqdna-jax")  # there is no clone


def test_sequences_are_encoded_and_decoded(run, bundled, tmp_path):
    save_tiny(tmp_path / "export")
    end = run("vqdna", "encode", str(bundled / "phiX174.fa.gz"), "--model=export", "--out=codes.npz")
    assert end.returncode == 0, end.stderr
    end = run("vqdna", "decode", "codes.npz", "--model=export", "--out=back.fa")
    assert end.returncode == 0, end.stderr
    assert len("".join((tmp_path / "back.fa").read_text().split("\n")[1:])) == 5386


def test_the_models_that_ship_are_in_it(run, installed, bundled):
    expected = listing.shipped_models()
    found = json.loads(run("vqdna", "models", "--json").stdout)
    for model in found:
        assert pathlib.Path(model.pop("path")).is_relative_to(installed.parent)
    assert found == [{key: value for key, value in model.items() if key != "path"} for model in expected]
    assert "mini" in [model["name"] for model in found]


def test_sequences_are_embedded_by_the_model_in_the_box(run, tmp_path):
    (tmp_path / "in.fa").write_text(f">a\n{DNA}\n")
    end = run("vqdna", "embed", "in.fa", "--model=mini", "--out=vectors.npy")
    assert end.returncode == 0, end.stderr
    np.testing.assert_allclose(np.load("vectors.npy")[0], load("mini").embed(DNA), rtol=1e-3, atol=1e-4)


def test_a_run_finds_its_experiment(run, tmp_path):
    settings = [f"--config.{key}={value}" for key, value in TINY.items()]
    end = run("python", "-m", "vqdna_jax.main", "--config=hrq:tiny", "--workdir=runs/words", *settings)
    assert end.returncode == 0, end.stderr
    assert json.loads((tmp_path / "runs/words/result.json").read_text())["steps"] == 2


def test_plan_finds_its_experiment(run):
    end = run("vqdna", "plan", "--config=configs/mcm.py:tiny", "--topology=v5e:2x2", "--set=optimizer.learning_rat=1")
    assert end.returncode == 43 and end.stderr.startswith("error: config key 'optimizer.learning_rat' does not exist,")


def test_benchmark_finds_its_experiment(run, tmp_path):
    save_tiny_pretrained(tmp_path / "export")
    (tmp_path / "sets/GUE/tf/0").mkdir(parents=True)
    for split, base in (("train", "A"), ("dev", "C"), ("test", "G")):
        rows = [f"{base}ACGT{end}TGCA,{end in 'AC':d}" for end in "ACGT"]
        (tmp_path / f"sets/GUE/tf/0/{split}.csv").write_text("\n".join(["sequence,label", *rows, ""]))
    line = ["vqdna", "benchmark", "--data=sets", "--model=export", "--out=out", "--preset=tiny", "--tasks=tf/0"]
    end = run(*line, "--set=tuning.rang=3")
    assert end.returncode == 43 and end.stderr.startswith("error: config key 'tuning.rang' does not exist,"), end
