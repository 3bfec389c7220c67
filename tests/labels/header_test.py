"""What is accepted although it is not to the letter: it means what the letter would, and is said once."""

import gzip
import pathlib

import numpy as np
import pytest
from small_labelled import labels_text, refusal, write, write_file

from vqdna_jax.labels import sets

SAME = "sequence,label\nACCT,0\nGTTA,1\n"
WRITINGS = {  # of SAME: suffix of the file, its text, and what is said
    "float": (".csv", "sequence,label\nACCT,0.0\nGTTA,1.0\n", ["a decimal point are read without it, 1.0 as 1"]),
    "one float": (".csv", "sequence,label\nACCT,0\nGTTA,1.\n", ["a decimal point are read without it, 1.0 as 1"]),
    "case": (".csv", "Sequence,LABEL\nACCT,0\nGTTA,1\n", ["'Sequence' is read as 'sequence'", "'LABEL' is read as"]),
    "blanks": (".csv", " sequence , label\n ACCT,0 \n\tGTTA , 1\n", ["blanks around fields are dropped"]),
    "blanks in rows": (".csv", "sequence,label\nACCT, 0\nGTTA,1\n", ["blanks around fields are dropped"]),
    "blanks around quotes": (".csv", 'sequence, "label"\n"ACCT" , "0"\nGTTA,1\n', []),
    "tabs": (".tsv", "sequence\tlabel\tnote\nACCT\t0\ta, b\nGTTA\t1\t\n", ["columns are separated by tabs"]),
    "gzip": (".csv.gz", gzip.compress(SAME.encode()), []),
    "tabs in gzip": (".tsv.gz", gzip.compress(SAME.replace(",", "\t").encode()), ["columns are separated by tabs"]),
    **{
        name: (".csv", SAME.replace("sequence", name), [f"the column {name!r} is read as 'sequence'"])
        for name in ("seq", "text", "dna", "DNA")
    },
    **{
        name: (".csv", SAME.replace("label", name), [f"the column {name!r} is read as 'label'"])
        for name in ("labels", "target", "y", "Y")
    },
}


def write_as(path: pathlib.Path, suffix: str, text: str | bytes, *splits: str) -> pathlib.Path:
    """A set with files of any suffix, SAME where `splits` does not name it."""
    path.mkdir()
    for name in ("train", "dev"):
        own = name in splits
        content = text if own else SAME
        (path / (name + (suffix if own else ".csv"))).write_bytes(
            content if isinstance(content, bytes) else content.encode()
        )
    return path


class TestWhatIsSaid:
    """What is accepted although it is not to the letter."""

    @pytest.mark.parametrize("name", WRITINGS)
    def test_other_writings_are_the_same_set_and_said_once(self, tmp_path, name):
        suffix, text, said = WRITINGS[name]
        plain = sets.read_set(write(tmp_path / "plain", train=SAME, dev=SAME))
        assert not plain.notes
        for splits in (["train"], ["dev"], ["train", "dev"]):
            found = sets.read_set(write_as(tmp_path / "-".join(splits), suffix, text, *splits))
            assert found.digest == plain.digest
            assert len(found.notes) == len(said) and all(map(str.count, found.notes, said))

    def test_one_file_is_read_likewise(self, tmp_path):
        rows = [text.split(",") for text in write_file(tmp_path / "a.csv", "01" * 20).read_text().splitlines()[1:]]
        plain = sets.read_set(tmp_path / "a.csv")
        text = "Seq\tTarget\n" + "".join(f" {sequence}\t{label}.0\n" for sequence, label in rows)
        (tmp_path / "b.TSV.gz").write_bytes(gzip.compress(text.encode()))
        found = sets.read_set(tmp_path / "b.TSV.gz")
        assert found.digest == plain.digest and not plain.notes and len(found.notes) == 5

    def test_names_are_classes_in_sorted_order(self, tmp_path):
        train = "sequence,label\nAA,promoter\nAC,enhancer\nAG,promoter\nCA,Other\n"
        dev = "sequence,label\nCC,enhancer\n"
        found = sets.read_set(write(tmp_path, train=train, dev=dev))
        assert found.kind == "classification" and found.label_names == ("Other", "enhancer", "promoter")
        assert found.splits["train"].labels.tolist() == [2, 1, 2, 0] and found.splits["dev"].labels.tolist() == [1]
        assert found.notes == ("labels are names, numbered from 0 in sorted order: Other, enhancer, promoter",)
        stated = sets.read_set(tmp_path, label_names=found.label_names)
        assert stated.digest == found.digest and not stated.notes
        assert sets.read_set(tmp_path, "classification").digest == found.digest

    @pytest.mark.parametrize("text", ["Promoter", "0", "1", "other"])
    def test_dev_has_the_names_of_train(self, tmp_path, text):
        path = write(tmp_path, train=labels_text("promoter", "enhancer"), dev=labels_text("enhancer", text))
        found = refusal(path)
        assert found.startswith(f"dev.csv:3:6: the label {text!r} is not known; expected one of enhancer, promoter as")

    def test_flags_may_be_whole_numbers_with_a_point_and_headers_in_any_case(self, tmp_path):
        train = "Sequence,Label_a, label_B\nAC,0.0,1\nAA,1.0, 0\n"
        found = sets.read_set(write(tmp_path, train=train, dev="sequence,label_a,label_b\nAC,0,1\n"))
        assert (found.kind, found.label_names) == ("multilabel", ("a", "B"))
        np.testing.assert_array_equal(found.splits["train"].labels, [[False, True], [True, False]])
        assert "whole numbers with a decimal point" in " ".join(found.notes) and len(found.notes) == 5

    @pytest.mark.parametrize("columns", ["y,label_a", "target,label_a,labels", "label_a,Y"])
    def test_columns_of_several_labels_go_before_other_names_of_one(self, tmp_path, columns):
        rows = [",".join([bases, *flag * len(columns.split(","))]) for bases, flag in (("AC", "0"), ("AA", "1"))]
        text = "\n".join([f"sequence,{columns}", *rows])
        assert sets.read_set(write(tmp_path, train=text, dev=text)).label_names == ("a",)

    def test_fractions_among_whole_numbers_make_targets(self, tmp_path):
        found = sets.read_set(write(tmp_path, train=labels_text("0", "1.0", "0.5"), dev=labels_text("2.0")))
        assert found.kind == "regression" and found.splits["train"].labels.tolist() == [0, 1, 0.5]
        assert not any("decimal" in note for note in found.notes)

    @pytest.mark.parametrize("again", ["AACA,1", "TGTT,1"])  # the latter is its other strand
    def test_sequences_with_several_labels_are_counted(self, tmp_path, again):
        train, more = "sequence,label\nAACA,0\nGGGA,1\n", f"{again}\n{again}\nAACA,0\n"
        for texts in ({"train": train + more, "dev": train}, {"train": train, "dev": "sequence,label\n" + more}):
            (note,) = sets.read_set(write(tmp_path, **texts)).notes
            assert note.startswith("1 of 2 sequences have more than one label")
            assert sets.read_set(tmp_path, "regression").notes == (note,)
        assert not sets.read_set(write(tmp_path, train=train + "AACA,0\n", dev=train)).notes
