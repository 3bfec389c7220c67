import dataclasses
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from small_labelled import write_splits
from small_sequences import random_texts

from vqdna_jax.benchmark.sets import check as checking
from vqdna_jax.benchmark.sets.check import check, describe
from vqdna_jax.genome.alphabet import reverse_complement, to_bases, to_text

SHARED = pathlib.Path(__file__).parents[3] / "shared/data"  # by others, the repository may not hold it
LENGTH = 101


def other_strand(sequence: str) -> str:
    return to_text(reverse_complement(to_bases(sequence)))


def labelled(sequences) -> list[tuple[str, int]]:
    return [(sequence, i % 2) for i, sequence in enumerate(sequences)]


@pytest.fixture
def clean() -> dict[str, list]:
    sequences = random_texts(40, LENGTH)
    return {"train": labelled(sequences[:20]), "dev": labelled(sequences[20:30]), "test": labelled(sequences[30:])}


def only(path: pathlib.Path) -> checking.Report:
    (report,) = check(path)
    return report


class TestCounts:
    def test_clean_set_has_nothing_in_common(self, tmp_path, clean):
        report = only(write_splits(tmp_path / "tf0", **clean))
        assert report.name == "tf/0" and report.rows == {"train": 20, "dev": 10, "test": 10}
        assert not report.errors and set(report.shared.values()) == set(report.reverse_shared.values()) == {0}
        assert report.labels["train"] == {"0": 10, "1": 10} and report.lengths["dev"] == [LENGTH] * 3
        assert report.conflicts == report.reverse_conflicts == sum(report.repeats.values()) == 0

    def test_each_kind_of_repeat_is_counted_in_its_own_cell(self, tmp_path, clean):
        train, dev, test = ([sequence for sequence, _ in clean[split]] for split in ("train", "dev", "test"))
        clean["train"] += [(train[0], 0), (train[0], 0), (other_strand(train[2]), 0)]  # 2 repeats, 1 reverse
        clean["dev"] += [(train[4], 0), (train[4], 0), (other_strand(train[6]), 0)]  # 2 + 1 in train, 1 repeat
        clean["test"] += [(dev[0], 0), (other_strand(dev[2]), 0), (train[8].lower(), 0)]  # 1 + 1 in dev, 1 in train
        report = only(write_splits(tmp_path / "mouse_1", **clean))
        assert report.repeats == {"train": 2, "dev": 1, "test": 0}
        assert report.reverse_repeats == {"train": 1, "dev": 0, "test": 0}
        assert report.shared == {"train-dev": 2, "train-test": 1, "dev-test": 1}
        assert report.reverse_shared == {"train-dev": 1, "train-test": 0, "dev-test": 1}
        assert report.conflicts == report.reverse_conflicts == 0
        assert any("3 of 13 dev rows (23.08%) are in train too, 2 on the same strand" in w for w in report.warnings)

    def test_two_labels_are_counted_by_sequence_and_strands_apart(self, tmp_path, clean):
        first, second = clean["train"][0][0], clean["train"][2][0]
        clean["train"] += [(first, 1), (first, 0)]
        clean["test"] += [(first, 1), (other_strand(first), 1), (other_strand(second), 1)]
        report = only(write_splits(tmp_path / "tf0", **clean))
        assert (report.conflicts, report.reverse_conflicts) == (1, 1)

    def test_palindrome_is_no_reverse_repeat(self, tmp_path, clean):
        half = "ACGTTGCA" * 6
        palindrome = half + other_strand(half)
        clean["train"].append((palindrome, 0))
        clean["dev"].append((palindrome, 0))
        report = only(write_splits(tmp_path / "tf0", **clean))
        assert report.shared["train-dev"] == 1 and report.reverse_shared["train-dev"] == 0
        assert not any(report.reverse_repeats.values())

    def test_counts_agree_with_a_count_by_text(self, tmp_path):
        """Short sequences, so that every kind of coincidence happens often."""
        rng = np.random.default_rng(3)
        texts = {s: [to_text(row) for row in rng.integers(0, 4, (40, 3))] for s in ("train", "dev", "test")}
        report = only(write_splits(tmp_path / "tf0", **{split: labelled(of) for split, of in texts.items()}))
        for first, second in (("train", "dev"), ("train", "test"), ("dev", "test")):
            same = [text in texts[first] for text in texts[second]]
            reverse = [other_strand(text) in texts[first] for text in texts[second]]
            assert report.shared[f"{first}-{second}"] == sum(same) > 0
            assert report.reverse_shared[f"{first}-{second}"] == sum(r and not s for r, s in zip(reverse, same)) > 0
        pairs = {frozenset((t, other_strand(t))) for t in texts["train"] if other_strand(t) in texts["train"]}
        assert report.reverse_repeats["train"] == len(pairs)  # no palindromes of odd length


class TestFindings:
    def test_broken_set_is_an_error_and_the_others_are_still_checked(self, tmp_path, clean):
        write_splits(tmp_path / "tf" / "0", **clean)
        (write_splits(tmp_path / "tf" / "1", **clean) / "dev.csv").write_text("sequence,label\nACGU,0\n")
        (write_splits(tmp_path / "tf" / "2", **clean) / "train.csv").write_text("sequence,label\nACGT,0,1\n")
        (write_splits(tmp_path / "tf" / "3", **clean) / "test.csv").unlink()
        good, letters, columns, missing = check(tmp_path)
        assert (good.status, letters.status, columns.status, missing.status) == ("warning", "error", "error", "error")
        assert "dev.csv:2:4" in letters.errors[0] and "'U'" in letters.errors[0] and "3 fields" in columns.errors[0]
        assert missing.errors == ["test.csv is missing; expected it beside train.csv"]
        assert good.rows and not letters.rows

    def test_other_number_of_classes_is_an_error(self, tmp_path, clean):
        clean["train"][0] = (clean["train"][0][0], 2)
        report = only(write_splits(tmp_path / "tf0", **clean))
        assert report.errors == ["3 classes; expected 2"]
        assert "dev has no row of label 2" in report.warnings

    def test_letters_lengths_and_sizes_are_warned_of(self, tmp_path, clean):
        clean["train"][0] = (clean["train"][0][0][:-1] + "n", 0)
        clean["test"][0] = (clean["test"][0][0][:50], 0)
        text = "\n".join(only(write_splits(tmp_path / "tf0", **clean)).warnings)
        assert "1 of 20 train rows hold an N" in text and "sequences of 50 to 101 bases; 100 are published" in text
        assert "20 train rows; 32,378 are published" in text

    @pytest.mark.parametrize(("rows", "fits"), [(26483, True), (26438, True), (26440, True), (26441, False)])
    def test_swapped_digits_of_one_published_size(self, rows, fits):
        from vqdna_jax.benchmark.sets.cards import CARDS

        counts = {"rows": {"train": rows}, "lengths": {"train": [500, 500, 500]}}
        assert fits == (not list(checking._unlike_published(CARDS["EMP/H3K14ac"], counts)))

    def test_regression_has_no_classes(self, tmp_path):
        rows = [(sequence[:100], i / 7) for i, sequence in enumerate(random_texts(20, LENGTH))]
        report = only(write_splits(tmp_path / "editing_hela", train=rows[:10], dev=rows[10:15], test=rows[15:]))
        assert report.status == "ok" and not report.labels

    def test_editing_table_is_checked_as_it_would_be_prepared(self, tmp_path):
        rows = "".join(f"G{i}-1\t{i / 9}\t{sequence[:100]}\n" for i, sequence in enumerate(random_texts(50, LENGTH)))
        (tmp_path / "chari2015TrainK562.tab").write_text("guide\tmodFreq\tlongSeq\n" + rows)
        report = only(tmp_path)
        assert report.name == "editing/k562" and report.status == "ok" and sum(report.rows.values()) == 50


def test_report_is_json_and_its_description_names_every_finding(tmp_path, clean):
    clean["dev"].append(clean["train"][0])
    write_splits(tmp_path / "tf" / "0", **clean)
    (write_splits(tmp_path / "mouse" / "3", **clean) / "train.csv").write_text("")
    reports = check(tmp_path)
    again = [checking.Report(**json.loads(json.dumps(dataclasses.asdict(report)))) for report in reports]
    assert again == reports
    text = describe(reports)
    lines = text.splitlines()
    assert lines[0].split()[:4] == ["set", "train", "dev", "test"] and lines[1].split()[:4] == [
        "tf/0",
        "20",
        "11",
        "10",
    ]
    assert lines[1].endswith("warning") and lines[2].startswith("mouse/3") and lines[2].endswith("error")
    for report in reports:
        assert all(message in text for message in report.errors + report.warnings)


def test_real_sets_have_the_published_sizes_and_what_others_count_too():
    if not (SHARED / "gue").is_dir():
        pytest.skip(f"{SHARED / 'gue'} is absent: the GUE sets are not part of the repository")
    names = ("tf/4", "mouse/2", "prom/prom_core_tata")
    reports = {report.name: report for report in check(SHARED / "gue", names)}
    assert not any("published" in warning for report in reports.values() for warning in report.warnings)
    assert reports["mouse/2"].status == "ok"
    texts = {}
    for split in ("train", "dev", "test"):
        lines = (SHARED / "gue/tf/4" / f"{split}.csv").read_text().splitlines()[1:]
        texts[split] = [line.split(",")[0].upper() for line in lines]
    found = reports["tf/4"]
    assert found.repeats["train"] == len(texts["train"]) - len(set(texts["train"]))
    assert found.shared["train-dev"] == sum(text in set(texts["train"]) for text in texts["dev"])


def test_nothing_here_imports_jax():
    code = (
        "import sys, vqdna_jax.benchmark.sets.builders, vqdna_jax.benchmark.sets.check"
        ", vqdna_jax.benchmark.sets.species"
        ", vqdna_jax.benchmark.sets.published; sys.exit('jax' in sys.modules or 'tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
