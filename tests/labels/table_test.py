"""Tables: what is one, with its bases and labels, and what is not one, with its line, its column and what to do."""

import csv
import gzip
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from small_labelled import GOOD, labels_text, refusal, write

from vqdna_jax.genome.alphabet import to_text
from vqdna_jax.labels import sets

GUE = pathlib.Path(__file__).parents[3] / "shared/data/gue"  # by others, the repository may not hold them


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
        path = write(tmp_path, train=f"sequence,label\n{to_text(bases)},0\nGT,1\n")
        np.testing.assert_array_equal(sets.read_set(path).splits["train"].bases[0], bases)

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
    "no sequence column": ("read,label\nAC,0\n", "1:1: the columns 'read', 'label'; expected 'sequence' among them"),
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
    "beyond float32": (
        "sequence,label\nAC,0.5\nAC,-1.5e300\n",
        "3:4: the label '-1.5e300' is too large; expected a size",
    ),
    "whole": (GOOD + "AC,1e0\n", "4:4: the label '1e0' is whole but no integer; expected integers for classes"),
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
    "counts": (
        "sequence,label\nAC,0\nAC,3\nAC,250\n",
        "1:10: no training row has the label '1'; expected rows of all 251 classes; add some, number the labels from 0"
        " without gaps, or state kind=regression where they are counts or measured",
    ),
    "two columns of sequences": (
        "seq,text,label\nAC,GT,0\n",
        "1:5: a second column for the sequence, 'text' beside 'seq'; expected one; rename or remove it",
    ),
    "two columns of labels": (
        "sequence,label, Y\nAC,0,1\n",
        "1:16: a second column for the label, 'Y' beside 'label'; expected one; rename or remove it",
    ),
    "column twice in other case": (
        "sequence,Label,label\nAC,0,1\n",
        "1:16: a second column for the label, 'label' beside 'Label'; expected one",
    ),
    "number among names": (
        "sequence,label\nAC,weak\nAC,none\nAC,1\n",
        "4:4: the label '1' is a number; expected names alone, as 'weak'; correct it, or state label_names",
    ),
    "no name among names": (
        "sequence,label\nAC,weak\nAC,\n",
        "3:4: the label '' is empty; expected names alone, as 'weak'; fill it in",
    ),
    "missing value among names": (
        "sequence,label\nAC,weak\nAC,N/A\n",
        "3:4: the label 'N/A' is hardly a name; expected names alone, as 'weak'; correct it, or state label_names",
    ),
    "comma for a decimal point": (
        'sequence,label\nAC,"0,5"\nAC,"1,5"\n',
        "2:4: the label '0,5' is not a number; expected one in each row; correct it",
    ),
    "strands": ("sequence,label\nAC,+\nAC,-\n", "2:4: the label '+' is not a number; expected one in each row"),
    "name in two spellings": (
        "sequence,label\nAC,Promoter\nAC,other\nAC,promoter\n",
        "4:4: the label 'promoter' differs from 'Promoter' by case alone; expected one spelling of a name; correct it",
    ),
    "too many names": (
        "sequence,label\n" + "".join(f"AC,gene{i}\n" for i in range(1001)),
        "1002:4: the label 'gene1000' is one name too many; expected at most 1000 classes",
    ),
    "one name": ("sequence,label\nAC,promoter\n", "1:10: 'promoter' is the only label; expected two or more"),
    "columns swapped": (
        "sequence,label\n0,ACGTACGTAA\n",
        "2:1: '0' is a digit or blank; expected A C G T N or other IUPAC letters; the label looks like DNA: are the",
    ),
    "one class": ("sequence,label\nAC,0\n", "1:10: '0' is the only label; expected two or more"),
    "RNA": (GOOD + "\nACU,0\n", "5:3: 'U' is RNA; expected A C G T N or other IUPAC letters; replace U by T"),
    "gap": (GOOD + 'AC,0\n"A-",0\n', "5:3: '-' is an alignment gap; expected A C G T N"),
    "digit": (GOOD + "AC1,0\n", "4:3: '1' is a digit or blank; expected"),
    "blank": (GOOD + " A C ,0\n", "4:3: ' ' is a digit or blank; expected"),
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
        'sequence,note,label\nGT,,0\nAC,"é\né""",x\n',
        "4:6: the label 'x' is not a number",
    ),
}


class TestWhatIsRefused:
    @pytest.mark.parametrize("name", BAD_TABLES)
    def test_bad_table_is_named_with_line_and_column(self, tmp_path, name):
        text, message = BAD_TABLES[name]
        found = refusal(write(tmp_path, train=text), splits=["train"])
        assert found.startswith(f"train.csv:{message}") and found.count("; ") >= 2

    @pytest.mark.parametrize("name", sorted(BAD_TABLES.keys() - {"one class"}))  # it is enough for dev.csv
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
        path = write(tmp_path, train=labels_text("low", 1))
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
