import csv
import gzip
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from vqdna_jax.errors import InputError
from vqdna_jax.genome.alphabet import reverse_complement, to_text
from vqdna_jax.labels import sets

GUE = pathlib.Path(__file__).parents[3] / "shared/data/gue"  # by others, the repository may not hold them
GOOD = "sequence,label\nAC,0\nGT,1\n"


def write(path: pathlib.Path, **texts: str | bytes) -> pathlib.Path:
    """NAME.csv of each text, train.csv and dev.csv GOOD where they are not given; None leaves one out."""
    path.mkdir(exist_ok=True)
    for name, text in ({"train": GOOD, "dev": GOOD} | texts).items():
        if text is not None:
            (path / f"{name}.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(path: pathlib.Path, *args, **options) -> str:
    """The message, which is one line, without the folder."""
    with pytest.raises(InputError) as caught:
        sets.read_set(path, *args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{path}/", "")


def labels_text(*labels, header: str = "label") -> str:
    return f"sequence,{header}\n" + "".join(f"ACGT,{label}\n" for label in labels)


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
        assert sets.read_table(path / "dev.csv", "classification", ("low", "high")).labels.tolist() == [1]

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


class TestWhatIsAccepted:
    @pytest.mark.parametrize(
        "text",
        [
            "\ufeffsequence,label\nACGT,0\nNNTn,1\n",
            "sequence,label\r\nACGT,0\r\nNRTy,1\r\n",
            '"sequence","label"\n"ACGT","0"\n"nnTN",1',
            '\ufeff"label",id,sequence\n\n0,"a,""b""\nc",ACGT\n\n1,"",NNTN\n\n',
        ],
    )
    def test_same_rows_in_other_writings(self, tmp_path, text):
        found = sets.read_set(write(tmp_path, train=text), splits=["train"]).splits["train"]
        assert [to_text(bases) for bases in found.bases] == ["ACGT", "NNTN"] and found.labels.tolist() == [0, 1]
        raw = (tmp_path / "train.csv").read_text("utf-8-sig").split("\n")
        for place, label in zip(found.places, "01"):
            path, line = place.rsplit(":", 1)
            assert path == str(tmp_path / "train.csv") and label in raw[int(line) - 1]

    def test_a_megabase_is_read_whole(self, tmp_path):
        bases = np.random.default_rng(0).integers(0, 4, 1_000_000).astype(np.uint8)
        (tmp_path / "a.csv").write_text(f"sequence,label\n{to_text(bases)},0\n")
        np.testing.assert_array_equal(sets.read_table(tmp_path / "a.csv", "classification", ()).bases[0], bases)

    def test_reader_needs_no_jax_and_leaves_the_limit_of_the_csv_module(self):
        code = "import csv, sys; limit = csv.field_size_limit(); import vqdna_jax.labels.sets"
        subprocess.run(
            [sys.executable, "-c", f"{code}; assert 'jax' not in sys.modules and csv.field_size_limit() == limit"],
            check=True,
        )

    @pytest.mark.skipif(not GUE.is_dir(), reason=f"{GUE} is absent: the GUE sets are not part of the repository")
    def test_gue_set_has_the_rows_of_the_csv_module(self):
        path = GUE / "prom" / "prom_300_tata"
        found = sets.read_set(path)
        assert list(found.splits) == ["train", "dev", "test"] and found.label_names == ("0", "1")
        for name, split in found.splits.items():
            with open(path / f"{name}.csv", newline="") as file:
                rows = list(csv.DictReader(file))
            assert [to_text(bases) for bases in split.bases] == [row["sequence"].upper() for row in rows]
            assert split.labels.tolist() == [int(row["label"]) for row in rows]


BAD_TABLES = {
    "no sequence column": ("seq,label\nAC,0\n", "1:1: the columns 'seq', 'label'; expected 'sequence' among them"),
    "no label column": ("sequence,id\nAC,0\n", "1:1: the columns 'sequence', 'id'; expected 'label' among them"),
    "no header": ("AC,0\nGT,1\n", "1:1: the columns 'AC', '0'; expected 'sequence' among them"),
    "column twice": ("sequence,label,label\nAC,0,1\n", "1:16: a second column 'label'; expected one"),
    "tabs": ("sequence\tlabel\nAC\t0\n", "1:1: tabs between the columns; expected commas"),
    "semicolons": ("id;sequence;label\n1;AC;0\n", "1:1: semicolons between the columns; expected commas"),
    "line break in a sequence": (GOOD + '"AC\nGT",0\n', "4:4: '\\n' breaks the line within a sequence"),
    "CRLF in a sequence": (GOOD + '"AC\r\nGT",0\n', "4:4: '\\r' breaks the line within a sequence"),
    "text label": (
        GOOD + "AC,high\n",
        "4:4: the label 'high' is not a number; expected one in each row; correct it, or",
    ),
    "empty label": (GOOD + "AC,\n", "4:4: the label '' is not a number; expected one in each row; fill it in"),
    "nan": ("sequence,label\nAC,0.5\nAC,NaN\n", "3:4: the label 'NaN' is not a finite number; expected a number"),
    "inf": ("sequence,label\nAC,-inf\nAC,2\n", "2:4: the label '-inf' is not a finite number"),
    "huge": ("sequence,label\nAC,1e400\nAC,2\n", "2:4: the label '1e400' is not a finite number"),
    "whole": (GOOD + "AC,1.0\n", "4:4: the label '1.0' is whole but no integer; expected integers for classes"),
    "negative": (GOOD + "AC,-1\n", "4:4: the label '-1' is negative; expected integers from 0; number the classes"),
    "too many classes": (GOOD + "AC,1000\n", "4:4: the label '1000' is too large; expected at most 1000 classes"),
    "many digits": (GOOD + f"AC,{10**10}\n", "4:4: the label '10000000000' is too large; expected at most 1000"),
    "more digits than int takes": (
        GOOD + "AC," + "9" * 9999 + "\n",
        "4:4: the label '" + "9" * 40 + "...' is too large",
    ),
    "class missing": (
        "sequence,label\nAC,0\nAC,2\n",
        "1:10: no training row has the label '1'; expected rows of all 3",
    ),
    "one class": ("sequence,label\nAC,0\n", "1:10: '0' is the only label; expected two or more"),
    "RNA": (GOOD + "\nACU,0\n", "5:3: 'U' is RNA; expected A C G T N or other IUPAC letters; replace U by T"),
    "gap": (GOOD + 'AC,0\n"A-",0\n', "5:3: '-' is an alignment gap; expected A C G T N"),
    "digit": (GOOD + "AC1,0\n", "4:3: '1' is a digit or blank; expected"),
    "blank": (GOOD + " AC,0\n", "4:1: ' ' is a digit or blank; expected"),
    "protein": (GOOD + "ACL,0\n", "4:3: 'L' is not a DNA letter; expected"),
    "letter that looks like a base": (GOOD + "ACſ,0\n", "4:3: 'ſ' is not a DNA letter; expected"),
    "empty sequence": (GOOD + ",0\n", "4:1: the sequence is empty; expected a base or more"),
    "too few fields": (GOOD + "ACG\n", "4:4: 1 fields; expected 2 as in the header; complete the row"),
    "open quote": (GOOD + 'AC,"0\nGT,1\n', "4:4: a quote not closed by the end of the file; expected a second one"),
    "not UTF-8": (GOOD.encode() + b"AC,0\xe9\n", "4:5: the byte 0xe9 is not UTF-8; expected UTF-8"),
    "gzip": (gzip.compress(GOOD.encode()), "1:1: this is gzip, not text; expected a CSV file; decompress it first"),
    "empty file": ("", "1:1: the file is empty; expected a header line"),
    "header only": ("sequence,label\n", "1:1: no rows after the header; expected a sequence and its label on each"),
    "flag": ("sequence,label_a,label_b\nAC,0,1\nAC,1,yes\n", "3:6: the label 'yes'; expected 0 or 1; correct it"),
    "one flag": ("sequence,label_a\nAC,0.5\n", "2:4: the label '0.5'; expected 0 or 1; correct it or state kind="),
    "flag of all rows": (
        "sequence,label_a,label_b\nAC,0,1\nAC,1,1\n",
        "1:18: 'b' is 1 in every training row; expected",
    ),
    "flag of no row": ("sequence,label_a,label_b\nAC,0,1\nAC,0,0\n", "1:10: 'a' is 0 in every training row; expected"),
    "flag without a name": ("sequence,label_\nAC,0\n", "1:10: the label column ''; expected label_NAME"),
    "after fields of several lines": (
        'note,sequence,more,label\nx,AC,y,0\n"a\nb",GT,"c\n\nd",1\n"é\n",GX,"z\n",1\n',
        "8:4: 'X' is not a DNA letter",
    ),
    "label after fields of several lines": (
        'sequence,note,label\nAC,"é\né""",x\n',
        "3:6: the label 'x' is not a number",
    ),
}


class TestWhatIsRefused:
    @pytest.mark.parametrize("name", BAD_TABLES)
    def test_bad_table_is_named_with_line_and_column(self, tmp_path, name):
        text, message = BAD_TABLES[name]
        found = refusal(write(tmp_path, train=text), splits=["train"])
        assert found.startswith(f"train.csv:{message}") and found.count("; ") >= 2

    @pytest.mark.parametrize("name", sorted(BAD_TABLES.keys() - {"one class"}))  # which is enough for a dev.csv
    def test_bad_dev_is_refused_too(self, tmp_path, name):
        assert refusal(write(tmp_path, dev=BAD_TABLES[name][0])).startswith("dev.csv:")

    @pytest.mark.parametrize("name", ["dev", "test"])
    def test_label_that_train_lacks(self, tmp_path, name):
        found = refusal(write(tmp_path, **{name: labels_text(0, 1, 2)}))
        assert found.startswith(f"{name}.csv:4:6: the label '2' is not known; expected one of 0, 1 as in train")

    def test_stated_names_fit_the_labels(self, tmp_path):
        path = write(tmp_path, train=labels_text("low", "high", "mid"), dev=labels_text("low"))
        assert refusal(path, label_names=["low", "high"]).startswith("train.csv:4:6: the label 'mid' is not known;")
        found = refusal(path, label_names=["low", "high", "mid", "none"])
        assert found.startswith("train.csv:1:10: no training row has the label 'none'; expected rows of all 4 classes")
        assert refusal(path, "classification").endswith("state label_names where they are names")

    def test_stated_kind_fits_the_labels(self, tmp_path):
        path = write(tmp_path, train=labels_text(0.5, 1.5))
        assert refusal(path, "classification").startswith("train.csv:2:6: the label '0.5' is not an integer;")
        assert refusal(path, "multilabel").startswith(
            "train.csv:1:1: the columns 'sequence', 'label'; expected 'label_"
        )
        assert refusal(write(tmp_path, train=labels_text("", 1)), "regression").startswith(
            "train.csv:2:6: the label is "
        )

    @pytest.mark.parametrize(
        ("header", "message"),
        [("label_a", "1:1: the columns 'sequence', 'label_a'; expected 'label_b'"), ("label_a,label_c", "1:18: ")],
    )
    def test_multilabel_columns_are_those_of_train(self, tmp_path, header, message):
        train = "sequence,label_a,label_b\nAC,0,1\nAC,1,0\n"
        row = "AC" + ",1" * len(header.split(","))
        assert refusal(write(tmp_path, train=train, dev=f"sequence,{header}\n{row}\n")).startswith(f"dev.csv:{message}")

    def test_files_that_are_missing_or_no_files(self, tmp_path):
        assert "dev.csv is missing; expected train.csv and dev.csv" in refusal(write(tmp_path / "a", dev=None))
        assert refusal(write(tmp_path / "b", train=None)).startswith("train.csv: cannot be read (No such file")
        assert "absent.csv: cannot be read (No such file" in refusal(tmp_path / "absent.csv")
        (write(tmp_path / "c", train=None) / "train.csv").mkdir()
        assert refusal(tmp_path / "c").startswith("train.csv: cannot be read (Is a directory); expected a CSV file")

    @pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads everything")
    def test_file_without_permission(self, tmp_path):
        (write(tmp_path) / "train.csv").chmod(0)
        assert refusal(tmp_path).startswith("train.csv: cannot be read (Permission denied)")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """1,000 sequences, then all of them once more and all of their other strands, labels their rows modulo 2."""
    bases = list(np.random.default_rng(0).integers(0, 4, (1000, 20)).astype(np.uint8))
    bases += bases + [reverse_complement(row) for row in bases]
    path = tmp_path_factory.mktemp("one") / "a.csv"
    path.write_text("sequence,label\n" + "".join(f"{to_text(row)},{n % 2}\n" for n, row in enumerate(bases)))
    return path, bases


class TestOneFile:
    def test_copies_and_other_strands_share_a_split_and_each_row_is_in_one(self, table):
        path, bases = table
        found = sets.read_set(path)
        rows = {
            name: [int(place.rsplit(":", 1)[1]) - 2 for place in split.places] for name, split in found.splits.items()
        }
        assert sorted(sum(rows.values(), [])) == list(range(3000))
        for name, split in found.splits.items():
            assert rows[name] == sorted(rows[name]) and split.labels.tolist() == [row % 2 for row in rows[name]]
            assert all(map(np.array_equal, split.bases, [bases[row] for row in rows[name]]))
            assert {row % 1000 for row in rows[name] if row < 1000} == {row % 1000 for row in rows[name]}
            assert len(rows[name]) == 3 * len({row % 1000 for row in rows[name]})
        shares = [len(rows[name]) / 3000 for name in ("train", "dev", "test")]
        np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=0.03)  # three standard errors

    def test_split_of_a_sequence_does_not_depend_on_the_other_rows(self, table, tmp_path):
        path, _ = table
        header, *lines = path.read_text().splitlines()
        some = np.random.default_rng(1).permutation(lines)[:500]
        (tmp_path / "b.csv").write_text("\n".join([header, *some]))
        whole, part = sets.read_set(path), sets.read_set(tmp_path / "b.csv")
        for name, split in part.splits.items():
            assert {to_text(row) for row in split.bases} <= {to_text(row) for row in whole.splits[name].bases}

    def test_only_what_is_asked_for_is_returned(self, table):
        assert list(sets.read_set(table[0], splits=["dev"]).splits) == ["dev"]

    def test_too_few_rows_for_a_split(self, tmp_path):
        (tmp_path / "a.csv").write_text(GOOD)
        assert "of its 2 rows falls into " in refusal(tmp_path / "a.csv")

    def test_kind_is_that_of_all_rows(self, tmp_path):
        rng = np.random.default_rng(0)
        rows = [f"{to_text(bases)},{n % 2}" for n, bases in enumerate(rng.integers(0, 4, (100, 20)))]
        for row in range(0, 100, 7):
            text = "\n".join(["sequence,label", *rows[:row], rows[row][:-1] + "0.5", *rows[row + 1 :]])
            (tmp_path / "a.csv").write_text(text)
            assert sets.read_set(tmp_path / "a.csv").kind == "regression"


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
