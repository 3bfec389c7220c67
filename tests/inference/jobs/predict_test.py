"""Predictions: as if alone, the same from any file and after saving, bad rows told, wrong models and files refused."""

import csv
import gzip
import io
import itertools
import json
import pathlib
import shutil

import numpy as np
import pytest
from refusals import refusal
from tiny_finetuned import save_tiny_finetuned
from tiny_pretrained import save_tiny_pretrained

from vqdna_jax.cli import main
from vqdna_jax.genome.alphabet import to_text
from vqdna_jax.inference import load, pretrained
from vqdna_jax.inference.finetuned import FineTuned
from vqdna_jax.inference.jobs.predict import predict_file
from vqdna_jax.inference.model import Model

SIZE = 63  # codes of a full window; a code is 4 bases
LENGTHS = (250, 1, 60, 252, 4, 241, 30, 40, 59, 251, 33, 58)  # of two shapes: each is compiled
SEQUENCES = [to_text(np.random.default_rng(i).integers(0, 5, n).astype(np.uint8)) for i, n in enumerate(LENGTHS)]
SHORT = [text for text in SEQUENCES if len(text) <= 60]
KINDS = {
    "classification": {},
    "multilabel": {"kind": "multilabel", "classes": 4, "method": "full", "pool": "max+cls", "strands": "both"},
    "regression": {"kind": "regression", "label_names": ("y",), "method": "head", "hidden": 0, "target": (3.5, 2.25)},
}


@pytest.fixture(autouse=True, scope="module")
def small_calls():
    """Few rows a call, so that these few sequences are several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(pretrained.SLOTS_PER_CALL, "cpu", 128)
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> pathlib.Path:
    directory = tmp_path_factory.mktemp("models") / "base"
    save_tiny_pretrained(directory, 4, 64)
    return directory


@pytest.fixture(scope="module")
def models(base) -> dict[str, Model]:
    """A model of each kind, as assembled in memory; saved beside its base under the name of the kind."""
    return {name: save_tiny_finetuned(base.with_name(name), base=base, **how) for name, how in KINDS.items()}


@pytest.fixture
def export(models, base, tmp_path) -> pathlib.Path:
    """A copy of the classifier and its base, to be moved or spoilt."""
    for name in ("base", "classification"):
        shutil.copytree(base.with_name(name), tmp_path / "runs" / name)
    return tmp_path / "runs/classification"


@pytest.fixture
def small_groups(monkeypatch) -> None:
    """Rows come in several groups of several calls."""
    monkeypatch.setattr(pretrained, "CALLS_A_GROUP", 1)


def write_csv(path: pathlib.Path, sequences=SEQUENCES, header="label,sequence,extra") -> pathlib.Path:
    path.write_text("".join(f"{line}\n" for line in [header, *(f'7,{text},"a, b"' for text in sequences)]))
    return path


def write_fasta(path: pathlib.Path, sequences=SEQUENCES) -> pathlib.Path:
    lines = ("\n".join(text[i : i + 50] for i in range(0, len(text), 50)) for text in sequences)
    path.write_text("".join(f">r{i} words\n{text}\n" for i, text in enumerate(lines, start=1)))
    return path


def read(path: pathlib.Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def numbers(rows: list[dict[str, str]], names) -> np.ndarray:
    return np.array([[np.float32(row[name]) for name in names] for row in rows], np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_loaded_and_in_memory_files_and_calls_agree_to_the_bit(models, base, tmp_path, kind, small_groups):
    model, export, sequences = models[kind], base.with_name(kind), SEQUENCES if kind == "classification" else SHORT
    expected = model.predict(sequences)
    loaded = load.load(export)
    assert loaded.digest == model.digest and loaded.label_names == model.label_names
    again = loaded.predict(iter(sequences))
    assert np.array_equal(again.values, expected.values) and again.labels == expected.labels
    assert len(np.unique(expected.values, axis=0)) > len(sequences) // 2

    predict_file(write_csv(tmp_path / "in.csv", sequences), export, tmp_path / "out.csv", progress=False)
    rows = read(tmp_path / "out.csv")
    columns = ["prediction"] if kind == "regression" else list(model.label_names)
    assert list(rows[0]) == ["id", *dict.fromkeys(["prediction", *columns]), "error"]
    assert np.array_equal(numbers(rows, columns), expected.values)
    assert kind == "regression" or [row["prediction"] for row in rows] == expected.labels
    assert [row["id"] for row in rows] == [str(i + 1) for i in range(len(rows))]
    assert not any(row["error"] for row in rows)


def test_labels_are_what_the_numbers_say(models):
    one, many = (models[kind].predict(SHORT) for kind in ("classification", "multilabel"))
    np.testing.assert_allclose(one.values.sum(1), 1, rtol=1e-6)
    assert one.labels == [f"label-{i}" for i in one.values.argmax(1)]
    for label, values in zip(many.labels, many.values):
        assert [name for name in label.split(";") if name] == [f"label-{i}" for i in np.flatnonzero(values > 0.5)]
    model = models["regression"]
    scaled = model.finetuned.logits(model.finetuned.encode([np.zeros(8, np.uint8)])) * 2.25 + 3.5
    np.testing.assert_allclose(model.predict("AAAAAAAA").values, scaled, rtol=1e-6)


def test_a_prediction_depends_on_its_own_sequence_alone(models, base, tmp_path, monkeypatch):
    model = models["classification"]
    alone = np.concatenate([model.predict(text).values for text in SEQUENCES])
    order = np.random.default_rng(3).permutation(len(SEQUENCES))
    crowd = model.predict([SEQUENCES[i] for i in [*order, *order, *order]])
    assert np.array_equal(crowd.values, alone[[*order, *order, *order]])

    source, outputs = write_csv(tmp_path / "in.csv", [SEQUENCES[i] for i in order] + ["AXG", ""]), []
    for calls in (0, 1, 32):  # each row a group, some, all
        monkeypatch.setattr(pretrained, "CALLS_A_GROUP", calls)
        predict_file(source, base.with_name("classification"), tmp_path / "out.csv", progress=False)
        outputs.append((tmp_path / "out.csv").read_bytes())
    assert outputs[0] == outputs[1] == outputs[2]
    assert np.array_equal(numbers(read(tmp_path / "out.csv")[:-2], model.label_names), alone[order])


def test_every_form_of_file_gives_the_same_predictions(base, models, tmp_path):
    plain = [write_csv(tmp_path / "in.csv"), write_fasta(tmp_path / "in.fa")]
    plain.append(write_csv(tmp_path / "table", header="name,sequence,extra"))  # known by its first line
    for path in plain[:2]:
        (tmp_path / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    (tmp_path / "windows.csv").write_bytes(b"\xef\xbb\xbf" + plain[0].read_bytes().replace(b"\n", b"\r\n"))
    (tmp_path / "masked.fasta").write_bytes(b"\n" + plain[1].read_bytes().swapcase().rstrip())
    found = {}
    for path in sorted(tmp_path.iterdir()):
        predict_file(path, base.with_name("classification"), tmp_path / "out", progress=False)
        found[path.name] = read(tmp_path / "out")
    ids = {name: [row.pop("id") for row in rows] for name, rows in found.items()}
    assert len(found) == 7 and all(rows == found["in.csv"] for rows in found.values())
    order = [str(i + 1) for i in range(len(SEQUENCES))]
    assert ids["in.csv.gz"] == ids["windows.csv"] == order and ids["table"] == ["7"] * len(order)
    assert ids["in.fa"] == ids["in.fa.gz"] == [f"r{i}" for i in order]


def test_the_name_of_the_output_says_its_form(base, models, tmp_path):
    for name in ("p.csv", "p.tsv", "p.csv.gz", "p.tsv.gz"):
        predict_file(write_csv(tmp_path / "in.csv"), base.with_name("classification"), tmp_path / name, progress=False)
        with (gzip.open if name.endswith(".gz") else open)(tmp_path / name, "rt") as file:
            assert file.read().replace("\t" if ".tsv" in name else ",", ",") == (tmp_path / "p.csv").read_text()


def test_several_files_are_one_after_another(base, models, tmp_path, capsys):
    """Rows of tables are numbered over all of them, and notes say of which file they are."""
    first, second, third = SEQUENCES[:2], SEQUENCES[2:5], [*SEQUENCES[5:7], "AXG"]
    files = [write_csv(tmp_path / "a.csv", first), write_fasta(tmp_path / "b.fa", second)]
    files.append(write_csv(tmp_path / "c.csv", third, header="label,Seq,extra"))
    arguments = ["predict", *map(str, files), f"--model={base.with_name('classification')}", f"--out={tmp_path}/out"]
    main.main([*arguments, "--json"])
    printed, rows = capsys.readouterr(), read(tmp_path / "out")
    assert [row["id"] for row in rows] == ["1", "2", "r1", "r2", "r3", "3", "4", "5"]
    model = models["classification"]
    assert np.array_equal(numbers(rows[:-1], model.label_names), model.predict([*first, *second, *third[:-1]]).values)
    summary = json.loads(printed.out)
    assert (summary["records"], summary["errors"]) == (8, 1) and rows[-1]["error"]
    assert f"{files[2]}: the column 'Seq' is read as 'sequence'" in printed.err.splitlines()
    files[2].write_text("label,sequence\n0,AXG\n")
    main.main(arguments)  # no row of one file alone
    (tmp_path / "d.csv").write_text("label,sequence\n0,AUG\n")
    both = [files[2], tmp_path / "d.csv"]
    message = refusal(predict_file, both, base.with_name("classification"), tmp_path / "none")
    assert message.startswith(f"{both[0]}, {both[1]}: none of its 2 sequences")


@pytest.mark.parametrize(
    ("name", "header", "said"),
    [
        ("a.csv", "label,Seq,extra", ["'Seq' is read as 'sequence'"]),
        ("a.csv", "label, sequence ,extra", ["blanks around fields"]),
        ("table", "label,DNA,extra", ["'DNA' is read as 'sequence'"]),
        ("a.TSV", "label,sequence,extra", ["tabs"]),
        ("a.tsv.gz", "label,text,extra", ["tabs", "'text' is read as 'sequence'"]),
        ("a.csv", "label,sequence,ID", ["'ID' is read as 'id'"]),
        ("a.fa", "", ["blanks at line ends"]),
    ],
)
def test_what_is_not_to_the_letter_is_predicted_and_said_once(base, models, tmp_path, capsys, name, header, said):
    sequences = SEQUENCES[:3]
    source = write_csv(tmp_path / "plain", sequences, header) if header else write_fasta(tmp_path / "plain", sequences)
    text = source.read_text().replace('"a, b"', "x")
    text = text.replace(",", "\t") if "tsv" in name.lower() else text.replace("\n", " \t\n") if not header else text
    raw = text.replace("7,A", "7, A").encode() if " sequence" in header else text.encode()
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    main.main(["predict", str(tmp_path / name), f"--model={base.with_name('classification')}", f"--out={tmp_path}/out"])
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith(f"{tmp_path / name}: ")]
    assert len(notes) == len(said) and all(map(str.count, notes, said))
    found = numbers(read(tmp_path / "out"), models["classification"].label_names)
    assert np.array_equal(found, models["classification"].predict(sequences).values)


BAD = ["ACGT", "", "ACGXT", "A" * (4 * SIZE + 1), "AC GT", "acgRYn", "AC-T", "é", "A" * 4 * SIZE, "NNNNNN", "nRY", "N"]
ERRORS = [
    "",
    "empty",
    "position 3: 'X'",
    "64 codes, longer than the 63",
    "position 2: ' '",
    "",
    "position 2: '-'",
    "position 0",
    "",
]
ERRORS += ["no known base"] * 3


@pytest.mark.parametrize("write", [write_csv, write_fasta])
def test_a_bad_row_says_why_and_costs_nothing_else(base, models, tmp_path, write, capsys, small_groups):
    source, out, model = write(tmp_path / "in", BAD), tmp_path / "out.csv", models["classification"]
    main.main(["predict", str(source), f"--model={base.with_name('classification')}", f"--out={out}", "--json"])
    printed, rows = capsys.readouterr(), read(out)
    summary = json.loads(printed.out)
    assert (summary["records"], summary["errors"], summary["out"]) == (12, 9, str(out))
    assert summary["finetuned_digest"] == model.digest
    assert "9 of 12" in printed.err and "100%" not in printed.out
    assert [bool(row["error"]) for row in rows] == [bool(error) for error in ERRORS]
    assert all(error in row["error"] and "\n" not in row["error"] for row, error in zip(rows, ERRORS))
    assert [i for i, row in enumerate(rows) if "--config.data.long=window" in row["error"]] == [3]
    for row, error in zip(rows, ERRORS):
        assert all((row[name] == "") == bool(error) for name in ("prediction", *model.label_names))
    good = [i for i, error in enumerate(ERRORS) if not error]
    expected = model.predict([BAD[i] for i in good])
    assert np.array_equal(numbers([rows[i] for i in good], model.label_names), expected.values)


def test_a_model_that_windows_long_sequences_refuses_none(base, tmp_path):
    model = save_tiny_finetuned(tmp_path / "windows", long="window", base=base)
    texts = [SEQUENCES[0], SEQUENCES[0] * 2, SEQUENCES[1]]
    predict_file(write_fasta(tmp_path / "in.fa", texts), tmp_path / "windows", tmp_path / "out", progress=False)
    rows = read(tmp_path / "out")
    assert not any(row["error"] for row in rows)
    assert np.array_equal(numbers(rows, model.label_names), np.concatenate([model.predict(t).values for t in texts]))
    refused = save_tiny_finetuned(tmp_path / "refuses", base=base)
    assert "sequence 1" in refusal(refused.predict, texts)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", b"read,label\nACGT,0\n", ["a.csv:1:1", "'sequence'"]),
        ("a.csv", b"text,DNA\nACGT,ACGT\n", ["a.csv:1:6", "'DNA' beside 'text'"]),
        (
            "a.csv",
            b"label,sequence\nACGTACGTAC,0\nCCGTACGTAC,1\n",
            ["a.csv", "none of its 2", "'0'", "column 'label'", "swapped"],
        ),
        ("a.csv", b"sequence\nACGU\nACU\n", ["a.csv", "none of its 2", "position 3: 'U'"]),
        ("a.fa", b">a\nNNN\n", ["a.fa", "none of its 1", "no known base"]),
        ("a.fa", b">a\nMEF\n>b\n\n", ["a.fa", "none of its 2", "position 1: 'E'"]),
        ("a.csv", b"sequence\tlabel\nACGT\t0\n", ["a.csv:1:1", "tabs"]),
        ("a.tsv", b"label;sequence\n0;ACGT\n", ["a.tsv:1:1", "semicolons"]),
        ("a.csv", b"sequence,sequence\nACGT,ACGT\n", ["a.csv:1:10", "second"]),
        ("a.csv", b"sequence\n", ["a.csv:1:1", "no rows"]),
        ("a.csv", b"sequence,label\nACGT,0\nACGT\n", ["a.csv:3"]),
        ("a.csv.gz", gzip.compress(b"sequence,label\nACGT,0\nACGT\n", mtime=0), ["a.csv.gz:3"]),
        ("a.csv.gz", gzip.compress(b"sequence\nACGT\n", mtime=0)[:-6], ["a.csv.gz", "damaged"]),
        ("a.fa.gz", gzip.compress(b">a\nACGT\n", mtime=0)[:-6], ["a.fa.gz", "damaged"]),
        ("a.csv", b"", ["a.csv", "empty"]),
        ("a.fq", b"@read\nACGT\n+\nIIII\n", ["a.fq", "'@read", "FASTA", "CSV"]),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_before_anything_is_written(
    base, models, tmp_path, capsys, name, content, says
):
    (tmp_path / name).write_bytes(content)
    model = base.with_name("classification")
    with pytest.raises(SystemExit) as stop:
        main.main(["predict", str(tmp_path / name), f"--model={model}", f"--out={tmp_path}/out.csv"])
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 43 and all(word in line for word in says)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_places_that_cannot_be_are_named(base, models, tmp_path):
    source, model = write_csv(tmp_path / "in.csv"), base.with_name("classification")
    for out in (tmp_path, source, tmp_path / "no/such/out"):
        assert str(out) in refusal(predict_file, source, model, out)
    assert "absent.csv" in refusal(predict_file, tmp_path / "absent.csv", model, tmp_path / "out")
    assert read(source)[0]["sequence"] == SEQUENCES[0]
    message = refusal(predict_file, source, base, tmp_path / "out")
    assert str(base) in message and "configs/finetune.py" in message


def test_a_stopped_job_leaves_what_was_there(base, models, tmp_path, monkeypatch, small_groups):
    source, out = write_csv(tmp_path / "in.csv"), tmp_path / "out.csv"
    out.write_text("older")
    logits, calls = FineTuned.logits, itertools.count()

    def stopped(*arguments):
        if next(calls) == 1:
            raise KeyboardInterrupt
        return logits(*arguments)

    monkeypatch.setattr(FineTuned, "logits", stopped)
    with pytest.raises(KeyboardInterrupt):
        predict_file(source, base.with_name("classification"), out, progress=False)
    assert next(calls) == 2 and out.read_text() == "older"
    assert {path.name for path in tmp_path.iterdir()} == {"in.csv", "out.csv"}


def test_progress_counts_every_row(base, models, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr", stderr := io.StringIO())
    monkeypatch.setattr(stderr, "isatty", lambda: True, raising=False)
    source = write_csv(tmp_path / "in.csv", [*SEQUENCES, "", "A" * 999])
    predict_file(source, base.with_name("classification"), tmp_path / "out.csv")
    assert f"{len(SEQUENCES) + 2}/{len(SEQUENCES) + 2}" in stderr.getvalue().replace(".0", "")


def test_moved_models_are_found_again(export, tmp_path):
    before = load.load(export).predict(SEQUENCES[:2]).values
    shutil.move(export.parent, tmp_path / "elsewhere")  # both: the way from one to the other is the same
    export = tmp_path / "elsewhere/classification"
    assert np.array_equal(load.load(export).predict(SEQUENCES[:2]).values, before)
    shutil.move(export.with_name("base"), tmp_path / "pretrained")
    message = refusal(load.load, export)
    assert str(export) in message and "--base=DIR" in message
    source, out = write_csv(tmp_path / "in.csv", SEQUENCES[:2]), tmp_path / "out.csv"
    main.main(["predict", str(source), f"--model={export}", f"--out={out}", f"--base={tmp_path}/pretrained"])
    assert np.array_equal(numbers(read(out), ["label-0", "label-1", "label-2"]), before)


def test_labels_that_are_called_as_other_columns_have_columns_of_their_own(base, tmp_path):
    names = ("error", "id", "prediction", "place")
    model = save_tiny_finetuned(tmp_path / "model", label_names=names, classes=4, base=base)
    (tmp_path / "in.fa").write_text(">a\nACGTACGTAC\n")
    predict_file(tmp_path / "in.fa", tmp_path / "model", tmp_path / "out.csv")
    (row,) = read(tmp_path / "out.csv")
    assert list(row) == ["id", "prediction", *(f"{name} (label)" for name in names), "error"]
    assert row["id"] == "a" and row["error"] == ""
    found = numbers([row], [f"{name} (label)" for name in names])
    assert np.array_equal(found, model.predict(["ACGTACGTAC"]).values)
    assert row["prediction"] == names[int(found.argmax())]
