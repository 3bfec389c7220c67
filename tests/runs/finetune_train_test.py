"""Whole fine-tuning runs on genome windows with an easy rule: what is learnt, kept, resumed, repeated and refused."""

import csv
import itertools
import json
import pathlib
import shutil

import chex
import fsspec
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import safetensors.numpy
import scipy.stats
import sklearn.metrics
from flax.traverse_util import flatten_dict
from small_finetune import (
    LENGTHS,
    ROWS,
    STEPS,
    changed,
    gc,
    gc_rich,
    genome_rows,
    refused,
    small_config,
    write_rows,
    write_set,
)
from small_run import Recorder, recorded, rows_of, run, stop_at
from small_store import Shaky
from tiny_pretrained import save_tiny_pretrained

from configs import finetune
from vqdna_jax import partition, retries, train
from vqdna_jax.errors import EXIT_STOPPED, NumericsError
from vqdna_jax.retries import train_with_retries
from vqdna_jax.runtime.watchdog import COMPILE_LIMITS
from vqdna_jax.stages import read_settings
from vqdna_jax.stages.finetune import FinetuneStage


@pytest.fixture(scope="module")
def finished(tmp_path_factory, place):
    """One undisturbed run with LoRA."""
    workdir = tmp_path_factory.mktemp("undisturbed")
    assert run(small_config(place), workdir) == 0
    return workdir


ONE = jax.devices()[:1]
WHOLE = LENGTHS[1:]  # where one compiled shape is enough


def result_of(workdir: pathlib.Path) -> dict:
    result = json.loads((workdir / "result.json").read_text())
    result.pop("bases_per_s", None)
    return result


def tensors_of(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(workdir / "export/model.safetensors")


def assert_same_run(one, other):
    assert result_of(one) == result_of(other)
    for name in ("loss", "eval_loss", "eval_mcc"):
        assert rows_of(one, name) == rows_of(other, name)
    chex.assert_trees_all_equal(tensors_of(one), tensors_of(other))
    for name in ("dev", "test"):
        assert (one / f"predictions_{name}.csv").read_text() == (other / f"predictions_{name}.csv").read_text()


def predictions(workdir, data, split="test"):
    """(rows of predictions_SPLIT.csv, of the labelled table), which must be the same sequences."""
    with (workdir / f"predictions_{split}.csv").open() as predicted, (data / f"{split}.csv").open() as labelled:
        found, rows = list(csv.DictReader(predicted)), list(csv.DictReader(labelled))
    assert [row["place"] for row in found] == [f"{data / split}.csv:{line}" for line in range(2, len(rows) + 2)]
    return found, rows


class TestFinished:
    @pytest.mark.parametrize("split", ["dev", "test"])
    def test_predictions_have_the_scores_of_the_result(self, finished, place, split):
        found, rows = predictions(finished, place / "gc", split)
        labels, answers = ([int(row[key]) for row in table] for table, key in ((rows, "label"), (found, "prediction")))
        values = np.array([[float(row["0"]), float(row["1"])] for row in found])
        np.testing.assert_allclose(values.sum(axis=1), 1, atol=1e-5)
        np.testing.assert_array_equal(values.argmax(axis=1), answers)
        macro = sklearn.metrics.precision_recall_fscore_support(labels, answers, average="macro")
        expected = {
            "accuracy": np.mean(np.equal(labels, answers)),
            "mcc": sklearn.metrics.matthews_corrcoef(labels, answers),
            "auroc": sklearn.metrics.roc_auc_score(labels, values[:, 1]),
        } | dict(zip(("macro_precision", "macro_recall", "macro_f1"), macro))
        result = result_of(finished)
        for name, value in expected.items():
            assert result[f"{split}_{name}"] == pytest.approx(value, abs=1e-6), name

    def test_the_result_says_what_was_run(self, finished, place):
        result = result_of(finished)
        assert {name: result[f"{name}_rows"] for name in ROWS} == ROWS
        assert (result["steps"], result["seed"], result["kind"]) == (STEPS, 0, "classification")
        bases = [len(row["sequence"]) for row in csv.DictReader((place / "gc/train.csv").open())]
        assert result["bases_seen"] == STEPS * 32 * np.mean(bases)
        assert [step for step, _ in rows_of(finished)] == list(range(1, STEPS + 1))
        assert [step for step, _ in rows_of(finished, "eval_loss")] == [0, 5, 10, 15, STEPS]

    def test_running_it_again_changes_nothing(self, finished, place):
        before = (finished / "result.json").stat().st_mtime_ns
        assert train_with_retries(changed(place), finished, devices=ONE) == (0, finished)
        assert (finished / "result.json").stat().st_mtime_ns == before and not list(finished.glob("retry_*"))

    def test_only_what_was_trained_is_exported(self, finished):
        names = {f"lora/{target}/{factor}" for target in ("q", "out") for factor in "ab"}
        assert tensors_of(finished).keys() == names | {f"head/{name}" for name in ("mean", "scale", "kernel", "bias")}


@pytest.mark.parametrize("method", ["lora", "full", "head"])
def test_an_easy_rule_is_learnt(finished, place, tmp_path, method):
    if method != "lora":
        config = changed(place, tuning__method=method, data__labelled=str(write_set(tmp_path / "gc", lengths=WHOLE)))
        config.optimizer.learning_rate = 0.0 if method == "head" else 2e-2
        assert run(config, tmp_path / "run") == 0
        assert result_of(tmp_path / "run")["learning_rate"] == (3e-3 if method == "head" else 2e-2)
        rates = [rate for _, rate in rows_of(tmp_path / "run", "learning_rate")]
        assert max(rates) == pytest.approx(3e-3 if method == "head" else 2e-2)
    result = result_of(finished if method == "lora" else tmp_path / "run")
    assert result["test_accuracy"] > 0.7 and result["test_auroc"] > 0.8  # three standard errors over chance
    assert not result["dev_collapsed"]


def test_on_dev_it_is_never_below_the_probe_that_it_starts_from(finished, place, tmp_path):
    """Whatever the learning rate does, to all parameters: what a run starts from is evaluated, and may be the best."""
    config = changed(place, tuning__method="full", optimizer__learning_rate=0.5, train__retries=0)
    assert run(config, tmp_path) == 0
    for result in (result_of(tmp_path), result_of(finished)):
        assert result["dev_mcc"] >= result["probe_dev_mcc"] > 0.3
    first, *others = (value for _, value in rows_of(tmp_path, "eval_mcc"))
    found = result_of(tmp_path)
    assert first == pytest.approx(found["probe_dev_mcc"]) and found["dev_mcc"] == max(first, *others)
    assert min(others) < first  # such a rate does harm


def test_of_shuffled_labels_nothing_is_learnt(place, tmp_path):
    labels = iter(np.random.default_rng(0).integers(0, 2, sum(ROWS.values())))
    rows = write_set(tmp_path / "shuffled", lambda bases: int(next(labels)))
    assert run(changed(place, data__labelled=str(rows), train__retries=0), tmp_path / "run") == 0
    assert abs(result_of(tmp_path / "run")["test_mcc"]) < 3 / ROWS["test"] ** 0.5


class TestStopped:
    def test_it_goes_on_bitwise(self, finished, place, tmp_path, monkeypatch):
        """Stopped before an evaluation that is due and before the last one, then killed at its end. Each start finds
        the same readout and strands, and it is the run of a config that names them.

        The checkpoint of the last step was saved at the second stop, before its evaluation: the last start compiles
        what judges before anything else, and has the time for it.
        """
        config = changed(place, head__pool="auto", data__strands="auto")
        for step in (4, STEPS - 1):
            with monkeypatch.context() as patch:
                stop_at(patch, step)
                assert train_with_retries(config, tmp_path, devices=ONE) == (EXIT_STOPPED, tmp_path)
            assert [s for s, _ in rows_of(tmp_path)] == list(range(1, step + 2))
            assert not (tmp_path / "result.json").exists()

        class Killed(Exception):
            pass

        def dies(*_):
            raise Killed

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(FinetuneStage, "finish", dies)
            run(config, tmp_path)
        watchdog, seen = Recorder(100.0), []
        with monkeypatch.context() as patch:
            recorded(patch, watchdog, train, "better_of", seen)
            assert run(config, tmp_path, watchdog=watchdog) == 0
        assert seen == [("better_of", COMPILE_LIMITS * 100.0)]
        assert_same_run(tmp_path, finished)

    def test_other_data_and_another_base_are_refused_and_moved_ones_are_not(self, finished, place, tmp_path):
        shutil.copytree(place / "gc", tmp_path / "moved")
        shutil.copytree(place / "base", tmp_path / "base")
        moved = {"data__labelled": str(tmp_path / "moved"), "pretrained": str(tmp_path / "base")}
        assert run(changed(place, **moved), finished) == 0
        text = (tmp_path / "moved/test.csv").read_text()
        (tmp_path / "moved/test.csv").write_text(text[:-2] + str(1 - int(text[-2])) + "\n")
        assert "labelled_digest was" in refused(changed(place, **moved), finished)
        save_tiny_pretrained(tmp_path / "other", seed=1, context=32)
        assert "pretrained_digest was" in refused(changed(place, pretrained=str(tmp_path / "other")), finished)
        assert "tuning.rank was 4, is 5" in refused(changed(place, tuning__rank=5), finished)


@pytest.fixture(scope="module")
def contrary(place):
    """In dev the rule is the other way round: what is learnt makes its loss higher."""
    rows = write_set(place / "contrary")
    cut = [row[: LENGTHS[i % 2]] for i, row in enumerate(genome_rows(ROWS["dev"]))]
    write_rows(rows / "dev.csv", cut, [1 - gc_rich(bases) for bases in cut])
    return rows


def test_the_best_parameters_are_kept_and_patience_ends_the_run(place, contrary, tmp_path):
    config = changed(place, data__labelled=str(contrary), train__patience=2, eval__every_steps=3)
    config.train.update(checkpoint_every_steps=3, keep_checkpoints=9)
    assert run(config, tmp_path) == 0
    result, losses = result_of(tmp_path), dict(rows_of(tmp_path, "eval_choice"))
    best = min(losses, key=losses.get)
    ended = next(
        i for i, step in enumerate(losses) if i >= 2 and min(list(losses.values())[i - 1 : i + 1]) > losses[best]
    )
    assert result["steps"] == max(losses) == list(losses)[ended] < STEPS
    assert result["best_step"] == best < max(losses)
    exported = tensors_of(tmp_path)
    for step in filter(None, losses):
        state = ocp.StandardCheckpointer().restore(tmp_path / f"checkpoints/{step}/state")
        params = flatten_dict(state["params"], sep="/")
        assert params.keys() == exported.keys()
        assert all(np.array_equal(params[name], exported[name]) for name in params) == (step == best)
    before = (tmp_path / "result.json").stat().st_mtime_ns
    assert run(config, tmp_path) == 0 and (tmp_path / "result.json").stat().st_mtime_ns == before


@pytest.fixture(scope="module")
def rare(place):
    """One row in 16 is of class 1, whatever its bases: a run says 0 to all."""
    numbers = itertools.count()
    return write_set(place / "rare", lambda bases: int(next(numbers) % 16 == 5))


class TestRetries:
    def test_a_collapsed_run_is_tried_with_other_seeds_and_all_are_kept(self, place, rare, tmp_path):
        config = changed(place, data__labelled=str(rare), train__retries=1, seed=3)
        last = tmp_path / "retry_1"
        assert train_with_retries(config, tmp_path, devices=ONE) == (0, last) and not (tmp_path / "retry_2").exists()
        for directory, seed in ((tmp_path, 3), (last, 1003)):
            result = result_of(directory)
            assert result["dev_collapsed"] and result["seed"] == seed and len(rows_of(directory)) == STEPS
            assert {row["prediction"] for row in predictions(directory, rare, "dev")[0]} == {"0"}
        assert rows_of(tmp_path) != rows_of(last)
        assert config.seed == 3

    @pytest.mark.parametrize(
        ("collapses", "code", "attempts"),
        [([False], 0, 1), ([True, False], 0, 2), ([True] * 5, 0, 3), ([True, None], EXIT_STOPPED, 2)],
    )
    @pytest.mark.parametrize("remote", [False, True])
    def test_until_one_has_not_collapsed_or_is_stopped(self, tmp_path, monkeypatch, collapses, code, attempts, remote):
        seen, place = [], "shaky://bucket/run" if remote else tmp_path
        Shaky.anew()

        def attempt(config, workdir, *_):
            seen.append((config.seed, workdir))
            collapsed = collapses[len(seen) - 1]
            if collapsed is None:
                return EXIT_STOPPED
            with fsspec.open(f"{workdir}/result.json", "w", auto_mkdir=True) as result:
                json.dump({"dev_collapsed": collapsed}, result)
            return 0

        monkeypatch.setattr(retries, "train", attempt)
        config = finetune.get_config("tiny")  # of two retries
        names = [f"{place}/retry_{i}" if i else place for i in range(attempts)]
        expected = [(1000 * i, name if remote else pathlib.Path(name)) for i, name in enumerate(names)]
        assert train_with_retries(config, place) == (code, expected[-1][1]) and seen == expected


class TestLong:
    @pytest.mark.parametrize("split", ["train", "dev", "test"])
    def test_sequences_beyond_the_context_are_refused_before_anything_is_made(self, place, tmp_path, split):
        shutil.copytree(place / "gc", tmp_path / "gc")
        path = tmp_path / f"gc/{split}.csv"
        lines = path.read_text().splitlines()
        lines[4] = f"{'ACGT' * 8},1"
        path.write_text("\n".join(lines))
        message = refused(changed(place, data__labelled=str(tmp_path / "gc")), tmp_path / "run")
        assert message.startswith(f"{path}:5: 32 codes, but the model's context has 31; ")
        assert "--config.data.long=window" in message

    def test_windows_learn_the_rule_too(self, place, tmp_path):
        data = write_set(tmp_path / "long", lengths=(70, 31), base_bases=70)
        config = changed(place, data__labelled=str(data), data__long="window")
        assert run(config, tmp_path / "run") == 0
        assert result_of(tmp_path / "run")["test_accuracy"] > 0.7


def test_a_regression_learns_and_is_given_in_the_units_of_its_labels(place, tmp_path):
    data = write_set(tmp_path / "percent", lambda bases: f"{100 * gc(bases):.2f}", lengths=WHOLE)
    assert run(changed(place, data__labelled=str(data)), tmp_path / "run") == 0
    found, rows = predictions(tmp_path / "run", data)
    values, labels = (np.array([float(row[key]) for row in t]) for t, key in ((found, "prediction"), (rows, "label")))
    result = result_of(tmp_path / "run")
    assert result["kind"] == "regression" and result["test_spearman"] > 0.6
    assert result["test_spearman"] == pytest.approx(scipy.stats.spearmanr(values, labels).statistic, abs=1e-3)
    assert result["test_r2"] == pytest.approx(sklearn.metrics.r2_score(labels, values), abs=1e-4)
    variance = np.var([float(row["label"]) for row in csv.DictReader((data / "train.csv").open())])
    assert result["test_mse"] == pytest.approx(np.mean((values - labels) ** 2) / variance, rel=1e-3)


def test_without_a_finite_loss_on_dev_nothing_is_exported(place, tmp_path):
    """A label of dev so far off that its squared error is no number of 32 bits."""
    data = write_set(tmp_path / "far", lambda bases: f"{100 * gc(bases):.2f}", lengths=WHOLE)
    *lines, last = (data / "dev.csv").read_text().splitlines()
    (data / "dev.csv").write_text("\n".join([*lines, f"{last.partition(',')[0]},1e30", ""]))
    for _ in range(2):  # the second one goes on from the last checkpoint
        with pytest.raises(NumericsError, match="no evaluation on dev had a finite loss") as caught:
            run(changed(place, data__labelled=str(data)), tmp_path / "run")
        assert caught.value.exit_code == 44 and "\n" not in str(caught.value)
    assert [loss for _, loss in rows_of(tmp_path / "run", "eval_loss")] == [None] * 5
    assert all(np.isfinite(loss) for _, loss in rows_of(tmp_path / "run"))
    assert not (tmp_path / "run/export").exists() and not (tmp_path / "run/result.json").exists()


def test_several_labels_are_learnt(place, tmp_path):
    def rule(bases):
        return f"{gc_rich(bases)},{1 - gc_rich(bases)}"

    data = write_set(tmp_path / "both", rule, "label_gc,label_at", lengths=WHOLE)
    assert run(changed(place, data__labelled=str(data)), tmp_path / "run") == 0
    found, rows = predictions(tmp_path / "run", data)
    result, names = result_of(tmp_path / "run"), ("gc", "at")
    answers = np.array([[name in row["prediction"].split(";") for name in names] for row in found])
    labels = np.array([[int(row[f"label_{name}"]) for name in names] for row in rows])
    np.testing.assert_array_equal(answers, [[float(row[name]) > 0.5 for name in names] for row in found])
    assert result["kind"] == "multilabel" and np.mean(answers == labels) > 0.7
    assert result["test_macro_f1"] == pytest.approx(sklearn.metrics.f1_score(labels, answers, average="macro"))
    assert result["test_micro_f1"] == pytest.approx(sklearn.metrics.f1_score(labels, answers, average="micro"))


def opened(config) -> FinetuneStage:
    return FinetuneStage.open(read_settings(config), partition.make_mesh(devices=ONE))


def test_rows_are_cut_down_to_the_number_asked_for_with_each_labels_share(place):
    splits = opened(changed(place, data__train_rows=40, data__dev_rows=1000)).set.splits
    assert {name: len(split.bases) for name, split in splits.items()} == {"train": 40, "dev": 64, "test": 64}
    whole = opened(changed(place)).set.splits["train"]
    assert splits["train"].labels.mean() == pytest.approx(whole.labels.mean(), abs=0.03)
    by_place = dict(zip(whole.places, zip(whole.bases, whole.labels)))
    for line, bases, label in zip(splits["train"].places, splits["train"].bases, splits["train"].labels):
        assert np.array_equal(by_place[line][0], bases) and by_place[line][1] == label
