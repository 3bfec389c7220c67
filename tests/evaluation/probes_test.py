import pathlib

import numpy as np
import pytest
from small_sequences import random_bases

from vqdna_jax.errors import InputError
from vqdna_jax.evaluation import code_statistics, linear, probes
from vqdna_jax.genome.alphabet import N, to_text
from vqdna_jax.labels.sets import LabelledSet, Split

GUE = pathlib.Path(__file__).parents[3] / "shared/data/gue"  # by others, the repository may not hold them
CONTROLS = ("4mers", "5mers", "6mers", "one_hot")
ROWS, ALL = 400, 10**6


def csv_text(bases, labels) -> str:
    return "sequence,label\n" + "".join(f"{to_text(row)},{label}\n" for row, label in zip(bases, labels))


def write_texts(path: pathlib.Path, train: str, dev: str) -> pathlib.Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "train.csv").write_bytes(train.encode())
    (path / "dev.csv").write_bytes(dev.encode())
    return path


def write_labelled(path: pathlib.Path, bases, labels) -> pathlib.Path:
    """The first ROWS rows are for training, the others are dev."""
    return write_texts(path, csv_text(bases[:ROWS], labels[:ROWS]), csv_text(bases[ROWS:], labels[ROWS:]))


def write_small(path: pathlib.Path) -> pathlib.Path:
    return write_texts(
        path, csv_text(random_bases(8, 10), [0, 1] * 4), csv_text(random_bases(4, 10, seed=1), [0, 1] * 2)
    )


def nothing(bases) -> np.ndarray:
    return np.zeros((len(bases), 3))


def first_base(bases) -> np.ndarray:
    return np.array([np.eye(4)[row[0]] for row in bases])


class TestFindSets:
    def test_names_are_paths_below_the_directory_or_its_own(self, tmp_path):
        for name in ("tf/0", "mouse/0"):
            write_small(tmp_path / name)
        (tmp_path / "prom").mkdir()
        (tmp_path / "prom" / "prom_core_all").symlink_to(tmp_path / "tf" / "0")
        found = probes.find_sets(tmp_path)
        assert list(found) == ["mouse/0", "prom/prom_core_all", "tf/0"]
        assert all((path / "train.csv").is_file() for path in found.values())
        assert list(probes.find_sets(tmp_path / "tf")) == ["0"]
        assert probes.find_sets(tmp_path / "prom" / "prom_core_all").keys() == {"prom_core_all"}

    @pytest.mark.parametrize("where", ["empty", "absent"])
    def test_directory_without_a_set_is_refused(self, tmp_path, where):
        (tmp_path / "empty").mkdir()
        with pytest.raises(InputError, match=f"{where}: no train.csv"):
            probes.find_sets(tmp_path / where)

    def test_missing_dev_is_refused(self, tmp_path):
        write_small(tmp_path / "a")
        (write_small(tmp_path / "b") / "dev.csv").unlink()
        with pytest.raises(InputError, match="b: dev.csv is missing"):
            probes.find_sets(tmp_path)

    @pytest.mark.parametrize("names", [("a/b", "a_b"), ("mean",), ("x", "x_4mers")])
    def test_names_that_share_a_key_are_refused(self, tmp_path, names):
        for name in names:
            write_small(tmp_path / name)
        with pytest.raises(InputError, match="would be called probe_.*mcc"):
            probes.find_sets(tmp_path)


class TestReadSet:
    def test_kept_rows_are_the_files_rows_in_order_and_the_same_at_every_call(self, tmp_path):
        bases, labels = random_bases(1200, 30), np.random.default_rng(1).integers(0, 3, 1200)
        path = write_labelled(tmp_path, bases, labels)
        whole, some, again = (probes.read_some(path, rows).splits for rows in (ALL, 100, 100))
        np.testing.assert_array_equal(whole["train"].bases, bases[:ROWS])
        np.testing.assert_array_equal(whole["dev"].labels, labels[ROWS:])
        for name in ("train", "dev"):
            assert len(some[name].bases) == len(some[name].labels) == 100
            assert all(map(np.array_equal, some[name].bases, again[name].bases))
            assert np.array_equal(some[name].labels, again[name].labels)
        texts = [to_text(row) for row in bases]
        kept = [texts.index(to_text(row)) for row in some["train"].bases]
        assert kept == sorted(kept) and kept[-1] < ROWS
        np.testing.assert_array_equal(labels[kept], some["train"].labels)

    def test_labels_keep_their_shares_and_rare_ones_stay(self, tmp_path):
        labels = np.array([0] * 300 + [1] * 98 + [2] * 2)
        path = write_labelled(tmp_path, random_bases(2 * ROWS, 8), np.tile(labels, 2))
        counts = np.bincount(probes.read_some(path, 40).splits["train"].labels)
        np.testing.assert_allclose(counts, [30, 10, 1], atol=1)
        assert counts[2] >= 1

    def test_byte_order_mark_crlf_quotes_blank_lines_and_more_columns(self, tmp_path):
        rows = "".join(f'"ACgtnR",{i},{i % 2}\r\n\r\n' for i in range(8))
        path = write_texts(tmp_path, "\ufeffsequence,id,label\r\n" + rows, '"sequence","label"\r\nACGT,1\r\nTT,0')
        train, dev = probes.read_some(path, 100).splits.values()
        assert [to_text(row) for row in train.bases] == ["ACGTNN"] * 8
        assert [to_text(row) for row in dev.bases] == ["ACGT", "TT"]
        assert train.labels.tolist() == [0, 1] * 4 and dev.labels.tolist() == [1, 0]

    @pytest.mark.parametrize("file", ["train.csv", "dev.csv"])
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("read,label\nACGT,1\n", "1:1: the columns 'read', 'label'; expected 'sequence' among them"),
            ("sequence,label\n", "1:1: no rows after the header; expected"),
            ("sequence,label\nAC,0\nAC,high\n", "3:4: the label 'high' is not .*; expected "),
            ("sequence,label\nAC,0.5\nAC,1.5\n", "2:4: the label '0.5' is not .*; expected "),
            ("sequence,label\nAC,0\nAC,-1\n", "3:4: the label '-1' is .*; expected "),
            ("sequence,label\nAC,0\n\nACUT,0\n", "4:3: 'U' is RNA; expected"),
            ("sequence,label\nAC\n", "2:3: 1 fields; expected 2"),
        ],
    )
    def test_bad_file_is_named_with_its_line_and_column(self, tmp_path, file, text, message):
        path = write_small(tmp_path)
        (path / file).write_bytes(text.encode("latin-1"))
        with pytest.raises(InputError, match=f"{file}:{message}") as caught:
            probes.read_some(path, 100)
        assert "\n" not in str(caught.value)

    def test_label_of_dev_that_train_lacks(self, tmp_path):
        path = write_small(tmp_path)
        (path / "dev.csv").write_text("sequence,label\nAC,0\nAC,2\n")
        with pytest.raises(InputError, match="dev.csv:3:4: the label '2' is not known; expected one of 0, 1 as in"):
            probes.read_some(path, 100)

    def test_nothing_to_tell_apart_or_too_little_to_learn_from(self, tmp_path):
        with pytest.raises(InputError, match="dev.csv is missing"):
            probes.read_some(tmp_path, 100)
        path = write_small(tmp_path)
        with pytest.raises(InputError, match="train.csv:9: 7 training rows; expected at least 8 for 2 labels"):
            probes.read_some(path, 7)
        write_texts(path, "sequence,label\n" + "AC,1\n" * 9, "sequence,label\nAC,1\n")
        with pytest.raises(InputError, match="train.csv:1:10: no training row has the label '0'; expected"):
            probes.read_some(path, 100)
        write_texts(path, "sequence,label\n" + "AC,0\n" * 9, "sequence,label\nAC,0\n")
        with pytest.raises(InputError, match="train.csv:1:10: '0' is the only label; expected two or more"):
            probes.read_some(path, 100)


class TestFeatures:
    def test_kmers_of_a_sequence_do_not_depend_on_longer_ones(self):
        short, long = random_bases(1, 9)[0], random_bases(1, 50, seed=1)[0]
        both = probes.kmers([short, long, short[:2]], 3).toarray()
        for row, bases in zip(both, (short, long)):
            np.testing.assert_allclose(row, code_statistics.kmer_shares(bases[None], 3).toarray()[0])
        assert not both[2].any() and not probes.kmers([short[:2]], 3).nnz

    def test_one_hot_is_flat_by_position_and_zero_for_n_and_beyond_the_end(self):
        found = probes.one_hot([np.array([0, N, 3], np.uint8), np.array([2], np.uint8)])
        assert found.shape == (2, 12) and found.dtype == np.float32
        assert [np.flatnonzero(row).tolist() for row in found.toarray()] == [[0, 11], [2]]


class TestProbe:
    def test_base_at_one_position_is_learnt_by_one_hot_and_not_by_kmers(self, tmp_path):
        bases = random_bases(3 * ROWS, 60)
        write_labelled(tmp_path / "position", bases, bases[:, 23] // 2)
        found = probes.probe(nothing, nothing, tmp_path, ALL)
        assert found["probe_position_one_hot_mcc"] > 0.95
        assert all(abs(found[f"probe_position_{k}mers_mcc"]) < 0.3 for k in (4, 5, 6))

    def test_motif_at_any_position_is_learnt_by_kmers_and_not_by_one_hot(self, tmp_path):
        rng = np.random.default_rng(0)
        labels = rng.integers(0, 2, 3 * ROWS)
        bases = [row[: rng.integers(50, 61)] for row in random_bases(len(labels), 60)]
        for row, label in zip(bases, labels):
            start = rng.integers(0, 40)
            row[start : start + 10 * label] = [3, 0, 3, 0, 0, 1, 2, 2, 1, 0][: 10 * label]
        write_labelled(tmp_path / "motif", bases, labels)
        found = probes.probe(nothing, nothing, tmp_path, ALL)
        assert min(found[f"probe_motif_{k}mers_mcc"] for k in (4, 5, 6)) > 0.8
        assert found["probe_motif_one_hot_mcc"] < 0.4

    def test_composition_is_learnt_by_kmers(self, tmp_path):
        rng = np.random.default_rng(0)
        labels = rng.integers(0, 2, 3 * ROWS)
        shares = [0.35, 0.15, 0.15, 0.35], [0.15, 0.35, 0.35, 0.15]  # of A C G T
        at_rich, gc_rich = (rng.choice(4, (len(labels), 60), p=p) for p in shares)
        write_labelled(tmp_path / "gc", np.where(labels[:, None], gc_rich, at_rich).astype(np.uint8), labels)
        found = probes.probe(nothing, nothing, tmp_path, ALL)
        assert min(found[f"probe_gc_{k}mers_mcc"] for k in (4, 5, 6)) > 0.8

    def test_permuted_labels_are_learnt_by_nothing(self, tmp_path):
        bases = random_bases(4 * ROWS, 60)
        labels = np.random.default_rng(1).permutation(bases[:, 0] // 2)
        write_labelled(tmp_path / "set", bases, labels)
        found = probes.probe(first_base, first_base, tmp_path, ALL)
        assert max(map(abs, found.values())) < 0.1  # the standard error is 1 / sqrt(1200 rows) = 0.03

    def test_each_embedding_is_scored_on_its_own_and_means_are_over_sets(self, tmp_path):
        bases = random_bases(3 * ROWS, 12)
        write_labelled(tmp_path / "tf" / "0", bases, bases[:, 0] // 2)
        write_labelled(tmp_path / "mouse" / "0", bases, bases[:, 1] % 2)
        found = probes.probe(first_base, nothing, tmp_path, 100)
        kinds = ["", "untrained_", *(f"{kind}_" for kind in CONTROLS)]
        assert set(found) == {f"probe_{name}_{kind}mcc" for name in ("tf_0", "mouse_0", "mean") for kind in kinds}
        assert found["probe_tf_0_mcc"] == 1 and abs(found["probe_mouse_0_mcc"]) < 0.4
        assert found["probe_tf_0_untrained_mcc"] == found["probe_mean_untrained_mcc"] == 0
        for kind in kinds:
            both = [found[f"probe_{name}_{kind}mcc"] for name in ("tf_0", "mouse_0")]
            assert found[f"probe_mean_{kind}mcc"] == pytest.approx(np.mean(both))

    def test_same_figures_at_every_call_and_test_csv_is_never_read(self, tmp_path):
        bases = random_bases(2 * ROWS, 20)
        path = write_labelled(tmp_path / "set", bases, bases[:, 3] // 2)
        first = probes.probe(first_base, nothing, path, 100)
        (path / "test.csv").write_text("not a table")
        assert probes.probe(first_base, nothing, path, 100) == first
        assert all(type(value) is float for value in first.values())

    def test_dev_chooses_nothing(self):
        """Inverted labels of dev invert the score, to the bit, so that they changed no prediction."""
        bases, rng = random_bases(800, 20), np.random.default_rng(1)
        labels = (bases[:, 3] // 2) ^ (rng.random(800) < 0.35)
        train = Split([], list(bases[:400]), labels[:400])
        devs = [Split([], list(bases[400:]), dev) for dev in (labels[400:], 1 - labels[400:])]
        sets = [LabelledSet("classification", ("0", "1"), {"train": train, "dev": dev}, "") for dev in devs]
        score, inverted = (probes._score(probes.one_hot, labelled_set) for labelled_set in sets)
        assert score == -inverted > 0.15

    def test_penalty_is_strong_against_noise_and_weak_where_a_small_difference_of_features_matters(self):
        """Chosen on the rows fitted, it would be weak both times."""
        rng = np.random.default_rng(0)
        labels, noise = rng.integers(0, 2, ROWS), rng.normal(size=(ROWS, 100))
        of_noise, of_small = (
            noise + np.eye(100)[0] * labels[:, None],
            noise[:, :1] + np.array([0, 0.02]) * labels[:, None],
        )
        noisy, small = (probes._choose_inverse_penalty(linear.Rows(x, labels), 2) for x in (of_noise, of_small))
        assert noisy < 1 <= small

    def test_bad_set_is_found_before_any_is_embedded(self, tmp_path):
        write_small(tmp_path / "a")
        (write_small(tmp_path / "b") / "dev.csv").write_text("sequence,label\n")
        with pytest.raises(InputError, match="dev.csv:1:1: no rows"):
            probes.probe(lambda bases: pytest.fail("embedded"), nothing, tmp_path, 100)

    def test_kmers_tell_promoters(self):
        path = GUE / "prom" / "prom_core_all"
        if not path.is_dir():
            pytest.skip(f"{path} is absent: the GUE sets are not part of the repository")
        found = probes.probe(nothing, nothing, path, 500)
        assert min(found[f"probe_prom_core_all_{k}mers_mcc"] for k in (4, 5, 6)) > 0.3
        assert found["probe_prom_core_all_mcc"] == 0
