"""What a fine-tuning run opens: the labelled data that the config names, and what the plan says of it."""

import gzip

import pytest
from small_finetune import small_config
from small_labelled import write_file
from small_mesh import mesh_of

from vqdna_jax.errors import InputError
from vqdna_jax.runtime import memory
from vqdna_jax.runtime.live import MOST
from vqdna_jax.stages import read_settings
from vqdna_jax.stages.finetune import FinetuneStage, read_labelled


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("inputs")


def settings_of(place, **data):
    config = small_config(place)
    config.data.update(data)
    return read_settings(config)


def test_plan_says_once_what_of_the_data_was_not_to_the_letter(place, tmp_path):
    rows = write_file(tmp_path / "a.csv", ["promoter", "enhancer"] * 15).read_text()
    tabs = rows.replace("sequence,label", "Seq,y").replace(",", "\t")
    (tmp_path / "a.tsv.gz").write_bytes(
        gzip.compress(f"{tabs}{tabs.splitlines()[1].replace('promoter', 'enhancer')}\n".encode())
    )
    mesh = mesh_of()
    stage = FinetuneStage.open(settings_of(place, labelled=str(tmp_path / "a.tsv.gz")), mesh)
    plan = "\n".join(stage.data.lines)
    for said in (
        "separated by tabs",
        "'Seq' is read",
        "'y' is read",
        "sorted order: enhancer, promoter",
        "1 of 30 seq",
    ):
        assert plan.count(said) == 1
    assert "train 2" in plan and "dev 4" in plan and stage.set.label_names == ("enhancer", "promoter")
    plain = FinetuneStage.open(settings_of(place), mesh)
    assert len(plain.data.lines) == len(stage.data.lines) - 5


def test_labels_beside_one_file_or_in_the_config_are_its_names(place, tmp_path):
    path = write_file(tmp_path / "a.csv", ["promoter", "other"] * 9)
    assert read_labelled(settings_of(place, labelled=str(path)).data).label_names == ("other", "promoter")
    for names in (("promoter", "other"), ("promoter,other",), ("promoter, other",)):
        found = read_labelled(settings_of(place, labelled=str(path), label_names=names).data)
        assert found.label_names == ("promoter", "other") and not found.notes
    (tmp_path / "labels.txt").write_text("promoter\nother\n")
    beside = read_labelled(settings_of(place, labelled=str(path)).data)
    assert beside.digest == found.digest and beside.label_names == found.label_names


def test_rows_are_cut_down_and_what_was_said_stays(place, tmp_path):
    path = write_file(tmp_path / "a.csv", ["promoter", "other"] * 50)
    whole = read_labelled(settings_of(place, labelled=str(path)).data)
    some = read_labelled(settings_of(place, labelled=str(path), train_rows=10, dev_rows=99).data)
    assert [len(split.bases) for split in some.splits.values()] == [10, 10, 10]
    assert (some.digest, some.notes) == (whole.digest, whole.notes)
    assert set(some.splits["train"].places) < set(whole.splits["train"].places)


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_a_batch_that_cannot_fit_is_refused_with_the_length_that_fits(place, monkeypatch, kind):
    """Before the sequences are encoded: nothing has been compiled."""
    settings = settings_of(place, kind=kind)
    monkeypatch.setattr("vqdna_jax.stages.finetune.encode", lambda *_: pytest.fail("went on"))
    monkeypatch.setenv(memory.LIMIT, "0.0001")
    with pytest.raises(
        InputError, match=r"^memory: 32 sequences of 31 codes at once take .*; no length fits"
    ) as refused:
        FinetuneStage.open(settings, mesh_of())
    asked = float(str(refused.value).split("take about ")[1].split()[0])
    monkeypatch.setenv(memory.LIMIT, str(asked / MOST / 1.1))
    with pytest.raises(InputError, match=r"; sequences of up to (15|7|3) bases fit, |; no length fits"):
        FinetuneStage.open(settings, mesh_of())
    monkeypatch.setenv(memory.LIMIT, str(asked / MOST * 1.1))
    with pytest.raises(pytest.fail.Exception, match="went on"):
        FinetuneStage.open(settings, mesh_of())


@pytest.mark.parametrize(
    ("changes", "gib", "says"),
    [
        ({"eval.batch": 1 << 20}, "1", "memory: 1,048,576 sequences of 31 codes of an evaluation at once take"),
        ({"tuning.method": "head", "data.strands": "one"}, "0.0001", "memory: 31 codes at once take"),
    ],
)
def test_so_are_evaluations_and_the_features_of_a_head(place, monkeypatch, changes, gib, says):
    monkeypatch.setattr("vqdna_jax.stages.finetune.encode", lambda *_: pytest.fail("went on"))
    monkeypatch.setenv(memory.LIMIT, gib)
    with pytest.raises(InputError, match=f"^{says}"):
        FinetuneStage.open(settings_of(place).changed(changes), mesh_of())
