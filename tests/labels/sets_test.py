"""Sets: what kind they are, the same by any way of writing them, one file divided, and their digest."""

import numpy as np
import pytest
from small_labelled import GOOD, labels_text, refusal, write, write_file

from vqdna_jax.errors import InputError
from vqdna_jax.genome.alphabet import reverse_complement, to_text
from vqdna_jax.labels import sets


class TestKinds:
    def test_integers_are_classes(self, tmp_path):
        found = sets.read_set(write(tmp_path, train=labels_text(2, 0, 1, 1), dev=labels_text(1)))
        assert (found.kind, found.label_names, found.classes) == ("classification", ("0", "1", "2"), 3)
        assert found.splits["train"].labels.tolist() == [2, 0, 1, 1] and found.splits["train"].labels.dtype == np.int64
        assert found.splits["dev"].labels.tolist() == [1] and set(found.splits) == {"train", "dev"}

    def test_other_numbers_are_targets(self, tmp_path):
        texts = ["-1", "0.25", "+3e-2", ".5", "7."]
        found = sets.read_set(write(tmp_path, train=labels_text(*texts), dev=labels_text(3)))
        assert (found.kind, found.label_names) == ("regression", ("value",))
        assert found.splits["train"].labels.tolist() == [-1, 0.25, 0.03, 0.5, 7]
        assert found.splits["dev"].labels.dtype == np.float64

    def test_integers_are_targets_where_that_is_stated(self, tmp_path):
        path = write(tmp_path, train=labels_text(-3, 10**12), dev=labels_text(7))
        assert sets.read_set(path, "regression").splits["train"].labels.tolist() == [-3, 1e12]
        assert sets.read_set(path, "regression", ["growth"]).label_names == ("growth",)

    def test_target_is_named_by_its_column(self, tmp_path):
        path = write(tmp_path, train=labels_text(1, 0.5, header="label_growth"), dev=labels_text(1))
        assert sets.read_set(path, "regression").label_names == ("growth",)
        assert "expected 'label_other'" in refusal(path, "regression", ["other"])

    def test_several_columns_are_multilabel_in_the_order_of_train_or_as_stated(self, tmp_path):
        train = "label_b,sequence,note,label_a\n1,AC,x,0\n0,GT,y,1\n"
        path = write(tmp_path, train=train, dev="sequence,label_a,label_b\nAC,0,1\n")
        found = sets.read_set(path)
        assert (found.kind, found.label_names) == ("multilabel", ("b", "a"))
        np.testing.assert_array_equal(found.splits["train"].labels, [[True, False], [False, True]])
        np.testing.assert_array_equal(found.splits["dev"].labels, [[True, False]])
        stated = sets.read_set(path, label_names=["a", "b"])
        np.testing.assert_array_equal(stated.splits["train"].labels, found.splits["train"].labels[:, ::-1])

    def test_label_column_goes_before_others_unless_multilabel_is_stated(self, tmp_path):
        text = "sequence,label,label_x\nAC,0,1\nAC,1,0\n"
        path = write(tmp_path, train=text, dev=text)
        assert sets.read_set(path).kind == "classification"
        assert sets.read_set(path, "multilabel").label_names == ("x",)

    @pytest.mark.parametrize("kind", ["auto", "classification"])
    def test_stated_names_and_their_numbers_are_the_same(self, tmp_path, kind):
        path = write(tmp_path, train=labels_text("low", "high", 1, 0), dev=labels_text("high"))
        found = sets.read_set(path, kind, ["low", "high"])
        assert found.label_names == ("low", "high") and found.splits["train"].labels.tolist() == [0, 1, 1, 0]
        assert found.splits["dev"].labels.tolist() == [1]

    def test_names_of_an_unnamed_set_read_it_again(self, tmp_path):
        path = write(tmp_path, train=labels_text(*range(12)), dev=labels_text(11, 2))
        first = sets.read_set(path)
        again = sets.read_set(path, first.kind, first.label_names)
        assert again.digest == first.digest and again.splits["dev"].labels.tolist() == [11, 2]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"kind": "classes"}, "kind: 'classes'; expected one of auto, classification, "),
            ({"label_names": ["a", "a"]}, "label_names: 'a' is there twice; "),
            ({"label_names": ["a", ""]}, "label_names: '' is empty; "),
            ({"label_names": ["1", "0"]}, "label_names: '1' is another class's number; "),
            ({"kind": "regression", "label_names": ["a", "b"]}, "label_names: 2 names; expected at most one"),
        ],
    )
    def test_bad_options(self, tmp_path, options, message):
        assert refusal(write(tmp_path), **options).startswith(message)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """1,000 sequences, then all of them once more and all of their other strands, labels their rows modulo 2."""
    bases = list(np.random.default_rng(0).integers(0, 4, (1000, 20)).astype(np.uint8))
    bases += bases + [reverse_complement(row) for row in bases]
    path = tmp_path_factory.mktemp("one") / "a.csv"
    path.write_text("sequence,label\n" + "".join(f"{to_text(row)},{n % 2}\n" for n, row in enumerate(bases)))
    return path, bases


def rows_of(found: sets.LabelledSet) -> dict[str, list[int]]:
    """Of each split, from 0."""
    return {name: [int(place.rsplit(":", 1)[1]) - 2 for place in split.places] for name, split in found.splits.items()}


class TestOneFile:
    def test_copies_and_other_strands_share_a_split_and_each_row_is_in_one(self, table):
        path, bases = table
        found = sets.read_set(path)
        rows = rows_of(found)
        assert sorted(sum(rows.values(), [])) == list(range(3000))
        for name, split in found.splits.items():
            assert rows[name] == sorted(rows[name]) and split.labels.tolist() == [row % 2 for row in rows[name]]
            assert all(map(np.array_equal, split.bases, [bases[row] for row in rows[name]]))
            assert {row % 1000 for row in rows[name] if row < 1000} == {row % 1000 for row in rows[name]}
            assert len(rows[name]) == 3 * len({row % 1000 for row in rows[name]})
        assert {name: len(of) for name, of in rows.items()} == {"train": 2400, "dev": 300, "test": 300}

    @pytest.mark.parametrize("seed", range(5))
    def test_thirty_rows_give_each_split_its_share_of_each_class(self, tmp_path, seed):
        labels = ["promoter"] * 10 + ["enhancer"] * 13 + ["other"] * 7
        found = sets.read_set(write_file(tmp_path / "a.csv", labels, seed=seed))
        assert [np.bincount(split.labels).tolist() for split in found.splits.values()] == [[11, 5, 8], [1] * 3, [1] * 3]

    def test_order_of_the_rows_says_nothing(self, table, tmp_path):
        header, *lines = table[0].read_text().splitlines()
        shuffled = [lines[row] for row in np.random.default_rng(1).permutation(len(lines))]
        (tmp_path / "b.csv").write_text("\n".join([header, *shuffled]))
        one, other = (sets.read_set(path).splits for path in (table[0], tmp_path / "b.csv"))
        for name, split in one.items():
            rows, others = (sorted(zip(map(to_text, of.bases), of.labels)) for of in (split, other[name]))
            assert rows == others

    @pytest.mark.parametrize("kind", ["classification", "regression"])
    def test_rows_that_are_added_move_few_others(self, table, tmp_path, kind):
        header, *lines = table[0].read_text().splitlines()
        (tmp_path / "b.csv").write_text("\n".join([header, *lines[:950]]))
        before, after = (sets.read_set(path, kind).splits for path in (tmp_path / "b.csv", table[0]))
        now = {to_text(bases): name for name, split in after.items() for bases in split.bases}
        moved = sum(now[to_text(bases)] != name for name, split in before.items() for bases in split.bases)
        assert moved <= 0.02 * 950

    @pytest.mark.parametrize("kind", ["regression", "multilabel"])
    @pytest.mark.parametrize("count", [3, 4, 11, 200])
    def test_targets_and_several_labels_are_divided_by_rows(self, tmp_path, kind, count):
        labels, header = [f"{i}.5" for i in range(count)], "label"
        if kind == "multilabel":
            labels, header = [f"{i % 2},{i % 2 == 0:d}" for i in range(count)], "label_a,label_b"
        path = write_file(tmp_path / "a.csv", labels, header)
        if count == 3 and kind == "multilabel":  # with one row to train on, its labels are what all rows have
            assert "in every training row" in refusal(path)
            return
        found = sets.read_set(path)
        sizes = [len(split.bases) for split in found.splits.values()]
        held_out = max(1, round(count / 10))
        assert sizes == [count - 2 * held_out, held_out, held_out] and found.kind == kind

    def test_sequences_with_several_labels_are_kept_together(self, tmp_path):
        rng = np.random.default_rng(0)
        bases = [to_text(row) for row in rng.integers(0, 4, (40, 20)).astype(np.uint8)]
        rows = [(text, label) for label in "ab" for text in bases[:10]] + [(text, "b") for text in bases[10:]]
        (tmp_path / "a.csv").write_text("sequence,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
        found = sets.read_set(tmp_path / "a.csv")
        held = [{to_text(row) for row in split.bases} for split in found.splits.values()]
        assert sum(map(len, held)) == len(set().union(*held)) == 40
        assert [np.bincount(split.labels).tolist() for split in found.splits.values()] == [[8, 32], [1, 4], [1, 4]]
        assert "10 of 40 sequences have more than one label" in found.notes[-1]

    def test_only_what_is_asked_for_is_returned(self, table):
        assert list(sets.read_set(table[0], splits=["dev"]).splits) == ["dev"]

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            (
                "aaabb",
                "the class 'b' has too few distinct sequences, 2; expected 3 or more, one for each split; add rows",
            ),
            (
                "00011",
                "the class '1' has too few distinct sequences, 2; expected 3 or more, one for each split; add rows",
            ),
            (
                ["0.5", "1.5"],
                "too few distinct sequences, 2; expected 3 or more, one for each split; add rows, or name",
            ),
        ],
    )
    def test_too_few_sequences_for_three_splits(self, tmp_path, labels, message):
        path = write_file(tmp_path / "a.csv", labels)
        assert refusal(path).startswith(f"a.csv: {message}")
        assert "a folder with train.csv and dev.csv" in refusal(path)
        assert ("kind=regression" in refusal(path)) == (labels == "00011")

    def test_copies_and_strands_are_one_sequence(self, tmp_path):
        rows = ["AACCC,0", "ACGTA,0", "CCCCC,0", "GATTA,1", "TAATC,1", "gatta,1", "CCACC,1"]
        (tmp_path / "a.csv").write_text("\n".join(["sequence,label", *rows]))
        assert "the class '1' has too few distinct sequences, 2;" in refusal(tmp_path / "a.csv")
        (tmp_path / "a.csv").write_text("\n".join(["sequence,label", *rows, "CAAAA,1"]))
        assert any({3, 4, 5} <= set(of) for of in rows_of(sets.read_set(tmp_path / "a.csv")).values())

    def test_too_few_classes_or_a_gap_are_told_of_the_file(self, tmp_path):
        path = write_file(tmp_path / "a.csv", "0" * 9)
        assert refusal(path) == "a.csv:1:10: '0' is the only label; expected two or more; add rows"
        assert "no training row has the label '1'" in refusal(write_file(path, "002222"))

    def test_kind_is_that_of_all_rows(self, tmp_path):
        rng = np.random.default_rng(0)
        rows = [f"{to_text(bases)},{n % 2}" for n, bases in enumerate(rng.integers(0, 4, (100, 20)))]
        for row in range(0, 100, 7):
            text = "\n".join(["sequence,label", *rows[:row], rows[row][:-1] + "0.5", *rows[row + 1 :]])
            (tmp_path / "a.csv").write_text(text)
            assert sets.read_set(tmp_path / "a.csv").kind == "regression"


class TestLabelNames:
    def test_names_of_a_file_lie_beside_it(self, tmp_path):
        path = write_file(tmp_path / "a.csv", ["low", "high"] * 9)
        (tmp_path / "labels.txt").write_text("\ufefflow\r\nhigh \r\n\n")
        assert sets.label_names(path) == sets.label_names(tmp_path) == ("low", "high")
        assert sets.read_set(path, label_names=sets.label_names(path)).label_names == ("low", "high")
        assert sets.label_names(write(tmp_path / "b")) == sets.label_names(tmp_path / "b/train.csv") == ()

    @pytest.mark.parametrize(
        ("text", "says"), [("a\n\nb\n", "'' is empty"), ("a\na\n", "there twice"), ("1\n0\n", "number")]
    )
    def test_names_that_cannot_be_name_their_file(self, tmp_path, text, says):
        (tmp_path / "labels.txt").write_text(text)
        with pytest.raises(InputError, match=f"^{tmp_path}/labels.txt: .*{says}"):
            sets.label_names(tmp_path)


class TestDigest:
    def test_is_of_what_the_labels_and_bases_are_not_of_how_they_are_written(self, tmp_path):
        first = sets.read_set(write(tmp_path / "a")).digest
        other = write(tmp_path / "b", train='label,id,sequence\r\n"0",7,ac\r\n\r\n1,8,gt', test=GOOD)
        assert sets.read_set(other, splits=("train", "dev")).digest == first
        assert len({sets.read_set(other, splits=names).digest for names in (("test", "dev"), ("dev", "test"))}) == 1
        assert len(first) == 64

    @pytest.mark.parametrize(
        ("texts", "options"),
        [
            ({"train": "sequence,label\nAC,1\nGT,0\n"}, {}),
            ({"train": "sequence,label\nACG,0\nT,1\n"}, {}),
            ({"train": "sequence,label\nGT,1\nAC,0\n"}, {}),
            ({"train": GOOD + "AC,0\n"}, {}),
            ({"test": GOOD}, {}),
            ({}, {"label_names": ["low", "high"]}),
            ({}, {"kind": "regression"}),
            ({}, {"splits": ["train"]}),
        ],
    )
    def test_differs(self, tmp_path, texts, options):
        first = sets.read_set(write(tmp_path)).digest
        assert sets.read_set(write(tmp_path, **texts), **options).digest != first


class TestDraw:
    @pytest.mark.parametrize("seed", [0, 1])
    def test_each_class_has_its_share_and_rare_ones_stay(self, seed):
        labels = np.array([0] * 300 + [1] * 98 + [2] * 2)
        rows = sets.draw(labels, 40, seed)
        assert np.all(np.diff(rows) > 0) and np.array_equal(rows, sets.draw(labels, 40, seed))
        np.testing.assert_allclose(np.bincount(labels[rows]), [30, 10, 1], atol=1)
        assert 2 in labels[rows] and not np.array_equal(rows, sets.draw(labels, 40, seed + 1))

    @pytest.mark.parametrize("shape", [(400,), (400, 3)])
    def test_targets_and_several_labels_are_drawn_evenly(self, shape):
        labels = np.linspace(0, 1, 1200)[: np.prod(shape)].reshape(shape)
        rows = np.concatenate([sets.draw(labels if len(shape) == 1 else labels > 0.5, 40, s) for s in range(50)])
        counts = np.histogram(rows, bins=4, range=(0, 400))[0]
        np.testing.assert_allclose(counts, 500, atol=60)  # three standard errors
        assert np.array_equal(sets.draw(labels, 10**6), np.arange(400))
