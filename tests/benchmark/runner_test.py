"""The benchmark as a whole, over a tiny model of random weights and two small sets in GUE's layout."""

import functools
import json
import os
import pathlib
import shutil
import signal

import jax
import pytest
from refusals import refusal
from small_finetune import CONTEXT, gc, write_set
from tiny_pretrained import save_tiny_pretrained

from vqdna_jax import retries, train
from vqdna_jax.benchmark import command, controls, convolutional, jobs, runner
from vqdna_jax.benchmark.cells import NETWORK, finished
from vqdna_jax.benchmark.report import publish
from vqdna_jax.benchmark.sets.cards import CARDS
from vqdna_jax.benchmark.untrained import save_untrained
from vqdna_jax.cli import main
from vqdna_jax.errors import EXIT_STOPPED, NumericsError
from vqdna_jax.inference.saved import pretrained
from vqdna_jax.labels import sets
from vqdna_jax.runtime.stopping import Stopped, StopRequest

SETTINGS = (
    "train.total_epochs=0",
    "train.total_steps=4",
    "eval.every_steps=2",
    "head.pool=mean",
    "data.strands=one",
    "tuning.rank=2",
    "eval.batch=64",
    "optimizer.warmup_steps=1",
    "train.retries=0",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> pathlib.Path:
    directory = tmp_path_factory.mktemp("benchmark")
    save_tiny_pretrained(directory / "base", context=CONTEXT)
    for name in ("tf/0", "mouse/3"):
        write_set(directory / "GUE" / name, lengths=(31,))
    return directory


@pytest.fixture(scope="module", autouse=True)
def one_device():
    with pytest.MonkeyPatch.context() as patch:
        on_one = functools.partial(retries.train_with_retries, devices=jax.devices()[:1])
        patch.setattr(retries, "train_with_retries", on_one)
        yield


def plan(place: pathlib.Path, out: str, **changes) -> jobs.Plan:
    given = {"seeds": 2, "preset": "tiny", "settings": SETTINGS} | changes
    return jobs.Plan(place / "GUE", {"model": place / "base"}, place / out, **given)


@pytest.fixture(scope="module")
def whole(place) -> pathlib.Path:
    """A benchmark that was never disturbed."""
    assert runner.run(plan(place, "whole")) == 0
    return place / "whole"


def scores_of(out: pathlib.Path) -> dict:
    keys = ("dev", "test", "failed", "attempts", "train_rows", "dev_scores", "test_scores")
    return {(c.model, c.dataset, c.seed): [getattr(c, key) for key in keys] for c in finished(out)}


def test_every_cell_is_there_once(whole):
    cells = scores_of(whole)
    models = {
        (name, seed) for name, seeds in (("model", 2), *((c, 1) for c in controls.LINEAR)) for seed in range(seeds)
    }
    assert set(cells) == {(name, dataset, seed) for name, seed in models for dataset in ("tf/0", "mouse/3")}
    roles = {cell.model: cell.role for cell in finished(whole)}
    assert roles == {"model": "model"} | dict.fromkeys(controls.LINEAR, "control")


def test_controls_know_the_easy_rule(whole):
    """GC over a half is a sum of 4-mer counts."""
    assert scores_of(whole)["4-mer counts", "tf/0", 0][1] > 0.8


def test_killed_in_the_middle_and_started_again_it_is_the_same_table(place, whole, monkeypatch):
    out, original, seen = place / "killed", train.train_iterator, []

    def interrupted(batches, first_step):
        for index, batch in enumerate(original(batches, first_step), start=first_step):
            seen.append(index)
            if len(seen) == 7:  # in the second run of a model
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    monkeypatch.setattr(train, "train_iterator", interrupted)
    assert runner.run(plan(place, "killed")) == EXIT_STOPPED
    done = {path: path.stat().st_mtime_ns for path in (out / "cells").glob("*/*/*.json")}
    assert 0 < len(done) < len(scores_of(whole))
    monkeypatch.setattr(train, "train_iterator", original)
    assert runner.run(plan(place, "killed")) == 0
    assert all(path.stat().st_mtime_ns == when for path, when in done.items())
    assert scores_of(out) == scores_of(whole)
    for directory in (out, whole):
        publish.publish(directory, "vqdna benchmark", {})
    assert (out / "table.md").read_bytes() == (whole / "table.md").read_bytes()


def test_a_network_that_is_asked_for_goes_on_at_the_cell_where_it_was(place, monkeypatch):
    asked = jobs.Plan(place / "GUE", {}, place / "network", ("tf/0",), 2, "tiny", SETTINGS, controls="all")
    original = convolutional._epochs

    def interrupted(network, kind, bases_BxS, labels, seed):
        for params in original(network, kind, bases_BxS, labels, seed):
            if seed == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield params

    monkeypatch.setattr(convolutional, "_epochs", interrupted)
    with pytest.raises(Stopped), StopRequest():
        runner.run(asked)
    done = {path: path.stat().st_mtime_ns for path in (place / "network/cells").glob("*/*/*.json")}
    assert len(done) == len(controls.LINEAR) + 1
    monkeypatch.setattr(convolutional, "_epochs", original)
    assert runner.run(asked) == 0
    assert all(path.stat().st_mtime_ns == when for path, when in done.items())
    networks = [cell for cell in finished(place / "network") if cell.model == NETWORK]
    assert [(cell.seed, cell.role, cell.train_rows) for cell in networks] == [(0, "control", 192), (1, "control", 192)]
    undisturbed = controls.run(NETWORK, sets.read_set(place / "GUE/tf/0"), "mcc", 1)
    assert undisturbed == {"dev": networks[1].dev_scores, "test": networks[1].test_scores}
    assert "convolutional network" in publish.publish(place / "network", "", {}).with_name("table.md").read_text()


def test_controls_alone_are_run_where_they_are_asked_for(place, capsys):
    options = [f"--data={place / 'GUE'}", f"--out={place / 'alone'}", "--tasks=tf/0", "--preset=tiny"]
    for said, code in (([], 43), (["--controls=linear"], 0)):
        with pytest.raises(SystemExit) as stopped:
            main.main(["benchmark", *options, *said])
        assert stopped.value.code == code
    printed = capsys.readouterr()
    assert "--model: is missing" in printed.err and "counts + positions" in printed.out
    assert {cell.model for cell in finished(place / "alone")} == set(controls.LINEAR)


def test_shards_share_the_work(place, whole):
    expected = {key: scores for key, scores in scores_of(whole).items() if key[-1] == 0}
    for index in (1, 0):
        assert runner.run(plan(place, "shards", shard=(index, 2), seeds=1)) == 0
        assert (len(scores_of(place / "shards")) == len(expected)) == (index == 0)
    assert scores_of(place / "shards") == expected


def test_a_cell_that_cannot_be_run_is_marked_and_the_others_are_run(place):
    broken = plan(
        place, "broken", seeds=1, tasks=("tf/0",), settings=(*SETTINGS, "data.long=refuse", "data.kind=regression")
    )
    assert runner.run(broken) == 0
    cells = {cell.model: cell for cell in finished(place / "broken")}
    assert cells["model"].test is None and cells["model"].failed.startswith("error: ")
    assert "\u2021" in (publish.publish(place / "broken", "", {}).with_name("table.md")).read_text()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"settings": (*SETTINGS, "optimizer.learning_rate=0.1")}, "holds a benchmark with other settings"),
        ({"tasks": ("tf/9",)}, "tf/9"),
        ({"tasks": ("tf/1",)}, "tf/1 not found"),
        (
            {"settings": ("tuning.rang=3",), "out": "new"},
            "config key 'tuning.rang' does not exist, the closest is tuning.rank",
        ),
        ({"settings": ("tuning.rank=three",), "out": "new"}, "config key tuning.rank=three: expected a whole number"),
        ({"settings": ("tuning.method=qlora",), "out": "new"}, "tuning.method: found 'qlora', expected one of lora"),
        ({"settings": ("seed=7",), "out": "new"}, "--set=seed=7: a cell is named by what --seeds says"),
        ({"settings": ("pretrained=x",), "out": "new"}, "--set=pretrained=x: a cell is named by what --model says"),
        ({"settings": ("data.labelled=x",), "out": "new"}, "--set=data.labelled=x: a cell is named by what --data"),
        ({"seeds": 0, "out": "new"}, "--seeds=0: expected 1 or more"),
        ({"seeds": -1, "out": "new"}, "--seeds=-1: expected 1 or more"),
        ({"shard": (2, 2), "out": "new"}, "--shard=2/2: expected i/n with i from 0 to n - 1"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(place, whole, change, message):
    out = change.pop("out", "whole")
    assert message in refusal(lambda: runner.run(plan(place, out, **change)))
    assert not (place / "new").exists()


def test_a_set_without_test_rows_is_refused_before_the_first_job(place, tmp_path):
    write_set(tmp_path / "GUE/tf/0", lengths=(31,))
    (tmp_path / "GUE/tf/0/test.csv").unlink()
    message = refusal(runner.run, jobs.Plan(tmp_path / "GUE", {}, tmp_path / "out"))
    assert message.startswith(f"{tmp_path}/GUE/tf/0: test.csv is missing") and not (tmp_path / "out").exists()


def test_a_job_without_a_best_state_is_marked_and_the_others_are_run(place, tmp_path):
    """The square of a label of dev is beyond float32: each loss on dev is infinite."""
    write_set(tmp_path / "GUE/editing/hela", rule=gc, lengths=(31,))
    path = tmp_path / "GUE/editing/hela/dev.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:-1], lines[-1].split(",")[0] + ",1e25", ""]))
    broken = jobs.Plan(tmp_path / "GUE", {"model": place / "base"}, tmp_path / "out", (), 1, "tiny", SETTINGS)
    assert runner.run(broken) == 0
    cells = {cell.model: cell for cell in finished(tmp_path / "out")}
    assert "no evaluation on dev had a finite loss" in cells["model"].failed and cells["model"].test is None
    assert cells["6-mer counts"].failed is None and cells["6-mer counts"].dev_scores["mse"] > 1e40
    workdir = tmp_path / "out/cells/model/editing_hela/0"
    assert (workdir / "metrics.jsonl").exists() and not (workdir / "export").exists()
    with pytest.raises(NumericsError, match="no evaluation on dev had a finite loss") as error:
        train.train(
            jobs.config_of(broken, tmp_path / "GUE/editing/hela", jobs.Job("model", "editing/hela", 0)), workdir
        )
    assert "\n" not in str(error.value) and not (workdir / "result.json").exists(), "also when it is run again"
    assert "infinity" not in publish.publish(tmp_path / "out", "", {}).with_name("results.json").read_text().casefold()


def test_another_model_of_the_same_name_is_refused(place, whole):
    save_tiny_pretrained(place / "other", context=CONTEXT, seed=1)
    changed = jobs.Plan(place / "GUE", {"model": place / "other"}, whole, seeds=2, preset="tiny", settings=SETTINGS)
    assert "model model" in refusal(runner.run, changed)


def test_the_untrained_twin_has_the_tokenizer_and_other_weights(place):
    twin = save_untrained(place / "base", place / "twin")
    model, base = pretrained.load(twin), pretrained.load(place / "base")
    assert model.tokenizer.digest == base.tokenizer.digest and model.digest != base.digest
    assert model.transformer == base.transformer and model.context == base.context


def test_the_verb_runs_the_whole_and_leaves_four_files(place, capsys, monkeypatch):
    monkeypatch.chdir(place)
    out = pathlib.Path("verb")
    options = ["--data=GUE", "--model=mine=base", f"--out={out}", "--tasks=tf/0", "--seeds=1"]
    options += ["--preset=tiny", "--untrained", *(f"--set={setting}" for setting in SETTINGS)]
    with pytest.raises(SystemExit) as stopped:
        main.main(["benchmark", *options])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert "mine, untrained" in printed and "DNABERT-2" in printed
    results = json.loads((out / "results.json").read_text())
    assert {cell["model"] for cell in results["cells"]} == {"mine", "mine, untrained", *controls.LINEAR}
    with pytest.raises(SystemExit) as stopped:
        main.main(["benchmark", *options, "--json"])
    assert stopped.value.code == 0
    assert json.loads(capsys.readouterr().out) == json.loads((out / "results.json").read_text())
    shutil.copy(out / "page.html", "copy.html")
    main.main(["report", "benchmark", str(out / "results.json"), f"--out={out / 'page.html'}", "--json"])
    assert json.loads(capsys.readouterr().out) == {"out": str(out / "page.html")}
    assert (out / "page.html").read_bytes() == pathlib.Path("copy.html").read_bytes()


def test_without_any_score_the_verb_ends_with_43_and_the_table_says_why(place, capsys):
    out = place / "none"
    options = [f"--data={place / 'GUE'}", f"--model={place / 'base'}", f"--out={out}", "--tasks=tf/0", "--seeds=1"]
    settings = [*SETTINGS, "data.kind=classification", "data.label_names=('a', 'b', 'c')"]
    with pytest.raises(SystemExit) as stopped:
        main.main(["benchmark", *options, "--preset=tiny", *(f"--set={setting}" for setting in settings)])
    line = capsys.readouterr().err.splitlines()[-1]
    assert stopped.value.code == 43 and f"{out}: none of its {1 + len(controls.LINEAR)} cells has a score, " in line
    assert (out / "table.md").exists()


def test_check_ends_with_43_where_a_file_is_broken(place, tmp_path, capsys):
    shutil.copytree(place / "GUE", tmp_path / "GUE")
    assert command.run_check(tmp_path / "GUE", (), False) == 0
    path = tmp_path / "GUE/tf/0/dev.csv"
    path.write_text(path.read_text().replace("A", "!", 1))
    assert command.run_check(tmp_path / "GUE", (), True) == 43
    assert f"{path}:" in capsys.readouterr().out


def test_names_of_models(tmp_path):
    for name in ("runs/mcm/export", "other"):
        (tmp_path / name).mkdir(parents=True)
    found = command.names_of([str(tmp_path / "runs/mcm/export"), f"b={tmp_path / 'other'}"])
    assert list(found) == ["mcm", "b"]
    assert "taken" in refusal(command.names_of, [f"b={tmp_path / 'other'}"] * 2)
    assert "no such file or directory" in refusal(command.names_of, [str(tmp_path / "absent")])
    assert command.shard_of("1/2") == (1, 2) and "--shard=-1/2" in refusal(command.shard_of, "-1/2")


def test_recipes_are_those_of_the_scripts():
    """DNABERT-2's finetune/scripts/run_dnabert2.sh ."""
    recipes = {name: card.recipe for name, card in CARDS.items()}
    assert recipes["EMP/H3"]["train.total_epochs"] == 3
    assert recipes["mouse/2"] == {"train.total_epochs": 0.0, "train.total_steps": 1000, "optimizer.warmup_steps": 30}
    assert recipes["prom/prom_core_all"] == {"train.total_epochs": 4.0, "eval.every_steps": 400}
    assert recipes["prom/prom_300_tata"]["train.total_epochs"] == 10
    assert recipes["virus/covid"]["train.total_epochs"] == 8
