"""Sets at the edge of what can be learnt from: each is probed, and trained on, or refused in one line."""

import json

import numpy as np
import pytest
import safetensors.numpy
from refusals import refusal
from small_finetune import CONTEXT, changed, genome_rows, probe_of, refused, write_rows
from small_run import run


def written(directory, rows, labels, header="label"):
    """The same rows as train, dev and test."""
    directory.mkdir()
    for name in ("train", "dev", "test"):
        write_rows(directory / f"{name}.csv", rows, labels, header)
    return str(directory)


def finite(model_directory) -> bool:
    tensors = safetensors.numpy.load_file(model_directory / "export/model.safetensors")
    return all(np.isfinite(x).all() for x in tensors.values())


@pytest.mark.parametrize("rows", [1, 2])
def test_fewer_rows_than_classes_are_refused(place, tmp_path, rows):
    data = written(tmp_path / "set", genome_rows(6), [0, 1, 2] * 2)
    message = refused(changed(place, data__labelled=data, data__train_rows=rows), tmp_path / "run")
    assert f"config key data.train_rows: found {rows}, expected at least 3, one for each class" in message
    found, _, _ = probe_of(
        changed(place, data__labelled=data, data__train_rows=3, data__dev_rows=1, head__pool="words")
    )
    assert np.isfinite(found.head["kernel"]).all()


@pytest.mark.parametrize("method", ["lora", "head"])
@pytest.mark.parametrize("pool", ["mean", "words", "positions:4", "segments:16"])
def test_features_that_do_not_vary_say_nothing(place, tmp_path, pool, method):
    """One sequence under both labels: its readouts are the same in every row, and so are the answers."""
    data = written(tmp_path / "set", [genome_rows(2)[0]] * 20, [0, 1] * 10)
    config = changed(place, data__labelled=data, head__pool=pool, tuning__method=method)
    found, _, _ = probe_of(config)
    assert all(np.isfinite(x).all() for x in found.head.values()) and found.scores["dev"]["mcc"] == 0
    np.testing.assert_allclose(found.head["kernel"], 0, atol=1e-4)


def test_a_run_on_features_that_do_not_vary_ends_and_says_that_it_learnt_nothing(place, tmp_path, capsys):
    data = written(tmp_path / "set", [genome_rows(2)[0]] * 20, [0, 1] * 10)
    assert run(changed(place, data__labelled=data, data__strands="auto"), tmp_path / "run") == 0
    said = capsys.readouterr()
    assert "this run learnt nothing" in said.err and "strands    one" in said.out and finite(tmp_path / "run")


@pytest.mark.parametrize("kind", ["label", "label_a,label_b", "regression"])
def test_labels_that_separate_perfectly_leave_all_finite(place, tmp_path, kind):
    """Poly-A against poly-C: the strongest penalty that is right about all of dev is taken, not the weakest."""
    labels = {"label": [0, 1], "label_a,label_b": ["0,1", "1,0"], "regression": [0.25, 1.5]}[kind] * 20
    rows = [np.full(CONTEXT - 1 - i // 8, i % 2, np.uint8) for i in range(40)]
    data = written(tmp_path / "set", rows, labels, "label" if kind == "regression" else kind)
    config = changed(place, data__labelled=data, head__pool="mean+words", train__total_steps=6)
    assert run(config, tmp_path / "run") == 0 and finite(tmp_path / "run")
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["probe_dev_pearson" if kind == "regression" else "probe_dev_mcc"] > 0.99
    if kind == "label":
        assert "by the strongest penalty tried" in probe_of(config)[0].lines[0]


@pytest.mark.parametrize("pool", ["mean", "positions:4"])
def test_a_single_row_of_one_code(place, tmp_path, pool):
    """A regression of one value: nothing varies, and the answer is that value."""
    data = written(tmp_path / "set", [np.zeros(1, np.uint8)], [2.5])
    found, _, _ = probe_of(changed(place, data__labelled=data, head__pool=pool, data__kind="regression"))
    assert all(np.isfinite(x).all() for x in found.head.values())
    assert found.model.predictions(np.zeros((1, 1), np.float32)).values == 2.5


@pytest.mark.parametrize("align", ["start", "end", "middle"])
def test_positions_of_unequal_lengths_see_what_lies_where_they_are_aligned(place, tmp_path, align):
    """A letter at the start, at the end, or in the middle; another alignment sees less of it."""
    rng, rows, labels = np.random.default_rng(0), [], np.arange(240) % 2
    for label in labels:
        bases = rng.integers(0, 4, rng.integers(9, CONTEXT - 1)).astype(np.uint8)
        at = {"start": 0, "end": len(bases) - 4, "middle": len(bases) // 2 - 2}[align]
        bases[at : at + 4] = 1 if label else 0
        rows.append(bases)
    (tmp_path / "set").mkdir()
    for name, which in {"train": slice(0, 160), "dev": slice(160, None)}.items():
        write_rows(tmp_path / f"set/{name}.csv", rows[which], labels[which])
    asked = {"data__labelled": str(tmp_path / "set"), "head__pool": "positions:16", "tuning__method": "head"}
    asked["data__strands"] = "auto"
    found = {
        name: probe_of(changed(place, head__align=name, **asked))[0].scores["dev"]["mcc"]
        for name in ("start", "end", "middle")
    }
    assert max(found, key=lambda name: found[name]) == align and found[align] > 0.8


@pytest.mark.parametrize("pool", ["", "+", "mean+", "position:8", "segments:3", "mean + words", "auto+mean", "Mean"])
def test_a_readout_that_does_not_exist_names_those_that_do(place, pool):
    message = refusal(probe_of, changed(place, head__pool=pool))
    assert f"head.pool: found {pool!r}, expected some of mean, max, cls, segments:2" in message and "or auto" in message
