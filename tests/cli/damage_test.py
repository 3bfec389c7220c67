"""What this project wrote and something changed: one line, whatever is wrong in it, or it does not matter."""

import functools
import json
import pathlib
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from damage import damaged
from small_verbs import make_inputs, start_benchmark

from vqdna_jax.benchmark import cells, jobs, runner
from vqdna_jax.benchmark.report.publish import page_of
from vqdna_jax.errors import InputError
from vqdna_jax.genome.build.build import build_corpus
from vqdna_jax.genome.corpus import open_corpus
from vqdna_jax.genome.windows import evaluation_windows
from vqdna_jax.inference import load
from vqdna_jax.inference.jobs.encode import decode_to_fasta
from vqdna_jax.inference.pretrained import Pretrained
from vqdna_jax.inference.saved import finetuned, pretrained
from vqdna_jax.training import metrics, workdir


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> pathlib.Path:
    directory = tmp_path_factory.mktemp("damage")
    make_inputs(directory)
    (directory / "long.fa").write_text(">a\n" + "ACGTTGCATT" * 200 + "\n")
    build_corpus([directory / "long.fa"], directory / "corpus", progress=False)
    start_benchmark(directory / "benchmark")
    (directory / "run").mkdir()
    (directory / "run/run.json").write_text('{"run_id": "abc"}')
    (directory / "run/metrics.jsonl").write_text('{"step": 3, "loss": 1.5, "eval_loss": 2.0}')
    runner.check(plan(directory), {"tf/0": directory / "sets/tf/0"})
    return directory


@functools.cache
def base_of(place: pathlib.Path) -> Pretrained:
    return pretrained.load(place / "base")


def plan(place: pathlib.Path) -> jobs.Plan:
    return jobs.Plan(place / "sets", {"base": place / "base"}, place / "benchmark", seeds=1, preset="tiny")


def read_corpus(place: pathlib.Path) -> None:
    evaluation_windows(open_corpus(place / "corpus"), "validation", 64, 4)


def read_metrics(place: pathlib.Path) -> None:
    metrics.read_evaluated(place / "run")
    metrics.MetricWriter(place / "run", 5).close()


FILES: dict[str, Callable[[pathlib.Path], object]] = {
    "results.json": lambda place: page_of(place / "results.json", place / "page.html"),
    "benchmark/settings.json": lambda place: runner.check(plan(place), {"tf/0": place / "sets/tf/0"}),
    "benchmark/cells/base/tf_0/0.json": lambda place: cells.finished(place / "benchmark"),
    "corpus/manifest.json": read_corpus,
    "tokenizer/config.json": lambda place: load.load(place / "tokenizer"),
    "finetuned/config.json": lambda place: finetuned.load(place / "finetuned", base_of(place)),
    "run/metrics.jsonl": read_metrics,
    "run/run.json": lambda place: workdir._run_id(place / "run/run.json"),
}


def check(use: Callable[[], object], value: Any, where: str) -> None:
    """It works, or says in a line what is wrong."""
    try:
        use()
    except InputError as error:
        assert "\n" not in str(error), where
    except Exception as error:
        raise AssertionError(f"{where}: {type(error).__name__}: {error}") from error


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_ours_with_anything_wrong_in_it_is_one_line(inputs, name):
    path = inputs / name
    before = path.read_bytes()
    try:
        FILES[name](inputs)
        for where, value in damaged(json.loads(before), 8):
            path.write_text(json.dumps(value))
            check(lambda: FILES[name](inputs), value, f"{name}: {where}")
    finally:
        path.write_bytes(before)


def test_a_code_file_with_anything_wrong_in_its_meta_is_one_line(inputs, tmp_path):
    with zipfile.ZipFile(inputs / "in.codes") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    for where, value in damaged(json.loads(parts["meta.json"])):
        with zipfile.ZipFile(tmp_path / "odd.codes", "w") as archive:
            for name, content in (parts | {"meta.json": json.dumps(value)}).items():
                archive.writestr(name, content)
        out = tmp_path / "back.fa"
        check(
            lambda: decode_to_fasta(tmp_path / "odd.codes", inputs / "tokenizer", out, progress=False),  # noqa: B023
            value,
            where,
        )


@pytest.mark.parametrize("name", ["layers", "width", "heads", "hidden", "window"])
@pytest.mark.parametrize("size", [10**5, 10**9, 10**30])
def test_a_network_far_larger_than_its_weights_is_not_laid_out(inputs, name, size):
    """That would take memory, or hours, to say that they do not fit."""
    path = inputs / "base/config.json"
    before = path.read_text()
    described = json.loads(before)
    described["transformer"][name] = size
    path.write_text(json.dumps(described))
    try:
        with pytest.raises(InputError) as refused:
            load.load(inputs / "base")
        assert str(path) in str(refused.value) or "model.safetensors" in str(refused.value)
    finally:
        path.write_text(before)
